"""The cookie that carries a ticket (RFC 6265bis): found in a request as the gateway finds it, and
the Set-Cookie values of a response.

Beside it, with the same attributes, the one that says which version of the session's attributes a
client has seen (fastticket/web/seen.py).

A browser keeps cookies of one name apart by domain, path and partition, sends all that fit, and
does not say which is which. So a cookie that is set or cleared here takes the others along that the
same request could have brought (docs/decisions/0023).

Rules of this file
- What browsers would not take is refused when the cookie is described, not dropped by them later.
- Of several tickets none is chosen. Who planted the others is not known, and the newest good one
  may be his.
- The cookie itself is set after the others were cleared: to a client that does not tell them apart
  the last word is the ticket.
- What does not fit into one answer is cleared by the next ones: each begins at a place of its own.
- A clearing value has the attributes of a setting one. A browser takes away what it would have
  replaced, and nothing else.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from fastticket.errors import ConfigError

SAME_SITES = ("Lax", "Strict", "None")
HOST_PREFIX = "__Host-"
SECURE_PREFIXES = (HOST_PREFIX, "__Secure-", "__Http-", "__Host-Http-")
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
PATH = re.compile(r"/[!-:<-~]{0,255}")  # visible, without the semicolon that ends an attribute
DOMAIN_LABELS_MIN = 2  # fewer would be a cookie for a whole top-level domain
DOMAIN_LABELS_MAX = 127  # of a name in DNS
LABEL = re.compile(r"[A-Za-z0-9_-]+")  # nothing else of a client's Host gets into a Set-Cookie
IN_PATHS = "/%:@!$&'()*+,="  # of a request: they are compared with a cookie's as they came
PARENTS_MAX = (
    8  # domains above a host whose cookies are cleared: the nearest to the top, where its siblings can set some
)
CLEARING_BYTES_MAX = (
    2000  # of the values that clear other cookies: a balancer has 4,096 for all of a response's head, by default
)
OUTER = " \t"
SEEN = "-seen"  # what the second cookie's name ends with
LOOPBACK_NAME = "localhost"


class _Place(NamedTuple):
    """Where a browser keeps a cookie: one for each name and place. `domain` empty: for the host
    alone.
    """

    domain: str
    path: str
    is_partitioned: bool


class TicketCookie:
    """How the ticket's cookie is called, and for whom and how long a browser keeps it. ConfigError:
    browsers would not take it.

    `is_secure`: sent over https only. None: so it is, unless the request came by plain http to a
    loopback host (`localhost`, `*.localhost`, 127.0.0.0/8, [::1]), and always where the name or
    another option asks for it. `domain_level` 0: for the host alone; else for all hosts that share
    so many labels at the end of their names; or `domain`, whatever the host is. `is_partitioned`:
    one for each site that has ours in a frame. A name that begins with `__Host-` is taken by no
    browser from another host, or by plain http.
    """

    def __init__(
        self,
        name: str = "ticket",
        *,
        is_secure: bool | None = None,
        domain_level: int = 0,
        path: str = "/",
        same_site: Literal["Lax", "Strict", "None"] = "Lax",
        is_partitioned: bool = False,
        domain: str = "",
    ) -> None:
        options: dict[str, Any] = {
            "name": name,
            "is_secure": is_secure,
            "domain_level": domain_level,
            "path": path,
            "same_site": same_site,
            "is_partitioned": is_partitioned,
            "domain": domain,
        }
        faults = list(faults_of(**options))
        if faults:
            raise ConfigError(*(f"TicketCookie {option}: {reason}" for option, reason in faults))
        self.name = name
        self.seen_name = name + SEEN
        must_be_secure = bool(_why_secure(name, same_site, is_partitioned))
        self._is_secure = True if must_be_secure else is_secure
        self._domain_level = domain_level
        self._domain = domain
        self._path = path
        self._same_site = same_site
        self._is_partitioned = is_partitioned
        self._is_for_host_alone = _has_prefix(name, HOST_PREFIX)

    def find(self, cookies: str) -> str:
        """The ticket in the value of a Cookie field; empty: there is none, or several, so nobody
        knows which is meant.
        """
        found = self.find_all(cookies)
        return found[0] if len(found) == 1 else ""

    def find_all(self, cookies: str) -> list[str]:
        """All values of the ticket's cookie that are not empty."""
        return [value for value in _values_of(self.name, cookies) if value]

    def find_seen(self, cookies: str) -> list[str]:
        """The values of the other cookie."""
        return _values_of(self.seen_name, cookies)

    def set(
        self, ticket: str, host: str, *, is_https: bool = False, max_age_s: int | None = None, asked_path: str = ""
    ) -> list[str]:
        """The Set-Cookie values, in this order, after which a client that asked for this Host has
        this ticket and no other.

        `max_age_s`: it outlives the browser. `asked_path`: of a request that brought several
        tickets.
        """
        others = self.clear_others(host, is_https=is_https, asked_path=asked_path)
        shared = self._shared(host, is_https)
        return [*others, _field(self.name, ticket, self._place(host), shared, max_age_s)]

    def clear(self, host: str, *, is_https: bool = False, asked_path: str = "") -> list[str]:
        """Those after which it has none."""
        return self.set("", host, is_https=is_https, max_age_s=0, asked_path=asked_path)

    def clear_own(self, host: str, *, is_https: bool = False) -> str:
        """The one that takes back what `set` gave, and no ticket of somebody else above this host."""
        return _field(self.name, "", self._place(host), self._shared(host, is_https), 0)

    def clear_others(self, host: str, *, is_https: bool = False, asked_path: str = "", seen: bool = False) -> list[str]:
        """Those that take away what has the ticket's name (`seen`: the other cookie's), but for
        what `set` sets.
        """
        name, shared = self.seen_name if seen else self.name, self._shared(host, is_https)
        usual, deeper = self._other_places(host, is_https, asked_path)
        fields = [_field(name, "", place, shared, 0) for place in usual]
        more = [_field(name, "", place, shared, 0) for place in deeper]
        if sum(map(len, fields + more)) > CLEARING_BYTES_MAX and more:
            begin = random.randrange(len(more))  # noqa: S311 -- no secret
            more = more[begin:] + more[:begin]
        return _fitting(fields + more, CLEARING_BYTES_MAX)

    def set_seen(
        self,
        version: str,
        host: str,
        *,
        is_https: bool = False,
        max_age_s: int | None = None,
        are_several: bool = False,
    ) -> list[str]:
        """The Set-Cookie values of the other cookie; without a version it is taken away.
        `are_several`: the client has more of them.
        """
        others = self.clear_others(host, is_https=is_https, seen=True) if are_several else []
        age_s = max_age_s if version else 0
        return [*others, _field(self.seen_name, version, self._place(host), self._shared(host, is_https), age_s)]

    def is_secure(self, host: str, *, is_https: bool) -> bool:
        """Whether it is Secure in the answer to such a request."""
        return self._is_secure if self._is_secure is not None else is_https or not is_loopback(host)

    @property
    def is_guessed_secure(self) -> bool:
        """Whether nobody said that it is Secure, or that it is not, and nothing else asks for it."""
        return self._is_secure is None

    def _place(self, host: str) -> _Place:
        """Where `set` puts it."""
        domain = self._domain or parent_domain(host, self._domain_level)
        return _Place(domain, self._path, self._is_partitioned)

    def _other_places(self, host: str, is_https: bool, asked_path: str) -> tuple[list[_Place], list[_Place]]:
        """Where else a cookie may be that comes with requests to this host: for all of its pages,
        and for those above `asked_path`.

        On a path above the asked one, another host can have set it for a domain above both alone:
        these come first.
        """
        own = self._place(host)
        own_domain = own.domain.lower().removeprefix(".")  # browsers know no case here, and no dot
        domains, paths, deeper = [""], {"/": None}, {}
        if not self._is_for_host_alone:
            domains += domains_above(host)
            paths = dict.fromkeys([self._path, "/"])
            deeper = dict.fromkeys(path for path in _paths_above(asked_path) if path not in paths)
        partitions = [self._is_partitioned]
        if self._is_partitioned or (asked_path and self.is_secure(host, is_https=is_https)):
            partitions.append(not self._is_partitioned)
        usual = [_Place(domain, path, each) for each in partitions for path in paths for domain in domains]
        own_names, above = domains[:2], domains[2:]
        return (
            [
                place
                for place in usual
                if (place.domain.lower(), *place[1:]) != (own_domain, own.path, own.is_partitioned)
            ],
            [
                _Place(domain, path, each)
                for names in (above, own_names)
                for path in deeper
                for each in partitions
                for domain in names
            ],
        )

    def _shared(self, host: str, is_https: bool) -> str:
        """The attributes that all values of one answer have."""
        secure = "; Secure" if self.is_secure(host, is_https=is_https) else ""
        return f"; HttpOnly; SameSite={self._same_site}{secure}"


def _fitting(fields: list[str], bytes_max: int) -> list[str]:
    """As many of them, from the first one on, as have so many bytes."""
    sizes = itertools.accumulate(map(len, fields))
    return [field for field, size in zip(fields, sizes, strict=True) if size <= bytes_max]


def _field(name: str, value: str, place: _Place, shared: str, max_age_s: int | None) -> str:
    partitioned = "; Partitioned" if place.is_partitioned else ""
    domain = f"; Domain={place.domain}" if place.domain else ""
    age = "" if max_age_s is None else f"; Max-Age={max_age_s}"
    return f"{name}={value}; Path={place.path}{shared}{partitioned}{domain}{age}"


def faults_of(
    name: object,
    is_secure: object,
    domain_level: object,
    path: object,
    same_site: object,
    is_partitioned: object,
    domain: object = "",
) -> Iterator[tuple[str, str]]:
    """What browsers would not take of a cookie that is to be so, or what would get into its field:
    (option, reason).
    """
    is_named = isinstance(name, str) and NAME.fullmatch(name)
    if not is_named:
        yield "name", f"must be 1 to 100 letters, digits and signs of a cookie name, not {name!r}"
    if not (is_secure is None or isinstance(is_secure, bool)):
        yield "is_secure", f"must be true, false, or not said, not {is_secure!r}"
    if isinstance(domain_level, bool) or not isinstance(domain_level, int):
        yield "domain_level", f"must be a whole number, not {domain_level!r}"
    elif domain_level and not DOMAIN_LABELS_MIN <= domain_level <= DOMAIN_LABELS_MAX:
        yield "domain_level", f"must be 0, or {DOMAIN_LABELS_MIN} to {DOMAIN_LABELS_MAX} labels, not {domain_level}"
    if not isinstance(path, str) or not PATH.fullmatch(path):
        yield "path", f"must begin with / and have at most 256 visible ASCII characters, no semicolon, not {path!r}"
    if same_site not in SAME_SITES:
        yield "same_site", f'must be "Lax", "Strict" or "None", not {same_site!r}'
    if not isinstance(is_partitioned, bool):
        yield "is_partitioned", f"must be true or false, not {is_partitioned!r}"
    if not isinstance(domain, str) or (domain and not all(map(LABEL.fullmatch, domain.removeprefix(".").split(".")))):
        yield "domain", f"must be a host's name, not {domain!r}"
    elif domain and domain_level:
        yield "domain", "is said already by domain_level: leave one of them out"
    if is_named:
        reason = _why_secure(str(name), same_site, is_partitioned)
        if is_secure is False and reason:
            yield "is_secure", f"browsers take {reason} only if it is Secure"
        if _has_prefix(str(name), HOST_PREFIX):
            yield from _faults_of_host_cookie(str(name), domain_level, path, domain)


def _faults_of_host_cookie(name: str, domain_level: object, path: object, domain: object) -> Iterator[tuple[str, str]]:
    if domain_level or domain:
        option = "domain_level" if domain_level else "domain"
        yield option, f"browsers take {name} only for the host alone, without a Domain"
    if path != "/":
        yield "path", f"browsers take {name} only with the path /"


def _why_secure(name: str, same_site: object, is_partitioned: object) -> str:
    """What of a cookie makes browsers insist that it is Secure; empty: nothing."""
    if any(_has_prefix(name, prefix) for prefix in SECURE_PREFIXES):
        return f"a cookie named {name}"
    if same_site == "None":
        return "a cookie with SameSite=None"
    return "a cookie that is Partitioned" if is_partitioned else ""


def _has_prefix(name: str, prefix: str) -> bool:
    """In any case: so do browsers compare."""
    return name.lower().startswith(prefix.lower())


def _values_of(name: str, cookies: str) -> list[str]:
    begins = f"{name}="
    if begins not in cookies:
        return []
    parts = [part.strip(OUTER) for part in cookies.split(";")]
    return [part.removeprefix(begins) for part in parts if part.startswith(begins)]


def parent_domain(host: str, level: int) -> str:
    """The last `level` labels of a Host's name; empty if that is no domain to set a cookie for."""
    labels = _labels_of(host)[-level:] if level else []
    return ".".join(labels) if len(labels) >= DOMAIN_LABELS_MIN else ""


def domains_above(host: str) -> list[str]:
    """The domains whose cookies a browser sends to a host, itself among them, that anybody can have
    set: the longest first.
    """
    labels = _labels_of(host)
    most = len(labels) - DOMAIN_LABELS_MIN + 1
    counts = [len(labels), *range(min(len(labels) - 1, PARENTS_MAX), DOMAIN_LABELS_MIN - 1, -1)] if most > 0 else []
    return [".".join(labels[-count:]) for count in counts]


def _labels_of(host: str) -> list[str]:
    """Of a Host's name; none of an address, or of what is no name."""
    name = host.partition(":")[0].rstrip(".")
    labels = name.split(".")
    return labels if all(map(LABEL.fullmatch, labels)) and not _is_address(name) else []


def is_loopback(host: str) -> bool:
    """Whether a Host is this machine, to the browser that names it."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) and not host.endswith("]") else host
    name = name.lower().rstrip(".")
    if name == LOOPBACK_NAME or name.endswith(f".{LOOPBACK_NAME}"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _paths_above(path: str) -> Iterable[str]:
    """The paths of cookies that come with a request for this one, but for the root: those of few
    segments first.
    """
    plain = quote(path, safe=IN_PATHS, encoding="latin-1", errors="replace")
    for at, character in enumerate(plain):
        if character == "/" and at:
            yield plain[:at]
            yield plain[: at + 1]
    if plain.startswith("/") and not plain.endswith("/"):
        yield plain

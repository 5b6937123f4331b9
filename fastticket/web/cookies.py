"""The cookie that carries a ticket (RFC 6265bis): finds it in a request as the gateway does, and
makes the Set-Cookie values of a response.

A second cookie has the same attributes: it says which version of the session's attributes a client
has seen (fastticket/web/readyourwrites.py).

A browser keeps cookies of one name apart by domain, path and partition, sends all that match a
request, and does not say which is which. So the values that set or clear a cookie here also clear
the other cookies of its name that the same request could have brought (docs/decisions/0023).

Rules of this file
- A cookie that browsers would refuse is a ConfigError when it is described.
- Of several tickets none is chosen. Nobody knows who planted the others, and the newest good one
  may be an attacker's.
- The ticket is set after the others are cleared: a client that does not tell them apart keeps the
  last value.
- The clearing values have a limit of bytes. What does not fit is cleared by a later response: each
  begins at a random place.
- A clearing value has the attributes of a setting one, because a browser deletes only the cookie
  that such a value would have replaced.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from fastticket.errors import ConfigError
from fastticket.web.hosts import DOMAIN_LABELS_MAX, DOMAIN_LABELS_MIN, LABEL, domains_above, is_loopback, parent_domain

SAME_SITES = ("Lax", "Strict", "None")
HOST_PREFIX = "__Host-"
SECURE_PREFIXES = (HOST_PREFIX, "__Secure-", "__Http-", "__Host-Http-")
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
PATH = re.compile(r"/[!-:<-~]{0,255}")  # visible, without the semicolon that ends an attribute
IN_PATHS = "/%:@!$&'()*+,="  # of a request's path: a browser compares these as they are
CLEARING_BYTES_MAX = 2000  # balancers have, by default, 4,096 for the whole head of a response
OUTER_SPACE = " \t"
SEEN_SUFFIX = "-seen"  # of the second cookie's name


class _Place(NamedTuple):
    """Where a browser keeps a cookie: one a name and place. `domain` empty: for the host alone."""

    domain: str
    path: str
    is_partitioned: bool

    def is_same(self, other: _Place) -> bool:
        """Browsers ignore case and a first dot in a Domain."""
        return self._normal() == other._normal()

    def _normal(self) -> tuple[str, str, bool]:
        return self.domain.lower().removeprefix("."), self.path, self.is_partitioned


class TicketCookie:
    """The name and attributes of the ticket's cookie. ConfigError: browsers would refuse it.

    name            1 to 100 characters. Browsers take a name that begins with `__Host-` from the
                    host itself only, over https
    is_secure       sent over https only. None: yes, unless the request came by plain http to a
                    loopback host (`localhost`, `*.localhost`, 127.0.0.0/8, [::1]) and neither the
                    name nor another option needs it
    domain_level    0: for the host alone. 2 to 127: for all hosts that share so many labels at the
                    end of their names
    domain          a Domain attribute that does not depend on the host, in place of domain_level
    path            the Path attribute, at most 256 characters
    same_site       the SameSite attribute
    is_partitioned  one cookie for each site that embeds this one in a frame (CHIPS)
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
        self.seen_name = name + SEEN_SUFFIX
        must_be_secure = bool(_why_secure(name, same_site, is_partitioned))
        self._is_secure = True if must_be_secure else is_secure
        self._domain_level = domain_level
        self._domain = domain
        self._path = path
        self._same_site = same_site
        self._is_partitioned = is_partitioned
        self._is_for_host_alone = _has_prefix(name, HOST_PREFIX)

    def find(self, cookies: str) -> str:
        """The ticket in the value of a Cookie field. Empty: there is none, or there are several."""
        found = self.find_all(cookies)
        return found[0] if len(found) == 1 else ""

    def find_all(self, cookies: str) -> list[str]:
        """All values of the ticket's cookie that are not empty."""
        return [value for value in cookies_named(self.name, cookies) if value]

    def find_seen(self, cookies: str) -> list[str]:
        """All values of the second cookie, the empty ones included."""
        return cookies_named(self.seen_name, cookies)

    def set(
        self, ticket: str, host: str, *, is_https: bool = False, max_age_s: int | None = None, asked_path: str = ""
    ) -> list[str]:
        """The Set-Cookie values, in order, after which a client has this ticket and no other.

        `host`: the request's Host. `is_https`: it came by https. `max_age_s`: how long the cookie
        lasts; None: as long as the browser runs. `asked_path`: the path of a request that brought
        several tickets; those on paths above it are cleared, too.
        """
        others = self.clear_others(host, is_https=is_https, asked_path=asked_path)
        shared = self._shared(host, is_https)
        return [*others, _field(self.name, ticket, self._place(host), shared, max_age_s)]

    def clear(self, host: str, *, is_https: bool = False, asked_path: str = "") -> list[str]:
        """The Set-Cookie values after which a client has no ticket. Arguments as of `set`."""
        return self.set("", host, is_https=is_https, max_age_s=0, asked_path=asked_path)

    def clear_own(self, host: str, *, is_https: bool = False) -> str:
        """The Set-Cookie value that deletes what `set` set, and no other application's ticket on a
        domain above this host.
        """
        return _field(self.name, "", self._place(host), self._shared(host, is_https), 0)

    def clear_others(self, host: str, *, is_https: bool = False, asked_path: str = "", seen: bool = False) -> list[str]:
        """The Set-Cookie values that delete the cookies of the ticket's name that `set` does not
        replace. `seen`: of the second cookie's name.
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
        """The Set-Cookie values of the second cookie, with `SeenVersion.news` as its version;
        empty: they delete it. `are_several`: the request brought more than one.
        """
        others = self.clear_others(host, is_https=is_https, seen=True) if are_several else []
        age_s = max_age_s if version else 0
        return [*others, _field(self.seen_name, version, self._place(host), self._shared(host, is_https), age_s)]

    def is_secure(self, host: str, *, is_https: bool) -> bool:
        """Whether the cookie is Secure in the response to a request for this Host."""
        return self._is_secure if self._is_secure is not None else is_https or not is_loopback(host)

    @property
    def is_guessed_secure(self) -> bool:
        """Whether `is_secure` was left to None, and no other option needs a Secure cookie."""
        return self._is_secure is None

    def domain(self, host: str) -> str:
        """The Domain attribute in the response to a request for this Host; empty: none."""
        return self._domain or parent_domain(host, self._domain_level)

    def _place(self, host: str) -> _Place:
        """The place of the cookie that `set` sets."""
        return _Place(self.domain(host), self._path, self._is_partitioned)

    def _other_places(self, host: str, is_https: bool, asked_path: str) -> tuple[list[_Place], list[_Place]]:
        """The other places whose cookies come with requests to this host: those on the usual paths,
        and those on the paths above `asked_path`.

        Of the latter, another host can have planted only those on a domain above both hosts: these
        come first.
        """
        own = self._place(host)
        domains, paths, deeper_paths = [""], {"/": None}, {}
        if not self._is_for_host_alone:
            domains += domains_above(host)
            paths = dict.fromkeys([self._path, "/"])
            deeper_paths = dict.fromkeys(path for path in _paths_above(asked_path) if path not in paths)
        partitions = [self._is_partitioned]
        if self._is_partitioned or (asked_path and self.is_secure(host, is_https=is_https)):
            partitions.append(not self._is_partitioned)
        usual = [_Place(domain, path, each) for each in partitions for path in paths for domain in domains]
        of_host, above_host = domains[:2], domains[2:]
        deeper = [
            _Place(domain, path, each)
            for names in (above_host, of_host)
            for path in deeper_paths
            for each in partitions
            for domain in names
        ]
        return [place for place in usual if not place.is_same(own)], deeper

    def _shared(self, host: str, is_https: bool) -> str:
        """The attributes that all values of one response have."""
        secure = "; Secure" if self.is_secure(host, is_https=is_https) else ""
        return f"; HttpOnly; SameSite={self._same_site}{secure}"


def _fitting(fields: list[str], bytes_max: int) -> list[str]:
    """The first of the fields, as many as have `bytes_max` bytes together."""
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
    """What is wrong with the options of a TicketCookie, (option, reason): browsers would refuse the
    cookie, or the option would break out of its place in the field.
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
    """Why browsers take such a cookie only if it is Secure; empty: they do not insist."""
    if any(_has_prefix(name, prefix) for prefix in SECURE_PREFIXES):
        return f"a cookie named {name}"
    if same_site == "None":
        return "a cookie with SameSite=None"
    return "a cookie that is Partitioned" if is_partitioned else ""


def _has_prefix(name: str, prefix: str) -> bool:
    """Without regard to case, as browsers compare."""
    return name.lower().startswith(prefix.lower())


def cookies_named(name: str, cookies: str) -> list[str]:
    """The values of all cookies of a name in a Cookie field, in order, the empty ones included."""
    begins = f"{name}="
    if begins not in cookies:
        return []
    parts = [part.strip(OUTER_SPACE) for part in cookies.split(";")]
    return [part.removeprefix(begins) for part in parts if part.startswith(begins)]


def _paths_above(path: str) -> Iterable[str]:
    """The paths of cookies that a browser sends with a request for this one, the shortest first;
    without the root. `path`: decoded as Latin-1, or as it came.
    """
    plain = quote(path, safe=IN_PATHS, encoding="latin-1", errors="replace")
    for at, character in enumerate(plain):
        if character == "/" and at:
            yield plain[:at]
            yield plain[: at + 1]
    if plain.startswith("/") and not plain.endswith("/"):
        yield plain

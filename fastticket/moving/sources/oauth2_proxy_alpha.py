"""oauth2-proxy's alpha configuration, which is YAML and is given to it by `--alpha-config`, beside
the rest: upstreams, the fields that name a user, listeners, identity providers.

    upstreamConfig          upstreams, and what is below them: servers and routes
    injectRequestHeaders    the field from the claim `user` is ours for the user's name
    injectResponseHeaders   the same, for other gateways that ask about a request
    server, metricsServer   listeners without TLS
    providers               nothing: the login is an application's here

Rules of this file
- Every value that is set is told, at its line. Keys are the same in capitals or not, as there.
- No value of a provider, and no fixed value of a field, is repeated: each may be a secret. Nor does
  an error show a piece of the file.
- It is read within bounds, whatever anchors and aliases make of it: CHARS_MAX, VALUES_MAX,
  DEPTH_MAX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastticket.errors import ConfigError
from fastticket.moving.sources.oauth2_proxy_left import LEFT, LOGIN, TLS, TOKENS, WHO
from fastticket.moving.sources.oauth2_proxy_ours import FIELD_NAME, NOT_SET_BY_ROUTES, Line, Ours, seconds

CHARS_MAX = 256 * 1024
VALUES_MAX = 5_000
DEPTH_MAX = 12
MERGE = "tag:yaml.org,2002:merge"
NULL = "tag:yaml.org,2002:null"
VARIABLE = re.compile(r"\$\{|\$[A-Za-z_]")

#: Settings of the TOML file that this one takes the place of, of those that are carried over.
ALPHA_INSTEAD = frozenset(
    {"http_address", "metrics_address", "pass_user_headers", "set_xauthrequest", "upstream_timeout", "upstreams"}
)

OFF = ("", "-")  # of an address
A_KIND = "its value is not of the kind that oauth2-proxy takes"
A_VARIABLE = "it names a variable of the environment, which is not known here: write its value into the file"
A_NAME_ALONE = (
    "upstreams get the user's name alone; if the login names users by this, name the field in identity_header"
)
A_FIXED_VALUE = "a fixed value, which is not repeated: it can stand in [[route]] request_headers or response_headers"
NO_STATIC = "static answers are not here"
#: By the last key.
LEFT_HERE = {
    "proxyrawpath": "paths are passed on as they came",
    "insecureskiptlsverify": TLS,
    "flushinterval": LEFT["flush_interval"],
    "passhostheader": LEFT["pass_host_header"],
    "proxywebsockets": LEFT["proxy_websockets"],
    "disablekeepalives": "connections to upstreams are kept alive",
    "staticcode": NO_STATIC,
    "shutdownduration": "[gateway] drain_timeout_s is how long requests are waited for; a drain before it: how-to/operate",
}
WHO_KEYS = frozenset(
    {"allowedgroups", "group", "groups", "org", "projects", "repo", "repository", "roles", "team", "tenant", "users"}
)
NAMES_OF_A_USER = frozenset({"user", "email", "preferred_username"})
CLAIMS_OF_A_USER = NAMES_OF_A_USER | {"groups"}
USUAL_FIELD = "x-forwarded-user"

Place = tuple[str | int, ...]  # keys in small letters, and places in lists


class Said(NamedTuple):
    """A value of theirs. No repr: it may be a secret."""

    text: str
    number: int  #: of its line
    key: str  #: the whole way to it, as it is written

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r}, {self.number})"


class _NotHere(ValueError):  # noqa: N818 -- an answer, not a malfunction
    """Why a value is not carried over."""


def take_alpha(ours: Ours, text: str, source: str) -> list[Line]:
    """Carry over what the file has, and say of each value what became of it. ConfigError: it is
    not such a file, or the library for YAML is missing.
    """
    taking = _Taking(ours, dict(_values_of(text, source)), source)
    taking.take()
    return sorted(taking.lines)


# ------------------------------------------------------------------------------- reading


def _values_of(text: str, source: str) -> Iterator[tuple[Place, Said]]:
    for count, value in enumerate(_values_in(_root(text, source), (), "", source)):
        if count == VALUES_MAX:
            raise ConfigError(f"{source}: has more than {VALUES_MAX} values")
        yield value


def _root(text: str, source: str) -> Any:
    """The first node. ConfigError."""
    try:
        import yaml
    except ImportError:
        raise ConfigError("the alpha configuration needs PyYAML: pip install 'fastticket[migration]'") from None
    if len(text) > CHARS_MAX:
        raise ConfigError(f"{source}: has more than {CHARS_MAX} characters")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = re.sub("'.*'", "'…'", str(error.problem or error.context), flags=re.DOTALL)
        raise ConfigError(f"{source}: line {mark.line + 1 if mark else '?'}: not YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        raise ConfigError(f"{source}: not YAML, or values within values are too deep") from None
    if root is not None and root.id != "mapping":
        raise ConfigError(f"{source}: not the alpha configuration: it has no keys such as upstreamConfig")
    return root if root is not None and root.value else None


def _values_in(node: Any, place: Place, key: str, source: str) -> Iterator[tuple[Place, Said]]:
    """All values below a node; one that has nothing below it is a value without a text."""
    if node is None:
        return
    number = node.start_mark.line + 1
    if len(place) > DEPTH_MAX:
        raise ConfigError(f"{source}: line {number}: values within values are too deep")
    if node.id == "scalar" or not node.value:
        yield place, Said(node.value if node.id == "scalar" and node.tag != NULL else "", number, key)
    elif node.id == "sequence":
        for at, inner in enumerate(node.value):
            yield from _values_in(inner, (*place, at), f"{key}[{at}]", source)
    else:
        names: set[str] = set()
        for name_node, inner in node.value:
            name = _name_in(name_node, source)
            if name.lower() in names:
                raise ConfigError(f"{source}: line {name_node.start_mark.line + 1}: {name} is there twice")
            names.add(name.lower())
            yield from _values_in(inner, (*place, name.lower()), f"{key}.{name}" if key else name, source)


def _name_in(node: Any, source: str) -> str:
    """A key, such as can be shown. ConfigError."""
    where = f"{source}: line {node.start_mark.line + 1}"
    if node.id != "scalar":
        raise ConfigError(f"{where}: a key must be a text")
    if node.tag == MERGE:
        raise ConfigError(f"{where}: << is not read: write out what it stands for")
    name = str(node.value)
    return name if name.isprintable() else ascii(name)


# ------------------------------------------------------------------------------- carrying over


class _Taking:
    """What is left of their values, while they are carried over."""

    def __init__(self, ours: Ours, values: dict[Place, Said], source: str) -> None:
        self.lines: list[Line] = []
        self._ours = ours
        self._values = values
        self._source = source
        self._user_field = ""  # of requests to upstreams

    def take(self) -> None:
        """All of them."""
        for root in (("upstreamconfig", "upstreams"), ("upstreams",)):
            for at in self._entries(root):
                self._upstream(at)
        for at in self._entries(("injectrequestheaders",)):
            self._field(at, self._request_field)
        for at in self._entries(("injectresponseheaders",)):
            self._field(at, self._response_field)
        self._listener("server", self._listen_at)
        self._listener("metricsserver", self._admin_at)
        for place in list(self._values):
            self._say(place, "", _left(place))

    def _entries(self, root: Place) -> list[Place]:
        """The entries of a list."""
        size = len(root)
        found = [place[: size + 1] for place in self._values if place[:size] == root and len(place) > size]
        return list(dict.fromkeys(each for each in found if isinstance(each[-1], int)))

    def _text(self, place: Place) -> str:
        """A value, empty if there is none. _NotHere."""
        text = self._values[place].text if place in self._values else ""
        if VARIABLE.search(text):
            raise _NotHere(A_VARIABLE)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _NotHere(A_KIND) from None
        return text

    def _say(self, place: Place, ours: str, note: str = "") -> None:
        said = self._values.pop(place, None)
        if said:
            self.lines.append(Line(self._source, said.number, said.key, ours, note))

    def _put(self, place: Place, carry: Callable[[str], tuple[str, str]]) -> None:
        """Carry one value over, or say why not."""
        if place in self._values:
            try:
                ours, note = carry(self._text(place))
            except _NotHere as error:
                ours, note = "", str(error)
            except ValueError:
                ours, note = "", A_KIND
            self._say(place, ours, note)

    # --- upstreams

    def _upstream(self, at: Place) -> None:
        why = self._why_not_added(at)
        known = {
            "id": ("[[upstream]] name", ""),
            "path": ("[[route]] path", ""),
            "uri": ("[[upstream]] servers", "requests keep their own paths, as there"),
        }
        for name, (ours, note) in known.items():
            self._say((*at, name), "" if why else ours, why or note)
        for name in ("rewritetarget", "static"):
            self._say((*at, name), "", why)
        self._put((*at, "timeout"), lambda text: self._timeout(text, why))

    def _why_not_added(self, at: Place) -> str:
        """Empty: it was added."""
        try:
            path, url = self._text((*at, "path")), self._text((*at, "uri"))
            if self._text((*at, "rewritetarget")):
                return "paths are not rewritten here: an upstream with rewriteTarget is not carried over"
            if self._text((*at, "static")) == "true":
                return NO_STATIC
            if not path.startswith("/"):
                return "its path must begin with /"
            why = self._ours.add_server(url, path, self._text((*at, "id")), self._first_byte_s(at))
            return f"not carried over: {why} (files and TLS to upstreams are not here)" if why else ""
        except _NotHere as error:
            return str(error)
        except ValueError:
            return A_KIND

    def _first_byte_s(self, at: Place) -> float:
        try:
            return seconds(self._text((*at, "timeout")))
        except ValueError:
            return 0.0

    def _timeout(self, text: str, why: str) -> tuple[str, str]:
        if why:
            return "", why
        if not seconds(text):
            return "", "a response must always begin within a time: [timeouts] upstream_first_byte_s"
        return "[[route]] timeouts", "upstream_first_byte_s: until the response begins, not until it ends"

    # --- fields that name the user

    def _field(self, at: Place, carry: Callable[[str, str, bool], tuple[str, str]]) -> None:
        values = {place: place[-1] for place in self._values if place[: len(at) + 1] == (*at, "values")}
        claims = [self._values[place].text for place, name in values.items() if name == "claim"]
        claim = claims[0] if len(claims) == len(values) == 1 else ""
        is_user = claim == "user"
        preserve = self._values.get((*at, "preserverequestvalue"))
        became = ""
        if (*at, "name") in self._values:
            try:
                name = self._text((*at, "name"))
                if not FIELD_NAME.fullmatch(name):
                    raise _NotHere(A_KIND)
                became, note = carry(name, claim, not claims and preserve is not None and preserve.text == "true")
            except _NotHere as error:
                note = str(error)
            self._say((*at, "name"), became, note)
        names_the_user = became.startswith(("[gateway] identity", "[gateway] auth", "[[migration]]"))
        for place, last in values.items():
            self._say(place, *((became, "") if names_the_user else ("", self._why_no_value(place, str(last)))))
        self._say((*at, "preserverequestvalue"), "", "the user's name comes from the gateway alone" if is_user else "")

    def _request_field(self, name: str, claim: str, is_kept: bool) -> tuple[str, str]:
        is_name = claim == "user" or (claim in NAMES_OF_A_USER and name.lower() == USUAL_FIELD)
        if is_name and name.lower() not in NOT_SET_BY_ROUTES and not self._user_field:
            self._user_field = self._ours.gateway["identity_header"] = name
            if claim == "user" or not self._ours.migration:
                return "[gateway] identity_header", ""
            self._ours.migration["principal_attributes"] = [claim]
            return "[[migration]] principal_attributes", "the login names users by it, too"
        if is_kept:
            return "", "what a client sends in it goes on, as there"
        why_not = self._ours.remove(name)
        return ("", why_not) if why_not else ("[gateway] removed_headers", "no client's goes on, as there")

    def _response_field(self, name: str, claim: str, _: bool) -> tuple[str, str]:
        if claim != "user" or name.lower() in NOT_SET_BY_ROUTES or "auth_path" in self._ours.gateway:
            return "", "a gateway that asks at [gateway] auth_path is told the user's name alone"
        if self._user_field and self._ours.has_servers:
            self._ours.answer_others(self._user_field)
            return "[gateway] auth_path", f"the user's name is in {self._user_field} there, too"
        self._ours.answer_others(name)
        return "[gateway] auth_path, identity_header", "the user's name"

    def _why_no_value(self, place: Place, last: str) -> str:
        if last in ("value", "fromenv", "fromfile"):
            return TOKENS if "basicauthpassword" in place else A_FIXED_VALUE
        is_of_a_user = last == "claim" and self._values[place].text in CLAIMS_OF_A_USER
        return A_NAME_ALONE if is_of_a_user else TOKENS

    # --- listeners

    def _listener(self, root: str, carry: Callable[[str], tuple[str, str]]) -> None:
        self._put((root, "bindaddress"), lambda text: ("", "") if text in OFF else carry(text))
        self._put((root, "securebindaddress"), lambda text: ("", "" if text in OFF else TLS))

    def _listen_at(self, address: str) -> tuple[str, str]:
        self._ours.listen_at(address)
        return "[gateway] listen", ""

    def _admin_at(self, address: str) -> tuple[str, str]:
        self._ours.admin_at(address)
        return "[gateway] admin", "/metrics; also /healthz and /readyz"


def _left(place: Place) -> str:
    """Why a value has no counterpart."""
    last = next((part for part in reversed(place) if isinstance(part, str)), "")
    if place[0] == "providers":
        return WHO if last in WHO_KEYS else LOGIN
    if "tls" in place[1:]:
        return TLS
    return LEFT_HERE.get(last, "not known here: look up what it was for")

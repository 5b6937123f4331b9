"""The cookie of Django's sessions, as SESSION_COOKIE_* and FASTTICKET describe it.

Django's SessionMiddleware sets and deletes the cookie. Here a response gets what Django cannot say:
`Secure` where SESSION_COOKIE_SECURE is not set, `Partitioned`, a Domain that depends on the host,
and the values that clear other cookies of its name (fastticket/web/cookies.py).
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable
from http.cookies import Morsel, SimpleCookie
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.http import HttpRequest, HttpResponseBase

from fastticket.django import fastticket_settings
from fastticket.web.cookies import TicketCookie, faults_of
from fastticket.web.visitor import is_by_https

#: The options of `TicketCookie`, and the settings of a project that say them.
SETTINGS = {
    "name": "SESSION_COOKIE_NAME",
    "is_secure": "SESSION_COOKIE_SECURE",
    "path": "SESSION_COOKIE_PATH",
    "same_site": "SESSION_COOKIE_SAMESITE",
    "domain": "SESSION_COOKIE_DOMAIN",
    "domain_level": 'FASTTICKET["cookie_domain_level"]',
    "is_partitioned": 'FASTTICKET["cookie_partitioned"]',
}
HTTP_ONLY_PREFIXES = "__host-http-", "__http-"  # of names that browsers take only with HttpOnly


class Origin(NamedTuple):
    """What of a request decides about the attributes of its response's cookies."""

    host: str
    is_https: bool


class Additions(NamedTuple):
    """What the cookies of a session get whenever they are set."""

    is_secure: bool = False
    is_partitioned: bool = False
    domain: str = ""


def ticket_cookie() -> TicketCookie:
    """The cookie that the settings describe. ImproperlyConfigured: browsers would refuse it."""
    same_site = settings.SESSION_COOKIE_SAMESITE or "Lax"  # as browsers have it without the attribute
    more = fastticket_settings()
    return _cookie_of(
        settings.SESSION_COOKIE_NAME,
        settings.SESSION_COOKIE_SECURE if settings.is_overridden("SESSION_COOKIE_SECURE") else None,
        settings.SESSION_COOKIE_PATH,
        same_site.capitalize() if isinstance(same_site, str) else same_site,
        settings.SESSION_COOKIE_DOMAIN or "",
        more.get("cookie_domain_level", 0),
        more.get("cookie_partitioned", False),
        settings.SESSION_COOKIE_HTTPONLY,
    )


@functools.lru_cache(maxsize=16)
def _cookie_of(
    name: str,
    is_secure: Any,
    path: str,
    same_site: Any,
    domain: str,
    domain_level: int,
    is_partitioned: bool,
    is_http_only: bool,
) -> TicketCookie:
    options: dict[str, Any] = {
        "name": name,
        "is_secure": is_secure,
        "path": path,
        "same_site": same_site,
        "domain": domain,
        "domain_level": domain_level,
        "is_partitioned": is_partitioned,
    }
    faults = [f"{SETTINGS[option]}: {reason}" for option, reason in faults_of(**options)]
    if not is_http_only and str(name).lower().startswith(HTTP_ONLY_PREFIXES):
        faults.append(f"SESSION_COOKIE_HTTPONLY: browsers take {name} only with it")
    if faults:
        raise ImproperlyConfigured("; ".join(faults))
    return TicketCookie(**options)


def origin_of(request: HttpRequest) -> Origin:
    """The Host of a request, empty if it is not in ALLOWED_HOSTS, and whether it came by https."""
    try:
        host = request.get_host()
    except DisallowedHost:
        host = ""
    return Origin(host, is_by_https(request.is_secure(), request.headers.get("Origin", "")))


def complete(response: HttpResponseBase, origin: Origin) -> None:
    """Give both cookies of a session, when anything sets or deletes them in this response from now
    on, the attributes that Django's settings cannot say.
    """
    cookie = ticket_cookie()
    more = Additions(
        is_secure=cookie.is_secure(origin.host, is_https=origin.is_https),
        is_partitioned=bool(fastticket_settings().get("cookie_partitioned", False)),
        domain=cookie.domain(origin.host),
    )
    if any(more):
        response.cookies = CompletedCookies.of(response.cookies, frozenset((cookie.name, cookie.seen_name)), more)


def add(response: HttpResponseBase, values: Iterable[str]) -> None:
    """Add Set-Cookie values to a response. Django keeps one cookie a name, so each is kept under a
    key that is no cookie's name.
    """
    for value in values:
        pair, *attributes = value.split("; ")
        name, _, content = pair.partition("=")
        morsel: Morsel[str] = (PartitionedMorsel if "Partitioned" in attributes else Morsel)()
        morsel.set(name, content, content)
        for attribute in attributes:
            key, _, argument = attribute.partition("=")
            if key != "Partitioned":
                morsel[key] = argument or True
        response.cookies[f"{name} {len(response.cookies)}"] = morsel


class PartitionedMorsel(Morsel[str]):
    """A morsel with the attribute Partitioned, which http.cookies has from Python 3.14 on."""

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 -- http.cookies' name
        """The value of the Set-Cookie field."""
        return f"{super().OutputString(attrs)}; Partitioned"


class CompletedCookies(SimpleCookie):
    """A response's cookies: some names get attributes whenever they are set."""

    _names: frozenset[str] = frozenset()
    _more = Additions()

    @classmethod
    def of(cls, cookies: SimpleCookie, names: frozenset[str], more: Additions) -> CompletedCookies:
        """The cookies of a response, and which attributes the names in `names` get."""
        made = cls()
        made.update(cookies)
        made._names, made._more = names, more
        return made

    def __setitem__(self, key: str, value: str | Morsel[str]) -> None:
        super().__setitem__(key, value)
        if key not in self._names:
            return
        morsel = self[key]
        if self._more.is_partitioned:
            morsel = PartitionedMorsel()
            morsel.set(key, self[key].value, self[key].coded_value)
            super().__setitem__(key, morsel)
        if self._more.is_secure:
            morsel["secure"] = True
        if self._more.domain:
            morsel["domain"] = self._more.domain

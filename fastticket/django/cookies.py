"""The cookie of Django's sessions, as SESSION_COOKIE_* and FASTTICKET describe it; and what
Django's own `set_cookie` has no word for.

Django sets and deletes it. What is added to a response here: that it is Secure where nobody said
whether it is, that it is Partitioned, and the values that clear other cookies of its name
(fastticket/web/cookies.py).
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

#: Where a project says what `TicketCookie` calls otherwise.
SETTINGS = {
    "name": "SESSION_COOKIE_NAME",
    "is_secure": "SESSION_COOKIE_SECURE",
    "path": "SESSION_COOKIE_PATH",
    "same_site": "SESSION_COOKIE_SAMESITE",
    "domain": "SESSION_COOKIE_DOMAIN",
    "is_partitioned": 'FASTTICKET["cookie_partitioned"]',
}
SCRIPTS_SEE_NONE = "__host-http-", "__http-"  # browsers take names that begin so only with HttpOnly


class Asked(NamedTuple):
    """What of a request decides about cookies."""

    host: str
    is_https: bool


def ticket_cookie() -> TicketCookie:
    """As the settings have it. ImproperlyConfigured: browsers would not take it."""
    same_site = settings.SESSION_COOKIE_SAMESITE or "Lax"  # without the attribute, browsers take that
    return _made(
        settings.SESSION_COOKIE_NAME,
        settings.SESSION_COOKIE_SECURE if settings.is_overridden("SESSION_COOKIE_SECURE") else None,
        settings.SESSION_COOKIE_PATH,
        same_site.capitalize() if isinstance(same_site, str) else same_site,
        settings.SESSION_COOKIE_DOMAIN or "",
        fastticket_settings().get("cookie_partitioned", False),
        settings.SESSION_COOKIE_HTTPONLY,
    )


@functools.lru_cache(maxsize=16)
def _made(
    name: str, is_secure: Any, path: str, same_site: Any, domain: str, is_partitioned: bool, is_hidden: bool
) -> TicketCookie:
    options: dict[str, Any] = {
        "name": name,
        "is_secure": is_secure,
        "path": path,
        "same_site": same_site,
        "domain": domain,
        "is_partitioned": is_partitioned,
    }
    faults = [f"{SETTINGS[option]}: {reason}" for option, reason in faults_of(**options, domain_level=0)]
    if not is_hidden and str(name).lower().startswith(SCRIPTS_SEE_NONE):
        faults.append(f"SESSION_COOKIE_HTTPONLY: browsers take {name} only with it")
    if faults:
        raise ImproperlyConfigured("; ".join(faults))
    return TicketCookie(**options)


def asked(request: HttpRequest) -> Asked:
    """The Host that the client asked for, if Django answers to it, and whether that was by https."""
    try:
        host = request.get_host()
    except DisallowedHost:
        host = ""
    return Asked(host, request.is_secure() or request.headers.get("Origin", "").startswith("https:"))


def complete(response: HttpResponseBase, request: Asked) -> None:
    """From now on both cookies of a session get, whoever sets or deletes them, what the settings do
    not tell Django.
    """
    cookie = ticket_cookie()
    is_secure = cookie.is_secure(request.host, is_https=request.is_https)
    is_partitioned = bool(fastticket_settings().get("cookie_partitioned", False))
    if is_secure or is_partitioned:
        names = frozenset((cookie.name, cookie.seen_name))
        response.cookies = CompletedCookies.of(response.cookies, names, is_secure, is_partitioned)


def add(response: HttpResponseBase, values: Iterable[str]) -> None:
    """Set-Cookie values beside those that Django keeps one for each name of."""
    for value in values:
        pair, *attributes = value.split("; ")
        name, _, said = pair.partition("=")
        morsel: Morsel[str] = (PartitionedMorsel if "Partitioned" in attributes else Morsel)()
        morsel.set(name, said, said)
        for attribute in attributes:
            key, _, worth = attribute.partition("=")
            if key != "Partitioned":
                morsel[key] = worth or True
        response.cookies[f"{name} {len(response.cookies)}"] = morsel


class PartitionedMorsel(Morsel[str]):
    """One with the attribute that Python's has from 3.14 on."""

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 -- http.cookies' name
        """As a Set-Cookie field has it."""
        return f"{super().OutputString(attrs)}; Partitioned"


class CompletedCookies(SimpleCookie):
    """A response's cookies, of which some get attributes when they are set."""

    _names: frozenset[str] = frozenset()
    _is_secure = _is_partitioned = False

    @classmethod
    def of(
        cls, cookies: SimpleCookie, names: frozenset[str], is_secure: bool, is_partitioned: bool
    ) -> CompletedCookies:
        """Those that there are, and how those of these names are to be."""
        made = cls()
        made.update(cookies)
        made._names, made._is_secure, made._is_partitioned = names, is_secure, is_partitioned
        return made

    def __setitem__(self, key: str, value: str | Morsel[str]) -> None:
        super().__setitem__(key, value)
        if key not in self._names:
            return
        morsel = self[key]
        if self._is_partitioned:
            morsel = PartitionedMorsel()
            morsel.set(key, self[key].value, self[key].coded_value)
            super().__setitem__(key, morsel)
        if self._is_secure:
            morsel["secure"] = True

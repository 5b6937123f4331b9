"""The middleware between Django's SessionMiddleware and everything else: who is asking, and what
there is to write at the end.

Rules of this file
- A ticket is judged before anything else is done. Nobody is anonymous because the store was away:
  that is a 503.
- What a request changed is written here, before SessionMiddleware looks: an error of the store can
  still become the response.
- A response of 500 and more writes nothing; that is Django's rule, too.
- Whatever the response is: if attributes were written, it says so to the client
  (fastticket/web/seen.py).
- Who comes with several session cookies is anonymous, and leaves with none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject

from fastticket.django import cookies
from fastticket.django.sessions import SessionStore
from fastticket.errors import StoreUnavailable, TicketRefused
from fastticket.web.outcome import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS
from fastticket.web.seen import SeenVersion

SERVER_ERRORS = 500  # and above
INTERRUPTED = "The session ended before the request was completed: somebody has logged out, perhaps."


class TicketMiddleware(AuthenticationMiddleware):
    """Sets `request.user` from the ticket's principal; 503 if the store can not say whether the
    ticket is good.

    It stands right after SessionMiddleware, in place of AuthenticationMiddleware.
    ImproperlyConfigured: browsers would not take the cookie that the settings describe.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        cookies.ticket_cookie()

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Judge the ticket. None: go on."""
        if not hasattr(request, "session"):
            super().process_request(request)  # which says so
        if not isinstance(request.session, SessionStore):
            raise ImproperlyConfigured(
                'TicketMiddleware needs SESSION_ENGINE = "fastticket.django.sessions", and SessionMiddleware before it'
            )
        cookie = cookies.ticket_cookie()
        came = request.META.get("HTTP_COOKIE", "")
        sessions = cookie.find_all(came) if settings.SESSION_COOKIE_NAME in request.COOKIES else []
        if len(sessions) != 1 and settings.SESSION_COOKIE_NAME in request.COOKIES:
            del request.COOKIES[settings.SESSION_COOKIE_NAME]
            request.session = SessionStore()
            request.session._doubt(sessions, quote(request.path))
        request.session._seen = SeenVersion(cookie.find_seen(came))
        try:
            request.session._admit()
            if settings.CSRF_USE_SESSIONS:  # it is going to read, where a failure would be its own
                request.session._read()
        except StoreUnavailable:
            return _unavailable(request)
        request.user = SimpleLazyObject(partial(request.session._user, request))
        request.auser = sync_to_async(partial(request.session._user, request))
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """The store failed the view, or the session ended while the view used it."""
        if isinstance(exception, StoreUnavailable):
            return _unavailable(request)
        if isinstance(exception, TicketRefused | UpdateError) and request.session._has_ended:
            raise _interrupted(request) from exception
        return None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Write what changed, or answer that it can not be written."""
        response = self._write(request, response)
        if _is_over(request):
            request.session._seen.forget()  # the ticket is taken away
        _prepare_cookies(request, response)
        _tell_seen(request, response)
        return response

    @staticmethod
    def _write(request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session = request.session
        if response.status_code >= SERVER_ERRORS:
            session.modified = False
            is_ours = response.status_code == SERVER_ERRORS and session._has_failed  # what another middleware met with
            return _unavailable(request) if is_ours else response
        ticket = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        try:
            is_cookie_due = session._finish()
        except StoreUnavailable:
            return _unavailable(request)
        except UpdateError as error:
            raise _interrupted(request) from error
        if (is_cookie_due or (ticket and session.is_empty())) and not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
        return response


def _is_over(request: HttpRequest) -> bool:
    """Whether the client's session cookie is taken away, by SessionMiddleware or, where there are
    several, here.
    """
    had_one = settings.SESSION_COOKIE_NAME in request.COOKIES or request.session._doubted_path
    return bool(had_one and request.session.is_empty())


def _prepare_cookies(request: HttpRequest, response: HttpResponse) -> None:
    """What there is to say of the session's cookies that Django does not say when it sets or
    deletes them.
    """
    session = request.session
    is_new = session.modified and not session.is_empty()
    is_replaced = is_new or _is_over(request)
    has_news = session._news() is not None
    if not (is_replaced or has_news or session._doubted_path or settings.SESSION_SAVE_EVERY_REQUEST):
        return
    cookie, asked = cookies.ticket_cookie(), cookies.asked(request)
    cookies.complete(response, asked)
    if session._doubted_path:
        path = session._doubted_path
        cookies.add(response, cookie.clear(asked.host, is_https=asked.is_https, asked_path=path))
        patch_vary_headers(response, ("Cookie",))
        if not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
    elif is_replaced:
        cookies.add(response, cookie.clear_others(asked.host, is_https=asked.is_https))
    if has_news and len(cookie.find_seen(request.META.get("HTTP_COOKIE", ""))) > 1:
        cookies.add(response, cookie.clear_others(asked.host, is_https=asked.is_https, seen=True))


def _tell_seen(request: HttpRequest, response: HttpResponse) -> None:
    """Set the cookie that says which version of the attributes the client has seen, or take it
    away. As Django does the ticket's.
    """
    session = request.session
    news = session._news()
    if news is None:
        return
    name = cookies.ticket_cookie().seen_name
    where = {"path": settings.SESSION_COOKIE_PATH, "domain": settings.SESSION_COOKIE_DOMAIN}
    if news:
        response.set_cookie(
            name,
            news,
            max_age=session._news_age_s(),
            secure=settings.SESSION_COOKIE_SECURE or None,
            httponly=settings.SESSION_COOKIE_HTTPONLY or None,
            samesite=settings.SESSION_COOKIE_SAMESITE,
            **where,
        )
    else:
        response.delete_cookie(name, samesite=settings.SESSION_COOKIE_SAMESITE, **where)
    if not response.has_header("Cache-Control"):
        response["Cache-Control"] = "no-store"


def _unavailable(request: HttpRequest) -> HttpResponse:
    request.session.modified = False
    return HttpResponse(UNAVAILABLE_BODY, status=UNAVAILABLE_STATUS, headers=dict(UNAVAILABLE_FIELDS))


def _interrupted(request: HttpRequest) -> SessionInterrupted:
    request.session.modified = False
    return SessionInterrupted(INTERRUPTED)

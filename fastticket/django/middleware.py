"""The middleware between Django's SessionMiddleware and the application: sets `request.user`, and
writes what the request changed.

Rules of this file
- A ticket is judged before anything else is done. If the store does not answer, the response is a
  503: nobody is taken for anonymous.
- What a request changed is written here, before SessionMiddleware saves the session: so an error of
  the store can still become the response. The rule of server errors is that of all frameworks
  (fastticket/web/outcome.py), and Django's own.
- Whatever the response is: if attributes were written, it says so to the client
  (fastticket/web/readyourwrites.py).
- A password that the request changes ends the other sessions of its user, and this one unless
  Django is told to keep it (fastticket/django/passwords.py).
- A request with several session cookies is anonymous, and its response clears them.
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

from fastticket.django import cookies, moving, passwords
from fastticket.django.sessions import SessionStore
from fastticket.errors import StoreUnavailable, TicketRefused
from fastticket.web.outcome import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, Outcome, outcome_of
from fastticket.web.readyourwrites import SeenVersion

__all__ = ["TicketMiddleware"]

INTERRUPTED = "The session ended before the request was completed: somebody has logged out, perhaps."


class TicketMiddleware(AuthenticationMiddleware):
    """Sets `request.user` to the user of the ticket's principal. 503: the store does not answer, so
    the ticket cannot be judged.

    It stands in place of AuthenticationMiddleware; with CSRF_USE_SESSIONS, before
    CsrfViewMiddleware.
    ImproperlyConfigured: browsers would refuse the cookie that the settings describe, or
    SESSION_ENGINE is another.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        cookies.ticket_cookie()

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Judge the ticket. None: Django goes on with the request."""
        if not hasattr(request, "session"):
            super().process_request(request)  # which raises, and says so
        if not isinstance(request.session, SessionStore):
            raise ImproperlyConfigured(
                'TicketMiddleware needs SESSION_ENGINE = "fastticket.django.sessions", and SessionMiddleware before it'
            )
        _find_session(request)
        session = request.session
        passwords.serving.set(session)
        try:
            moving.continue_session(request)
            session._admit()
            if settings.CSRF_USE_SESSIONS:  # CsrfViewMiddleware reads it, where a failure is no 503
                session._read()
        except StoreUnavailable:
            return _unavailable(request)
        request.user = SimpleLazyObject(partial(session._user, request))
        request.auser = sync_to_async(partial(session._user, request))
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer 503 if the store failed the view. SessionInterrupted, to Django a 400: the session
        ended while the view used it.
        """
        if isinstance(exception, StoreUnavailable):
            return _unavailable(request)
        if isinstance(exception, TicketRefused | UpdateError) and request.session._has_ended:
            raise _interrupted(request) from exception
        return None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Write what changed, or answer 503 if it cannot be written; add what the client needs of
        cookies.
        """
        response = self._write(request, response)
        passwords.serving.set(None)
        if _is_cookie_deleted(request):
            request.session._seen.forget()
        _prepare_cookies(request, response)
        _tell_seen(request, response)
        return response

    @staticmethod
    def _write(request: HttpRequest, response: HttpResponse) -> HttpResponse:
        session = request.session
        match outcome_of(response.status_code, has_store_failed=session._has_failed):
            case Outcome.UNAVAILABLE:
                return _unavailable(request)
            case Outcome.DISCARD:
                session._discard()
                return response
        ticket = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        try:
            is_cookie_due = session._finish()
        except StoreUnavailable:
            return _unavailable(request)
        except UpdateError as error:
            raise _interrupted(request) from error
        if is_cookie_due or (ticket and session.is_empty()):
            _forbid_storing(response)
        return response


def _find_session(request: HttpRequest) -> None:
    """Give the request an anonymous session if it has brought several cookies of it, or none that
    is not empty; and any session the version that the client has seen.
    """
    cookie = cookies.ticket_cookie()
    came = request.META.get("HTTP_COOKIE", "")
    if settings.SESSION_COOKIE_NAME in request.COOKIES:
        session_keys = cookie.find_all(came)
        if len(session_keys) != 1:
            del request.COOKIES[settings.SESSION_COOKIE_NAME]
            request.session = SessionStore()
            request.session._set_ambiguous(session_keys, quote(request.path))
    request.session._seen = SeenVersion(cookie.find_seen(came))


def _is_cookie_deleted(request: HttpRequest) -> bool:
    """Whether the client's session cookie is deleted: by SessionMiddleware or, where the request
    brought several, here.
    """
    had_one = settings.SESSION_COOKIE_NAME in request.COOKIES or request.session._ambiguous_path
    return bool(had_one and request.session.is_empty())


def _prepare_cookies(request: HttpRequest, response: HttpResponse) -> None:
    """Complete the cookies of the session that are set or deleted in this response, here or by
    SessionMiddleware, and clear others of their names.
    """
    session = request.session
    session._is_for_cookie = True
    is_new = session.modified and not session.is_empty()
    is_replaced = is_new or _is_cookie_deleted(request)
    has_news = session._seen_news() is not None
    if not (is_replaced or has_news or session._ambiguous_path or settings.SESSION_SAVE_EVERY_REQUEST):
        return
    cookie, origin = cookies.ticket_cookie(), cookies.origin_of(request)
    cookies.complete(response, origin)
    if session._ambiguous_path:
        path = session._ambiguous_path
        cookies.add(response, cookie.clear(origin.host, is_https=origin.is_https, asked_path=path))
        patch_vary_headers(response, ("Cookie",))
        _forbid_storing(response)
    elif is_replaced:
        cookies.add(response, cookie.clear_others(origin.host, is_https=origin.is_https))
    if has_news and len(cookie.find_seen(request.META.get("HTTP_COOKIE", ""))) > 1:
        cookies.add(response, cookie.clear_others(origin.host, is_https=origin.is_https, seen=True))


def _tell_seen(request: HttpRequest, response: HttpResponse) -> None:
    """Set the cookie that says which version of the attributes the client has seen, or delete it,
    as SessionMiddleware does the ticket's.
    """
    session = request.session
    news = session._seen_news()
    if news is None:
        return
    name = cookies.ticket_cookie().seen_name
    place = {"path": settings.SESSION_COOKIE_PATH, "domain": settings.SESSION_COOKIE_DOMAIN}
    if news:
        response.set_cookie(
            name,
            news,
            max_age=session._seen_max_age_s(),
            secure=settings.SESSION_COOKIE_SECURE or None,
            httponly=settings.SESSION_COOKIE_HTTPONLY or None,
            samesite=settings.SESSION_COOKIE_SAMESITE,
            **place,
        )
    else:
        response.delete_cookie(name, samesite=settings.SESSION_COOKIE_SAMESITE, **place)
    _forbid_storing(response)


def _forbid_storing(response: HttpResponse) -> None:
    """Keep caches from storing a response that has a cookie, unless the view says otherwise."""
    if not response.has_header("Cache-Control"):
        response["Cache-Control"] = "no-store"


def _unavailable(request: HttpRequest) -> HttpResponse:
    request.session.modified = False
    return HttpResponse(UNAVAILABLE_BODY, status=UNAVAILABLE_STATUS, headers=dict(UNAVAILABLE_FIELDS))


def _interrupted(request: HttpRequest) -> SessionInterrupted:
    request.session.modified = False
    return SessionInterrupted(INTERRUPTED)

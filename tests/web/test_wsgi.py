"""SessionMiddleware around WSGI applications of every shape, by the rules of PEP 3333 (wsgiref's
validator is on both sides).
"""

import contextlib
import gc
import json
import sys
import weakref
from types import SimpleNamespace
from urllib.parse import parse_qs
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from lab.web_stores import QUIET, CountedStore, quiet_cache

import fastticket
from fastticket import (
    AttributesTooLarge,
    BadAttribute,
    InvalidPrincipal,
    Keyring,
    NotLoggedIn,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
)
from fastticket.sync import TicketCache
from fastticket.web.cookies import TicketCookie
from fastticket.wsgi import ENVIRON_KEY, SessionMiddleware, login, logout, logout_everywhere, rotate

PLAIN = TicketCookie(is_secure=False)


class Visitor:
    """A browser that keeps cookies. `cookie`: the last one that was set, with its attributes."""

    def __init__(self, application, ticket=""):
        self._application = application
        self.cookies = {"ticket": ticket} if ticket else {}

    @property
    def ticket(self):
        return self.cookies.get("ticket", "")

    def get(self, path="/", *, check=True, **environ):
        """(status, fields, body) of a GET; as a server sees it."""
        path, _, query = path.partition("?")
        said = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, "REMOTE_ADDR": "192.0.2.1", **environ}
        if self.cookies:
            said.setdefault("HTTP_COOKIE", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        setup_testing_defaults(said)
        answer = []

        def start_response(status, fields, exc_info=None):
            assert exc_info or not answer
            answer[:] = [status, fields]
            return pieces.append

        pieces = []
        body = (validator(self._application) if check else self._application)(said, start_response)
        try:
            for piece in body:
                assert answer, "a piece of the body came before start_response"
                pieces.append(piece)
        finally:
            getattr(body, "close", lambda: None)()
        status, fields = answer
        self._keep([value for name, value in fields if name == "Set-Cookie"])
        return SimpleNamespace(status=int(status[:3]), fields=fields, body=b"".join(pieces), raw=body)

    def _keep(self, cookies):
        names = [cookie.partition("=")[0] for cookie in cookies if "Max-Age=0" not in cookie]
        assert len(names) == len(set(names)), "a cookie was set twice"
        for self.cookie in cookies:
            name, _, rest = self.cookie.partition("=")
            self.cookies[name] = rest.partition(";")[0]
            if not self.cookies[name]:
                self.cookies.pop(name)


@pytest.fixture
def store():
    return CountedStore()


@pytest.fixture
def cache(store):
    with quiet_cache(store) as made:
        yield made


@pytest.fixture
def visit(cache):
    """`visit(do, ticket)`: a visitor of an application that does something to `environ` and answers
    with what that returns.
    """

    def make(do, ticket="", **options):
        def application(environ, start_response):
            value = do(environ)
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(value).encode()]

        return Visitor(SessionMiddleware(validator(application), cache, cookie=PLAIN, **options), ticket)

    return make


def session_of(environ):
    return environ[ENVIRON_KEY]


def who(environ):
    return session_of(environ).get("user")


def put(environ):
    """Set the attributes that the query names."""
    session_of(environ).update({name: value for name, [value] in parse_qs(environ["QUERY_STRING"]).items()})


def everything(environ):
    return dict(session_of(environ))


def held(cache, ticket):
    return dict(cache.attributes(cache.authenticate(ticket)))


def value(response):
    assert response.status == 200
    return json.loads(response.body)


# --- who is asking


def test_nobody_is_anonymous_and_asks_nothing(visit, store):
    visitor = visit(who)
    assert store.asked_for(visitor.get) == {}
    response = visitor.get()
    assert value(response) is None
    assert response.fields == [("Content-Type", "application/json"), ("Vary", "Cookie")]


def test_a_ticket_is_its_principal(visit, cache):
    assert value(visit(who, cache.login("alice")).get()) == "alice"
    assert value(visit(lambda environ: environ["REMOTE_USER"], cache.login("Zoë")).get()) == "Zoë".encode().decode(
        "latin-1"
    )


def test_a_known_session_asks_the_store_nothing(visit, store, cache):
    visitor = visit(who, cache.login("alice"))
    visitor.get()
    assert store.asked_for(visitor.get) == {}


def test_attributes_are_read_when_they_are_looked_at(visit, store, cache):
    visitor = visit(everything, cache.login("alice"))
    visitor.get()
    assert store.asked_for(visitor.get) == {"read_attributes": 1}


def test_a_session_is_a_dict_that_is_read_when_it_is_serialized(visit, store, cache):
    ticket = cache.login("alice")
    visit(put, ticket).get("/?a=1")
    visitor = visit(lambda environ: [isinstance(session_of(environ), dict), session_of(environ)], ticket)
    assert value(visitor.get()) == [True, {"user": "alice", "a": "1"}]
    assert store.asked_for(visitor.get) == {"read_attributes": 1}
    assert value(visit(session_of).get()) == {}


def test_who_can_not_log_in_is_told_at_once(visit, cache):
    def log_in(environ):
        for name in ("", "a" * 191, "alice "):
            with pytest.raises(InvalidPrincipal, match="1 to 190 bytes"):
                session_of(environ)["user"] = name
            with pytest.raises(InvalidPrincipal):
                login(environ, name)
        return who(environ)

    assert value(visit(log_in, cache.login("alice")).get()) == "alice"


def test_a_response_without_a_look_at_the_session_varies_by_nothing(visit):
    assert visit(lambda environ: None).get().fields == [("Content-Type", "application/json")]


@pytest.mark.parametrize("name", ["REMOTE_USER", "HTTP_REMOTE_USER"])
def test_nobody_says_himself_who_he_is(visit, cache, name):
    def seen(environ):
        return [environ.get(key) for key in ("REMOTE_USER", "HTTP_REMOTE_USER")]

    assert value(visit(seen).get(**{name: "root"})) == [None, None]
    assert value(visit(seen, cache.login("alice")).get(**{name: "root"})) == ["alice", None]


def test_what_is_no_ticket_is_anonymous_and_taken_away(visit):
    response = visit(who, "no.ticket").get()
    assert value(response) is None
    assert ("Set-Cookie", "ticket=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0") in response.fields
    assert ("Cache-Control", "no-store") in response.fields


def test_a_revoked_ticket_is_anonymous(visit, cache):
    visitor = visit(who, cache.login("alice"))
    cache.logout(visitor.ticket)
    assert value(visitor.get()) is None


def test_two_tickets_are_nobody_and_go(visit, cache):
    cookies = f"ticket={cache.login('alice')}; ticket={cache.login('bob')}"
    response = visit(who).get(HTTP_COOKIE=cookies)
    assert value(response) is None
    assert dict(response.fields)["Set-Cookie"].endswith("; Max-Age=0")


@pytest.mark.parametrize(
    "view", [lambda environ: session_of(environ).clear(), logout, lambda environ: login(environ, "carol")]
)
def test_a_logout_or_login_with_two_tickets_ends_the_sessions_of_both(visit, cache, view):
    tickets = [cache.login("alice"), "forged", cache.login("bob")]
    visitor = visit(view)
    response = visitor.get(
        "/x", HTTP_COOKIE="; ".join(f"ticket={ticket}" for ticket in tickets), HTTP_HOST="a.shop.test"
    )
    for ticket in tickets:
        with pytest.raises(TicketRefused):
            cache.authenticate(ticket)
    *others, mine = [value for name, value in response.fields if name == "Set-Cookie"]
    assert all(other.endswith("; Max-Age=0") for other in others)
    assert {line.split("; ")[1] for line in others} == {"Path=/", "Path=/x"}
    assert bool(visitor.ticket) == ("Max-Age=0" not in mine) == bool(cache.sessions("carol"))


@pytest.mark.parametrize(
    ("environ", "is_secure"),
    [
        ({"HTTP_HOST": "shop.test"}, True),
        ({"HTTP_HOST": "localhost:8000"}, False),
        ({"HTTP_HOST": "localhost:8000", "wsgi.url_scheme": "https"}, True),
        ({"HTTP_HOST": "127.0.0.1:8000", "HTTP_ORIGIN": "https://shop.test"}, True),
    ],
)
def test_the_cookie_is_secure_unless_it_is_for_this_machine_by_http(cache, environ, is_secure):
    def application(environ, start_response):
        login(environ, "alice")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"welcome"]

    visitor = Visitor(SessionMiddleware(validator(application), cache))
    visitor.get(**environ)
    assert ("; Secure" in visitor.cookie) == is_secure


# --- login, logout


def test_setting_the_entry_logs_in_and_brings_what_else_is_set(visit, cache):
    visitor = visit(put)
    visitor.get("/?user=alice&a=1", HTTP_USER_AGENT="tests")
    assert cache.authenticate(visitor.ticket).principal == "alice"
    assert "Max-Age" not in visitor.cookie
    assert held(cache, visitor.ticket) == {"a": "1"}
    (session,) = cache.sessions("alice")
    assert session.details == {"address": "192.0.2.1", "user_agent": "tests"}


def test_another_name_of_the_entry(visit, cache):
    visitor = visit(lambda environ: session_of(environ).update(who="alice", user="an attribute"), principal_key="who")
    visitor.get()
    assert held(cache, visitor.ticket) == {"user": "an attribute"}


def test_a_logout_with_a_ticket_that_another_request_has_exchanged_leaves_no_cookie(visit, cache):
    """The browser has the new one by then: who has said goodbye is not to be logged in."""
    visitor = visit(logout, ticket := cache.login("alice"))
    cache.rotate(ticket)
    visitor.get()
    assert visitor.ticket == ""


@pytest.mark.parametrize(
    "leave", [logout, lambda e: session_of(e).clear(), lambda e: session_of(e).pop("user") and None]
)
def test_a_logout_revokes_the_ticket_and_takes_it_away(visit, cache, leave):
    visitor = visit(leave, ticket := cache.login("alice"))
    visitor.get()
    assert cache.check(ticket).reason == "revoked"
    assert visitor.ticket == ""


def test_a_login_that_is_remembered_has_a_cookie_that_lasts(visit, cache):
    visitor = visit(lambda environ: login(environ, "alice", remember=True))
    visitor.get()
    assert visitor.cookie.endswith(f"Max-Age={cache.remember_lifetime_s}")


def test_another_login_ends_the_first_session_and_its_attributes(visit, cache):
    visitor = visit(put, ticket := cache.login("alice"))
    visitor.get("/?a=1")
    visitor.get("/?user=bob&b=2")
    assert cache.check(ticket).reason == "revoked"
    assert held(cache, visitor.ticket) == {"b": "2"}


def test_a_rotation_is_another_ticket_of_the_same_session(visit, cache):
    visitor = visit(put, ticket := cache.login("alice"))
    visitor.get("/?a=1")
    rotating = visit(rotate, ticket)
    rotating.get()
    assert cache.check(ticket).reason == "revoked"
    assert held(cache, rotating.ticket) == {"a": "1"}


def test_an_end_of_all_other_sessions(visit, cache):
    ticket, other = cache.login("alice"), cache.login("alice")
    assert value(visit(logout_everywhere, ticket).get()) == 1
    assert cache.check(ticket)
    assert not cache.check(other)


# --- attributes


def test_only_what_changed_is_written_with_one_command(visit, store, cache):
    visitor = visit(put, ticket := cache.login("alice"))
    visitor.get()
    assert store.asked_for(lambda: visitor.get("/?a=1&b=2")) == {"write_attributes": 1}
    with cache.attributes(cache.authenticate(ticket)) as elsewhere:
        elsewhere["a"] = "changed elsewhere"
    visitor.get("/?b=3")
    assert held(cache, ticket) == {"a": "changed elsewhere", "b": "3"}


def test_what_is_done_to_a_list_in_place_is_a_change(visit, cache):
    visitor = visit(lambda environ: session_of(environ).setdefault("list", []).append(1), cache.login("alice"))
    visitor.get()
    visitor.get()
    assert held(cache, visitor.ticket) == {"list": [1, 1]}


def test_a_session_that_ends_while_it_is_used_is_anonymous_from_then_on(visit, cache):
    ticket = cache.login("alice")

    def late(environ):
        cache.logout(ticket)
        return [dict(session_of(environ)), who(environ)]

    visitor = visit(late, ticket)
    assert value(visitor.get()) == [{}, None]


def test_what_an_anonymous_visitor_leaves_is_an_error(visit):
    with pytest.raises(NotLoggedIn, match="'a' can not be kept"):
        visit(put).get("/?a=1")


@pytest.mark.parametrize(("wrong", "error"), [(object(), BadAttribute), ("x" * 70_000, AttributesTooLarge)])
def test_what_can_not_be_written_is_the_applications_error(visit, cache, wrong, error):
    with pytest.raises(error):
        visit(lambda environ: session_of(environ).update(a=wrong), cache.login("alice")).get()


# --- how applications answer


def around(application, cache, ticket=""):
    return Visitor(SessionMiddleware(application, cache, cookie=PLAIN), ticket)


def test_a_generator_says_its_response_late(cache):
    def application(environ, start_response):
        session_of(environ)["user"] = "alice"
        start_response("200 OK", [("Content-Type", "text/plain")])
        session_of(environ)["a"] = 1
        yield b"one, "
        yield b"two"

    visitor = around(application, cache)
    assert visitor.get().body == b"one, two"
    assert held(cache, visitor.ticket) == {"a": 1}


def test_a_response_without_body_is_said_late(cache):
    def application(environ, start_response):
        session_of(environ)["user"] = "alice"
        start_response("204 No Content", [])
        yield from ()

    visitor = around(application, cache)
    assert visitor.get().status == 204
    assert visitor.ticket


def test_what_is_set_after_start_response_counts(cache):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        session_of(environ)["user"] = "alice"
        return [b"hello"]

    visitor = around(application, cache)
    visitor.get()
    assert visitor.ticket


def test_an_application_that_writes(cache):
    def application(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        session_of(environ)["user"] = "alice"
        write(b"written, ")
        return [b"returned"]

    visitor = around(application, cache)
    assert visitor.get().body == b"written, returned"
    assert visitor.ticket


class Body(list):
    is_closed = False

    def close(self):
        self.is_closed = True


def test_a_body_goes_to_the_server_as_it_is(cache):
    body = Body([b"hello"])

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    assert around(application, cache).get(check=False).raw is body
    assert body.is_closed


@pytest.mark.parametrize("is_late", [False, True])
def test_a_body_is_closed_when_its_response_can_not_begin(cache, store, is_late):
    ticket = cache.login("alice")
    cache.authenticate(ticket)
    body = Body([b"hello"])

    def application(environ, start_response):
        session_of(environ)["a"] = 1
        if not is_late:
            start_response("200 OK", [])
            return body

        class Late(Body):
            def __iter__(self):
                start_response("200 OK", [])
                return iter(body)

            def close(self):
                body.close()

        return Late()

    store.is_away = True
    response = around(application, cache, ticket).get(check=False)
    assert (response.status, body.is_closed) == (503, True)
    assert b"hello" not in response.body


def test_an_error_after_start_response_answers_instead_and_writes_nothing(cache):
    ticket = cache.login("alice")

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        session_of(environ)["a"] = 1
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("400 Bad Request", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    response = around(application, cache, ticket).get()
    assert (response.status, response.body) == (400, b"sorry")
    assert held(cache, ticket) == {}


def test_an_error_that_was_answered_is_let_go(cache):
    """Its traceback refers to frames, and these to the request."""

    class WrongError(Exception):
        pass

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            wrong = WrongError()
            errors.append(weakref.ref(wrong))
            raise wrong
        except WrongError:
            del wrong
            start_response("400 Bad Request", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    errors = []
    gc.disable()
    try:
        around(application, cache).get(check=False)
        assert errors[0]() is None
    finally:
        gc.enable()


def test_an_error_after_the_first_piece_is_the_servers(cache):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())

    assert around(application, cache).get().status == 500  # this server has sent nothing yet


def test_a_status_of_500_writes_nothing(cache):
    ticket = cache.login("alice")

    def application(environ, start_response):
        session_of(environ).update(a=1, user="bob")
        start_response("500 Oops", [("Content-Type", "text/plain")])
        return [b"sorry"]

    assert around(application, cache, ticket).get().status == 500
    assert held(cache, ticket) == {}
    assert cache.sessions("bob") == []


def test_a_second_start_response_is_the_applications_error(cache):
    def application(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])

    with pytest.raises(AssertionError, match="start_response"):
        around(application, cache).get(check=False)


def test_a_body_without_status_is_the_applications_error(cache):
    def application(environ, start_response):
        yield b"hello"

    with pytest.raises(AssertionError, match="before its start_response"):
        around(application, cache).get(check=False)


def test_an_exception_writes_nothing(visit, cache):
    def fail(environ):
        session_of(environ)["a"] = 1
        raise ZeroDivisionError

    ticket = cache.login("alice")
    with pytest.raises(ZeroDivisionError):
        visit(fail, ticket).get()
    assert held(cache, ticket) == {}


def test_an_asyncio_cache_is_refused_at_once(store):
    with pytest.raises(TypeError, match=r"fastticket\.sync\.TicketCache"):
        SessionMiddleware(lambda environ, start_response: [], fastticket.TicketCache(store, Keyring.generate()))


def test_one_middleware_within_another_does_nothing(cache):
    def application(environ, start_response):
        rotate(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    inner = SessionMiddleware(application, cache, cookie=PLAIN)
    visitor = around(inner, cache, ticket := cache.login("alice"))
    visitor.get()  # which asserts that there is one Set-Cookie
    assert cache.check(ticket).reason == "revoked"
    assert cache.check(visitor.ticket)


# --- with the store away


def test_a_ticket_that_can_not_be_judged_is_no_refusal(visit, store, cache):
    visitor = visit(who, ticket := cache.login("alice"))
    store.is_away = True
    response = visitor.get()
    assert response.status == 503
    assert dict(response.fields)["Retry-After"] == "1"
    assert visitor.ticket == ticket


def test_a_known_session_goes_on(visit, store, cache):
    visitor = visit(who, cache.login("alice"))
    visitor.get()
    store.is_away = True
    assert value(visitor.get()) == "alice"


@pytest.mark.parametrize("do", [everything, lambda e: session_of(e).update(a=1), logout, rotate])
def test_what_needs_the_store_is_unavailable_and_nobody_is_logged_out(visit, store, cache, do):
    ticket = cache.login("alice")
    visit(who, ticket).get()
    store.is_away = True
    visitor = visit(do, ticket)
    assert visitor.get().status == 503
    assert visitor.ticket == ticket
    store.is_away = False
    assert cache.check(ticket)


def test_what_was_done_before_the_store_went_away_reaches_the_visitor(visit, store, cache):
    def do(environ):
        rotate(environ)
        store.is_away = True
        session_of(environ)["a"] = 1

    visitor = visit(do, ticket := cache.login("alice"))
    assert visitor.get().status == 503
    store.is_away = False
    assert cache.authenticate(visitor.ticket).principal == "alice"
    assert visitor.ticket != ticket


def test_a_login_that_is_refused_is_the_applications_to_handle(store):
    def application(environ, start_response):
        with contextlib.suppress(TooManySessions):
            login(environ, "alice")
        start_response("409 Conflict", [])
        return []

    limits = {"sessions_max": 1, "sessions_max_policy": "refuse"}
    with TicketCache(store, Keyring.generate(), idle_timeout_s=0, **QUIET, **limits) as cache:
        cache.login("alice")
        visitor = around(application, cache)
        assert (visitor.get(check=False).status, visitor.ticket) == (409, "")


def test_a_store_that_fails_after_the_response_has_begun_is_the_servers_affair(store, cache):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        store.is_away = True
        dict(session_of(environ))

    with pytest.raises(StoreUnavailable):
        around(application, cache, cache.login("alice")).get()


# --- P11, read your writes


def test_p11_a_response_to_a_change_says_which_version_the_visitor_has_seen(visit, cache):
    visitor = visit(put, ticket := cache.login("alice"))
    assert visitor.get().fields[-1][0] != "Set-Cookie"
    fields = visitor.get("/?a=1").fields
    attributes = cache.attributes(cache.authenticate(ticket)).load()
    version = f"{attributes.version[0]}-{attributes.version[1]}"
    assert ("Set-Cookie", f"ticket-seen={version}; Path=/; HttpOnly; SameSite=Lax") in fields
    assert {("Cache-Control", "no-store"), ("Vary", "Cookie")} <= set(fields)
    assert [name for name, _ in fields].count("Set-Cookie") == 1
    assert "Set-Cookie" not in dict(visitor.get().fields)


def test_p11_a_claim_that_is_not_true_is_corrected_by_who_reads(visit, cache):
    visitor = visit(everything, ticket := cache.login("alice"))
    visitor.cookies["ticket-seen"] = "1-0; ticket-seen=rubbish"
    visitor.get()
    assert visitor.cookies == {"ticket": ticket}
    visit(put, ticket).get("/?a=1")
    visitor.cookies["ticket-seen"] = "99-0"
    visitor.get()
    assert visitor.cookies["ticket-seen"] not in ("99-0", "")
    writer = visit(put, ticket)
    writer.cookies["ticket-seen"] = "99-0"
    writer.get("/")  # reads nothing, so nobody knows
    assert writer.cookies["ticket-seen"] == "99-0"
    writer.get("/?a=2")
    assert writer.cookies["ticket-seen"] != "99-0"

"""Flask with tickets for sessions: what its users expect of `flask.session`, and what a ticket
adds.
"""

import datetime
import logging
import uuid

import flask
import pytest
from flask import session
from lab.web_stores import CountedStore, quiet_cache

import fastticket.flask
from fastticket import BadAttribute, ConfigError, InvalidPrincipal, Keyring, NotLoggedIn, TicketRefused
from fastticket.flask import TicketSessions, login, logout, logout_everywhere, rotate
from fastticket.web.cookies import TicketCookie

TICKET = "ticket"


@pytest.fixture
def store():
    return CountedStore()


@pytest.fixture
def cache(store):
    with quiet_cache(store) as made:
        yield made


@pytest.fixture
def app(cache):
    """An application of the kind that a tutorial shows."""
    made = flask.Flask(__name__)
    made.secret_key = "of this application"
    made.session_interface = TicketSessions(cache, cookie=TicketCookie(is_secure=False))
    views = (
        who,
        sign_in,
        sign_in_and_keep,
        sign_out,
        ignore,
        put,
        get,
        append,
        append_marked,
        everything,
        fail,
        teapot,
        flags,
        touch,
        remember,
        mark,
    )
    made.add_url_rule("/stream", "stream", stream)
    made.add_url_rule("/file", "file", file)
    for view in (*views, login_remembered, login, logout, rotate, logout_everywhere):
        made.add_url_rule(f"/{view.__name__}", view.__name__, as_view(view))
    return made


def as_view(do):
    def view():
        value = do(**flask.request.args)
        return value if isinstance(value, tuple) else flask.jsonify(value)

    return view


def who():
    return session.get("user")


def sign_in(user, permanent=None):
    session.clear()
    if permanent:
        session.permanent = True
    session["user"] = user


def sign_in_and_keep(user):
    session["user"] = user


def login_remembered(principal):
    login(principal, remember=True)


def sign_out():
    session.pop("user", None)


def ignore():
    return None


def put(**values):
    session.update(values)


def get(name):
    return session.get(name)


def append():
    session.setdefault("list", []).append(1)


def append_marked():
    append()
    session.modified = True


def everything():
    return dict(session)


def fail():
    session["lost"] = 1
    raise ZeroDivisionError


def teapot():
    session["kept"] = 1
    return "no coffee", 418


def flags():
    before = [session.new, session.modified]
    session["a"] = 1
    return [*before, session.new, session.modified, session.accessed]


def touch():
    return session.permanent


def remember():
    """The other order, and what the flags say of it."""
    session["user"] = "alice"
    before = session.permanent
    session.permanent = True
    return [before, session.permanent, session.new, session.modified]


def mark():
    session.modified = True
    return session.modified


closed = []


def stream():
    session["a"] = 1

    def pieces():
        try:
            yield "never sent"
        finally:
            closed.append("stream")

    body = pieces()
    next(body)
    return body, {"X-Of": "the view"}


def file():
    session["a"] = 1
    return flask.send_file(__file__)


@pytest.fixture
def visit(app):
    """`visit(ticket)`: a client."""

    def make(ticket=""):
        client = app.test_client()
        if ticket:
            client.set_cookie(TICKET, ticket)
        return client

    return make


def value(response):
    assert response.status_code == 200, response.text
    return response.json


def ticket_of(client):
    cookie = client.get_cookie(TICKET)
    return cookie and cookie.value


def cookies_set(response):
    return {line.partition("=")[0] for line in response.headers.getlist("Set-Cookie")}


def held(cache, ticket):
    return dict(cache.attributes(cache.authenticate(ticket)))


# --- who is asking


@pytest.mark.parametrize("path", ["/logout", "/sign_out", "/login?principal=carol", "/sign_in?user=carol"])
def test_a_logout_or_login_with_two_tickets_ends_the_sessions_of_both(app, cache, path):
    tickets = [cache.login("alice"), "forged", cache.login("bob")]
    cookies = "; ".join(f"{TICKET}={ticket}" for ticket in tickets)
    client = app.test_client(use_cookies=False)
    response = client.get(path, headers={"Cookie": cookies, "Host": "a.shop.test"})
    assert response.status_code == 200
    for ticket in tickets:
        with pytest.raises(TicketRefused):
            cache.authenticate(ticket)
    *others, mine = [line for line in response.headers.getlist("Set-Cookie") if line.startswith(f"{TICKET}=")]
    assert all(other.endswith("; Max-Age=0") for other in others)
    assert {line.partition("Domain=")[2].partition(";")[0] for line in (*others, mine)} == {
        "",
        "a.shop.test",
        "shop.test",
    }
    assert ("Max-Age=0" not in mine) == bool(cache.sessions("carol")) == ("carol" in path)


def test_two_tickets_are_nobody_and_go(app, cache):
    cookies = f"{TICKET}={cache.login('alice')}; {TICKET}={cache.login('bob')}"
    response = app.test_client(use_cookies=False).get("/who", headers={"Cookie": cookies})
    assert value(response) is None
    assert response.headers.getlist("Set-Cookie")[-1].endswith("; Max-Age=0")


@pytest.mark.parametrize(
    ("host", "scheme", "is_secure"),
    [("shop.test", "http", True), ("localhost", "http", False), ("localhost", "https", True)],
)
def test_the_cookie_is_secure_unless_it_is_for_this_machine_by_http(app, cache, host, scheme, is_secure):
    app.session_interface = TicketSessions(cache)
    response = app.test_client().get("/login?principal=alice", base_url=f"{scheme}://{host}")
    (ticket,) = [line for line in response.headers.getlist("Set-Cookie") if "Max-Age=0" not in line]
    assert ("; Secure" in ticket) == is_secure


def test_nobody_is_anonymous_and_asks_nothing(visit, store):
    client = visit()
    assert store.asked_for(lambda: client.get("/who")) == {}
    response = client.get("/who")
    assert value(response) is None
    assert response.headers["Vary"] == "Cookie"
    assert cookies_set(response) == set()


def test_a_ticket_is_its_principal(visit, cache):
    assert value(visit(cache.login("alice")).get("/who")) == "alice"


def test_a_known_session_asks_the_store_nothing(visit, cache, store):
    client = visit(cache.login("alice"))
    client.get("/who")
    assert store.asked_for(lambda: [client.get("/who"), client.get("/ignore")]) == {}
    assert store.asked_for(lambda: client.get("/everything")) == {"read_attributes": 1}


def test_a_session_behaves_as_a_dict(visit, cache, app):
    @app.get("/as_dict")
    def as_dict():
        merged = session | {"b": 2}
        own = session._get_current_object()
        own |= {"c": 3}
        taken = session.popitem()
        with pytest.raises(KeyError):
            session.popitem()
        return [isinstance(session, dict), merged, taken, own]

    @app.get("/vary")
    def vary():
        session.get("a")
        response = flask.make_response("")
        response.vary.update(("Accept-Encoding", "Accept-Language"))
        return response

    client = visit(cache.login("alice"))
    said = value(client.get("/as_dict"))
    assert said == [True, {"user": "alice", "b": 2}, ["c", 3], {"user": "alice"}]
    assert value(client.get("/everything")) == {"user": "alice"}
    assert client.get("/vary").headers.getlist("Vary") == ["Accept-Encoding, Accept-Language, Cookie"]


def test_who_can_not_log_in_is_told_at_once(visit, cache, app):
    @app.get("/try")
    def attempt():
        for name in ("", "文" * 64, " alice"):
            with pytest.raises(InvalidPrincipal, match="1 to 190 bytes"):
                session["user"] = name
            with pytest.raises(InvalidPrincipal):
                login(name)
        return flask.jsonify(session["user"])

    assert value(visit(cache.login("alice")).get("/try")) == "alice"


def test_a_response_without_a_look_at_the_session_varies_by_nothing(visit, cache):
    assert "Vary" not in visit(cache.login("alice")).get("/ignore").headers


def test_what_is_no_ticket_is_anonymous_and_taken_away(visit):
    client = visit("no.ticket")
    response = client.get("/who")
    assert value(response) is None
    assert response.headers["Cache-Control"] == "no-store"
    assert ticket_of(client) is None


def test_a_revoked_ticket_is_anonymous(visit, cache):
    cache.logout(ticket := cache.login("alice"))
    assert value(visit(ticket).get("/who")) is None


def test_a_user_in_a_signed_cookie_is_nobody(app, visit):
    """Sessions from before the application had tickets, say."""
    client = visit()
    cookie = flask.sessions.SecureCookieSessionInterface().get_signing_serializer(app).dumps({"user": "root", "a": 1})
    client.set_cookie("session", cookie)
    assert value(client.get("/who")) is None
    assert value(client.get("/everything")) == {"a": 1}


# --- login, logout


def test_setting_the_entry_logs_in(visit, cache):
    client = visit()
    response = client.get("/sign_in?user=alice", headers={"User-Agent": "tests"})
    assert cookies_set(response) == {TICKET}
    assert cache.authenticate(ticket_of(client)).principal == "alice"
    assert value(client.get("/who")) == "alice"
    (found,) = cache.sessions("alice")
    assert found.details == {"address": "127.0.0.1", "user_agent": "tests"}


def test_what_was_there_before_the_login_moves_into_the_session(visit, cache, store):
    client = visit()
    assert store.asked_for(lambda: client.get("/put?a=1")) == {}
    assert value(client.get("/get?name=a")) == "1"
    response = client.get("/put?user=alice&b=2")
    assert cookies_set(response) == {TICKET, "session"}
    assert client.get_cookie("session") is None
    assert held(cache, ticket_of(client)) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("path", ["/sign_out", "/logout"])
def test_a_logout_revokes_the_ticket_and_takes_it_away(visit, cache, path):
    client = visit(ticket := cache.login("alice"))
    assert cookies_set(client.get(path)) == {TICKET}
    assert ticket_of(client) is None
    assert cache.check(ticket).reason == "revoked"


def test_another_login_ends_the_first_session_and_its_attributes(visit, cache):
    client = visit(ticket := cache.login("alice"))
    client.get("/put?a=1")
    client.get("/put?user=bob&b=2")
    assert cache.check(ticket).reason == "revoked"
    assert held(cache, ticket_of(client)) == {"b": "2"}


@pytest.mark.parametrize("path", ["/sign_in?user=alice&permanent=1", "/login_remembered?principal=alice"])
def test_a_permanent_login_has_a_cookie_that_lasts(visit, cache, path):
    response = visit().get(path)
    (cookie,) = response.headers.getlist("Set-Cookie")
    assert cookie.endswith(f"Max-Age={cache.remember_lifetime_s}")


def test_a_login_is_permanent_without_a_secret_key_too(app, visit, cache):
    app.secret_key = None
    client = visit()
    client.get("/sign_in?user=alice&permanent=1")
    assert client.get_cookie(TICKET).max_age == cache.remember_lifetime_s


def test_a_visitor_without_a_secret_key_leaves_nothing_by_being_permanent(app, visit, cache):
    app.secret_key = None
    app.before_request(lambda: setattr(session, "permanent", True))
    client = visit()
    assert value(client.get("/touch")) is True
    client.get("/put?user=alice")
    assert client.get_cookie(TICKET).max_age == cache.remember_lifetime_s
    client.get("/sign_in?user=bob")  # which clears the session before, and the wish with it
    assert client.get_cookie(TICKET).max_age is None


def test_a_login_may_become_permanent(visit, cache):
    client = visit()
    assert value(client.get("/remember")) == [False, True, True, True]
    assert client.get_cookie(TICKET).max_age == cache.remember_lifetime_s
    assert value(client.get("/touch")) is True
    assert value(visit(cache.login("alice")).get("/touch")) is False


def test_an_application_whose_sessions_are_all_permanent(app, visit, cache):
    app.before_request(lambda: setattr(session, "permanent", True))
    client = visit()
    client.get("/put?a=1")
    client.get("/put?user=alice")
    assert held(cache, ticket_of(client)) == {"a": "1"}
    assert cookies_set(client.get("/who")) == set()
    assert client.get_cookie(TICKET).max_age == cache.remember_lifetime_s


def test_a_rotation_is_another_ticket_of_the_same_session(visit, cache):
    client = visit(ticket := cache.login("alice"))
    client.get("/put?a=1")
    client.get("/rotate")
    assert cache.check(ticket).reason == "revoked"
    assert held(cache, ticket_of(client)) == {"a": "1"}


def test_an_end_of_all_other_sessions(visit, cache):
    ticket, other = cache.login("alice"), cache.login("alice")
    assert value(visit(ticket).get("/logout_everywhere")) == 1
    assert cache.check(ticket)
    assert not cache.check(other)


@pytest.mark.parametrize("odd", [datetime.datetime.now(datetime.UTC), b"bytes", uuid.uuid4()])
def test_a_login_leaves_behind_what_only_the_signed_cookie_can_hold(app, visit, cache, caplog, odd):
    app.add_url_rule("/odd", view_func=lambda: session.update(odd=odd, even=2) or "")
    client = visit()
    client.get("/odd")
    with caplog.at_level(logging.WARNING):
        assert value(client.get("/sign_in_and_keep?user=alice")) is None
    assert held(cache, ticket_of(client)) == {"even": 2}
    (line,) = caplog.messages
    assert "'odd'" in line
    assert str(odd) not in line
    assert client.get_cookie("session") is None


def test_a_login_with_what_was_just_set_and_can_not_be_kept_is_an_error(app, visit, cache):
    app.add_url_rule("/odd", view_func=lambda: session.update(odd=b"bytes", user="alice") or "")
    app.testing = True
    client = visit()
    with pytest.raises(BadAttribute, match="'odd'"):
        client.get("/odd")
    assert cache.sessions("alice") == []


# --- attributes


def test_only_what_changed_is_written_with_one_command(visit, cache, store):
    client = visit(ticket := cache.login("alice"))
    client.get("/who")
    assert store.asked_for(lambda: client.get("/put?a=1&b=2")) == {"write_attributes": 1}
    with cache.attributes(cache.authenticate(ticket)) as elsewhere:
        elsewhere["a"] = "changed elsewhere"
    client.get("/put?b=3")
    assert held(cache, ticket) == {"a": "changed elsewhere", "b": "3"}


def test_what_is_done_to_a_list_in_place_is_a_change(visit, cache):
    client = visit(ticket := cache.login("alice"))
    client.get("/append")
    client.get("/append")
    assert held(cache, ticket) == {"list": [1, 1]}


def test_a_request_that_fails_writes_nothing(visit, cache):
    client = visit(ticket := cache.login("alice"))
    assert client.get("/fail").status_code == 500
    assert held(cache, ticket) == {}


def test_a_client_that_errs_is_no_failure(visit, cache):
    client = visit(ticket := cache.login("alice"))
    assert client.get("/teapot").status_code == 418
    assert held(cache, ticket) == {"kept": 1}


def test_without_a_secret_key_an_anonymous_visitor_can_leave_nothing(app, visit, cache):
    app.secret_key = None
    app.testing = True
    client = visit()
    with pytest.raises(NotLoggedIn, match=r"set app\.secret_key"):
        client.get("/put?a=1")
    client.get("/put?a=1&user=alice")
    assert held(cache, ticket_of(client)) == {"a": "1"}


def test_the_flags_of_a_session(visit, cache):
    assert value(visit(cache.login("alice")).get("/flags")) == [False, False, False, True, True]
    assert value(visit().get("/flags")) == [False, False, False, True, True]


def test_marking_a_session_is_enough_for_an_anonymous_one_too(visit):
    client = visit()
    for wanted in ([1], [1, 1]):
        client.get("/append_marked")
        assert value(client.get("/get?name=list")) == wanted
    assert value(client.get("/mark")) is True


def test_marking_a_session_writes_nothing_that_did_not_change(visit, cache, store):
    client = visit(cache.login("alice"))
    client.get("/who")
    assert store.asked_for(lambda: client.get("/mark")) == {}
    assert value(client.get("/mark")) is True


def test_a_touch_of_the_session_varies_by_its_cookie(visit):
    """As in Flask 3.1.3 and later."""
    assert visit().get("/touch").headers["Vary"] == "Cookie"


def test_a_tests_session_transaction(visit, cache):
    client = visit()
    with client.session_transaction() as there:
        there["user"] = "alice"
        there["a"] = 1
    assert value(client.get("/everything")) == {"user": "alice", "a": 1}
    assert held(cache, ticket_of(client)) == {"a": 1}


@pytest.mark.parametrize("secret", ["of this application", None])
def test_both_cookies_of_one_name_are_a_mistake_where_there_are_both(app, visit, secret):
    """Without a secret key there is only the ticket's."""
    app.secret_key = secret
    app.config["SESSION_COOKIE_NAME"] = TICKET
    app.testing = True
    if secret is None:
        assert value(visit().get("/who")) is None
    else:
        with pytest.raises(ConfigError, match="SESSION_COOKIE_NAME"):
            visit().get("/who")


def test_an_asyncio_cache_is_refused_at_once(store):
    with pytest.raises(TypeError, match=r"fastticket\.sync\.TicketCache"):
        TicketSessions(fastticket.TicketCache(store, Keyring.generate()))


def test_the_functions_say_when_the_application_has_other_sessions(app, visit):
    app.session_interface = flask.sessions.SecureCookieSessionInterface()
    app.testing = True
    with pytest.raises(ConfigError, match="session_interface"):
        visit().get("/logout")


# --- with the store away


def test_a_ticket_that_can_not_be_judged_is_no_refusal(app, visit, cache, store):
    client = visit(ticket := cache.login("alice"))
    store.is_away = True
    for path in ("/ignore", "/who"):
        response = client.get(path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert ticket_of(client) == ticket


def write():
    session["a"] = 1


@pytest.mark.parametrize("do", [lambda: "user" in session, lambda: "a" in session, write])
def test_nobody_is_anonymous_for_it_to_a_function_before_the_request(app, visit, cache, store, do):
    seen = []
    app.before_request(lambda: seen.append(do()))
    client = visit(cache.login("alice"))
    store.is_away = True
    assert client.get("/ignore").status_code == 503
    assert seen == []


def test_an_error_handler_may_answer_in_its_own_words(app, visit, cache, store):
    app.register_error_handler(fastticket.StoreUnavailable, lambda error: ("come back later", 503))
    client = visit(cache.login("alice"))
    store.is_away = True
    assert client.get("/ignore").text == "come back later"


PAGE = "{% if session.user %}{{ session.user }}'s {% endif %}{{ session.get('a') }} {{ get_flashed_messages() }}"


def with_error_page(app, do=None):
    """An application whose error page shows who is logged in, as every other of its pages does."""
    app.register_error_handler(503, lambda error: (flask.render_template_string(PAGE), 503))
    if do:
        app.before_request(do)


def test_an_error_page_may_look_at_a_session_that_can_not_be_judged(app, visit, cache, store):
    with_error_page(app)
    client = visit(ticket := cache.login("alice"))
    store.is_away = True
    response = client.get("/who")
    assert (response.status_code, response.text) == (503, "None []")
    assert response.headers["Retry-After"] == "1"
    assert cookies_set(response) == set()
    assert ticket_of(client) == ticket


@pytest.mark.parametrize(("status", "do"), [(404, who), (503, write)])
def test_an_error_page_that_needs_the_session_is_unavailable(app, visit, cache, store, status, do):
    """That of another error may not take the visitor for nobody; and none can keep a token, say."""
    app.register_error_handler(status, lambda error: (do() or "nobody", status))
    client = visit(cache.login("alice"))
    store.is_away = True
    response = client.get("/who" if status == 503 else "/no_such_page")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.content_type == "application/json"


def test_an_error_page_may_look_at_a_session_that_a_function_before_the_request_did(app, visit, cache, store):
    with_error_page(app, lambda: session.get("user") and None)
    client = visit(cache.login("alice"))
    store.is_away = True
    assert client.get("/ignore").text == "None []"


@pytest.mark.parametrize("path", ["/get?name=a", "/rotate", "/logout_everywhere"])
def test_an_error_page_may_look_at_a_session_that_can_not_be_read(app, visit, cache, store, path):
    with_error_page(app)
    client = visit(cache.login("alice"))
    client.get("/who")
    store.is_away = True
    response = client.get(path)
    assert (response.status_code, response.text) == (503, "alice's None []")
    assert response.headers["Retry-After"] == "1"


def test_an_error_page_says_itself_when_to_come_back(app, visit, cache, store):
    app.register_error_handler(503, lambda error: ("", 503, {"Retry-After": "60"}))
    client = visit(cache.login("alice"))
    store.is_away = True
    assert client.get("/who").headers.getlist("Retry-After") == ["60"]


def clear():
    session.clear()


def become():
    session["user"] = "bob"


@pytest.mark.parametrize("do", [write, clear, become, login_remembered, logout])
def test_a_session_that_can_not_be_judged_is_not_changed(app, visit, cache, store, do):
    """Even by who looked at it and did not mind that it raised."""
    raised = []

    def regardless():
        for each in (who, do):
            try:
                each(*(["bob"] if each is login_remembered else []))
            except fastticket.StoreUnavailable as error:
                raised.append(error)

    app.before_request(regardless)
    client = visit(ticket := cache.login("alice"))
    store.is_away = True
    assert client.get("/ignore").status_code == 503
    assert len(raised) == 2
    store.is_away = False
    assert cache.authenticate(ticket)
    assert cache.sessions("bob") == []


def test_a_login_that_fails_leaves_an_anonymous_visitors_session_as_usable_as_it_was(app, visit, store):
    def sign_in_or_say_why():
        try:
            login("alice")
        except fastticket.StoreUnavailable:
            flask.flash("try again")
        return "sorry"

    app.add_url_rule("/try", view_func=sign_in_or_say_why)
    app.add_url_rule("/flashed", view_func=lambda: flask.jsonify(flask.get_flashed_messages()))
    client = visit()
    store.is_away = True
    assert client.get("/try").text == "sorry"
    assert value(client.get("/flashed")) == ["try again"]


def test_a_known_session_goes_on(visit, cache, store):
    client = visit(cache.login("alice"))
    client.get("/who")
    store.is_away = True
    assert value(client.get("/who")) == "alice"


@pytest.mark.parametrize("path", ["/put?a=1", "/get?name=a", "/logout", "/rotate", "/logout_everywhere"])
def test_what_needs_the_store_is_unavailable_and_nobody_is_logged_out(visit, cache, store, path):
    client = visit(ticket := cache.login("alice"))
    client.get("/who")
    store.is_away = True
    response = client.get(path)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert cookies_set(response) == set()
    store.is_away = False
    assert cache.check(ticket)


@pytest.mark.parametrize("path", ["/stream", "/file"])
def test_any_response_becomes_one_of_503(visit, cache, store, path):
    closed.clear()
    client = visit(cache.login("alice"))
    client.get("/who")
    store.is_away = True
    response = client.get(path)
    assert (response.status_code, response.content_type) == (503, "application/json")
    assert len(response.data) == int(response.headers["Content-Length"])
    assert "X-Of" not in response.headers
    assert closed == (["stream"] if path == "/stream" else [])


def test_no_login_without_the_store(visit, store):
    store.is_away = True
    response = visit().get("/sign_in?user=alice")
    assert response.status_code == 503
    assert cookies_set(response) == set()


# --- P11, read your writes


def test_p11_a_response_to_a_change_says_which_version_the_visitor_has_seen(visit, cache):
    client = visit(ticket := cache.login("alice"))
    response = client.get("/put?a=1")
    attributes = cache.attributes(cache.authenticate(ticket)).load()
    version = f"{attributes.version[0]}-{attributes.version[1]}"
    assert response.headers.getlist("Set-Cookie") == [f"ticket-seen={version}; Path=/; HttpOnly; SameSite=Lax"]
    assert response.headers["Cache-Control"] == "no-store"
    assert client.get("/get?name=a").headers.getlist("Set-Cookie") == []


def test_p11_a_logout_takes_it_away_and_so_does_a_login(visit, cache):
    client = visit(cache.login("alice"))
    for path in ("/sign_out", "/sign_in?user=bob"):
        client.get("/sign_in?user=alice")
        client.get("/put?a=1")
        assert client.get_cookie("ticket-seen")
        client.get(path)
        assert client.get_cookie("ticket-seen") is None


def test_p11_a_change_that_is_not_written_is_not_said(visit, cache, store):
    client = visit(cache.login("alice"))
    client.get("/everything")
    assert not client.get("/fail").headers.getlist("Set-Cookie")
    store.is_away = True
    response = client.get("/put?a=1")
    assert (response.status_code, response.headers.getlist("Set-Cookie")) == (503, [])

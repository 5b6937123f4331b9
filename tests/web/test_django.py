"""Django with tickets: its own views, login and session code, in-process and served by gunicorn."""

import asyncio
import datetime
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import BOUND_S
from lab.django_projects import TICKET, answer, answered_by, held, value
from lab.web_stores import QUIET

from fastticket import Keyring, TicketRefused
from fastticket.sync import TicketCache

WITHOUT_COPIES = pytest.mark.parametrize("at", [{"near_attributes_bytes": 0}], indirect=True)


# --- who is asking


def test_nobody_is_anonymous_and_asks_nothing(at):
    client = at.client()
    assert at.store.asked_for(lambda: client.get("/who")) == {}
    response = client.get("/who")
    assert value(response) is None
    assert response["Vary"] == "Cookie"
    assert not response.cookies


def test_a_ticket_from_elsewhere_is_a_login_here(at):
    client = at.client(at.cache.login("alice"))
    assert value(client.get("/who")) == "alice"


def test_a_request_of_a_known_session_asks_the_store_nothing(at):
    client = at.client(at.cache.login("alice"))
    client.get("/who")
    assert at.store.asked_for(lambda: [client.get("/who"), client.get("/ignore")]) == {}
    assert "Cookie" not in client.get("/ignore").get("Vary", "")


def test_a_response_to_a_known_session_sets_no_cookie(at):
    client = at.client(at.cache.login("alice"))
    for path in ("/who", "/get?name=a"):
        assert not client.get(path).cookies
    assert TICKET not in client.get("/put?a=1").cookies


@pytest.mark.parametrize("ticket", ["x", "no.ticket", "x" * 120])
def test_what_is_no_ticket_is_anonymous_and_taken_away(at, ticket):
    response = at.client(ticket).get("/who")
    assert value(response) is None
    assert response.cookies[TICKET]["max-age"] == 0


def test_a_revoked_ticket_is_anonymous_and_taken_away(at):
    ticket = at.cache.login("alice")
    at.cache.logout(ticket)
    response = at.client(ticket).get("/who")
    assert value(response) is None
    assert response.cookies[TICKET].value == ""
    assert response["Cache-Control"] == "no-store"


def test_two_tickets_are_nobody_and_go(at):
    cookies = f"{TICKET}={at.cache.login('alice')}; {TICKET}={at.cache.login('bob')}"
    response = at.client().get("/who", headers={"Cookie": cookies})
    assert value(response) is None
    own = f"{TICKET}=; HttpOnly; Max-Age=0; Path=/; SameSite=Lax; Secure"
    others = [f"{own}; Partitioned", own.replace("/", "/who"), f"{own}; Partitioned".replace("/", "/who")]
    assert [cookie.OutputString() for cookie in response.cookies.values()] == [*others, own]
    assert (response["Cache-Control"], response["Vary"]) == ("no-store", "Cookie")


@pytest.mark.parametrize("path", ["/logout", "/clear", "/login?user=alice"])
def test_a_logout_or_login_with_two_tickets_ends_the_sessions_of_both(at, path):
    tickets = [at.cache.login("alice"), "forged", at.cache.login("bob")]
    cookies = "; ".join(f"{TICKET}={ticket}" for ticket in tickets)
    response = at.client().get(path, headers={"Cookie": cookies, "Host": "a.shop.test"})
    assert response.status_code == 200
    for ticket in tickets:
        with pytest.raises(TicketRefused):
            at.cache.authenticate(ticket)
    said = [cookie.OutputString() for cookie in response.cookies.values() if cookie.key == TICKET]
    live = [line for line in said if "Max-Age=0" not in line]
    assert len(live) == ("login" in path)
    assert live in ([], said[-1:])
    assert {line.partition("Domain=")[2].partition(";")[0] for line in said} == {"", "a.shop.test", "shop.test"}


def test_a_login_a_logout_and_another_key_clear_what_else_there_may_be(at):
    with at.override(SESSION_COOKIE_DOMAIN="shop.test"):
        client = at.client()
        for path, is_live in (("/login?user=alice", True), ("/expire?seconds=4000000", True), ("/logout", False)):
            response = client.get(path, headers={"Host": "a.shop.test"})
            *others, mine = [cookie for cookie in response.cookies.values() if cookie.key == TICKET]
            assert [(other["domain"], other["max-age"]) for other in others] == [("", "0"), ("a.shop.test", "0")]
            assert (bool(mine.value), mine["domain"]) == (is_live, "shop.test")
            assert mine["secure"]


@pytest.mark.parametrize(
    ("host", "secure", "settings", "is_secure"),
    [
        ("shop.test", False, {}, True),
        ("localhost:8000", False, {}, False),
        ("localhost:8000", True, {}, True),
        ("shop.test", True, {"SESSION_COOKIE_SECURE": False}, False),
        ("localhost", False, {"SESSION_COOKIE_SECURE": True}, True),
        ("localhost", False, {"SESSION_COOKIE_NAME": "__Host-ticket"}, True),
        ("localhost", False, {"SESSION_COOKIE_SAMESITE": "None"}, True),
    ],
)
def test_the_cookie_is_secure_unless_it_is_for_this_machine_by_http(at, host, secure, settings, is_secure):
    """Whether it is set or taken away, before a login and after, with what was seen."""
    with at.override(**settings):
        client, name = at.client(), settings.get("SESSION_COOKIE_NAME", TICKET)
        asked = {"headers": {"Host": host}, "secure": secure}
        for path in ("/put?before=1", "/login?user=alice", "/put?a=1", "/logout"):
            cookies = client.get(path, **asked).cookies
            assert {bool(cookie["secure"]) for cookie in cookies.values() if cookie.key.startswith(name)} == {is_secure}


def test_the_cookie_is_partitioned_if_the_settings_say_so(at):
    from django.conf import settings

    said = settings.FASTTICKET | {"cookie_partitioned": True}
    with at.override(FASTTICKET=said, SESSION_COOKIE_SAMESITE="None"):
        client = at.client()
        for path in ("/login?user=alice", "/put?a=1", "/logout"):
            response = client.get(path)
            for name in {TICKET, SEEN} & response.cookies.keys():
                said = response.cookies[name].OutputString()
                assert "; SameSite=None; Secure; Partitioned" in said or said.endswith("; Partitioned")
            assert client.cookies[TICKET].key == TICKET
        cleared = [cookie.OutputString() for cookie in response.cookies.values() if cookie.key == TICKET]
        assert ["Partitioned" in line for line in cleared] == [False, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SESSION_COOKIE_NAME": "a b"}, "SESSION_COOKIE_NAME: must be"),
        (
            {"SESSION_COOKIE_NAME": "__Host-t", "SESSION_COOKIE_PATH": "/a"},
            "SESSION_COOKIE_PATH: browsers take __Host-t",
        ),
        ({"SESSION_COOKIE_NAME": "__Host-t", "SESSION_COOKIE_DOMAIN": "a.b"}, "SESSION_COOKIE_DOMAIN: browsers take"),
        ({"SESSION_COOKIE_NAME": "__Host-t", "SESSION_COOKIE_SECURE": False}, "SESSION_COOKIE_SECURE: browsers take"),
        ({"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": False}, "SESSION_COOKIE_SECURE: browsers take"),
        ({"SESSION_COOKIE_SAMESITE": "Lux"}, "SESSION_COOKIE_SAMESITE: must be"),
        (
            {"SESSION_COOKIE_NAME": "__Host-Http-t", "SESSION_COOKIE_HTTPONLY": False},
            "SESSION_COOKIE_HTTPONLY: browsers",
        ),
        ({"SESSION_COOKIE_DOMAIN": "a.b; Path=/x"}, "SESSION_COOKIE_DOMAIN: must be"),
    ],
)
def test_a_cookie_that_browsers_would_not_take_is_said_at_the_start(at, settings, said):
    from django.core.exceptions import ImproperlyConfigured

    from fastticket.django.middleware import TicketMiddleware

    with at.override(**settings), pytest.raises(ImproperlyConfigured, match=re.escape(said)):
        TicketMiddleware(lambda request: None)


def test_a_response_with_two_cookies_can_be_cached(at):
    response = at.client().get("/who", headers={"Cookie": f"{TICKET}=a; {TICKET}=b", "Host": "localhost"})
    again = pickle.loads(pickle.dumps(response.cookies))
    assert [c.OutputString() for c in again.values()] == [c.OutputString() for c in response.cookies.values()]


def test_a_principal_that_is_no_user_here_is_anonymous_here_and_keeps_the_ticket(at):
    ticket = at.cache.login("zoe")
    response = at.client(ticket).get("/who")
    assert value(response) is None
    assert not response.cookies
    assert at.cache.check(ticket)


def test_unknown_principals_become_users_if_the_settings_say_so(at, project):
    from django.conf import settings
    from django.contrib.auth.models import User

    ticket = at.cache.login("yves")
    with at.override(FASTTICKET=settings.FASTTICKET | {"create_unknown_users": True}):
        assert value(at.client(ticket).get("/who")) == "yves"
    User.objects.get(username="yves").delete()


@pytest.fixture
def case_is_ignored(project, monkeypatch):
    """As by a manager that many projects have, and by MySQL's usual collations."""
    from django.contrib.auth.models import UserManager

    monkeypatch.setattr(
        UserManager, "get_by_natural_key", lambda manager, username: manager.get(username__iexact=username)
    )


@pytest.mark.parametrize("at", [{"create_unknown_users": False}, {"create_unknown_users": True}], indirect=True)
def test_a_principal_is_no_user_whose_name_differs_in_case(at, case_is_ignored):
    from django.contrib.auth.models import User

    assert value(at.client(at.cache.login("ALICE")).get("/who")) is None
    assert value(at.client(at.cache.login("alice")).get("/who")) == "alice"
    assert not User.objects.filter(username="ALICE")


@pytest.mark.parametrize("at", [{"create_unknown_users": True}], indirect=True)
def test_a_principal_is_no_user_whom_a_database_without_case_finds(at, monkeypatch):
    """MySQL does not find her by name to create her, either."""
    from django.contrib.auth.models import User, UserManager

    alice = User.objects.get(username="alice")
    monkeypatch.setattr(UserManager, "get_or_create", lambda manager, username: (alice, False))
    assert value(at.client(at.cache.login("Alice")).get("/who")) is None


def test_the_backend_is_as_strict_for_asynchronous_callers(at, case_is_ignored):
    from fastticket.django.backends import TicketBackend

    async def found(principal):
        return await TicketBackend().aauthenticate(None, principal)

    assert asyncio.run(found("ALICE")) is None
    assert asyncio.run(found("alice")).username == "alice"


def test_an_inactive_user_is_anonymous(at):
    from django.contrib.auth.models import User

    User.objects.filter(username="alice").update(is_active=False)
    try:
        assert value(at.client(at.cache.login("alice")).get("/who")) is None
    finally:
        User.objects.filter(username="alice").update(is_active=True)


def test_the_user_is_looked_for_once(at):
    from django.contrib.auth import SESSION_KEY
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    session = at.client(at.cache.login("alice")).session
    with CaptureQueriesContext(connection) as queries:
        assert session._user().username == "alice"
        assert session[SESSION_KEY] == str(session._user().pk)
    assert len(queries) == 1


@pytest.mark.parametrize("at", [{"audience": "another"}], indirect=True)
def test_a_ticket_of_another_audience_is_refused(at, project):
    from django.conf import settings

    others = Keyring.from_file(settings.FASTTICKET["keys"])
    with TicketCache(at.store.another(), others, **QUIET, idle_timeout_s=0) as elsewhere:
        client = at.client(elsewhere.login("alice"))
        assert value(client.get("/who")) is None


def test_a_template_finds_in_a_session_what_is_in_it(at):
    """And no methods of ours: `{% if request.session.user %}` was true for everybody."""
    from django.contrib.sessions.backends.base import SessionBase
    from django.template import Context, Engine

    from fastticket.django.sessions import SessionStore

    assert [name for name in dir(SessionStore) if not name.startswith("_") and not hasattr(SessionBase, name)] == []
    template = Engine().from_string("{{ session.user }}")
    session = at.client(at.cache.login("alice")).session
    assert template.render(Context({"session": session})) == ""
    session["user"] = "set"
    assert template.render(Context({"session": session})) == "set"


# --- settings


def test_settings_that_are_missing_or_wrong_are_named(at):
    from django.core.exceptions import ImproperlyConfigured

    from fastticket.django import _cache_of_settings

    create = _cache_of_settings.__wrapped__
    for said, name in (({}, "FASTTICKET"), ({"keys": "keys.toml"}, "store"), ({"stor": ""}, "store")):
        with at.override(FASTTICKET=said), pytest.raises(ImproperlyConfigured, match=name):
            create(False)


def test_a_setting_that_there_is_not_is_named(at):
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    from fastticket.django import _cache_of_settings

    with at.override(FASTTICKET=settings.FASTTICKET | {"idle": 1}), pytest.raises(ImproperlyConfigured, match="'idle'"):
        _cache_of_settings.__wrapped__(False)


def test_the_keys_may_come_from_the_environment(at, monkeypatch):
    from django.conf import settings

    from fastticket.django import _cache_of_settings

    monkeypatch.setenv("FASTTICKET_KEYS", "1:" + "k" * 43)
    with at.override(FASTTICKET={k: v for k, v in settings.FASTTICKET.items() if k != "keys"}):
        assert _cache_of_settings.__wrapped__(False)


def test_threads_that_come_together_have_one_cache(at, monkeypatch):
    from fastticket.django import _cache_of_settings, ticket_cache

    _cache_of_settings.cache_clear()
    together = threading.Barrier(8)

    def first_request(_):
        together.wait(BOUND_S)
        return ticket_cache()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(first_request, range(8)))) == 1


# --- login, logout


def test_a_login_makes_a_ticket(at):
    client = at.client()
    response = client.get("/login?user=alice", headers={"User-Agent": "tests"})
    assert value(response) == "alice"
    assert response["Cache-Control"] == "no-store"
    ticket = client.cookies[TICKET].value
    assert at.cache.authenticate(ticket).principal == "alice"
    assert held(at, ticket) == {}
    assert value(client.get("/who")) == "alice"
    (session,) = at.cache.sessions("alice")
    assert session.details == {"address": "127.0.0.1", "user_agent": "tests"}


def test_a_login_costs_a_new_session_a_look_at_it_and_its_note(at):
    costs = {"create": 1, "exchange": 1, "write_attributes": 1}
    client = at.client()
    assert at.store.asked_for(lambda: client.get("/login?user=alice")) == costs
    assert at.store.asked_for(lambda: [client.get("/who"), client.get("/get?name=a")]) == {}


def test_what_was_there_before_the_login_moves_into_the_session(at):
    client = at.client()
    assert at.store.asked_for(lambda: client.get("/put?a=1")) == {}
    assert value(client.get("/get?name=a")) == "1"
    client.get("/login?user=alice")
    assert held(at, client.cookies[TICKET].value) == {"a": "1"}
    assert value(client.get("/get?name=a")) == "1"


def test_a_logout_revokes_the_ticket_and_takes_it_away(at):
    client = at.client(ticket := at.cache.login("alice"))
    response = client.get("/logout")
    assert value(response) is None
    assert response.cookies[TICKET]["max-age"] == 0
    assert at.cache.check(ticket).reason == "revoked"


def test_another_login_ends_the_first_session_and_its_attributes(at):
    client = at.client(ticket := at.cache.login("alice"))
    client.get("/put?a=1")
    assert value(client.get("/login?user=bob")) == "bob"
    assert at.cache.check(ticket).reason == "revoked"
    assert held(at, client.cookies[TICKET].value) == {}


def test_a_login_over_a_session_of_nobody_here_ends_that_session(at):
    client = at.client(ticket := at.cache.login("zoe"))
    client.get("/put?a=1")
    assert value(client.get("/login?user=bob")) == "bob"
    assert at.cache.check(ticket).reason == "revoked"
    assert held(at, client.cookies[TICKET].value) == {}


def test_a_second_login_of_the_same_user_keeps_the_session(at):
    client = at.client(at.cache.login("alice"))
    client.get("/put?a=1")
    assert TICKET not in client.get("/login?user=alice").cookies
    assert value(client.get("/get?name=a")) == "1"


def test_a_new_password_means_a_new_ticket_and_the_end_of_all_others(at):
    from django.contrib.auth.models import User

    before, elsewhere = at.cache.login("alice"), at.cache.login("alice")
    was = User.objects.get(username="alice").password
    client = at.client(before)
    client.get("/put?a=1")
    try:
        assert value(client.get("/password")) == "alice"
        assert at.cache.check(before).reason == at.cache.check(elsewhere).reason == "revoked"
        assert held(at, client.cookies[TICKET].value) == {"a": "1"}
        assert value(client.get("/who")) == "alice"
    finally:
        User.objects.filter(username="alice").update(password=was)


def signed_in_again(at, ticket):
    """A session in which alice logs in though she is logged in; as Django's `login` gets it."""
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.test import RequestFactory

    request = RequestFactory().get("/")
    request.session = at.client(ticket).session
    login(request, User.objects.get(username="alice"), "django.contrib.auth.backends.ModelBackend")
    return request


@pytest.mark.parametrize("do", [lambda session: session.set_expiry(999_999), lambda session: session.cycle_key()])
def test_another_login_of_the_same_user_is_no_new_password(at, do):
    """ "Remember me", say: a new ticket, and the other sessions go on."""
    ticket, elsewhere = at.cache.login("alice"), at.cache.login("alice")
    session = signed_in_again(at, ticket).session
    do(session)
    session.save()
    assert at.cache.check(ticket).reason == "revoked"
    assert at.cache.authenticate(elsewhere)


def test_another_login_does_not_hide_a_new_password(at):
    from django.contrib.auth import update_session_auth_hash
    from django.contrib.auth.models import User

    ticket, elsewhere = at.cache.login("alice"), at.cache.login("alice")
    request = signed_in_again(at, ticket)
    request.user = User.objects.get(username="alice")
    update_session_auth_hash(request, request.user)
    request.session.save()
    assert at.cache.check(elsewhere).reason == "revoked"


@pytest.mark.parametrize("name", ["SESSION_KEY", "BACKEND_SESSION_KEY"])
def test_only_the_hash_tells_of_a_new_password(at, name):
    from django.contrib import auth

    ticket, elsewhere = at.cache.login("alice"), at.cache.login("alice")
    session = at.client(ticket).session
    session[getattr(auth, name)] = "1"
    session.cycle_key()
    session.save()
    assert at.cache.authenticate(elsewhere)


@pytest.mark.parametrize("at", [{"sessions_max": 1, "sessions_max_policy": "refuse"}], indirect=True)
def test_a_view_may_handle_that_a_login_is_refused(at):
    visitors = [at.client(), at.client()]
    said = [value(visitor.get("/login_if_there_is_room?user=alice")) for visitor in visitors]
    assert said == ["welcome", "no room"]
    assert [value(visitor.get("/who")) for visitor in visitors] == ["alice", None]


def test_a_login_that_is_none_of_a_session_makes_no_ticket(at):
    assert TICKET not in at.client().get("/signal").cookies
    assert at.cache.sessions("alice") == []


def test_a_csrf_token_in_the_session_is_good_before_and_after_the_login(at):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    with at.override(CSRF_USE_SESSIONS=True):
        for path in ("/token", "/login?user=alice", "/token"):
            client.get(path)
            token = value(client.get("/token"))
            assert client.post("/put?a=1").status_code == 403
            assert client.post("/put?a=1", headers={"X-CSRFToken": token}).status_code == 200
    assert at.cache.authenticate(client.cookies[TICKET].value).principal == "alice"


def test_a_test_cookie_works_before_a_login(at):
    client = at.client()
    session = client.session
    session.set_test_cookie()
    session.save()
    client.cookies[TICKET] = session.session_key
    assert client.session.test_cookie_worked()
    assert at.store.asked_for(lambda: client.session.get("testcookie")) == {}


def test_a_login_with_what_can_not_be_kept_is_none(at):
    assert at.client().get("/login_with_rubbish?user=alice").status_code == 500
    assert at.cache.sessions("alice") == []


def test_an_empty_session_is_nobodys(at):
    session = at.client(ticket := at.cache.login("alice")).session
    session.clear()
    assert at.cache.check(ticket).reason == "revoked"
    assert session.is_empty()


def test_a_login_that_is_cleared_is_none(at):
    session = signed_in_again(at, "").session
    session.clear()
    session.save()
    assert at.cache.sessions("alice") == []


def test_what_a_view_says_of_caching_stays(at):
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    def view(request):
        login(request, User.objects.get(username="alice"), "django.contrib.auth.backends.ModelBackend")
        return HttpResponse(headers={"Cache-Control": "private"})

    response = answered_by(view)
    assert TICKET in response.cookies
    assert response["Cache-Control"] == "private"


def test_a_created_session_is_another_one_and_anonymous(at):
    from fastticket.django.sessions import SessionStore

    session = at.client(ticket := at.cache.login("alice")).session
    session["a"] = 1
    session.create()
    assert session.exists(ticket)
    assert not session.exists(session.session_key)
    assert dict(SessionStore(session.session_key).items()) == {}


def test_djangos_own_login_code_finds_what_it_expects(at, project):
    """Tests of applications look into `client.session`; others call `get_user`."""
    from django.contrib.auth import SESSION_KEY, get_user
    from django.contrib.auth.models import User

    client = at.client()
    client.force_login(User.objects.get(username="alice"))
    assert client.session[SESSION_KEY] == str(User.objects.get(username="alice").pk)
    assert get_user(client).username == "alice"
    assert list(client.session.keys()) == []
    client.logout()
    assert at.cache.sessions("alice") == []


# --- attributes


def test_only_what_changed_is_written_with_one_command(at):
    client = at.client(ticket := at.cache.login("alice"))
    client.get("/who")
    assert at.store.asked_for(lambda: client.get("/put?a=1&b=2")) == {"write_attributes": 1}
    assert at.store.asked_for(lambda: client.get("/get?name=a")) == {}
    with at.cache.attributes(at.cache.authenticate(ticket)) as elsewhere:
        elsewhere["a"] = "changed elsewhere"
    client.get("/put?b=3")
    assert held(at, ticket) == {"a": "changed elsewhere", "b": "3"}


def test_what_is_done_to_a_list_in_place_is_a_change(at):
    client = at.client(at.cache.login("alice"))
    for wanted in ([0], [0, 1], [0, 1, 2]):
        client.get("/append")
        assert value(client.get("/get?name=list")) == wanted


def test_a_request_that_fails_writes_nothing(at):
    client = at.client(ticket := at.cache.login("alice"))
    client.get("/who")
    assert at.store.asked_for(lambda: client.get("/fail")) == {}
    assert client.get("/fail").status_code == 500
    assert held(at, ticket) == {}


def test_an_anonymous_session_is_signed(at):
    client = at.client()
    client.get("/put?a=1")
    cookie = client.cookies[TICKET].value
    client.cookies[TICKET] = ("A" if cookie[0] != "A" else "B") + cookie[1:]
    assert value(client.get("/get?name=a")) is None


def test_an_anonymous_session_lasts_as_long_as_its_cookie(at):
    client = at.client()
    client.get("/put?a=1")
    with at.override(SESSION_COOKIE_AGE=-1):
        assert value(client.get("/get?name=a")) is None


def test_an_anonymous_session_can_not_claim_a_user(at):
    """Even if an application signs it."""
    from django.contrib.auth import SESSION_KEY

    session = at.client().session
    session[SESSION_KEY] = "1"
    session.save()
    assert SESSION_KEY not in at.client(session.session_key).session
    assert value(at.client(session.session_key).get("/who")) is None


def test_a_write_to_a_session_that_ends_while_it_is_used_interrupts_the_request(at):
    client = at.client(ticket := at.cache.login("alice"))
    assert client.get(f"/put_at_last?logout={ticket}").status_code == 400
    assert client.get("/who").cookies[TICKET]["max-age"] == 0


def test_who_only_reads_has_read_what_there_was(at):
    client = at.client(ticket := at.cache.login("alice"))
    client.get("/put?a=1")
    assert value(client.get(f"/get_at_last?logout={ticket}")) == "1"
    assert client.get("/who").cookies[TICKET]["max-age"] == 0


@pytest.mark.parametrize("principal", ["alice", "zoe"])
def test_an_attribute_that_is_called_as_djangos_notes_stays_the_other_applications(at, principal):
    from django.contrib.auth import SESSION_KEY

    ticket = at.cache.login(principal)
    with at.cache.attributes(at.cache.authenticate(ticket)) as elsewhere:
        elsewhere.update({SESSION_KEY: "3", "a": 1})
    session = at.client(ticket).session
    assert list(session.items()) == [("a", 1)]
    session["a"] = 2
    session.save()
    assert held(at, ticket) == {SESSION_KEY: "3", "a": 2}


def test_a_session_that_ends_before_it_is_read_is_empty_and_nobodys(at):
    session = at.client(ticket := at.cache.login("alice")).session
    session["a"] = 1
    session.save()
    session = at.client(ticket).session
    assert session._admit()
    at.cache.logout(ticket)
    assert asyncio.run(session.aload()) == {}
    assert session.is_empty()
    assert not session._principal


def of_view_that_raises(error, ticket):
    """The outcome of a request whose view raises this, while its session goes on."""
    from django.test import RequestFactory

    from fastticket.django.middleware import TicketMiddleware
    from fastticket.django.sessions import SessionStore

    middleware = TicketMiddleware(lambda request: None)
    request = RequestFactory().get("/")
    request.session = SessionStore(ticket)
    assert middleware.process_request(request) is None
    return middleware.process_exception(request, error)


def test_a_refusal_of_another_ticket_is_the_views_own_error(at):
    assert of_view_that_raises(TicketRefused(at.cache.check("x")), at.cache.login("alice")) is None


def test_to_ask_whether_a_session_has_ended_is_no_use_of_it(at, monkeypatch):
    touches = []
    check = at.cache.check
    monkeypatch.setattr(at.cache, "check", lambda ticket, touch=True: touches.append(touch) or check(ticket, touch))
    of_view_that_raises(TicketRefused(check("x")), at.cache.login("alice"))
    assert touches == [False]


# --- how long


def test_a_session_says_when_it_ends(at):
    from django.utils import timezone

    session = at.client(at.cache.login("alice")).session
    assert 86_390 <= session.get_expiry_age() <= 86_400
    assert 86_390 <= (session.get_expiry_date() - timezone.now()).total_seconds() <= 86_400


def remaining_s(at, ticket):
    session = at.cache.authenticate(ticket)
    return (session.absolute_deadline_ms - session.issued_at_ms) // 1000


def test_the_cookie_lasts_as_long_as_the_ticket(at):
    cookie = at.client().get("/login?user=alice").cookies[TICKET]
    assert 86_390 <= cookie["max-age"] <= 86_400
    with at.override(SESSION_EXPIRE_AT_BROWSER_CLOSE=True):
        assert at.client().get("/login?user=alice").cookies[TICKET]["max-age"] == ""


def test_an_expiry_before_login_is_the_tickets_lifetime(at):
    cookie = at.client().get("/login?user=alice&remember=999999").cookies[TICKET]
    assert remaining_s(at, cookie.value) == 999_999
    assert 999_990 <= cookie["max-age"] <= 999_999


def test_an_expiry_of_nothing_ends_with_the_browser(at):
    assert at.client().get("/login?user=alice&remember=0").cookies[TICKET]["max-age"] == ""


@pytest.mark.parametrize("at", [{"absolute_lifetime_s": 0}], indirect=True)
def test_where_nothing_ends_a_session_an_expiry_does_not_either(at):
    from django.conf import settings

    cookie = at.client().get("/login?user=alice&remember=5000").cookies[TICKET]
    session = at.cache.authenticate(cookie.value)
    assert session.absolute_deadline_ms == 2**53 - 1
    assert 5600 <= (session.idle_deadline_ms - session.issued_at_ms) // 1000 <= 5610
    assert cookie["max-age"] == settings.SESSION_COOKIE_AGE


def test_the_cookie_of_a_ticket_that_is_there_may_end_with_the_browser(at):
    client = at.client(ticket := at.cache.login("alice"))
    cookie = client.get("/expire?seconds=0").cookies[TICKET]
    assert (cookie.value, cookie["max-age"]) == (ticket, "")


def test_an_expiry_ends_a_session_that_is_used_or_not(at, about):
    from django.utils import timezone

    ticket = at.cache.login("alice", idle_timeout_s=7200)
    session = at.client(ticket).session
    session.set_expiry(end := timezone.now() + datetime.timedelta(seconds=50_000))
    session.save()
    now = at.cache.authenticate(session.session_key)
    assert now.idle_deadline_ms == now.absolute_deadline_ms
    assert (session.get_expiry_date() - end).total_seconds() == about(0)


def test_another_expiry_is_another_ticket(at, about):
    session = at.client(ticket := at.cache.login("alice")).session
    session["a"] = 1
    session.set_expiry(datetime.timedelta(seconds=5000))
    session.save()
    assert session.session_key != ticket
    assert remaining_s(at, session.session_key) == about(5000)
    assert session.get_expiry_age() == about(5000)
    assert held(at, session.session_key)["a"] == 1


@pytest.mark.parametrize("idle_s", [5000, 999_999])
def test_an_idle_timeout_is_no_shorter_life(at, idle_s, about):
    """A session that is used at least that often lives as long as any other."""
    session = at.client(at.cache.login("alice")).session
    session.set_expiry(idle_s)
    session.save()
    assert remaining_s(at, session.session_key) == about(max(86_400, idle_s))


AGE_S = 50_000


@pytest.fixture
def aged(at):
    """The ticket of a session that began AGE_S ago, as if the login had been then."""
    from django.conf import settings

    from fastticket.stores.contract import StoredSession

    keys = Keyring.from_file(settings.FASTTICKET["keys"])
    began_ms = int(time.time() - AGE_S) * 1000
    ticket = keys.mint("alice", began_ms, 0, 86_400)
    session_id = keys.verify(ticket, began_ms).session_id
    session = StoredSession(session_id, "alice", began_ms + 86_400_000, began_ms, 0, 86_400)
    at.cache._run(at.store.create, session)
    return ticket


@pytest.mark.parametrize("as_asked", [lambda s: s, lambda s: datetime.timedelta(seconds=s)])
def test_an_expiry_counts_from_now_however_old_the_session_is(at, aged, as_asked, about):
    """A ticket's lifetime counts from the login: what is asked for is what is left."""
    session = at.client(aged).session
    assert session.get_expiry_age() == about(86_400 - AGE_S)
    session.set_expiry(as_asked(60_000))
    session.save()
    assert session.session_key != aged
    assert session.get_expiry_age() == about(60_000)


def test_an_expiry_at_a_moment_ends_an_old_session_then(at, aged, about):
    from django.utils import timezone

    session = at.client(aged).session
    session.set_expiry(end := timezone.now() + datetime.timedelta(seconds=5000))
    session.save()
    assert (session.get_expiry_date() - end).total_seconds() == about(0)
    deadline_ms = at.cache.authenticate(session.session_key).absolute_deadline_ms
    assert deadline_ms / 1000 - end.timestamp() == about(0)


def test_an_expiry_shortens_no_old_session_that_is_used(at, aged, about):
    """An idle timeout is none of the whole: the usual lifetime since the login stays."""
    session = at.client(aged).session
    session.set_expiry(7200)
    session.save()
    deadline_ms = at.cache.authenticate(session.session_key).absolute_deadline_ms
    assert deadline_ms / 1000 - time.time() == about(86_400 - AGE_S)
    assert session.get_expiry_age() == 7200


def test_an_expiry_that_no_ticket_has_is_an_error(at):
    session = at.client(at.cache.login("alice")).session
    session.set_expiry(1)
    with pytest.raises(ValueError, match="flush intervals"):
        session.save()


def test_clearsessions_has_nothing_to_do(project):
    from fastticket.django.sessions import SessionStore

    SessionStore.clear_expired()


def test_a_cookie_with_every_response_is_the_same_ticket(at):
    client = at.client(ticket := at.cache.login("alice"))
    with at.override(SESSION_SAVE_EVERY_REQUEST=True):
        assert client.get("/who").cookies[TICKET].value == ticket
        at.store.is_away = True
        assert client.get("/who").cookies[TICKET]["max-age"] > 86_000


# --- with the store away


def test_a_ticket_that_can_not_be_judged_is_no_refusal(at):
    ticket = at.cache.login("alice")
    at.store.is_away = True
    response = at.client(ticket).get("/ignore")
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert not response.cookies


def test_a_known_session_goes_on(at):
    client = at.client(at.cache.login("alice"))
    client.get("/who")
    at.store.is_away = True
    assert value(client.get("/who")) == "alice"


@WITHOUT_COPIES
@pytest.mark.parametrize("path", ["/put?a=1", "/get?name=a", "/who", "/logout"])
def test_what_needs_the_store_is_unavailable_and_nobody_is_logged_out(at, path):
    client = at.client(ticket := at.cache.login("alice"))
    client.get("/who")
    at.store.is_away = True
    response = client.get(path)
    assert response.status_code == 503
    assert not response.cookies
    at.store.is_away = False
    assert at.cache.check(ticket)


def test_a_store_that_is_away_is_asked_no_more_than_once(at):
    client = at.client(at.cache.login("alice"))
    client.get("/who")
    at.store.is_away = True
    assert at.store.asked_for(lambda: client.get("/put?a=1")) == {"write_attributes": 1}


def test_no_login_without_the_store(at):
    at.store.is_away = True
    response = at.client().get("/login?user=alice")
    assert response.status_code == 503
    assert not response.cookies


@WITHOUT_COPIES
def test_csrf_in_the_session_is_unavailable_too(at):
    client = at.client(at.cache.login("alice"))
    client.get("/who")
    at.store.is_away = True
    with at.override(CSRF_USE_SESSIONS=True):
        assert client.get("/who").status_code == 503


# --- asynchronous views


def test_asynchronous_views_log_in_and_out(at):
    def who(response):
        return value(response), answer(response)["is_known"]

    async def visit():
        client = at.async_client()
        await client.get("/alogin?user=alice")
        ticket = client.cookies[TICKET].value
        assert who(await client.get("/awho")) == ("alice", True)
        assert value(await client.get("/aget")) == ["alogin", 7]
        await client.get("/alogin?user=bob")
        assert at.cache.check(ticket).reason == "revoked"
        assert value(await client.get("/awho")) == "bob"
        await client.get("/alogout")
        assert who(await client.get("/awho")) == (None, False)

    asyncio.run(asyncio.wait_for(visit(), BOUND_S))
    assert at.cache.sessions("alice") == at.cache.sessions("bob") == []


@WITHOUT_COPIES
@pytest.mark.parametrize("path", ["/aget", "/alogout", "/aexpire?seconds=9999"])
def test_asynchronous_views_without_the_store(at, path):
    async def visit():
        client = at.async_client(at.cache.login("alice"))
        await client.get("/who")
        at.store.is_away = True
        return await client.get(path)

    response = asyncio.run(asyncio.wait_for(visit(), BOUND_S))
    assert response.status_code == 503
    assert not response.cookies


def test_an_asynchronous_view_with_a_new_password_ends_the_other_sessions(at):
    """Its user may not have been looked for yet, which no event loop can wait for."""
    from django.contrib.auth import aupdate_session_auth_hash
    from django.contrib.auth.models import User
    from django.test import RequestFactory

    ticket, elsewhere = at.cache.login("alice"), at.cache.login("alice")
    request = RequestFactory().get("/")
    request.session = at.client(ticket).session
    request.user = User.objects.get(username="alice")

    async def change():
        await aupdate_session_auth_hash(request, request.user)
        await request.session.asave()

    asyncio.run(asyncio.wait_for(change(), BOUND_S))
    assert at.cache.check(elsewhere).reason == "revoked"
    assert at.cache.authenticate(request.session.session_key).principal == "alice"


def test_asynchronous_views_set_an_expiry(at, about):
    async def visit():
        client = at.async_client(at.cache.login("alice"))
        return (await client.get("/aexpire?seconds=999999")).cookies[TICKET].value

    assert remaining_s(at, asyncio.run(asyncio.wait_for(visit(), BOUND_S))) == about(999_999)


def test_attributes_are_there_before_an_asynchronous_view_looks(at):
    session = at.client(at.cache.login("alice")).session
    assert asyncio.run(session.aload()).attributes.is_loaded


# --- P11, read your writes

SEEN = "ticket-seen"


def test_p11_a_response_to_a_change_says_which_version_the_visitor_has_seen(at):
    client = at.client(ticket := at.cache.login("alice"))
    client.get("/who")
    responses = []
    asked = at.store.asked_for(lambda: responses.append(client.get("/put?a=1")))
    attributes = at.cache.attributes(at.cache.authenticate(ticket)).load()
    version = f"{attributes.version[0]}-{attributes.version[1]}"
    assert asked == {"write_attributes": 1}  # not even for how long the cookie should last
    (response,) = responses
    assert list(response.cookies) == [SEEN]
    cookie = response.cookies[SEEN]
    assert (cookie.value, cookie["path"], cookie["httponly"], cookie["samesite"]) == (version, "/", True, "Lax")
    assert cookie["secure"]
    assert not cookie["domain"]
    assert 86_000 < cookie["max-age"] <= 86_400
    assert (response["Cache-Control"], response["Vary"]) == ("no-store", "Cookie")
    for path in ("/get?name=a", "/ignore"):
        assert not client.get(path).cookies


def test_p11_it_is_set_as_the_project_sets_the_tickets(at):
    said = {
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_DOMAIN": "shop.test",
        "SESSION_EXPIRE_AT_BROWSER_CLOSE": True,
    }
    with at.override(**said, SESSION_COOKIE_SAMESITE="Strict"):
        client = at.client(at.cache.login("alice"))
        cookie = client.get("/put?a=1").cookies[SEEN]
        assert (cookie["secure"], cookie["domain"], cookie["max-age"]) == (True, "shop.test", "")
        assert cookie["samesite"] == "Strict"


@pytest.mark.parametrize("end", ["/logout", "/login?user=bob"])
def test_p11_a_logout_takes_it_away_and_so_does_another_login(at, end):
    client = at.client()
    client.get("/login?user=alice")
    client.get("/put?a=1")
    assert client.cookies[SEEN].value
    response = client.get(end)
    assert (response.cookies[SEEN].value, response.cookies[SEEN]["max-age"]) == ("", 0)


def test_p11_a_login_takes_away_what_another_session_has_left(at):
    client = at.client()
    client.cookies[SEEN] = "7-0"
    assert not client.get("/who").cookies
    assert client.get("/login?user=alice").cookies[SEEN]["max-age"] == 0


def test_p11_who_is_anonymous_from_now_on_needs_it_no_longer_whatever_his_session_holds(at):
    from django.http import HttpResponse

    def leave(request):
        request.session.flush()
        request.session["message"] = "bye"
        return HttpResponse()

    response = answered_by(leave, at.cache.login("alice"), **{SEEN: "7-0"})
    assert response.cookies[TICKET].value
    assert response.cookies[SEEN]["max-age"] == 0


def test_p11_a_refused_ticket_takes_it_along(at):
    client = at.client("no.ticket")
    client.cookies[SEEN] = "7-0"
    response = client.get("/who")
    assert {name: cookie.value for name, cookie in response.cookies.items()} == {TICKET: "", SEEN: ""}


@pytest.mark.parametrize("claim", ["99-0", "rubbish"])
def test_p11_a_claim_that_is_not_true_is_corrected_by_who_reads(at, claim):
    client = at.client(at.cache.login("alice"))
    client.get("/put?a=1")
    honest = client.cookies[SEEN].value
    client.cookies[SEEN] = claim
    assert not client.get("/ignore").cookies
    response = client.get("/get?name=a")
    assert (value(response), response.cookies[SEEN].value, response["Cache-Control"]) == ("1", honest, "no-store")
    assert not client.get("/get?name=a").cookies


def test_p11_it_outlives_a_rotation(at):
    client = at.client()
    client.get("/login?user=alice")
    client.get("/put?a=1")
    client.cookies[SEEN] = "99-0"
    client.get("/expire?seconds=5000")  # writes, and takes another ticket
    said = client.cookies[SEEN].value
    assert said not in ("", "99-0")
    assert value(client.get("/get?name=a")) == "1"
    assert client.cookies[SEEN].value == said


def test_p11_what_a_view_saved_is_said_though_it_fails_later(at):
    from django.http import HttpResponse

    def save_and_fail(request):
        request.session["a"] = 1
        request.session.save()
        request.session["a"] = 2
        return HttpResponse(status=500)

    response = answered_by(save_and_fail, ticket := at.cache.login("alice"))
    assert held(at, ticket) == {"a": 1}
    assert response.cookies[SEEN].value
    assert not answered_by(lambda request: HttpResponse(status=500), ticket).cookies


def test_p11_in_an_asynchronous_view_it_is_the_same(at):
    async def visit():
        client = at.async_client(at.cache.login("alice"))
        return (await client.get("/put?a=1")).cookies, (await client.get("/awho")).cookies

    written, read = asyncio.run(visit())
    assert list(written) == [SEEN]
    assert not read

"""The user of a Django session: what a project keeps of a login, where it looks it up, and what it
does not keep. In-process.
"""

from __future__ import annotations

import datetime

import pytest
from lab.django_projects import TICKET, answered_by, held, value

MODEL = "django.contrib.auth.backends.ModelBackend"
WITHOUT_COPIES = pytest.mark.parametrize("at", [{"near_attributes_bytes": 0}], indirect=True)
REMOTE = "django.contrib.auth.backends.RemoteUserBackend"
LOCKING = "django_backends.LockingBackend"
CUSTOMERS = "django_backends.CustomerBackend"


def user(name):
    from django.contrib.auth.models import User

    return User.objects.get(username=name)


def asked_with(request_of, view, *middleware):
    """The response of a view behind the two middlewares, and more."""
    from django.contrib.sessions.middleware import SessionMiddleware

    from fastticket.django.middleware import TicketMiddleware

    application = view
    for layer in reversed(middleware):
        application = layer(application)
    return SessionMiddleware(TicketMiddleware(application))(request_of)


def request(ticket="", **environ):
    from django.test import RequestFactory

    factory = RequestFactory()
    if ticket:
        factory.cookies[TICKET] = ticket
    return factory.get("/", **environ)


def who(asked):
    from django.http import HttpResponse

    return HttpResponse(
        f"{asked.user._meta.label if asked.user.is_authenticated else ''} {asked.user.get_username()}".strip()
    )


def seen_by(ticket):
    """The name of `request.user`."""
    return answered_by(who, ticket).content.decode()


def log_in(someone, backend, before=lambda session: None, after=lambda session: None):
    """The response to his login, and its ticket."""
    from django.contrib.auth import login
    from django.http import HttpResponse

    def view(asked):
        before(asked.session)
        login(asked, someone, backend)
        after(asked.session)
        return HttpResponse()

    response = answered_by(view)
    return response, response.cookies[TICKET].value if TICKET in response.cookies else ""


# --- the backend of the login


@pytest.fixture
def locking(at):
    from django_backends import LockingBackend

    with at.override(AUTHENTICATION_BACKENDS=[MODEL, LOCKING]):
        yield LockingBackend
    LockingBackend.locked.clear()


def test_the_backend_of_a_login_stays_with_the_session(at, locking):
    from django.contrib.auth import BACKEND_SESSION_KEY

    _, ticket = log_in(user("alice"), LOCKING)
    assert at.client(ticket).session[BACKEND_SESSION_KEY] == LOCKING
    _, another = log_in(user("alice"), MODEL)
    assert at.client(another).session[BACKEND_SESSION_KEY] == MODEL


def test_the_backend_of_a_login_is_asked_and_may_hide_the_account(at, locking):
    _, ticket = log_in(user("alice"), LOCKING)
    asked = locking.asked
    assert seen_by(ticket) == "auth.User alice"
    assert locking.asked == asked + 1
    locking.locked.add("alice")
    assert seen_by(ticket) == ""
    locking.locked.clear()
    assert seen_by(ticket) == "auth.User alice"


def test_a_login_by_a_backend_that_was_taken_out_of_the_settings_counts_no_longer(at, locking):
    _, ticket = log_in(user("alice"), LOCKING)
    with at.override(AUTHENTICATION_BACKENDS=[MODEL]):
        assert seen_by(ticket) == ""
    assert seen_by(ticket) == "auth.User alice"


def test_of_a_session_from_elsewhere_some_backend_must_know_the_user(at, locking):
    ticket = at.cache.login("alice")
    locking.locked.add("alice")
    assert seen_by(ticket) == "auth.User alice"  # any backend would do for a login, too
    with at.override(AUTHENTICATION_BACKENDS=[LOCKING]):
        assert seen_by(ticket) == ""
        locking.locked.clear()
        assert seen_by(ticket) == "auth.User alice"
    with at.override(AUTHENTICATION_BACKENDS=[CUSTOMERS, "django.contrib.auth.backends.BaseBackend"]):
        assert seen_by(ticket) == ""
    with at.override(AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.BaseBackend", MODEL]):
        assert seen_by(ticket) == "auth.User alice"


def test_a_password_that_was_changed_by_somebody_else_ends_the_session(at):
    from django.contrib.auth.models import User

    _, ticket = log_in(user("alice"), MODEL)
    was = user("alice").password
    User.objects.filter(username="alice").update(password="md5$another$password")
    try:
        assert seen_by(ticket) == ""
        assert at.cache.check(ticket).reason == "revoked"
    finally:
        User.objects.filter(username="alice").update(password=was)


def test_a_new_secret_key_ends_no_session_and_logs_nobody_out_elsewhere(at):
    """It stays good for as long as the old key is a fallback; and then it is one from elsewhere."""
    from django.conf import settings

    _, ticket = log_in(user("alice"), MODEL)
    elsewhere = at.cache.login("alice")
    with at.override(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert seen_by(ticket) == "auth.User alice"
        assert at.cache.authenticate(elsewhere)
    with at.override(SECRET_KEY="another"):
        assert at.client(ticket).session._note()  # written anew while both were there
        assert seen_by(ticket) == "auth.User alice"
    with at.override(SECRET_KEY="a third"):
        assert at.client(ticket).session._note() is None
        assert seen_by(ticket) == "auth.User alice"


def test_another_project_knows_nothing_of_a_login_here_and_keeps_its_own(at):
    """Its ids are others, and so is its hash."""
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    _, ticket = log_in(user("alice"), MODEL)
    with at.override(SECRET_KEY="of others", FASTTICKET={**at.said, "project": "others"}):
        User.objects.filter(username="alice").update(username="alice in the other project")
        other = User.objects.create_user("alice")
        try:
            assert seen_by(ticket) == "auth.User alice"

            def login_there(asked):
                login(asked, other, MODEL)
                return HttpResponse()

            answered_by(login_there, ticket)
            assert seen_by(ticket) == "auth.User alice"
        finally:
            other.delete()
            User.objects.filter(username="alice in the other project").update(username="alice")
    assert seen_by(ticket) == "auth.User alice"
    assert held(at, ticket) == {}


def test_projects_with_one_secret_are_told_apart_by_name(at):
    _, ticket = log_in(user("alice"), MODEL)
    with at.override(FASTTICKET={**at.said, "project": "staging"}):
        assert at.client(ticket).session._note() is None
    assert at.client(ticket).session._note()


def test_whoever_has_the_name_next_does_not_have_the_session(at):
    from django.contrib.auth.models import User

    _, ticket = log_in(user("alice"), MODEL)
    User.objects.filter(username="alice").update(username="alicia")
    other = User.objects.create_user("alice", password="alice's")
    try:
        assert seen_by(ticket) == ""
    finally:
        other.delete()
        User.objects.filter(username="alicia").update(username="alice")
    assert seen_by(ticket) == "auth.User alice"


def test_what_django_notes_can_be_written_without_login(at):
    """As tests of applications do. What is not true logs nobody in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

    alice = user("alice")
    session = at.client().session
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(alice.pk), MODEL
    session[HASH_SESSION_KEY] = alice.get_session_auth_hash()
    session.save()
    assert seen_by(session.session_key) == "auth.User alice"
    forged = at.client().session
    forged[SESSION_KEY], forged[BACKEND_SESSION_KEY], forged[HASH_SESSION_KEY] = str(alice.pk), MODEL, "forged"
    forged.save()
    assert seen_by(forged.session_key or "") == ""
    assert len(at.cache.sessions("alice")) == 1


def test_what_is_written_without_login_needs_the_store_too(at):
    from django.http import HttpResponse

    from fastticket.django.logins import note_of

    def view(asked):
        asked.session.update(note_of(user("alice"), MODEL))
        return HttpResponse()

    assert seen_by(answered_by(view).cookies[TICKET].value) == "auth.User alice"
    at.store.is_away = True
    response = answered_by(view)
    assert response.status_code == 503
    assert not response.cookies


def test_a_note_that_is_written_over_names_nobody_else(at):
    """The ticket says whose session it is."""
    from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY

    _, ticket = log_in(user("alice"), MODEL)
    session = at.client(ticket).session
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user("bob").pk), user("bob").get_session_auth_hash()
    session.save()
    assert seen_by(session.session_key) == ""
    del session[SESSION_KEY]
    assert SESSION_KEY not in session
    session.save()
    assert seen_by(session.session_key) == ""


# --- users of another model


@pytest.fixture
def customer(at, project):
    """One who is called as a user of the project."""
    from shop.models import Customer

    alice = Customer.objects.create(pk=user("alice").pk, name="alice", password="p")
    with at.override(AUTHENTICATION_BACKENDS=[MODEL, CUSTOMERS]):
        yield alice
    Customer.objects.all().delete()


def test_a_customer_who_is_called_as_a_user_is_not_that_user_here_or_elsewhere(at, customer):
    _, ticket = log_in(customer, CUSTOMERS)
    assert seen_by(ticket) == "shop.Customer alice"
    assert at.cache.authenticate(ticket).principal == "shop.Customer:alice"
    with at.override(SECRET_KEY="of others"):
        assert seen_by(ticket) == ""
    assert at.cache.sessions("alice") == []


def test_the_user_who_is_called_as_a_customer_is_not_that_customer(at, customer):
    _, ticket = log_in(user("alice"), MODEL)
    assert seen_by(ticket) == "auth.User alice"
    with at.override(AUTHENTICATION_BACKENDS=[CUSTOMERS]):
        assert seen_by(at.cache.login("alice")) == ""


def test_who_logs_in_as_a_customer_over_his_session_as_a_user_has_another_one(at, customer):
    from django.contrib.auth import login
    from django.http import HttpResponse

    _, ticket = log_in(user("alice"), MODEL)

    def view(asked):
        login(asked, customer, CUSTOMERS)
        return HttpResponse()

    response = answered_by(view, ticket)
    assert seen_by(response.cookies[TICKET].value) == "shop.Customer alice"
    assert at.cache.check(ticket).reason == "revoked"


@pytest.mark.parametrize("at", [{"create_unknown_users": True}], indirect=True)
def test_no_user_is_made_of_a_customer(at, customer):
    from django.contrib.auth.models import User

    with at.override(SECRET_KEY="of others"):
        assert seen_by(at.cache.login("shop.Customer:alice")) == ""
    assert not User.objects.filter(username__contains="shop")


def test_a_user_who_is_called_as_customers_are_can_not_log_in(at, customer):
    from django.contrib.auth.models import User

    from fastticket import InvalidPrincipal

    mallory = User.objects.create(username="shop.Customer:alice")
    try:
        with pytest.raises(InvalidPrincipal, match="label"):
            log_in(mallory, MODEL)
        assert at.cache.sessions("shop.Customer:alice") == []
        assert seen_by(at.cache.login("shop.Customer:alice")) == ""
    finally:
        mallory.delete()


# --- whom the server in front has authenticated


def test_remote_users_go_and_change_with_the_header(at):
    from django.contrib.auth.middleware import RemoteUserMiddleware
    from django.contrib.auth.models import User

    def visit(ticket, **environ):
        response = asked_with(request(ticket, **environ), who, RemoteUserMiddleware)
        cookie = response.cookies.get(TICKET)
        return response.content.decode(), cookie.value if cookie else ticket

    with at.override(AUTHENTICATION_BACKENDS=[MODEL, REMOTE]):
        said, ticket = visit("", REMOTE_USER="bob")
        assert said == "auth.User bob"
        assert visit(ticket, REMOTE_USER="bob") == ("auth.User bob", ticket)
        said, second = visit(ticket, REMOTE_USER="eve")
        assert said == "auth.User eve"
        assert at.cache.check(ticket).reason == "revoked"
        assert visit(second) == ("", "")
        assert at.cache.check(second).reason == "revoked"
    User.objects.filter(username="eve").delete()


# --- an expiry that is none, or past


def moments():
    from django.utils import timezone

    zero, past = datetime.timedelta(0), datetime.timedelta(seconds=-3600)
    return [zero, past, -5, timezone.now() - datetime.timedelta(days=1), datetime.timedelta(microseconds=1)]


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_expiry_that_is_over_at_login_is_no_session(at, which, when):
    response, ticket = log_in(user("alice"), MODEL, **{when: lambda session: session.set_expiry(moments()[which])})
    assert (response.status_code, ticket) == (200, "")
    assert at.cache.sessions("alice") == []


@pytest.mark.parametrize("left_s", [0.3, 0.6, 1.0])
def test_an_expiry_within_a_second_is_no_longer_than_one(at, left_s):
    moment = datetime.timedelta(seconds=left_s)
    _, ticket = log_in(user("alice"), MODEL, after=lambda session: session.set_expiry(moment))
    session = at.cache.authenticate(ticket)
    assert 0 < session.absolute_deadline_ms - session.issued_at_ms <= 1000


@pytest.mark.parametrize("which", range(5))
def test_an_expiry_that_is_over_ends_the_session_that_there_is(at, which):
    from django.http import HttpResponse

    _, ticket = log_in(user("alice"), MODEL)

    def view(asked):
        asked.session["a"] = 1
        asked.session.set_expiry(moments()[which])
        return HttpResponse()

    response = answered_by(view, ticket)
    assert (response.status_code, response.cookies[TICKET].value) == (200, "")
    assert at.cache.check(ticket).reason == "revoked"


def test_an_anonymous_session_is_over_when_it_said_so(at):
    from fastticket.django.sessions import SessionStore

    for moment in moments():
        session = SessionStore()
        session["a"] = 1
        session.set_expiry(moment)
        session.save()
        assert SessionStore(session.session_key).get("a") is None
    session = SessionStore()
    session.update({"a": 1})
    session.set_expiry(3600)
    session.save()
    assert SessionStore(session.session_key).get("a") == 1


# --- a session that ends elsewhere


def ended_under(at, ticket):
    """The session ends in a process that this one has not heard of."""
    at.cache._run(at.store._store.revoke, at.cache.authenticate(ticket).id, "alice")


def test_a_read_of_a_session_that_ended_elsewhere_finds_an_empty_one(at):
    from django.http import JsonResponse

    ticket = at.cache.login("alice")
    client = at.client(ticket)
    assert at.cache.authenticate(ticket)
    ended_under(at, ticket)
    response = client.get("/get?name=a")
    assert (response.status_code, value(response)) == (200, None)
    assert response.cookies[TICKET]["max-age"] == 0

    ticket = at.cache.login("alice")
    at.cache.authenticate(ticket)
    ended_under(at, ticket)

    def view(asked):
        asked.session["cart"] = ["tea"]
        return JsonResponse({"had": asked.session.get("a"), "user": asked.user.get_username(), **asked.session})

    response = answered_by(view, ticket)
    assert b'"had": null, "user": "", "cart": ["tea"]' in response.content
    assert at.client(response.cookies[TICKET].value).session["cart"] == ["tea"]


def test_a_write_to_a_session_that_ended_elsewhere_is_400(at):
    ticket = at.cache.login("alice")
    client = at.client(ticket)
    client.get("/who")
    ended_under(at, ticket)
    assert client.get("/put?a=1").status_code == 400


def test_messages_of_a_session_that_ended_elsewhere_are_400_when_they_are_lost(at):
    ticket = at.cache.login("alice")
    client = at.client(ticket)
    client.get("/flash?text=hello")
    client.get("/who")
    ended_under(at, ticket)
    assert client.get("/flash?text=hello").status_code == 400
    ticket = at.cache.login("alice")
    at.cache.authenticate(ticket)
    ended_under(at, ticket)
    assert value(at.client(ticket).get("/messages")) == []


@WITHOUT_COPIES
def test_what_another_middleware_asks_of_a_store_that_is_away_is_503(at):
    """Django's messages look into the session when the view is done."""
    client = at.client(at.cache.login("alice"))
    client.get("/ignore")
    at.store.is_away = True
    response = client.get("/flash?text=hello")
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert not response.cookies


# --- names that no ticket carries


@pytest.mark.parametrize("name", ["", "文" * 64, "alice ", " alice", "a" * 191], ids=ascii)
def test_who_has_a_name_that_no_ticket_carries_is_told_at_login(at, name):
    from django.contrib.auth import SESSION_KEY, login
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    from fastticket import InvalidPrincipal

    someone = User.objects.create(username=name)
    said = []

    def view(asked):
        try:
            login(asked, someone, MODEL)
        except InvalidPrincipal as error:
            said.append(str(error))
        assert asked.user.is_anonymous
        assert SESSION_KEY not in asked.session
        return HttpResponse()

    response = answered_by(view)
    someone.delete()
    assert "1 to 190 bytes" in said[0]
    assert response.status_code == 200
    assert at.cache.sessions("alice") == []


def test_a_customers_name_has_room_for_his_models(at, customer):
    from shop.models import Customer

    from fastticket import InvalidPrincipal

    customer = Customer.objects.create(name="文" * 60, password="p")
    with pytest.raises(InvalidPrincipal, match="has 194 bytes"):
        log_in(customer, CUSTOMERS)

"""A new password ends sessions: at once where it is set, and when they are seen where it is changed
otherwise. Plain Django is asked the same questions.
"""

import asyncio
import os
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.django_projects import TICKET, answered_by, held, value
from lab.real_programs import PEERS

SEEN = "ticket-seen"
MODEL = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def alice(at):
    """As she is in the database; her password is the old one again after the test."""
    from django.contrib.auth.models import User

    was = User.objects.get(username="alice").password
    yield lambda: User.objects.get(username="alice")
    User.objects.filter(username="alice").update(password=was)


def set_password(user, **options):
    user.set_password("another")
    user.save(**options)


def who(at, ticket):
    return value(at.client(ticket).get("/who"))


def is_over(at, ticket):
    from fastticket import TicketRefused

    try:
        at.cache.authenticate(ticket)
    except TicketRefused:
        return True
    return False


def view_of(alice, do, status=200):
    """A view in which alice's password changes."""
    from django.http import HttpResponse

    def view(request):
        assert request.user.get_username() == "alice"
        do(request, alice())
        return HttpResponse(status=status)

    return view


# --- set_password() and save()


@pytest.mark.parametrize("is_seen_before", [True, False])
def test_a_password_that_is_set_ends_all_sessions_also_those_that_come_here_never_again(at, alice, is_seen_before):
    stolen = at.cache.login("alice")
    other = at.cache.login("bob")
    if is_seen_before:
        assert who(at, stolen) == "alice"
    set_password(alice())
    assert is_over(at, stolen)
    assert not is_over(at, other)


def test_a_password_that_is_set_by_a_command_ends_them_too(tmp_path):
    """In a process that serves no request: `fastticket.django` is installed."""
    script = """
import django_application, sys
from django.core.management import call_command
from django.contrib.auth.models import User
from fastticket.django import ticket_cache
django_application.prepare("alice")
ticket = ticket_cache().login("alice")
assert "fastticket.django.sessions" not in sys.modules
user = User.objects.get(username="alice")
user.set_password("another")
user.save()
assert ticket_cache().sessions("alice") == []
"""
    from fastticket.keyfile import create_key_file

    create_key_file(tmp_path / "keys.toml")
    settings = f'{{"store": "sqlite://:memory:", "keys": "{tmp_path}/keys.toml"}}'
    environment = {"FASTTICKET": settings, "DJANGO_DATABASE": str(tmp_path / "database"), **os.environ}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PEERS, env=environment, capture_output=True, text=True, timeout=3 * BOUND_S
    )
    assert done.returncode == 0, done.stderr


def test_nobody_is_logged_out_by_other_changes(at, alice):
    from django.contrib.auth.models import User

    ticket = at.cache.login("alice")
    user = alice()
    user.first_name = "Alice"
    user.save()
    user.set_password("of whom it is not saved")
    user.save(update_fields=["first_name"])
    assert user.check_password("of whom it is not saved")
    new = User.objects.create_user("alice2", password="p")
    new.delete()
    assert not is_over(at, ticket)


def test_another_algorithm_of_the_hash_is_no_new_password(at, alice):
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User

    User.objects.filter(username="alice").update(password=make_password("alice's", hasher="md5", salt="x"))
    ticket = at.cache.login("alice")
    hashers = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", "django.contrib.auth.hashers.MD5PasswordHasher"]
    with at.override(PASSWORD_HASHERS=hashers):
        assert alice().check_password("alice's")
    assert alice().password.startswith("pbkdf2")
    assert not is_over(at, ticket)


def test_it_ends_them_when_the_transaction_is_committed_and_not_otherwise(at, alice):
    from django.db import transaction

    ticket = at.cache.login("alice")

    def fail():
        with transaction.atomic():
            set_password(alice())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not is_over(at, ticket)
    with transaction.atomic():
        set_password(alice())
        assert not is_over(at, ticket)
    assert is_over(at, ticket)


def test_a_store_that_is_away_is_no_silent_failure(at, alice):
    from fastticket import StoreUnavailable

    ticket = at.cache.login("alice")
    at.store.is_away = True
    with pytest.raises(StoreUnavailable):
        set_password(alice())
    at.store.is_away = False
    assert not is_over(at, ticket)
    assert alice().check_password("another")


@pytest.mark.parametrize("at", [{"end_sessions_on_password_change": False}], indirect=True)
def test_a_project_may_leave_it_to_django(at, alice):
    ticket = at.cache.login("alice")
    assert who(at, ticket) == "alice"
    set_password(alice())
    assert who(at, ticket) == "alice"
    assert held(at, ticket) == {}


def test_a_name_that_no_ticket_carries_has_no_sessions_to_end(at):
    from django.contrib.auth.models import User

    someone = User.objects.create(username=" spaces ")
    try:
        set_password(someone)
    finally:
        someone.delete()


# --- the session of the request that does it


@pytest.mark.parametrize("is_here", [True, False])
def test_the_session_goes_on_that_is_kept(at, alice, is_here):
    from django.contrib.auth import update_session_auth_hash

    elsewhere = at.cache.login("alice")
    ticket = at.cache.login("alice")
    if is_here:
        client = at.client()
        client.get("/login?user=alice")
        ticket = client.cookies[TICKET].value

    def do(request, user):
        request.session["cart"] = ["tea"]
        set_password(user)
        update_session_auth_hash(request, user)

    response = answered_by(view_of(alice, do), ticket)
    now = response.cookies[TICKET].value
    assert (is_over(at, elsewhere), is_over(at, ticket)) == (True, True)
    assert held(at, now) == {"cart": ["tea"]}
    assert who(at, now) == "alice"


def test_a_session_that_was_kept_and_saved_before_the_commit_goes_on(at, alice):
    """As with ATOMIC_REQUESTS, and a view that saves the session itself."""
    from django.contrib.auth import update_session_auth_hash
    from django.db import transaction

    def do(request, user):
        with transaction.atomic():
            set_password(user)
            update_session_auth_hash(request, user)
            request.session.save()

    now = answered_by(view_of(alice, do), at.cache.login("alice")).cookies[TICKET].value
    assert who(at, now) == "alice"


@pytest.mark.parametrize("is_renewed", [True, False])
def test_a_commit_after_the_response_spares_the_session_that_was_kept_and_no_other(at, alice, is_renewed):
    """As in a TestCase with captureOnCommitCallbacks(execute=True)."""
    from django.contrib.auth import update_session_auth_hash
    from django.db import transaction

    def do(request, user):
        set_password(user)
        if is_renewed:
            update_session_auth_hash(request, user)

    ticket, elsewhere = at.cache.login("alice"), at.cache.login("alice")
    with transaction.atomic():
        response = answered_by(view_of(alice, do), ticket)
        now = response.cookies[TICKET].value if is_renewed else ticket
    assert is_over(at, elsewhere)
    assert is_over(at, now) is not is_renewed


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("is_renewed", [True, False])
def test_one_that_is_not_kept_ends_with_the_request(at, alice, status, is_renewed):
    """A 500 saves no session, in Django, too."""
    from django.contrib.auth import update_session_auth_hash

    if is_renewed and status == 200:
        pytest.skip("that is the one that is kept")

    def do(request, user):
        set_password(user)
        if is_renewed:
            update_session_auth_hash(request, user)

    ticket = at.cache.login("alice")
    response = answered_by(view_of(alice, do, status), ticket)
    assert is_over(at, ticket)
    assert response.cookies[TICKET].value == ""


def test_whoever_logs_in_again_after_it_has_a_new_session(at, alice):
    from django.contrib.auth import login

    def do(request, user):
        set_password(user)
        login(request, user, MODEL)

    ticket = at.cache.login("alice")
    now = answered_by(view_of(alice, do), ticket).cookies[TICKET].value
    assert is_over(at, ticket)
    assert who(at, now) == "alice"


def test_the_session_of_who_changes_somebody_elses_goes_on(at, alice):
    """The admin's."""
    mine, hers = at.cache.login("bob"), at.cache.login("alice")

    from django.http import HttpResponse

    def view(request):
        set_password(alice())
        return HttpResponse()

    assert not answered_by(view, mine).cookies
    assert not is_over(at, mine)
    assert is_over(at, hers)


def test_an_asynchronous_view_is_served_the_same(at, alice):
    from django.contrib.auth import aupdate_session_auth_hash
    from django.contrib.sessions.middleware import SessionMiddleware
    from django.http import HttpResponse
    from django.test import AsyncRequestFactory

    from fastticket.django.middleware import TicketMiddleware

    elsewhere = at.cache.login("alice")

    async def view(request):
        user = await request.auser()
        user.set_password("another")
        await user.asave()
        await aupdate_session_auth_hash(request, user)
        return HttpResponse()

    async def visit():
        factory = AsyncRequestFactory()
        factory.cookies[TICKET] = at.cache.login("alice")
        return await SessionMiddleware(TicketMiddleware(view))(factory.get("/"))

    now = asyncio.run(asyncio.wait_for(visit(), BOUND_S)).cookies[TICKET].value
    assert is_over(at, elsewhere)
    assert who(at, now) == "alice"


def test_what_comes_after_a_request_is_no_longer_of_its_session(at, alice):
    ticket = at.cache.login("alice")
    assert who(at, ticket) == "alice"
    set_password(alice())
    assert is_over(at, ticket)


# --- changed otherwise


def update(alice):
    type(alice).objects.filter(pk=alice.pk).update(password="md5$another$password")


def make_unusable(alice):
    alice.set_unusable_password()
    alice.save()


@pytest.mark.parametrize("change", [update, make_unusable])
def test_a_password_that_is_changed_otherwise_ends_a_session_from_elsewhere_when_it_is_seen(at, alice, change):
    ticket = at.cache.login("alice")
    assert who(at, ticket) == "alice"
    change(alice())
    response = at.client(ticket).get("/who")
    assert value(response) is None
    assert response.cookies[TICKET]["max-age"] == 0
    assert is_over(at, ticket)


def test_what_was_never_seen_here_is_seen_with_the_password_of_then(at, alice):
    ticket = at.cache.login("alice")
    update(alice())
    assert who(at, ticket) == "alice"


def test_to_see_a_session_first_is_one_write_in_its_life_and_no_news_to_the_client(at, alice):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client = at.client(at.cache.login("alice"))
    responses = []
    asked = at.store.asked_for(lambda: responses.append(client.get("/who")))
    assert asked["write_attributes"] == 1
    assert not responses[0].cookies
    assert "Cache-Control" not in responses[0]
    with CaptureQueriesContext(connection) as queries:
        assert at.store.asked_for(lambda: client.get("/who")) == {}
    assert len(queries) == 1  # the user's
    assert at.store.asked_for(lambda: client.get("/ignore")) == {}


def test_it_is_written_together_with_what_the_view_changes(at, alice):
    from django.http import HttpResponse

    def view(request):
        assert request.user.is_authenticated
        request.session["a"] = 1
        return HttpResponse()

    ticket = at.cache.login("alice")
    asked = at.store.asked_for(lambda: answered_by(view, ticket))
    assert asked["write_attributes"] == 1
    assert held(at, ticket) == {"a": 1}
    update(alice())
    assert who(at, ticket) is None


def test_a_store_that_goes_away_refuses_nobody_for_it(at, alice):
    ticket = at.cache.login("alice")
    client = at.client(ticket)
    client.get("/get?name=a")
    at.store.is_away = True
    assert value(client.get("/who")) == "alice"
    at.store.is_away = False
    assert value(client.get("/who")) == "alice"
    update(alice())
    assert value(client.get("/who")) is None


@pytest.mark.parametrize("at", [{"attributes_bytes_max": 60}], indirect=True)
def test_a_session_that_has_no_room_for_it_is_served_all_the_same(at, alice):
    ticket = at.cache.login("alice")
    assert who(at, ticket) == "alice"
    assert who(at, ticket) == "alice"
    set_password(alice())
    assert is_over(at, ticket)


def test_another_secret_key_is_no_new_password(at, alice):
    from django.conf import settings

    ticket = at.cache.login("alice")
    assert who(at, ticket) == "alice"
    with at.override(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert who(at, ticket) == "alice"
    with at.override(SECRET_KEY="another"):
        assert who(at, ticket) == "alice"
        update(alice())
        assert who(at, ticket) is None


def test_a_login_here_replaces_it(at, alice):
    from django.contrib.auth import login

    def do(request, user):
        login(request, user, MODEL)

    ticket = at.cache.login("alice")
    assert who(at, ticket) == "alice"
    answered_by(view_of(alice, do), ticket)
    assert at.client(ticket).session._note()
    assert who(at, ticket) == "alice"

"""What a Django session says of its own end, and how long its cookie lasts."""

import asyncio
import datetime

import pytest
from conftest import BOUND_S
from lab.django_projects import TICKET, answered_by


def session_of(at, **settings):
    return at.client(at.cache.login("alice", **settings)).session


def reopened(at, session):
    session.save()
    return at.client(session.session_key).session


def seconds_to(date):
    from django.utils import timezone

    return (date - timezone.now()).total_seconds()


@pytest.mark.parametrize("is_saved", [False, True])
def test_an_expiry_is_said_as_it_was_set(at, is_saved, about):
    session = session_of(at)
    session.set_expiry(5000)
    if is_saved:
        session = reopened(at, session)
    assert session.get_expiry_age() == 5000
    assert seconds_to(session.get_expiry_date()) == about(5000)
    assert session.get_expire_at_browser_close() is False


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("kind", [datetime.timedelta, lambda seconds: None])
def test_a_moment_is_said_as_it_was_set(at, is_saved, kind, about):
    from django.utils import timezone

    session = session_of(at)
    session.set_expiry(kind(seconds=7000) or timezone.now() + datetime.timedelta(seconds=7000))
    if is_saved:
        session = reopened(at, session)
    assert session.get_expiry_age() == about(7000)
    assert seconds_to(session.get_expiry_date()) == about(7000)
    assert session.get_expire_at_browser_close() is False


def test_in_a_request_that_logs_in_it_is_the_same(at):
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    said = []

    def view(request):
        request.session.set_expiry(5000)
        login(request, User.objects.get(username="alice"), "django.contrib.auth.backends.ModelBackend")
        said.append(request.session.get_expiry_age())
        request.session.save()
        said.append(request.session.get_expiry_age())
        return HttpResponse()

    cookie = answered_by(view).cookies[TICKET]
    assert said == [5000, 5000]
    assert at.client(cookie.value).session.get_expiry_age() == 5000
    assert cookie["max-age"] > 86_000  # who uses the session keeps it


def test_in_an_asynchronous_view_it_is_the_same(at, about):
    session = session_of(at)

    async def visit():
        await session.aset_expiry(5000)
        before = await session.aget_expiry_age()
        await session.asave()
        return before, await session.aget_expiry_age(), await session.aget_expiry_date()

    before, after, date = asyncio.run(asyncio.wait_for(visit(), BOUND_S))
    assert (before, after) == (5000, 5000)
    assert seconds_to(date) == about(5000)


def test_no_expiry_is_later_than_the_end_of_the_session(at, about):
    """An idle timeout of two hours in the last half hour."""
    session = reopened_with_end(at, 1800)
    session.set_expiry(7200)
    session._is_expiry_due = False  # as in a later request: what was set is in the session
    assert session.get_expiry_age() == about(1800)


def reopened_with_end(at, seconds):
    session = session_of(at)
    session.set_expiry(datetime.timedelta(seconds=seconds))
    return reopened(at, session)


def test_an_idle_timeout_of_another_application_is_said(at):
    session = session_of(at, idle_timeout_s=7200)
    slack_s = 600  # the flush interval of these tests
    assert 7200 <= session.get_expiry_age() <= 7200 + slack_s + 10


@pytest.mark.parametrize("own", [5000, datetime.timedelta(seconds=5000)])
@pytest.mark.parametrize("value", [None, 0])
def test_an_expiry_that_is_taken_back_is_the_usual_lifetime(at, own, value, about):
    session = session_of(at)
    session.set_expiry(own)
    session = reopened(at, session)
    was = session.session_key
    session.set_expiry(value)
    assert session.get_expiry_age() == about(86_400)
    session = reopened(at, session)
    assert session.session_key != was
    assert session.get_expiry_age() == about(86_400)
    assert session.get_expire_at_browser_close() is (value == 0)
    found = at.cache.authenticate(session.session_key)
    assert found.idle_deadline_ms == found.absolute_deadline_ms


def test_an_expiry_that_is_taken_back_asynchronously_is_the_usual_lifetime(at, about):
    session = session_of(at)
    session.set_expiry(5000)
    session = reopened(at, session)

    async def take_back():
        await session.aset_expiry(None)
        await session.asave()
        return await session.aget_expiry_age()

    assert asyncio.run(asyncio.wait_for(take_back(), BOUND_S)) == about(86_400)


@pytest.mark.parametrize("value", [None, 0])
def test_where_none_was_set_taking_it_back_is_no_other_ticket(at, value):
    session = session_of(at)
    was = session.session_key
    session.set_expiry(value)
    assert reopened(at, session).session_key == was

"""WSGI, Flask and Django with tickets, served by gunicorn: several processes and threads, a real
Redis, signals, outages.
"""

import threading

import pytest
from conftest import BOUND_S
from lab.redis_servers import wait_until
from lab.web_sites import WORKERS, Place, Visitor

APPLICATIONS = ("session_wsgi", "session_flask", "session_django")
SELDOM = {"flush_interval_ms": 60_000, "lease_ms": 120_000}  # within the time of a test: never


def serving(place, application, worker, **options):
    if application == "session_django":
        return place.django(worker, **options)
    return place.gunicorn(application, worker, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("gunicorn"))
    yield made
    made.redis.kill()


@pytest.fixture(scope="module", params=[(a, w) for a in APPLICATIONS for w in WORKERS], ids="-".join)
def site(request, place):
    """The address of an application, in two processes."""
    with serving(place, *request.param) as address:
        yield address


def test_a_login_is_known_to_both_processes(site):
    visitor = Visitor(site)
    visitor.get("/login?user=alice")
    assert visitor.ticket
    assert visitor.get_of_each("/who") == ["alice", "alice"]


def test_a_logout_is_known_to_both_processes(site):
    visitor = Visitor(site)
    visitor.get("/login?user=alice")
    ticket = visitor.ticket
    assert visitor.get_of_each("/who") == ["alice", "alice"]
    visitor.get("/logout")
    assert visitor.ticket == ""
    left = Visitor(site, ticket)
    wait_until(lambda: left.get_of_each("/who") == [None, None], "both processes have heard of the logout", BOUND_S)


def test_attributes_are_those_of_both_processes(site):
    visitor = Visitor(site)
    visitor.get("/login?user=bob")
    visitor.get("/put?a=1")
    assert visitor.get_of_each("/get?name=a") == ["1", "1"]
    visitor.get("/put?a=2")
    assert visitor.get_of_each("/get?name=a") == ["2", "2"]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_two_threads_that_change_one_session_lose_nothing(place, application):
    with serving(place, application, "gthread", processes=1) as address:
        visitor = Visitor(address)
        visitor.get("/login?user=alice")
        others = [Visitor(address, visitor.ticket) for _ in range(2)]
        for round_ in range(5):
            threads = [
                threading.Thread(target=other.get, args=(f"/put_together?{name}={round_}",))
                for other, name in zip(others, "ab", strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(2 * BOUND_S)
            assert [visitor.get(f"/get?name={name}") for name in "ab"] == [str(round_)] * 2


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_gunicorn_that_ends_writes_what_it_saw(place, application, worker):
    """P5: on SIGTERM no touch is lost."""
    with place.cache(**SELDOM) as cache:
        ticket = cache.login("alice", idle_timeout_s=7200)
        session_id = cache.authenticate(ticket, touch=False).id

        def idle_deadline_ms():
            return next(session.idle_deadline_ms for session in cache.sessions("alice") if session.id == session_id)

        at_login_ms = idle_deadline_ms()
        with serving(place, application, worker, **SELDOM) as address:
            assert Visitor(address, ticket).get("/who") == "alice"
            assert idle_deadline_ms() == at_login_ms
        assert idle_deadline_ms() > at_login_ms


@pytest.mark.parametrize("application", APPLICATIONS)
def test_without_redis_known_sessions_go_on_and_unknown_ones_are_nobodys(tmp_path, application):
    place = Place(tmp_path)
    try:
        with place.cache() as cache, serving(place, application, "sync") as address:
            known, unknown = (Visitor(address, cache.login(name)) for name in ("alice", "bob"))
            assert known.get_of_each("/who") == ["alice", "alice"]
            ticket = unknown.ticket
            place.redis.kill()
            assert known.get_of_each("/who") == ["alice", "alice"]
            assert unknown.ask("/who")[0] == 503
            assert unknown.ticket == ticket
    finally:
        place.redis.kill()

"""P11: what a request changed in its session's attributes the same client's next request sees, in whichever process it lands.

Real processes, each with near copies, on one Redis or one SQLite file. A visitor's requests come strictly one after the other, and the
processes take them in turns. Nobody hears the doorbell, and nobody reads the log within the time of a test: so a process
learns that its copy is old by what the visitor brings, or not at all.
"""

import contextlib
import threading

import pytest
import redis
from conftest import BOUND_S
from processes import Site
from redis_servers import Server
from web_sites import Place, Visitor

NEAR = {"near_attributes_bytes": 1_000_000}
UNHEARD = {"flush_interval_ms": 60_000, "lease_ms": 120_000, "environment": {"IS_DEAF": "1"}}
APPLICATIONS = ("session_wsgi", "session_flask", "session_django", "session_fastapi")
ITEMS = [str(number) for number in range(12)]


class SQLitePlace(Place):
    """A place whose store is a file."""

    def settings(self, **more):
        return super().settings(**more) | {"store": f"sqlite:///{self._folder}/sessions.db"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("redis"))
    yield made
    made.redis.kill()


@pytest.fixture(scope="module", params=["redis", "sqlite"])
def either_place(request, tmp_path_factory):
    made = (Place if request.param == "redis" else SQLitePlace)(tmp_path_factory.mktemp(request.param))
    yield made
    made.redis.kill()


def process(place, application, **options):
    """One process of an application."""
    if application == "session_fastapi":
        return place.uvicorn(application, processes=1, **options)
    if application == "session_django":
        return place.django("sync", processes=1, **options)
    return place.gunicorn(application, "sync", processes=1, **options)


@contextlib.contextmanager
def visited(place, application, processes, **options):
    """Somebody who is logged in, and whose requests processes take in turns."""
    with contextlib.ExitStack() as running:
        options = {**UNHEARD, **NEAR, **options}
        addresses = [running.enter_context(process(place, application, **options)) for _ in range(processes)]
        visitor = Visitor(addresses[0], "", *addresses[1:])
        visitor.get("/login?user=alice")
        for _ in addresses:  # each has a copy now
            visitor.get("/cart")
        yield visitor


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_cart_keeps_what_was_added_in_whichever_process(either_place, application, processes):
    with visited(either_place, application, processes) as visitor:
        for item in ITEMS:
            visitor.get(f"/add?item={item}")
        carts = [visitor.get("/cart") for _ in range(processes)]
    print(application, processes, "kept", len(carts[0]), "of", len(ITEMS))
    assert carts == [ITEMS] * processes


@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_redirect_after_post_shows_what_was_posted(place, application):
    with visited(place, application, 2) as visitor:
        shown = []
        for item in ITEMS:
            assert visitor.ask(f"/add?item={item}", "POST")[0] == 303
            shown.append(visitor.get(visitor.location))
    wrong = sum(cart != ITEMS[: number + 1] for number, cart in enumerate(shown))
    print(application, "wrong pages:", wrong, "of", len(ITEMS))
    assert wrong == 0


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("application", ["session_flask", "session_django"])
def test_a_flashed_message_is_shown_once_by_the_next_page(place, application, processes):
    with visited(place, application, processes) as visitor:
        pages = []
        for number in range(30):
            visitor.get(f"/flash?text={number}")
            pages.append(visitor.get("/messages"))
    right = sum(page == [str(number)] for number, page in enumerate(pages))
    print(application, processes, "right pages:", right, "of 30; empty:", pages.count([]))
    assert pages == [[str(number)] for number in range(30)]


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.parametrize("application", ["session_flask", "session_django"])
def test_the_workers_of_one_gunicorn_keep_a_cart(place, application, worker):
    """With the usual intervals: requests go to whichever worker is there first, and each flush tells what others wrote."""
    options = {**NEAR, "processes": 3, "environment": UNHEARD["environment"]}
    start = place.django if application == "session_django" else place.gunicorn
    named = () if application == "session_django" else (application,)
    with start(*named, worker, **options) as address:
        visitor = Visitor(address)
        visitor.get("/login?user=alice")
        for item in ITEMS * 5:
            visitor.get(f"/add?item={item}")
        assert visitor.get_of_each("/cart", 3) == [ITEMS * 5] * 3


def test_the_workers_of_one_uvicorn_keep_a_cart_while_the_doorbell_is_killed(place):
    stop = threading.Event()

    def kill():
        while not stop.wait(0.02):
            place.redis.admin("CLIENT", "KILL", "TYPE", "pubsub")

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        with place.uvicorn("session_fastapi", processes=2, **NEAR) as address:
            visitor = Visitor(address)
            visitor.get("/login?user=alice")
            for item in ITEMS * 5:
                visitor.get(f"/add?item={item}")
            assert visitor.get_of_each("/cart") == [ITEMS * 5] * 2
    finally:
        stop.set()
        killing.join(BOUND_S)

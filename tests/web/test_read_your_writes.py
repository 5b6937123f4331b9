"""P11: what a request changed in its session's attributes the same client's next request sees, in
whichever process it lands.

Real processes, each with near copies, on one Redis or one SQLite file. A visitor's requests come
strictly one after the other, and the processes take them in turns. No process hears the doorbell,
and none reads the log within the time of a test: so a process learns that its copy is old by what
the visitor brings, or not at all.

The processes of an application serve all of its tests, each with a login of its own.
"""

import contextlib
import itertools
import threading

import pytest
from conftest import BOUND_S
from lab.processes import Site
from lab.web_sites import Place, Visitor

from fastticket import Keyring

NEAR = {"near_attributes_bytes": 1_000_000}
UNHEARD = {"flush_interval_ms": 600_000, "lease_ms": 1_200_000, "environment": {"IS_DEAF": "1"}}
APPLICATIONS = ("session_wsgi", "session_flask", "session_django", "session_fastapi")
ITEMS = [str(number) for number in range(12)]


class KeepingPlace(Place):
    """A place that keeps the processes of one application, and of one set of options, for the next
    test.
    """

    def __init__(self, folder):
        super().__init__(folder)
        self._kind = None
        self._running = contextlib.ExitStack()
        self._addresses = []

    def processes(self, number, application, **options):
        """The addresses of so many processes."""
        if self._kind != (application, options):
            self._end_processes()
            self._kind = application, options
        while len(self._addresses) < number:
            self._addresses.append(self._running.enter_context(process(self, application, **options)))
        return self._addresses[:number]

    def _end_processes(self):
        self._addresses = []
        self._running.close()

    def close(self):
        self._end_processes()
        self.redis.kill()


class SQLitePlace(KeepingPlace):
    """A place whose store is a file."""

    def settings(self, **more):
        return super().settings(**more) | {"store": f"sqlite:///{self._folder}/sessions.db"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with contextlib.closing(KeepingPlace(tmp_path_factory.mktemp("redis"))) as made:
        yield made


@pytest.fixture(scope="module")
def sqlite_place(tmp_path_factory):
    with contextlib.closing(SQLitePlace(tmp_path_factory.mktemp("sqlite"))) as made:
        yield made


@pytest.fixture(params=["redis", "sqlite"])
def either_place(request, place, sqlite_place):
    return place if request.param == "redis" else sqlite_place


def of_each(*applications):
    """For each application; pytest runs all tests of one of them in a row."""
    return pytest.mark.parametrize("application", applications, scope="module")


def process(place, application, **options):
    """One process of an application."""
    if application == "session_fastapi":
        return place.uvicorn(application, processes=1, **options)
    if application == "session_django":
        return place.django("sync", processes=1, **options)
    return place.gunicorn(application, "sync", processes=1, **options)


def visited(place, application, processes):
    """A visitor who is logged in, and whose requests the processes take in turns."""
    addresses = served(place, application, processes)
    visitor = Visitor(addresses[0], "", *addresses[1:])
    visitor.get("/login?user=alice")
    for _ in range(2 * processes):  # each has a copy now, whichever is next
        visitor.get("/cart")
    return visitor


def served(place, application, processes):
    """The addresses of so many processes."""
    return place.processes(processes, application, **UNHEARD, **NEAR)


def commands(place, visitor, do):
    """How often Redis was asked about the visitor's session while something was done. Whatever a
    cache asks is a script; each process sweeps and joins its fleet, too, whenever it likes.
    """
    ring = Keyring.from_file(place.settings()["keys"])
    session_id = ring.verify(visitor.ticket, 0).session_id
    with contextlib.closing(place.redis.client()) as client, client.monitor() as monitor:
        do()
        place.redis.admin("ECHO", "over")
        seen = itertools.takewhile(lambda each: not each["command"].startswith("ECHO"), monitor.listen())
        return sum(each["command"].startswith("EVAL") and session_id in each["command"] for each in seen)


@pytest.mark.parametrize("processes", [2, 3])
@of_each(*APPLICATIONS)
def test_a_cart_keeps_what_was_added_in_whichever_process(either_place, application, processes):
    visitor = visited(either_place, application, processes)
    for item in ITEMS:
        visitor.get(f"/add?item={item}")
    carts = [visitor.get("/cart") for _ in range(processes)]
    print(application, processes, "kept", len(carts[0]), "of", len(ITEMS))
    assert carts == [ITEMS] * processes


@of_each(*APPLICATIONS)
def test_a_redirect_after_post_shows_what_was_posted(place, application):
    visitor = visited(place, application, 2)
    shown = []
    for item in ITEMS:
        assert visitor.ask(f"/add?item={item}", "POST")[0] == 303
        shown.append(visitor.get(visitor.location))
    wrong = sum(cart != ITEMS[: number + 1] for number, cart in enumerate(shown))
    print(application, "wrong pages:", wrong, "of", len(ITEMS))
    assert wrong == 0


@pytest.mark.parametrize("processes", [2, 3])
@of_each("session_flask", "session_django")
def test_a_flashed_message_is_shown_once_by_the_next_page(place, application, processes):
    visitor = visited(place, application, processes)
    pages = []
    for number in range(30):
        visitor.get(f"/flash?text={number}")
        pages.append(visitor.get("/messages"))
    right = sum(page == [str(number)] for number, page in enumerate(pages))
    print(application, processes, "right pages:", right, "of 30; empty:", pages.count([]))
    assert pages == [[str(number)] for number in range(30)]


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@of_each("session_flask", "session_django")
def test_the_workers_of_one_gunicorn_keep_a_cart(place, application, worker):
    """With the usual intervals: requests go to whichever worker is there first, and each flush
    tells what others wrote.
    """
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


@of_each(*APPLICATIONS)
def test_who_finds_his_copy_current_asks_nothing(place, application):
    """One command where something is written, one where that is news; none else. The visitor is at
    the first process again.
    """
    visitor = visited(place, application, 2)
    visitor.get("/add?item=milk")  # so that the server knows the scripts
    visitor.get("/cart")
    asked = {
        "it was read before, in both": commands(place, visitor, lambda: [visitor.get("/cart") for _ in range(6)]),
        "a write": commands(place, visitor, lambda: visitor.get("/add?item=tea")),
        "the other process hears of it": commands(place, visitor, lambda: visitor.get("/cart")),
        "both know it": commands(place, visitor, lambda: [visitor.get("/cart") for _ in range(6)]),
    }
    assert list(asked.values()) == [0, 1, 1, 0], asked


@pytest.mark.parametrize("claim", ["99999999999999-0", "99999999999999999999-99999999999999999999", "rubbish", "1-2-3"])
@of_each(*APPLICATIONS)
def test_a_claim_that_is_not_true_costs_one_read_and_is_corrected(place, application, claim):
    visitor = visited(place, application, 2)
    visitor.get("/add?item=tea")
    honest = visitor.cookies["ticket-seen"]
    carts = [visitor.get("/cart") for _ in range(2)]
    visitor.cookies["ticket-seen"] = claim
    assert commands(place, visitor, lambda: carts.append(visitor.get("/cart"))) == 1
    assert visitor.cookies["ticket-seen"] == honest
    assert commands(place, visitor, lambda: carts.extend(visitor.get("/cart") for _ in range(4))) == 0
    assert carts == [["tea"]] * 7


@of_each(*APPLICATIONS)
def test_a_process_without_near_copies_tells_those_that_have_some(place, application):
    [within] = served(place, application, 1)
    with process(place, application, **UNHEARD) as without:
        visitor = Visitor(within, "", without)
        visitor.get("/login?user=alice")
        for item in ITEMS:
            visitor.get(f"/add?item={item}")
            visitor.get("/cart")  # so that the next one writes in the same process, and reads in the other
        for item in ITEMS:
            visitor.get(f"/add?item={item}")
        assert [visitor.get("/cart") for _ in range(2)] == [ITEMS * 2] * 2


def test_applications_of_all_frameworks_keep_one_cart(place):
    with contextlib.ExitStack() as running:
        start = running.enter_context
        addresses = [start(process(place, application, **UNHEARD, **NEAR)) for application in APPLICATIONS]
        visitor = Visitor(addresses[0], "", *addresses[1:])
        visitor.get("/login?user=alice")
        assert [visitor.get("/cart") for _ in addresses] == [None] * len(addresses)
        for item in ITEMS:
            visitor.get(f"/add?item={item}")
        assert [visitor.get("/cart") for _ in addresses] == [ITEMS] * len(addresses)


@of_each("session_flask", "session_fastapi")
def test_behind_the_gateway_it_is_the_same(place, tmp_path, application):
    """It hands tickets on, where it is told to, and other cookies as they are, to applications and
    from them.
    """
    addresses = served(place, application, 2)
    config = {
        "gateway": {"listen": ["127.0.0.1:0"]},
        "ticket": {"keys": place.settings()["keys"], "forward_ticket": True},
        "store": {"url": place.settings()["store"]},
        "upstream": [{"name": "app", "servers": addresses}],
        "route": [{"path": "/", "auth": "optional", "login": True}],
    }
    gateway = Site(tmp_path, config)
    try:
        visitor = Visitor(f"127.0.0.1:{gateway.address[1]}")
        visitor.get("/login?user=alice")
        visitor.get_of_each("/cart")
        for item in ITEMS:
            visitor.get(f"/add?item={item}")
        assert visitor.get_of_each("/cart") == [ITEMS] * 2
        for item in ITEMS:
            assert visitor.ask(f"/add?item={item}", "POST")[0] == 303
            assert visitor.get(visitor.location)[-1] == item
        answered = {visitor.ask("/who")[1]["process"] for _ in range(4)}
        assert len(answered) == 2, "requests were not taken in turns"
    finally:
        gateway.stop()

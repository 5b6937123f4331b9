"""WSGI, Flask and Django with tickets, served by gunicorn: several processes and threads, a real Redis, signals, outages."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from http.cookies import SimpleCookie

import pytest
from conftest import BOUND_S
from real_programs import PEERS, home, program, serving
from redis_servers import Server, wait_until

import fastticket
from fastticket.keyfile import create_key_file
from fastticket.sync import TicketCache

APPLICATIONS = ("session_wsgi", "session_flask", "session_django")
WORKERS = {
    "sync": ("--worker-class", "sync"),
    "gthread": ("--worker-class", "gthread", "--threads", "4"),
    "preload": ("--worker-class", "gthread", "--threads", "4", "--preload"),
}
SELDOM = {"flush_interval_ms": 60_000, "lease_ms": 120_000}  # within the time of a test: never


class Visitor:
    """A browser without connections that stay: each request is taken by whichever process is there first."""

    def __init__(self, address, ticket=""):
        self._address = address
        self.ticket = ticket

    def ask(self, path):
        """(status, what the answer says)."""
        connection = http.client.HTTPConnection(self._address, timeout=2 * BOUND_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Cookie": f"ticket={self.ticket}"} if self.ticket else {})
            response = connection.getresponse()
            body = response.read()
        cookies = SimpleCookie()
        for line in response.headers.get_all("Set-Cookie") or ():
            cookies.load(line)
        if "ticket" in cookies:
            self.ticket = cookies["ticket"].value
        return response.status, body and json.loads(body)

    def get(self, path):
        """The value in the answer, which is a good one."""
        status, said = self.ask(path)
        assert status == 200, said
        return said["value"]

    def get_of_each(self, path, processes=2):
        """The values that so many processes answer with."""
        values = {}

        def have_all_answered():
            status, said = self.ask(path)
            assert status == 200, said
            values[said["process"]] = said["value"]
            return len(values) == processes

        wait_until(have_all_answered, f"{processes} processes answer")
        return list(values.values())


class Place:
    """A Redis, a key file, and gunicorns of a folder of their own that use both."""

    def __init__(self, folder):
        self._folder = folder
        self.redis = Server(folder)
        create_key_file(folder / "keys.toml")

    def settings(self, **more):
        return {"store": f"redis://{self.redis.address}/0", "keys": str(self._folder / "keys.toml"), **more}

    @contextlib.contextmanager
    def serving(self, application, worker, *, processes=2, **settings):
        """`serving("session_flask", "sync")`: its address."""
        environment = {
            **home(self._folder),
            "FASTTICKET": json.dumps(self.settings(**settings)),
            "DJANGO_DATABASE": str(self._folder / "database"),
        }
        if application == "session_django" and not (self._folder / "database").exists():
            self._prepare_django(environment)
        options = ("--chdir", PEERS, "--log-level", "warning", "--workers", processes, *WORKERS[worker])
        command = (program("gunicorn"), *options, f"{application}:application", "--bind")
        with serving(lambda descriptor: [*command, f"fd://{descriptor}"], self._folder, environment=environment) as at:
            yield at

    def _prepare_django(self, environment):
        prepare = "import django_application; django_application.prepare('alice', 'bob')"
        subprocess.run(
            [sys.executable, "-c", prepare],
            cwd=PEERS,
            env={**os.environ, **environment},
            check=True,
            timeout=4 * BOUND_S,
        )

    @contextlib.contextmanager
    def cache(self, **settings):
        """A cache of the same sessions in this process."""
        said = self.settings(**settings)
        keys = fastticket.Keyring.from_file(said.pop("keys"))
        with TicketCache(fastticket.open_store(said.pop("store")), keys, **said) as cache:
            yield cache


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("gunicorn"))
    yield made
    made.redis.kill()


@pytest.fixture(scope="module", params=[(a, w) for a in APPLICATIONS for w in WORKERS], ids="-".join)
def site(request, place):
    """The address of an application, in two processes."""
    with place.serving(*request.param) as address:
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

    def is_nobody():
        left.ticket = ticket
        return left.get_of_each("/who") == [None, None]

    wait_until(is_nobody, "both processes have heard of the logout")


def test_attributes_are_those_of_both_processes(site):
    visitor = Visitor(site)
    visitor.get("/login?user=bob")
    visitor.get("/put?a=1")
    assert visitor.get_of_each("/get?name=a") == ["1", "1"]
    visitor.get("/put?a=2")
    assert visitor.get_of_each("/get?name=a") == ["2", "2"]


@pytest.mark.parametrize("application", APPLICATIONS)
def test_two_threads_that_change_one_session_lose_nothing(place, application):
    with place.serving(application, "gthread", processes=1) as address:
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
        with place.serving(application, worker, **SELDOM) as address:
            assert Visitor(address, ticket).get("/who") == "alice"
            assert idle_deadline_ms() == at_login_ms
        assert idle_deadline_ms() > at_login_ms


@pytest.mark.parametrize("application", APPLICATIONS)
def test_without_redis_known_sessions_go_on_and_unknown_ones_are_nobodys(tmp_path, application):
    place = Place(tmp_path)
    try:
        with place.cache() as cache, place.serving(application, "sync") as address:
            known, unknown = (Visitor(address, cache.login(name)) for name in ("alice", "bob"))
            assert known.get_of_each("/who") == ["alice", "alice"]
            ticket = unknown.ticket
            place.redis.kill()
            assert known.get_of_each("/who") == ["alice", "alice"]
            assert unknown.ask("/who")[0] == 503
            assert unknown.ticket == ticket
    finally:
        place.redis.kill()

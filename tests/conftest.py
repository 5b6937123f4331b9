"""Fixtures: a gateway on its own event loop, and an origin (an upstream server) that does exactly
what a test says.

Everything listens on free ports of 127.0.0.1, every wait is bounded by BOUND_S, and every fixture
ends what it started.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import shlex
import socket
import threading
from concurrent.futures import Future

import hypothesis
import pytest
import uvloop
from lab.threaded import ThreadedWorker

import fastticket
from fastticket.gateway.binding import listen
from fastticket.gateway.inheritance import Given
from fastticket.gateway.reader import read_config
from fastticket.gateway.worker import Worker
from fastticket.keyfile import create_key_file

pytest_plugins = ("fastticket.testing.plugin", "lab.django_projects", "lab.fixtures")

BOUND_S = 10
#: How long what a gateway holds is good: a lease, a connection that it keeps, a place in a queue.
#: No machine is so busy that a test is held up for longer between two requests. A test of what is
#: over sooner says so itself.
UNSTALLED_S = 60
#: FASTTICKET_PLANE=thread: gateways in this process serve in a thread beside their loop.
WORKER = ThreadedWorker if os.environ.get("FASTTICKET_PLANE") == "thread" else Worker

# The tables of a gateway are to come from the system and go back to it when it is gone. Once one of
# them was freed, malloc would take the next out of the heaps of the threads, each of which keeps
# what it has: gigabytes, by the end of the suite.
M_MMAP_THRESHOLD = -3
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024)

#: A machine that holds up one example for a moment shows nothing: by itself, hypothesis would say
#: that it takes too long, or that examples are made too slowly.
hypothesis.settings.register_profile(
    "in their own time", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("in their own time")

#: Files that take longest, the longest first: beside others (pytest -n) they begin first, so that
#: none of them is alone in the end.
LONG = (
    "test_supervisor",
    "test_redis_faults",
    "test_fuzz",
    "test_redis_transport",
    "test_auth_endpoint",
    "test_gateway_patience",
    "test_page",
    "test_upgrade",
    "test_demo",
    "test_read_your_writes",
    "test_gateway_attacks",
    "test_gateway_responses",
    "test_admin",
    "test_reload",
    "test_cli",
    "test_gateway_tunnels",
    "test_restoring",
    "test_containers",
    "test_watchdog",
    "test_suites",
    "test_hints",
    "test_two_cookies",
    "test_demonstrations",
    "test_model",
    "test_start",
    "test_typing",
    "test_shop_pages",
    "test_gunicorn",
    "test_site",
    "test_ticket",
    "test_moving",
    "test_linkis_move",
    "test_how_to_flask",
    "test_logs",
    "test_how_to_django",
    "test_metrics",
    "test_api_trouble",
    "test_exporting",
    "test_keys",
    "test_how_to_backup",
    "test_api_changes",
    "test_store_redis",
    "test_fleet",
    "test_how_to_from",
)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish():
    """Fifteen thousand tests are there to stay: no collector goes through them again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """For each failure, print the command that repeats it."""
    failed = {report.nodeid for kind in ("failed", "error") for report in terminalreporter.getreports(kind)}
    if failed:
        terminalreporter.section("to repeat one of them")
        for name in sorted(failed):
            terminalreporter.line(f".venv/bin/python -m pytest {shlex.quote(name)}")


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Client(socket.socket):
    """A client's connection, read until something is there."""

    def __init__(self, address=None, *, fileno=None):
        """Connect to an address, or take over a descriptor."""
        self.buffer = b""
        if fileno is not None:
            super().__init__(fileno=fileno)
        else:
            is_v6 = ":" in address[0]
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if is_v6 else socket.AF_INET
            super().__init__(family, socket.SOCK_STREAM)
        self.settimeout(BOUND_S)
        if address is not None:
            try:
                self.connect(address)
            except BaseException:
                self.close()
                raise

    def read_until(self, end):
        while end not in self.buffer:
            self._more()
        at = self.buffer.index(end) + len(end)
        found, self.buffer = self.buffer[:at], self.buffer[at:]
        return found

    def read_exactly(self, size):
        parts, have = [self.buffer], len(self.buffer)
        while have < size:
            parts.append(self._receive())
            have += len(parts[-1])
        found = b"".join(parts)
        found, self.buffer = found[:size], found[size:]
        return found

    def read_all(self):
        """Up to the end of the connection; a reset is an end, too."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self._more()
        return self.buffer

    def _more(self):
        self.buffer += self._receive()

    def _receive(self):
        got = self.recv(65536)
        if not got:
            raise EOFError(self.buffer)
        return got

    def read_head(self):
        return self.read_until(b"\r\n\r\n")

    def read_response(self, to_head=False):
        """(head, body), chunks decoded."""
        head = self.read_head()
        return head, b"" if to_head else read_body(head, self)


def read_body(head, connection):
    """The body that a head announces, chunks decoded."""
    fields = fields_of(head)
    if fields.get(b"transfer-encoding") == b"chunked":
        chunks = []
        while size := int(connection.read_until(b"\r\n"), 16):
            chunks.append(connection.read_exactly(size))
            assert connection.read_exactly(2) == b"\r\n"
        assert connection.read_exactly(2) == b"\r\n"
        return b"".join(chunks)
    return connection.read_exactly(int(fields.get(b"content-length", 0)))


def fields_of(head):
    """Lower-case names to values; for a test that minds repetition, count in the head itself."""
    return {n.lower(): v for n, _, v in (line.partition(b": ") for line in head.split(b"\r\n")[1:-2])}


def status_of(head):
    return int(head.split(b" ", 2)[1])


class Origin:
    """An upstream server: `serve(connection)` is called in a thread for each connection that the
    gateway makes.
    """

    def __init__(self, serve, path=None):
        self.serve = serve
        self.requests = []  # (head, body) of those that `request` has read
        self.connections = []
        self.failures = []
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(path or ("127.0.0.1", 0))
        self._listener.listen(128)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self._start(Client(fileno=accepted.detach()))

    def _start(self, connection):
        self.connections.append(connection)
        thread = threading.Thread(target=self._run, args=(connection,))
        self._threads.append(thread)
        thread.start()

    def _run(self, connection):
        try:
            with connection:
                self.serve(connection)
        except (EOFError, ConnectionError, OSError):
            pass
        except BaseException as failure:
            self.failures.append(failure)

    def request(self, connection):
        """Read one request as the gateway wrote it, and remember it."""
        head = connection.read_head()
        body = read_body(head, connection)
        self.requests.append((head, body))
        return head, body

    def close(self):
        """When this returns, every byte that had come was served."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # a test may have closed it
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(BOUND_S)  # so that there are no more connections than these
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(BOUND_S)


class Gateway:
    """A worker on an event loop in a thread of its own."""

    def __init__(self, table, folder):
        self.config = read_config(table, "test", folder)
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._listeners = [listen(address, shared=False) for address in self.config.listen_addresses()]
        self.address = self._listeners[0].getsockname()
        self._stopped = False
        try:
            self.worker = self.run(self._start())
        except BaseException:
            self._end()
            raise
        self.cache = self.worker._cache

    async def _start(self):
        worker = WORKER(Given(self.config, self.config.key_pairs()), [self._listeners])
        await worker.start()
        return worker

    def run(self, coroutine):
        """In the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(BOUND_S)

    def call(self, function, *arguments):
        done = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(function(*arguments)))
        return done.result(BOUND_S)

    def login(self, principal="alice"):
        return self.run(self.cache.login(principal))

    def connect(self):
        return Client(self.address)

    def ask(self, raw):
        """One request on a connection of its own; the whole answer."""
        with self.connect() as client:
            client.sendall(raw)
            return client.read_response(to_head=raw.startswith(b"HEAD "))

    @property
    def service(self):
        """What serves its configuration."""
        return self.worker._services.present

    @property
    def stats(self):
        return self.call(lambda: self.worker.proxy.stats)

    def stop(self, just_before=lambda: None):
        """`just_before` runs in the gateway's loop, which does nothing else between it and the
        stop.
        """

        async def stop():
            just_before()
            await self.worker.stop()

        if self._stopped:
            return
        self._stopped = True
        try:
            self.run(stop())
        finally:
            self._end()

    def _end(self):
        for listener in self._listeners:
            listener.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(BOUND_S)
        self.loop.close()


@contextlib.contextmanager
def origins():
    """`start(serve)`, or `start(answer=bytes)` to answer every request alike."""
    started = []

    def start(serve=None, *, answer=OK, path=None):
        made = None

        def answer_all(connection):
            while True:
                made.request(connection)
                connection.sendall(answer)

        made = Origin(serve or answer_all, path)
        started.append(made)
        return made

    try:
        yield start
    finally:
        for made in started:
            made.close()
    assert [failure for made in started for failure in made.failures] == []


@contextlib.contextmanager
def gateways(folder):
    """`start(origin, ..., routes=[...], **tables)`: routes default to `/` with auth "none", and
    what a busy machine could let run out to UNSTALLED_S.
    """
    started = []

    def start(*origins, routes=({"path": "/", "auth": "none"},), listen="127.0.0.1:0", **tables):
        if not (folder / "keys.toml").exists():
            create_key_file(folder / "keys.toml")
        table = {
            "gateway": {"listen": [listen], "drain_timeout_s": 2.0, **tables.pop("gateway", {})},
            "ticket": {"keys": "keys.toml", **tables.pop("ticket", {})},
            "store": {"url": "sqlite:///sessions.db", "lease_ms": UNSTALLED_S * 1000, **tables.pop("store", {})},
            "timeouts": dict.fromkeys(("upstream_idle_s", "upstream_pending_s"), UNSTALLED_S)
            | tables.pop("timeouts", {}),
            "upstream": [{"name": "app", "servers": [o if isinstance(o, str) else o.address for o in origins]}],
            "route": list(routes),
            **tables,
        }
        made = Gateway(table, folder)
        started.append(made)
        return made

    try:
        yield start
    finally:
        for made in started:
            made.stop()


@pytest.fixture
def origin():
    with origins() as start:
        yield start


@pytest.fixture
def gateway(tmp_path):
    with gateways(tmp_path) as start:
        yield start


@pytest.fixture
def keys(tmp_path):
    """The key ring that `gateway` uses."""
    if not (tmp_path / "keys.toml").exists():
        create_key_file(tmp_path / "keys.toml")
    return fastticket.Keyring.from_file(tmp_path / "keys.toml")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.fixture
def names(monkeypatch):
    """The addresses of `app.test`, of either family, as a name server would give them; without any,
    it knows no such name.
    """
    addresses = []
    real = socket.getaddrinfo

    def look_up(host, port, *rest, **options):
        if host != "app.test":
            return real(host, port, *rest, **options)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(family_of(each), socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return addresses

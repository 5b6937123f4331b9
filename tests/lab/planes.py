"""A gateway of several planes in this process, each on an address of its own, so that a test says
which of them a client meets. The first is driven by the loop, the others run in threads.
"""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future

import uvloop
from conftest import BOUND_S, UNSTALLED_S, Client

from fastticket import TicketCache
from fastticket.dataplane.accesslog import AccessLog
from fastticket.dataplane.forwarding import Forwarding
from fastticket.dataplane.occupancy import Occupancy
from fastticket.dataplane.proxy import Proxy
from fastticket.dataplane.routes import Routes
from fastticket.dataplane.upstreams import Upstreams
from fastticket.gateway.asks import Answers
from fastticket.gateway.reader import read_config
from fastticket.keyfile import create_key_file
from fastticket.sessions.ticketcache import checker_of

TICK_S = 0.02
LOOP = 0  # the number of the plane that the loop drives
THREAD = 1  # and of the first one in a thread


def server_of(origin):
    """An origin's address as `Upstreams` has it; or an address."""
    if isinstance(origin, tuple):
        return origin
    host, port = origin.address.rsplit(":", 1)
    return host, int(port)


class Planes:
    """`planes[n]`, `connect(n)`, `ask(n, raw)`; everything of the control plane through `call`."""

    def __init__(self, folder, origins, *, count=2, routes=None, upstream=None, options=None, occupancy=None, **cache):
        self._routes = routes or [{"path": "/login", "auth": "none", "login": True}, {"path": "/"}]
        if not (folder / "keys.toml").exists():
            create_key_file(folder / "keys.toml")
        table = {
            "gateway": {"listen": ["127.0.0.1:0"]},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///sessions.db"},
            "upstream": [{"name": "app", "servers": ["127.0.0.1:1"]}],
            "route": self._routes,
        }
        self.config = read_config(table, "test", folder)
        # Of a test that does not say otherwise nothing runs out because the machine is busy.
        self._options = {"timeouts_s": {"upstream_idle": UNSTALLED_S, "upstream_pending": UNSTALLED_S}} | (
            options or {}
        )
        cache = {"lease_ms": UNSTALLED_S * 1000} | cache
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.occupancy = Occupancy(**(occupancy or {"connections_max": 1000}))
        self.upstreams = Upstreams()
        self.upstreams.add_group(**(upstream or {}))
        self.upstreams.set_servers(0, [(server_of(each), 1) for each in origins])
        self.planes = []
        self.addresses = []
        self._answers = []
        self._threads = []
        self._is_open = True
        self.run(self._open(folder, count, cache))

    async def _open(self, folder, count, options):
        self.cache = TicketCache(
            self.config.open_store(), self.config.keyring(), idle_timeout_s=3600, absolute_lifetime_s=7200, **options
        )
        await self.cache.open()
        self.routes = Routes()
        for number in range(count):
            self.add_plane(in_thread=number != LOOP)
        for route in self.config.routes():
            self.routes.add(
                route.path,
                route.auth,
                0,
                logs_in=route.login,
                is_strong=route.consistency == "strong",
                touches=route.touch,
            )
        self._answers = [Answers(plane, self.cache, self.config, self.config.routes()) for plane in self.planes]
        for number, plane in enumerate(self.planes):
            self.start(plane, number)
        self._tick()

    def add_plane(self, in_thread):
        plane = Proxy(
            checker_of(self.cache),
            self.upstreams,
            self.routes,
            Forwarding(checker_of(self.cache)),
            occupancy=self.occupancy,
            in_thread=in_thread,
            log=AccessLog(True),
            **self._options,
        )
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        plane.listen(listener.fileno())
        self.addresses.append(listener.getsockname())
        listener.close()
        self.planes.append(plane)

    def start(self, plane, number):
        if number == LOOP:
            self.loop.add_reader(plane.fileno(), self._turn)
        else:
            self.loop.add_reader(plane.asks_fileno(), self._answers[number].begin_new)
            self._threads.append(threading.Thread(target=plane.run))
            self._threads[-1].start()

    def _turn(self):
        if self.planes[LOOP].turn():
            self.loop.call_soon(self._turn)
        self._answers[LOOP].begin_new()

    def _tick(self):
        self.planes[LOOP].tick()
        for answers in self._answers:
            answers.begin_new()
        self._ticker = self.loop.call_later(TICK_S, self._tick)

    def run(self, coroutine):
        """In the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(BOUND_S)

    def call(self, function, *arguments):
        """In the loop, too."""
        done = Future()

        def settle():
            try:
                done.set_result(function(*arguments))
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(settle)
        return done.result(BOUND_S)

    def login(self, principal="alice"):
        return self.run(self.cache.login(principal))

    def connect(self, number):
        return Client(self.addresses[number])

    def ask(self, number, raw):
        with self.connect(number) as client:
            client.sendall(raw)
            return client.read_response()

    @property
    def state(self):
        """Of the first server."""
        return self.call(self.upstreams.state)[0]

    def release(self, number):
        return self.call(self.planes[number].release)

    def stop_plane(self, number):
        """End a plane in a thread, with all that it has."""
        self.call(self.planes[number].stop)
        self._threads[number - 1].join(BOUND_S)
        assert not self._threads[number - 1].is_alive()

    def stop(self):
        if not self._is_open:
            return
        self._is_open = False
        try:
            self.run(self._close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(BOUND_S)
            self.loop.close()

    async def _close(self):
        for plane in self.planes:
            plane.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, BOUND_S)
        self._ticker.cancel()
        self.loop.remove_reader(self.planes[LOOP].fileno())
        for plane, answers in zip(self.planes, self._answers, strict=True):
            self.loop.remove_reader(plane.asks_fileno())
            await answers.finish()
        await self.cache.aclose()


@contextlib.contextmanager
def several_planes(folder):
    """`start(origin, ...)`, see Planes."""
    started = []

    def start(*origins, **options):
        started.append(Planes(folder, origins, **options))
        return started[-1]

    try:
        yield start
    finally:  # else their threads keep the process of a test that failed
        for each in started:
            each.stop()

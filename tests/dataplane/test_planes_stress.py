"""Several planes at once, with everything that one of them may do to another: questions and
answers, evictions, revocations, servers that go and come, clients that are handed over, limits that
are reached, planes that end under way, configurations that are replaced. FASTTICKET_STRESS_S says
for how long; ThreadSanitizer is to find nothing.
"""

import contextlib
import os
import random
import threading
import time

from conftest import BOUND_S, WORKER, Client, Gateway, fields_of, status_of
from lab.planes import LOOP, server_of, several_planes
from lab.redis_servers import wait_until

from fastticket.errors import FastticketError
from fastticket.gateway.channel import channel_pair
from fastticket.gateway.control import Reload
from fastticket.gateway.inheritance import Given
from fastticket.keyfile import create_key_file

DURATION_S = float(os.environ.get("FASTTICKET_STRESS_S", "3"))
PLANES = 3
CLIENTS = 6
NAMES = [f"user{number}" for number in range(40)]


def get(path, ticket):
    return f"GET {path} HTTP/1.1\r\nHost: a.example\r\nCookie: ticket={ticket}\r\n\r\n".encode()


def application(origin):
    """Says who the user is; logs in who asks for it, logs out, rotates."""

    def serve(connection):
        while True:
            head = connection.read_head()
            name = fields_of(head).get(b"x-forwarded-user", b"nobody")
            path = head.split(b" ")[1]
            more = b""
            if path.startswith(b"/login/"):
                more = b"X-Ticket-Login: %s\r\n" % path[7:]
            elif path == b"/logout":
                more = b"X-Ticket-Logout: session\r\n"
            elif path == b"/rotate":
                more = b"X-Ticket-Rotate: 1\r\n"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(name), more, name))

    return origin(serve)


class Crowd:
    """Clients of all planes, for a while or until they are ended. What they see must be right,
    whatever happens to them.
    """

    def __init__(self, at, lasts_s=DURATION_S):
        self._at = at
        self._ends_s = time.monotonic() + lasts_s
        self.wrong = []
        self.counts = dict.fromkeys((200, 401, 503, 502), 0)
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join(DURATION_S + 3 * BOUND_S)
            assert not thread.is_alive()

    def end(self):
        self._ends_s = 0.0
        self.join()

    @property
    def left_s(self):
        return self._ends_s - time.monotonic()

    @property
    def is_over(self):
        return self.left_s <= 0

    def _run(self, seed):
        chance = random.Random(seed)
        tickets = {}
        while not self.is_over:
            try:
                with self._at.connect(chance.randrange(PLANES)) as client:
                    for _ in range(chance.randrange(1, 12)):
                        self._one(client, chance, tickets)
            except (ConnectionError, EOFError):
                pass
            except Exception as error:
                self.wrong.append(error)

    def _one(self, client, chance, tickets):
        name = chance.choice(NAMES)
        ticket = tickets.get(name)
        if ticket is None:
            head = self._ask(client, f"/login/{name}", "")[0]
            if status_of(head) == 200:
                tickets[name] = fields_of(head)[b"set-cookie"].partition(b"=")[2].partition(b";")[0].decode()
            return
        what = chance.random()
        if what < 0.03:  # goes in the middle of it
            client.sendall(get("/", ticket))
            raise ConnectionError
        path = "/logout" if what < 0.08 else "/rotate" if what < 0.12 else "/"
        head, body = self._ask(client, path, ticket)
        if status_of(head) == 200 and body != name.encode():
            self.wrong.append((name, body))
        if path != "/" or status_of(head) == 401:
            del tickets[name]

    def _ask(self, client, path, ticket):
        client.sendall(get(path, ticket))
        head, body = client.read_response()
        self.counts[status_of(head)] += 1
        return head, body


def disturb(at, crowd, servers):
    """What the control plane does meanwhile."""
    chance = random.Random(99)
    while not crowd.is_over:
        what = chance.randrange(6)
        if what == 0:
            name = chance.choice(NAMES)
            with contextlib.suppress(FastticketError):
                at.run(at.cache.logout_everywhere(name))
        elif what == 1:
            at.call(
                at.upstreams.set_servers,
                0,
                [(each, 1) for each in servers if chance.random() < 0.7] or [(servers[0], 1)],
            )
        elif what == 2:
            at.call(at.upstreams.set_health, 0, servers[0], chance.random() < 0.7)
            at.call(at.upstreams.state)
            at.call(at.upstreams.news)
            at.call(at.upstreams.faults)
        elif what == 3:
            giver, taker = chance.sample(range(PLANES), 2)
            for _ in range(8):
                if client := at.release(giver):
                    at.call(at.planes[taker].adopt, *client)
        elif what == 4:
            at.occupancy.allow(chance.choice((4, 8, 100)), per_client_max=chance.choice((0, 5, 50)))
        else:
            at.call(lambda: [(each.stats, each.log.take(), each.connection_count) for each in at.planes])
        time.sleep(0.001)
    at.occupancy.allow(100)
    at.call(at.upstreams.set_health, 0, servers[0], True)
    at.call(at.upstreams.set_servers, 0, [(each, 1) for each in servers])


def test_planes_under_everything_at_once(tmp_path, origin):
    behind = [application(origin) for _ in range(3)]
    with several_planes(tmp_path) as start:
        at = start(
            *behind,
            count=PLANES,
            routes=[{"path": "/login", "auth": "none", "login": True}, {"path": "/"}],
            upstream={"connections_max": 1, "pending_max": 4},
            capacity=16,
        )
        crowd = Crowd(at)
        disturb(at, crowd, [server_of(each) for each in behind])
        crowd.join()
        assert crowd.wrong == []
        assert crowd.counts[200] > 10
        wait_until(lambda: at.occupancy.client_count == 0, "all clients have gone")
        wait_until(
            lambda: all((each["active"], each["queued"]) == (0, 0) for each in at.call(at.upstreams.state)),
            "nothing is under way for them",
        )
        ticket = at.login("last")
        assert [at.ask(number, get("/", ticket))[1] for number in range(PLANES)] == [b"last"] * PLANES


def test_planes_that_end_under_load(tmp_path, origin):
    """One after the other, with requests, queues and questions under way; then all."""
    behind = application(origin)
    with several_planes(tmp_path) as start:
        at = start(behind, count=PLANES, upstream={"connections_max": 2, "pending_max": 4}, capacity=16)
        crowd = Crowd(at, lasts_s=float("inf"))
        try:
            for number in range(PLANES - 1, 0, -1):
                crowd_has = at.call(lambda number=number: at.planes[number].stats["requests"])
                wait_until(
                    lambda number=number, was=crowd_has: at.call(lambda: at.planes[number].stats["requests"]) > was,
                    "it has something to do",
                )
                at.stop_plane(number)
                assert at.planes[number].connection_count == 0
            ticket = at.login("last")
            wait_until(lambda: at.ask(LOOP, get("/", ticket))[1] == b"last", "the loop's plane goes on")
            at.call(at.planes[LOOP].stop)
        finally:
            crowd.end()
        assert crowd.wrong == []
        assert all((each["active"], each["queued"], each["idle"]) == (0, 0, 0) for each in at.call(at.upstreams.state))
        assert at.occupancy.client_count == 0


class Whole(Gateway):
    """A worker of two planes on one near cache, each on an address of its own."""

    def __init__(self, origin, folder):
        create_key_file(folder / "keys.toml")
        upstream = {"name": "app", "servers": [origin.address], "connections_max": 4, "pending_max": 16}
        table = {
            "gateway": {"listen": ["127.0.0.1:0"] * 2, "threads": 2, "retire_timeout_s": 0.3, "drain_timeout_s": 0.3},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///sessions.db"},
            "cache": {"capacity": 16},
            "upstream": [upstream],
            "route": [{"path": "/login", "auth": "none", "login": True}, {"path": "/"}],
        }
        super().__init__(table, folder)
        self._addresses = [each.getsockname() for each in self._listeners]

    async def _start(self):
        given = Given(self.config, self.config.key_pairs())
        worker = WORKER(given, [[each.dup()] for each in self._listeners])  # which it closes
        await worker.start()
        return worker

    def connect(self, number):
        return Client(self._addresses[number % 2])

    def reload(self):
        asked = Reload(self.config, self.config.key_pairs(), {}, [[0], [1]])
        self.run(self.worker._reload(asked, [each.dup() for each in self._listeners]))


def test_configurations_are_replaced_and_all_ends_under_load(tmp_path, origin):
    """Those of before retire on the same near cache meanwhile; then the worker stops."""
    chance = random.Random(7)
    at = Whole(application(origin), tmp_path)
    ours, theirs = channel_pair()
    at.worker._channel = ours
    try:
        crowd = Crowd(at)
        while crowd.left_s > DURATION_S / 10:
            before = at.service
            at.reload()
            assert at.service is not before
            with contextlib.suppress(FastticketError):
                at.run(at.cache.logout_everywhere(chance.choice(NAMES)))
        at.stop()
    finally:
        at.stop()
        for each in (ours, theirs):
            each.close()
    crowd.join()
    assert crowd.wrong == []
    assert crowd.counts[200] > 10

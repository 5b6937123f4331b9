"""Several planes in one process: one driven by the loop, others in threads. What holds for the
process as a whole, what one plane asks, and what it is told while it runs.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from lab.planes import LOOP, THREAD, server_of, several_planes
from lab.redis_servers import free_port, wait_until
from test_gateway_tunnels import KEY, upgrade

from fastticket.dataplane.asks import AskKind
from fastticket.errors import Verdict

BOTH = pytest.mark.parametrize("number", [LOOP, THREAD], ids=["in the loop", "in a thread"])


@pytest.fixture
def planes(tmp_path):
    with several_planes(tmp_path) as start:
        yield start


def get(path="/", ticket=None):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    return f"GET {path} HTTP/1.1\r\nHost: a.example\r\n{cookie}\r\n".encode()


def names_the_user(origin):
    """An origin that answers with the identity that it was given."""

    def serve(connection):
        while True:
            head, _ = made.request(connection)
            name = fields_of(head).get(b"x-forwarded-user", b"nobody")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))

    made = origin(serve)
    return made


class Held:
    """An origin that answers a request when it is told to."""

    def __init__(self, origin):
        self.arrived = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)
        self.paths = []
        self.at = origin(self._serve)

    @property
    def count(self):
        return len(self.paths)

    def _serve(self, connection):
        while head := connection.read_head():
            self.paths.append(head.split(b" ")[1])
            self.arrived.release()
            assert self._go_on.acquire(timeout=BOUND_S)
            connection.sendall(OK)

    def wait_for_one(self):
        assert self.arrived.acquire(timeout=BOUND_S)

    def answer_one(self):
        self._go_on.release()


def asking(at, number, monkeypatch):
    """The asks of a plane, which nobody answers."""
    asks = []

    async def note(ask):
        asks.append(ask)

    monkeypatch.setattr(at._answers[number], "_answer", note)
    return asks


def connection_count(at, number):
    return at.call(lambda: at.planes[number].connection_count)


# --- what a plane asks


@BOTH
def test_a_ticket_that_only_the_store_knows_is_looked_up(planes, origin, number):
    behind = names_the_user(origin)
    at, other = planes(behind), planes(behind)
    ticket = other.login("alice")
    assert [at.ask(number, get(ticket=ticket))[1] for _ in range(2)] == [b"alice"] * 2


@BOTH
def test_a_session_begins_and_ends_by_the_application_s_word(planes, origin, number):
    def serve(connection):
        while True:
            head, _ = made.request(connection)
            more = b"X-Ticket-Login: alice" if b" /login " in head else b"X-Ticket-Logout: session"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\n\r\nok" % more)

    made = origin(serve)
    at = planes(made)
    head, _ = at.ask(number, get("/login"))
    ticket = fields_of(head)[b"set-cookie"].partition(b"=")[2].partition(b";")[0].decode()
    (session,) = at.run(at.cache.sessions("alice"))
    head, _ = at.ask(number, get("/x", ticket))
    assert status_of(head) == 200
    assert b"Max-Age=0" in head
    assert session.principal == "alice"
    assert at.run(at.cache.sessions("alice")) == []
    for each in (LOOP, THREAD):
        assert status_of(at.ask(each, get("/x", ticket))[0]) == 401


def test_p2_a_revoked_ticket_is_refused_by_every_plane(planes, origin):
    at = planes(names_the_user(origin), count=3)
    ticket = at.login("alice")
    assert [at.ask(number, get(ticket=ticket))[1] for number in range(3)] == [b"alice"] * 3
    at.run(at.cache.logout(ticket))
    assert [status_of(at.ask(number, get(ticket=ticket))[0]) for number in range(3)] == [401] * 3


@BOTH
def test_several_tickets_clear_their_cookies(planes, origin, number):
    at = planes(names_the_user(origin))
    head, _ = at.ask(number, b"GET /a/b HTTP/1.1\r\nHost: a.example\r\nCookie: ticket=A; ticket=B\r\n\r\n")
    assert status_of(head) == 400
    assert b"Max-Age=0" in head


@BOTH
def test_a_stream_ends_with_its_session(planes, origin, number):
    def stream(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        connection.read_all()

    at = planes(origin(stream))
    ticket = at.login()
    with at.connect(number) as client:
        client.sendall(get(ticket=ticket))
        client.read_until(b"ok\r\n")
        at.run(at.cache.logout(ticket))
        assert client.read_all() == b""
    assert at.call(lambda: at.planes[number].stats["cut"]) == 1


@BOTH
def test_p2_a_stream_is_looked_at_again_after_its_session_has_changed_meanwhile(planes, origin, number, monkeypatch):
    """1. an upload's session is asked about, and the store is slow
    2. the response begins before the upload has ended, and rotates the session
    3. the answer to the first question comes: it is dropped, since another one was asked after it

    The stream that goes on must ask again.
    """
    arrived, answer = threading.Event(), threading.Event()

    def serve(connection):
        connection.read_head()
        arrived.set()
        assert answer.wait(BOUND_S)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Ticket-Rotate: 1\r\n\r\n2\r\nok\r\n")
        connection.read_all()

    at = planes(origin(serve))
    ticket = at.login()
    at.run(at.cache.authenticate(ticket))
    asks = asking(at, number, monkeypatch)
    plane = at.planes[number]
    with at.connect(number) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nCookie: ticket=%s\r\nContent-Length: 1000\r\n\r\nx"
            % ticket.encode()
        )
        assert arrived.wait(BOUND_S)
        at.call(at.cache._near.bump_epoch, 0)
        wait_until(lambda: [ask.kind for ask in asks] == [AskKind.STILL_ALIVE], "the upload asks")
        answer.set()
        wait_until(lambda: len(asks) == 2, "the response changes the session")
        at.call(plane.vouch, asks[0].handle, True)
        at.call(plane.relay, asks[1].handle, b"")
        client.read_until(b"ok\r\n")
        client.sendall(b"x" * 999)
        wait_until(lambda: len(asks) == 3, "the stream asks again")
        at.call(plane.vouch, asks[2].handle, False)
        assert client.read_all() == b""


def test_p2_an_admission_that_waited_for_a_stalled_thread_is_asked_again(planes, origin, monkeypatch):
    """1. the control plane admits a request; its plane is stopped before it hears of it
    2. the session is revoked
    3. the plane goes on, after more than a lease
    """
    at = planes(names_the_user(origin), lease_ms=2000)
    ticket = at.login()
    asks = asking(at, THREAD, monkeypatch)
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    with at.connect(THREAD) as client:
        client.sendall(get(ticket=ticket))
        wait_until(lambda: len(asks) == 1, "it asks")
        before = libc.signal(ctypes.c_int(3), libc.sleep)  # SIGQUIT, which is 3: its handler sleeps for so many seconds
        try:
            began_s = time.monotonic()
            signal.pthread_kill(at._threads[THREAD - 1].ident, 3)
            time.sleep(0.1)
            at.call(at.planes[THREAD].admit, asks[0].handle)
            at.run(at.cache.logout(ticket))
            monkeypatch.undo()
            assert status_of(client.read_response()[0]) == 401
            assert time.monotonic() - began_s > 2.5, "it was stopped for longer than a lease"
        finally:
            libc.signal(ctypes.c_int(3), ctypes.c_void_p(before))


# --- answers that come late


@BOTH
def test_p1_a_verdict_is_not_taken_for_the_next_request_s(planes, origin, number, monkeypatch):
    at, other = planes(names_the_user(origin)), planes(names_the_user(origin))
    asks = asking(at, number, monkeypatch)
    plane = at.planes[number]
    tickets = [other.login(name) for name in ("alice", "mallory")]
    with at.connect(number) as client:
        client.sendall(get(ticket=tickets[0]))
        wait_until(lambda: len(asks) == 1, "it asks")
        at.call(plane.refuse, asks[0].handle, Verdict.REVOKED)
        assert status_of(client.read_response()[0]) == 401
        client.sendall(get(ticket=tickets[1]))
        wait_until(lambda: len(asks) == 2, "it asks again")
        at.call(plane.admit, asks[0].handle)  # late
        at.call(plane.exempt, asks[1].handle, True)  # not what was asked
        at.call(plane.refuse, asks[1].handle, Verdict.REVOKED)
        assert status_of(client.read_response()[0]) == 401


@BOTH
def test_p1_a_verdict_is_not_taken_for_the_next_client_s(planes, origin, number, monkeypatch):
    at, other = planes(names_the_user(origin)), planes(names_the_user(origin))
    asks = asking(at, number, monkeypatch)
    tickets = [other.login(name) for name in ("alice", "mallory")]
    with at.connect(number) as gone:
        gone.sendall(get(ticket=tickets[0]))
        wait_until(lambda: len(asks) == 1, "it asks")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: connection_count(at, number) == 0, "it has gone")
    with at.connect(number) as client:
        client.sendall(get(ticket=tickets[1]))
        wait_until(lambda: len(asks) == 2, "the next one asks")
        assert (asks[0].handle ^ asks[1].handle) & 0xFFFFFFFF == 0, "in the same place"
        at.call(at.planes[number].admit, asks[0].handle)  # late
        at.call(at.planes[number].refuse, asks[1].handle, Verdict.REVOKED)
        assert status_of(client.read_response()[0]) == 401


# --- what holds for all planes together


def test_p9_connections_max_is_of_the_process(planes, origin):
    at = planes(origin(), occupancy={"connections_max": 3}, routes=[{"path": "/", "auth": "none"}])
    there = [at.connect(number) for number in (LOOP, THREAD, THREAD)]
    for client in there:
        client.sendall(get())
        client.read_response()
    waiting = [at.connect(LOOP), at.connect(THREAD)]
    for client in waiting:
        client.sendall(get())
    wait_until(lambda: all(at.call(lambda: [p.shortages["full"] for p in at.planes])), "both are full")
    assert at.occupancy.client_count == 3
    there.pop(1).close()  # of the thread: there is room for one, whoever comes first
    there.pop(0).close()  # of the loop: and for the other one
    for client in waiting:
        assert client.read_response()[1] == b"ok"
    assert at.occupancy.client_count == 3
    for client in there + waiting:
        client.close()
    wait_until(lambda: at.occupancy.client_count == 0, "all have gone")


def test_p9_connections_per_client_max_is_of_the_process(planes, origin):
    at = planes(
        origin(), occupancy={"connections_max": 100, "per_client_max": 2}, routes=[{"path": "/", "auth": "none"}]
    )
    with at.connect(LOOP) as one, at.connect(THREAD) as other:
        for client in (one, other):
            client.sendall(get())
            client.read_response()
        for number in (LOOP, THREAD):
            with at.connect(number) as third:
                assert third.read_all() == b""
    wait_until(lambda: at.occupancy.client_count == 0, "they have gone")
    assert at.ask(THREAD, get())[1] == b"ok", "and so there is room"


def test_limits_that_a_reload_changes(planes, origin):
    at = planes(origin(), occupancy={"connections_max": 4, "per_client_max": 1}, routes=[{"path": "/", "auth": "none"}])
    with at.connect(LOOP) as one:
        one.sendall(get())
        one.read_response()
        at.occupancy.allow(8, per_client_max=2)
        with at.connect(THREAD) as other:
            other.sendall(get())
            other.read_response()
            with at.connect(THREAD) as third:
                assert third.read_all() == b"", "the first one is still counted"


def test_p9_connections_of_a_server_are_counted_over_all_planes(planes, origin):
    """One plane has the server; the request of the other one waits, and is served when the first
    one has its answer.
    """
    behind = Held(origin)
    at = planes(behind.at, upstream={"connections_max": 1}, routes=[{"path": "/", "auth": "none"}])
    for first, second in ((LOOP, THREAD), (THREAD, LOOP)):
        with at.connect(first) as one, at.connect(second) as other:
            one.sendall(get())
            behind.wait_for_one()
            other.sendall(get())
            wait_until(lambda: at.state["queued"] == 1, "it waits")
            count = behind.count
            behind.answer_one()
            assert one.read_response()[1] == b"ok"
            behind.wait_for_one()
            assert behind.count == count + 1
            assert at.state["active"] == 1
            behind.answer_one()
            assert other.read_response()[1] == b"ok"
    wait_until(lambda: at.state["active"] == at.state["queued"] == 0, "nothing is under way")


def test_p9_pending_max_is_of_the_process(planes, origin):
    behind = Held(origin)
    at = planes(
        behind.at, upstream={"connections_max": 1, "pending_max": 2}, routes=[{"path": "/", "auth": "none"}], count=3
    )
    clients = [at.connect(number) for number in (LOOP, 1, 2)]
    clients[0].sendall(get())
    behind.wait_for_one()
    for queued, client in enumerate(clients[1:], 1):
        client.sendall(get())
        wait_until(lambda queued=queued: at.state["queued"] == queued, "it waits")
    for number in range(3):
        assert status_of(at.ask(number, get())[0]) == 503
    for _ in clients:
        behind.answer_one()
    for client in clients:
        assert client.read_response()[1] == b"ok"
        client.close()


def test_no_plane_takes_a_server_all_the_time(planes, origin):
    """Nine requests wait in one plane, then one in the other, of a server that takes one at a time:
    they take turns.
    """
    order = []

    def serve(connection):
        while head := connection.read_head():
            order.append(head.split(b" ")[1])
            go_on.wait(BOUND_S)
            connection.sendall(OK)

    go_on = threading.Event()
    at = planes(origin(serve), upstream={"connections_max": 1}, routes=[{"path": "/", "auth": "none"}])
    many = [at.connect(THREAD) for _ in range(9)]
    for queued, client in enumerate(many):
        client.sendall(get("/many"))
        wait_until(lambda queued=queued: at.state["queued"] + at.state["active"] == queued + 1, "it waits")
    with at.connect(LOOP) as one:
        one.sendall(get("/one"))
        wait_until(lambda: at.state["queued"] == 9, "it waits")
        go_on.set()
        for client in [one, *many]:
            assert client.read_response()[1] == b"ok"
            client.close()
    assert order.index(b"/one") <= 3


def test_a_request_that_comes_later_does_not_take_what_another_plane_waits_for(planes, origin):
    """The plane whose turn it is does not get to it at once."""
    behind = Held(origin)
    at = planes(behind.at, upstream={"connections_max": 1}, routes=[{"path": "/", "auth": "none"}])
    with at.connect(THREAD) as one, at.connect(LOOP) as other:
        one.sendall(get("/1"))
        behind.wait_for_one()
        other.sendall(get("/2"))
        wait_until(lambda: at.state["queued"] == 1, "it waits")
        is_held, go_on = threading.Event(), threading.Event()
        at.loop.call_soon_threadsafe(lambda: (is_held.set(), go_on.wait(BOUND_S)))
        assert is_held.wait(BOUND_S)
        behind.answer_one()
        assert one.read_response()[1] == b"ok"
        one.sendall(get("/3"))
        wait_until(lambda: at.upstreams.state()[0]["queued"] == 2 or behind.count == 2, "it waits, too")
        go_on.set()
        for client in (other, one):
            behind.answer_one()
            assert client.read_response()[1] == b"ok"
    assert behind.paths == [b"/1", b"/2", b"/3"]


def test_who_no_longer_waits_holds_up_nobody(planes, origin):
    """A client whose plane has the next turn goes away, while the server is busy."""
    behind = Held(origin)
    at = planes(behind.at, upstream={"connections_max": 1}, routes=[{"path": "/", "auth": "none"}], count=3)
    with at.connect(LOOP) as one, at.connect(2) as last:
        one.sendall(get())
        behind.wait_for_one()
        with at.connect(1) as gone:
            gone.sendall(get())
            wait_until(lambda: at.state["queued"] == 1, "it waits")
            last.sendall(get())
            wait_until(lambda: at.state["queued"] == 2, "so does the last one")
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: at.state["queued"] == 1, "it has gone")
        for client in (one, last):
            behind.answer_one()
            assert client.read_response()[1] == b"ok"


def test_a_server_that_fails_in_one_plane_is_down_in_all(planes, origin):
    good, address = origin(), ("127.0.0.1", free_port())
    at = planes(good, routes=[{"path": "/", "auth": "none"}])
    at.call(at.upstreams.set_servers, 0, [(server_of(good), 1), (address, 1)])
    for _ in range(2):
        assert at.ask(THREAD, get())[1] == b"ok"
    assert [each["state"] for each in at.call(at.upstreams.state)] == ["up", "down"]
    assert at.call(at.upstreams.news) == [(0, f"127.0.0.1:{address[1]}", "Connection refused")]


def test_a_server_that_goes_gets_nothing_more_from_any_plane(planes, origin):
    old, new = origin(), origin()
    at = planes(old, routes=[{"path": "/", "auth": "none"}], count=3)
    for number in range(3):
        at.ask(number, get())
    wait_until(lambda: at.state["idle"] == 3, "each has a connection that idles")
    at.call(at.upstreams.set_servers, 0, [(server_of(new), 1)])
    for connection in old.connections:
        wait_until(lambda connection=connection: connection.fileno() < 0, "it is closed")
    for number in range(3):
        at.ask(number, get())
    assert [len(old.requests), len(new.requests)] == [3, 3]


# --- the GIL

#: An upstream server and a client in a process of their own: it prints when each answer came.
ASIDE = """
import socket, sys, threading, time

def serve():
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

def answer(connection):
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")

def wait():
    sys.stdin.readline()
    over.set()

listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, daemon=True).start()
print(listener.getsockname()[1], flush=True)
port, ticket = sys.stdin.readline().split()
over, times = threading.Event(), []
threading.Thread(target=wait, daemon=True).start()
with socket.create_connection(("127.0.0.1", int(port))) as client:
    client.settimeout(10)
    while not over.is_set():
        client.sendall(f"GET / HTTP/1.1\\r\\nHost: a\\r\\nCookie: ticket={ticket}\\r\\n\\r\\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        times.append(time.monotonic())
        if len(times) == 10:
            print("it goes on", flush=True)
print(*times[::10], flush=True)
"""


def answered_while_nobody_has_the_gil(at, number, aside):
    """How many answers came while this thread kept the GIL for a second."""
    print(at.addresses[number][1], at.login(), file=aside.stdin, flush=True)
    assert aside.stdout.readline() == "it goes on\n"
    began_s = time.monotonic()
    ctypes.PyDLL(None).usleep(1_000_000)  # a call that does not let go of the GIL
    ended_s = time.monotonic()
    aside.stdin.close()
    times = map(float, aside.stdout.readline().split())
    assert aside.wait(BOUND_S) == 0
    return sum(began_s + 0.1 < each < ended_s - 0.1 for each in times)


@BOTH
def test_a_plane_in_a_thread_serves_without_the_gil(planes, number):
    command = [sys.executable, "-c", ASIDE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as aside:
        at = planes(("127.0.0.1", int(aside.stdout.readline())), lease_ms=5000)
        count = answered_while_nobody_has_the_gil(at, number, aside)
    assert (count > 0) == (number == THREAD)


# --- what a plane is told


def test_a_client_goes_from_plane_to_plane(planes, origin):
    at = planes(names_the_user(origin), count=3)
    ticket = at.login()
    with at.connect(THREAD) as client:
        for number in (THREAD, LOOP, 2, THREAD):
            client.sendall(get(ticket=ticket))
            assert client.read_response()[1] == b"alice"
            wait_until(lambda number=number: connection_count(at, number) == 1, "it is there")
            released = []
            wait_until(
                lambda number=number, released=released: released.append(at.release(number)) or released[-1],
                "it is let go of",
            )
            assert connection_count(at, number) == 0
            fd, address, is_believed = released[-1]
            following = {THREAD: LOOP, LOOP: 2, 2: THREAD}[number]
            at.call(at.planes[following].adopt, fd, address, is_believed)
        client.sendall(get(ticket=ticket))
        assert client.read_response()[1] == b"alice"
        assert at.occupancy.client_count == 1


@BOTH
def test_a_plane_that_stops_accepting_lets_those_in_who_are_there(planes, origin, number):
    at = planes(origin(), routes=[{"path": "/", "auth": "none"}])
    plane = at.planes[number]
    there = [at.connect(number) for _ in range(5)]
    at.call(plane.stop_accepting)
    wait_until(lambda: at.call(lambda: plane.is_caught_up), "it has")
    with pytest.raises(OSError):
        Client(at.addresses[number])
    for client in there:
        client.sendall(get())
        head, _ = client.read_response()
        assert b"Connection: close" in head
        client.close()
    wait_until(lambda: connection_count(at, number) == 0, "they have gone")


@BOTH
def test_a_plane_that_drains_closes_who_has_nothing_under_way(planes, origin, number):
    behind = Held(origin)
    at = planes(behind.at, routes=[{"path": "/", "auth": "none"}])
    with at.connect(number) as idle, at.connect(number) as busy:
        busy.sendall(get())
        behind.wait_for_one()
        wait_until(lambda: connection_count(at, number) == 2, "both are there")
        at.call(at.planes[number].drain)
        assert idle.read_all() == b""
        behind.answer_one()
        assert busy.read_response()[1] == b"ok"
        assert busy.read_all() == b""


@pytest.mark.parametrize("number", [LOOP, THREAD])
def test_a_client_that_comes_while_a_plane_drains_is_let_go_of_or_answered(planes, origin, number):
    """From a configuration that ends at the same time."""
    at = planes(names_the_user(origin))
    idle, asking = (at.connect(1 - number) for _ in range(2))
    with idle, asking:
        wait_until(lambda: connection_count(at, 1 - number) == 2, "both")
        clients = [wait_until(lambda: at.release(1 - number), "released") for _ in range(2)]
        asking.sendall(get("/login"))
        at.call(at.planes[number].drain)
        for client in clients:
            at.call(at.planes[number].adopt, *client)
        assert idle.read_all() == b""
        assert status_of(asking.read_response()[0]) == 200
        wait_until(lambda: connection_count(at, number) == 0, "they have gone")


@pytest.mark.parametrize("comes_late", [False, True], ids=["before", "after"])
def test_a_client_that_nobody_has_taken_is_let_go_of_by_a_drain(planes, origin, comes_late):
    """It was released for somebody who has no room, or whose time was over."""
    at = planes(names_the_user(origin))
    plane = at.planes[THREAD]
    clients = [at.connect(THREAD) for _ in range(2)]
    with clients[0], clients[1]:
        wait_until(lambda: connection_count(at, THREAD) == 2, "they are let in")

        def release_and_drain():
            taken = plane.release()  # one of them, if the thread was quick; nobody takes the other
            if not comes_late:
                wait_until(lambda: plane.is_caught_up, "released")
            plane.drain()
            if taken:
                os.close(taken[0])

        at.call(release_and_drain)
        assert [client.read_all() for client in clients] == [b"", b""]


def test_tunnels_are_counted_and_told_to_part(planes, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        connection.read_all()

    at = planes(origin(serve), routes=[{"path": "/", "auth": "none"}])
    plane = at.planes[THREAD]
    with at.connect(THREAD) as client:
        client.sendall(upgrade(KEY))
        assert status_of(client.read_head()) == 101
        wait_until(lambda: plane.tunnel_count == 1, "it is counted")
        told = at.call(plane.part, 5)
        assert client.read_exactly(4) == b"\x88\x02\x03\xe9"
        wait_until(lambda: told + at.call(plane.part, 5) == 1, "it says that one was told")
    wait_until(lambda: plane.tunnel_count == plane.connection_count == 0, "it has gone")


def test_more_is_asked_than_there_is_room_for(planes, origin, monkeypatch):
    """The loop does not read for a while. No question is lost, and all are answered."""
    at = planes(origin(), options={"limits": {"head_bytes_max": 65536}})
    plane = at.planes[THREAD]
    at.call(at.loop.remove_reader, plane.asks_fileno())
    answers = at._answers.pop()
    padding = "x" * 60_000
    clients = [at.connect(THREAD) for _ in range(60)]
    for client in clients:
        client.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket=A; ticket=B; c={padding}\r\n\r\n".encode())
    wait_until(lambda: at.call(lambda: plane.stats["requests"]) == 60, "all have asked")
    at._answers.append(answers)
    at.call(at.loop.add_reader, plane.asks_fileno(), answers.begin_new)
    for client in clients:
        assert status_of(client.read_response()[0]) == 400
        client.close()


def test_more_is_told_than_there_is_room_for(planes, origin, monkeypatch):
    """A plane that has not begun yet finds all of it, in its order."""
    at = planes(origin(), routes=[{"path": "/", "auth": "none"}], count=2)
    at.call(at.add_plane, True)
    plane = at.planes.pop()
    for _ in range(5_000):
        at.call(lambda: [plane.leave(True), plane.leave(False)])
    assert not at.call(lambda: plane.is_caught_up)
    thread = threading.Thread(target=plane.run)
    thread.start()
    try:
        wait_until(lambda: at.call(lambda: plane.is_caught_up), "it has done all")
        with Client(at.addresses[-1]) as client:
            client.sendall(get())
            assert b"Connection: close" not in client.read_response()[0]
    finally:
        plane.stop()
        thread.join(BOUND_S)


def test_a_plane_is_driven_in_one_way(planes, origin):
    at = planes(origin())
    for call in (at.planes[LOOP].run, at.planes[THREAD].turn, at.planes[THREAD].tick):
        with pytest.raises(RuntimeError):
            call()


# --- the end


def test_a_plane_ends_with_everything_under_way(planes, origin, monkeypatch):
    """Requests at a server, in the queue, waiting for a verdict, for a change; a client that idles;
    half a head. Everything that other planes count with is given back.
    """
    behind = Held(origin)
    routes = [{"path": "/open", "auth": "none"}, {"path": "/"}]
    at, other = planes(behind.at, upstream={"connections_max": 1}, routes=routes), planes(behind.at)
    unknown = other.login("bob")
    asks = asking(at, THREAD, monkeypatch)
    clients = [at.connect(THREAD) for _ in range(5)]
    clients[0].sendall(get("/open"))
    behind.wait_for_one()
    clients[1].sendall(get("/open"))
    clients[2].sendall(get(ticket=unknown))
    clients[3].sendall(b"GET / HTT")
    wait_until(lambda: len(asks) == 1 and at.state["queued"] == 1 and connection_count(at, THREAD) == 5, "all wait")
    at.stop_plane(THREAD)
    for client in clients:
        assert client.read_all() == b""
        client.close()
    assert (at.state["active"], at.state["queued"], at.occupancy.client_count) == (0, 0, 0)
    at.call(at.planes[THREAD].admit, asks[0].handle)  # nobody is there any more
    theirs, ours = socket.socketpair()
    with theirs:
        at.call(at.planes[THREAD].adopt, ours.detach(), b"", False)
        theirs.settimeout(BOUND_S)
        assert theirs.recv(1) == b""
    behind.answer_one()
    behind.answer_one()
    assert at.ask(LOOP, get("/open"))[1] == b"ok"
    log = [line for line in at.planes[THREAD].log.take().splitlines() if b'"cut": true' in line]
    assert len(log) == 3


def test_the_loop_s_plane_ends_beside_others(planes, origin):
    at = planes(origin(), routes=[{"path": "/", "auth": "none"}])
    with at.connect(LOOP) as client:
        client.sendall(get())
        client.read_response()
        at.call(at.planes[LOOP].stop)
        assert client.read_all() == b""
    assert at.ask(THREAD, get())[1] == b"ok"
    assert at.call(at.planes[LOOP].asks) == []


def test_a_plane_that_never_ran_lets_go_of_what_it_was_given(planes, origin):
    at = planes(origin())
    at.call(at.add_plane, True)
    theirs, ours = socket.socketpair()
    with theirs:
        at.call(at.planes[-1].adopt, ours.detach(), b"", False)
        at.call(at.planes.pop)
        theirs.settimeout(BOUND_S)
        assert theirs.recv(1) == b""


def test_asks_of_all_kinds_have_what_they_had(planes, origin, monkeypatch):
    """A record of a plane in a thread is that of a plane in the loop."""

    def serve(connection):
        while True:
            made.request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Ticket-Login: alice\r\n\r\n")

    made = origin(serve)
    at = planes(made, options={"login_details": ("address", "user_agent")})
    raw = b"GET /login HTTP/1.1\r\nHost: a.example\r\nUser-Agent: b\xc3\xa4r\r\n\r\n"
    found = []
    for number in (LOOP, THREAD):
        asks = asking(at, number, monkeypatch)
        with at.connect(number) as client:
            client.sendall(raw)
            wait_until(lambda asks=asks: asks, "it asks")
            at.call(at.planes[number].fail, asks[0].handle, 500, "internal")
            assert status_of(client.read_response()[0]) == 500
        found.append(asks[0]._replace(handle=0))
    assert found[0] == found[1]
    assert found[0].kind == AskKind.LOGIN
    assert (found[0].principal, found[0].where.host) == (b"alice", "a.example")
    assert found[0].details == {"address": "127.0.0.1", "user_agent": "bär"}

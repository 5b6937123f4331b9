"""The transport below the Redis store: links, queues, who the primary is. Real servers, and servers
and links that misbehave.
"""

# ruff: noqa: ASYNC110 -- what another process does is looked for, at every turn
# ruff: noqa: ASYNC251 -- a process that is held up

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import select
import socket
import struct
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
import uvloop
from lab.redis_fakes import Proxy, Scripted, array, bulk
from lab.redis_servers import ClusterSetup, SentinelSetup, closing_all, free_port, make_certificates, wait_until
from lab.redis_servers import Server as RealServer
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

import fastticket
from fastticket import tasks
from fastticket.errors import StoreBusy, StoreUnavailable
from fastticket.stores.contract import Request, Store
from fastticket.stores.redis import cluster as redis_cluster
from fastticket.stores.redis import connecting as redis_connecting
from fastticket.stores.redis import link as redis_link
from fastticket.stores.redis import patience as redis_patience
from fastticket.stores.redis import polling as redis_polling
from fastticket.stores.redis import sendqueue as redis_sendqueue
from fastticket.stores.redis import sentinel as redis_sentinel
from fastticket.stores.redis import servers as redis_servers
from fastticket.stores.redis.address import Place, parse_url, place_of, slot_of
from fastticket.stores.redis.cluster import Cluster
from fastticket.stores.redis.connecting import connect
from fastticket.stores.redis.errors import error_of
from fastticket.stores.redis.link import Packed
from fastticket.stores.redis.patience import Patience
from fastticket.stores.redis.sentinel import Sentinel
from fastticket.stores.redis.servers import CLOSE_S, Server
from fastticket.stores.redis.topology import make_topology

BOUND_S = 20.0
TIMEOUT_S = 0.4  # where silence, or being held up, is what it is about
PATIENCE_S = 10.0  # everywhere else: a server on a busy machine may be silent for a while
SLACK_S = 1.0  # a busy machine
PING = ("PING",)
CONFIRM_S = 0.5


async def until(holds, bound_s: float = BOUND_S) -> None:
    async with asyncio.timeout(bound_s):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    server = RealServer(tmp_path_factory.mktemp("redis"), {"enable-debug-command": "yes"})
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def server_at(port: int, timeout_s: float = PATIENCE_S, on_change=lambda server: None, **more):
    server = Server("it", Place("127.0.0.1", port, **more), timeout_s, on_change)
    try:
        yield server
    finally:
        async with asyncio.timeout(BOUND_S):
            await server.aclose()


# --- errors


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("MOVED 3999 127.0.0.1:6381", MovedError),
        ("ASK 3999 127.0.0.1:6381", AskError),
        ("MOVED nonsense", ResponseError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", TryAgainError),
        ("CLUSTERDOWN The cluster is down", ClusterDownError),
        ("NOSCRIPT No matching script. Please use EVAL.", NoScriptError),
        ("READONLY You can't write against a read only replica.", ReadOnlyError),
        ("MASTERDOWN Link with MASTER is down", MasterDownError),
        ("LOADING Redis is loading the dataset in memory", BusyLoadingError),
        ("NOAUTH Authentication required.", AuthenticationError),
        ("WRONGPASS invalid username-password pair or user is disabled.", AuthenticationError),
        ("ERR AUTH <password> called without any password configured", AuthenticationError),
        ("NOPERM User x has no permissions to run the 'get' command", NoPermissionError),
        ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError),
        ("MISCONF Redis is configured to save RDB snapshots", ResponseError),
        ("BUSY Redis is busy running a script.", ResponseError),
        ("ERR whatever", ResponseError),
    ],
)
def test_an_error_reply_is_one_by_its_first_word(reply, kind):
    error = error_of(reply)
    assert type(error) is kind
    if kind not in (MovedError, AskError):
        assert str(error) == reply
    else:
        assert (error.slot_id, error.host, error.port) == (3999, "127.0.0.1", 6381)


def test_no_password_in_what_a_server_does_not_know():
    assert "hush" not in str(error_of("ERR unknown command 'AUTH', with args beginning with: 'me' 'hush'"))


# --- a link


async def test_replies_in_pieces(real):
    async with Proxy(real.port, piece=1).running() as proxy, server_at(proxy.port, 5.0) as server:
        replies = await asyncio.gather(*(server.call([("ECHO", n), ("ECHO", "x" * n)]) for n in range(60)))
    assert replies == [[str(n).encode(), b"x" * n] for n in range(60)]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """One server, by each kind of connection."""
    folder = tmp_path_factory.mktemp("places")
    files = make_certificates(folder)
    port, options = free_port(), {"requirepass": "hush", "unixsocket": folder / "socket"}
    options |= {"tls-port": port, "tls-cert-file": files["server"], "tls-key-file": files["server_key"]}
    options |= {"tls-ca-cert-file": files["ca"], "tls-auth-clients": "no"}
    with closing_all(server := RealServer(folder, options)):
        tls = (("ssl_ca_certs", str(files["ca"])),)
        yield {
            "tcp": Place("127.0.0.1", server.port, db=3, password="hush"),
            "unix": Place(path=str(folder / "socket"), db=3, password="hush"),
            "tls": Place("localhost", port, db=3, password="hush", tls=True, tls_files=tls),
        }


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
async def test_it_greets_in_one_round_trip(places, kind):
    link = await connect(places[kind], 5.0)
    assert link.info["run_id"]
    assert (await link.ask([("CLIENT", "INFO")]))[0].partition(b" db=")[2].startswith(b"3 ")
    link.close()
    await link.closed


@pytest.mark.parametrize("password", ["hushed", None])
async def test_a_wrong_password_is_refused_and_said_nowhere(places, password):
    wrong = dataclasses.replace(places["tcp"], password=password)
    with pytest.raises(AuthenticationError) as refused:
        await connect(wrong, 5.0)
    assert "hush" not in str(refused.value) + repr(wrong)


async def test_what_is_not_redis_is_no_server():
    async with Scripted(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n").running() as fake:
        fake.greets = False
        async with server_at(fake.port) as server:
            with pytest.raises(StoreUnavailable, match="not the answer of a Redis server"):
                await server.call([PING])
            assert server.breaker.state != "closed"


@pytest.mark.timed
async def test_a_handshake_that_hangs_is_over_in_time_and_leaves_nothing_open(real):
    """TCP accepts, TLS says nothing; also when the store is closed meanwhile."""
    async with Proxy(real.port).running() as proxy:
        proxy.swallows = True
        async with server_at(proxy.port, TIMEOUT_S, tls=True) as server:
            began_s = time.monotonic()
            with pytest.raises(StoreUnavailable, match="no answer in"):
                await server.call([PING])
            assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S
        async with server_at(proxy.port, 30.0, tls=True) as server:
            calling = asyncio.create_task(server.call([PING]))
            await until(lambda: proxy.accepted == 2)
        with pytest.raises(StoreUnavailable, match="closed"):
            await calling
        await until(lambda: not proxy.open_links)


# --- one turn, one write


def calls_when_a_link_is_made(act, turns, monkeypatch):
    """`act()` so many turns of the loop after a link was made; its socket is connected."""

    class Noticed(redis_link.Link):
        def __init__(self, timeout_s):
            super().__init__(timeout_s)
            self.wait(turns)

        def wait(self, left):
            if left:
                self._loop.call_soon(self.wait, left - 1)
            else:
                act()

    monkeypatch.setattr(redis_connecting, "Link", Noticed)


def fails_to_connect(place, loop, on_begin=lambda connecting: None):
    """The error. A socket that is still open when it is collected closes its descriptor, whoever
    has it by then: there is none.
    """

    async def connect_in_vain():
        connecting = asyncio.ensure_future(connect(place, BOUND_S))
        on_begin(connecting)
        await asyncio.wait([connecting])
        await until(lambda: len(asyncio.all_tasks()) == 1)
        return "given up" if connecting.cancelled() else connecting.exception()

    gc.collect()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=loop) as runner:
            error = runner.run(connect_in_vain())
        gc.collect()
    assert [str(each.message) for each in found] == []
    return error


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
def test_who_gives_up_at_any_moment_closes_his_descriptor_once(places, kind, loop, turns, monkeypatch):
    begun = []
    calls_when_a_link_is_made(lambda: begun[0].cancel(), turns, monkeypatch)
    assert fails_to_connect(places[kind], loop, begun.append) == "given up"


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_who_is_reset_at_any_moment_closes_his_descriptor_once(tls, loop, turns, monkeypatch):
    def reset():
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    calls_when_a_link_is_made(reset, turns, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = fails_to_connect(Place(*listener.getsockname(), tls=tls), loop)
    assert isinstance(error, ConnectionError)


async def test_all_of_a_turn_is_one_write():
    async with Scripted().running() as fake, server_at(fake.port) as server:
        await server.call([PING])
        fake.pieces.clear()
        await asyncio.gather(*(server.call([PING, PING]) for _ in range(30)))
        assert fake.pieces == [60]


@pytest.mark.timed
async def test_a_flush_leaves_without_waiting_for_round_trips(real):
    """40 scripts of 400 touches, 0.15 s there and 0.15 s back."""
    touches = (
        "EVAL",
        "return #ARGV",
        0,
        *(part for n in range(400) for part in (1_700_000_000_000 + n, f"{n:022}.user")),
    )
    async with Proxy(real.port, 0.15).running() as proxy, server_at(proxy.port, 2.0) as server:
        await server.call([PING])
        began_s = time.monotonic()
        replies = await asyncio.gather(*(server.call([touches]) for _ in range(40)))
        assert time.monotonic() - began_s < 0.3 + 0.5
    assert replies == [[800]] * 40


async def test_words_that_are_packed_already_are_a_commands_last_words(real):
    words = ("17", "x.jörg", "", "a\r\n$1")
    packed = Packed(len(words), b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words))
    echo = ("EVAL", "return ARGV", 0, "first")
    async with server_at(real.port) as server:
        replies = await server.call([PING, (*echo, packed), (*echo, *words), (*echo, Packed(0, b"")), PING])
    assert replies[1] == replies[2] == [word.encode() for word in ("first", *words)]
    assert (replies[3], replies[4]) == ([b"first"], replies[0])


async def test_a_server_that_does_not_read_holds_up_what_is_written(monkeypatch):
    """Back-pressure: what cannot leave stays in the queue, and times out as silence."""
    monkeypatch.setattr(redis_sendqueue, "WINDOW_BYTES", 1 << 30)
    async with Scripted(lambda _: asyncio.Event().wait()).running() as fake, server_at(fake.port, TIMEOUT_S) as server:
        big = ("ECHO", b"x" * (1 << 20))
        calls = [asyncio.create_task(server.call([big])) for _ in range(40)]
        await until(lambda: server._queue.link and not server._queue.link.has_room)
        assert len(server._queue.link.under_way) < 40
        assert all(isinstance(e, StoreUnavailable) for e in await asyncio.gather(*calls, return_exceptions=True))


async def test_a_thousand_replies_at_once_do_not_wake_up_a_thousand_callers_in_one_turn():
    """The server answers all in one piece."""
    replies: list[bytes] = []

    async def at_the_end(words):
        replies.append(b":1\r\n")
        return b"".join(replies) if len(replies) == 1000 else None

    turn = 0
    woken: Counter[int] = Counter()

    async def call() -> None:
        await server.call([("GET", "x")])
        woken[turn] += 1

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with Scripted(at_the_end).running() as fake, server_at(fake.port, 5.0) as server:
        counting = asyncio.create_task(count_turns())
        calling = [asyncio.create_task(call()) for _ in range(1000)]
        await asyncio.gather(*calling)
        await tasks.end(counting)
    assert max(woken.values()) <= redis_link.REPLIES_PER_TURN


async def lateness(seen: list[float]) -> None:
    """How late each turn of the loop is."""
    while True:
        before_s = time.monotonic()
        await asyncio.sleep(0.001)
        seen.append(time.monotonic() - before_s - 0.001)


@pytest.mark.alone
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_twenty_thousand_logins_at_once(real, loop):
    """All are answered, without a trip; what is urgent does not wait for them, and the loop goes on
    turning.
    """
    with asyncio.Runner(loop_factory=loop) as runner:
        late = runner.run(_storm(real))
    late.sort()
    print(f"\nturns {len(late)}, p99 {late[int(len(late) * 0.99)] * 1e3:.1f} ms, longest {late[-1] * 1e3:.1f} ms")
    assert late[int(len(late) * 0.99)] < 0.05


async def _storm(real) -> list[float]:
    login = ("EVAL", "local n = 0; for i = 1, 300 do n = n + i end; return redis.call('INCR', KEYS[1])", 1, "logins")
    real.admin("DEL", "logins")
    late: list[float] = []
    async with server_at(real.port, 1.0) as server:
        await server.call([PING])
        began_s = time.monotonic()
        logins = [asyncio.create_task(server.call([login])) for _ in range(20_000)]
        await asyncio.sleep(0)  # all have been sent off: that turn is the callers'
        ticking = asyncio.create_task(lateness(late))
        urgent_s = []
        while not logins[-1].done():
            asked_s = time.monotonic()
            await server.call([("EVALSHA", "0" * 40, 0)])
            urgent_s.append(time.monotonic() - asked_s)
        ticking.cancel()
        answers = await asyncio.gather(*logins)
        took_s = time.monotonic() - began_s
        print(f"\n20,000 in {took_s:.2f} s; {len(urgent_s)} urgent ones, the slowest {max(urgent_s) * 1e3:.0f} ms")
        assert sorted(value for (value,) in answers) == list(range(1, 20_001))
        assert server.breaker.state == "closed"
        assert max(urgent_s) < 0.5
        assert took_s < BOUND_S
    return late


async def test_what_is_urgent_does_not_wait_behind_a_storm():
    """It leaves behind what is under way, and one call of each kind."""
    async with Scripted().running() as fake, server_at(fake.port, 5.0) as server:
        await server.call([PING])
        storm = [asyncio.create_task(server.call([("EVALSHA", "login", 0)])) for _ in range(8000)]
        await asyncio.sleep(0)
        urgent = asyncio.create_task(server.call([("EVALSHA", "revoke", 0)]))
        await asyncio.gather(*storm, urgent)
        place = next(n for n, words in enumerate(fake.heard) if words[:2] == [b"EVALSHA", b"revoke"])
        assert place < redis_sendqueue.WINDOW_COMMANDS + redis_sendqueue.TURN_COMMANDS


# --- waiting is not failing


async def test_waiting_does_not_count_in_the_timeout():
    """Each reply takes half of the timeout, twelve of them six."""

    async def slowly(words):
        await asyncio.sleep(TIMEOUT_S / 2)
        return b"+OK\r\n"

    async with Scripted(slowly).running() as fake, server_at(fake.port, TIMEOUT_S) as server:
        replies = await asyncio.gather(*(server.call([PING]) for _ in range(12)))
        assert replies == [[b"OK"]] * 12
        assert server.breaker.state == "closed"


async def test_a_queue_that_is_full_refuses_and_trips_nothing(real, monkeypatch):
    monkeypatch.setattr(redis_sendqueue, "WAITING_COMMANDS_MAX", 100)
    async with server_at(real.port) as server:
        answers = await asyncio.gather(*(server.call([PING]) for _ in range(150)), return_exceptions=True)
        assert answers[:100] == [[b"PONG"]] * 100
        assert all(
            isinstance(answer, StoreBusy) and "commands wait, try again" in str(answer) for answer in answers[100:]
        )
        assert server.breaker.state == "closed"
        assert await server.call([PING]) == [b"PONG"]


async def test_who_waits_for_too_long_is_told_so(monkeypatch):
    monkeypatch.setattr(redis_sendqueue, "WAITING_S", 0.3)
    monkeypatch.setattr(redis_sendqueue, "WINDOW_COMMANDS", 1)

    async def slowly(words):
        await asyncio.sleep(0.2)
        return b"+OK\r\n"

    async with Scripted(slowly).running() as fake, server_at(fake.port) as server:
        await server.call([PING])
        answers = await asyncio.gather(*(server.call([PING]) for _ in range(20)), return_exceptions=True)
        busy = [answer for answer in answers if isinstance(answer, StoreBusy)]
        assert 4 <= len(busy) < 20
        assert all(answer == [b"OK"] for answer in answers if answer not in busy)
        assert server.breaker.state == "closed"


@pytest.mark.alone
async def test_a_server_that_hangs_fails_everything_in_time_and_works_again(tmp_path):
    with closing_all(real := RealServer(tmp_path)):
        async with server_at(real.port, TIMEOUT_S) as server:
            assert await server.call([PING]) == [b"PONG"]
            real.pause()
            began_s = time.monotonic()
            calls = [server.call([PING], confirm=n % 3 == 0) for n in range(5000)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S
            assert {type(answer) for answer in answers} == {StoreUnavailable}
            assert server.breaker.state != "closed"
            real.resume()
            await until_answers(server)
            assert server.breaker.state == "closed"


async def until_answers(server: Server) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await server.call([PING])
            await asyncio.sleep(0.01)


@pytest.mark.timed
async def test_a_link_that_swallows_everything_fails_in_time(real):
    """Half-open: no reset, no end."""
    async with Proxy(real.port).running() as proxy, server_at(proxy.port, TIMEOUT_S) as server:
        await server.call([PING])
        proxy.swallows = True
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"no answer in 0\.4 s"):
            await server.call([PING])
        assert TIMEOUT_S * 0.9 < time.monotonic() - began_s < TIMEOUT_S + SLACK_S
        proxy.swallows = False
        await until_answers(server)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_answer_that_came_while_the_process_was_held_up_is_one(real, loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_held_up(real))


async def _held_up(real) -> None:
    async with server_at(real.port, TIMEOUT_S) as server:
        await until_answers(server)
        for _ in range(5):
            call = asyncio.create_task(server.call([("DEBUG", "SLEEP", 0.1)]))
            for _ in range(3):  # it is called, and it leaves
                await asyncio.sleep(0)
            time.sleep(2 * TIMEOUT_S)
            if server._queue.link.under_way:  # the answer is there, however long the server took
                select.select([server._queue.link._transport.get_extra_info("socket")], [], [], BOUND_S)
            assert await call == [b"OK"]
        assert server.breaker.state == "closed"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_timer_that_is_due_looks_before_it_judges(loop):
    """The answer is in the socket when it is due, and the loop has not looked there: older versions
    of libuv run their timers first.
    """

    async def due_at_once() -> list[str]:
        here, there = socket.socketpair()
        with here, there:
            seen: list[str] = []
            loop = asyncio.get_running_loop()
            began_s = loop.time()

            def since() -> float | None:
                if loop.time() >= began_s + 0.05:
                    there.send(b"x")
                return None if seen else began_s

            patience = Patience(0.05, since, lambda: seen.append("over"))
            loop.add_reader(here, lambda: seen.append("answer") or loop.remove_reader(here))
            patience.start()
            await until(lambda: seen)
            await asyncio.sleep(0.01)
            return seen

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(due_at_once()) == ["answer"]


async def test_who_was_held_up_gives_the_server_a_moment_more():
    """The answer comes a little after the process goes on, long after the timeout."""

    async def late(words):
        if words[0] == b"SLOW":
            time.sleep(2 * TIMEOUT_S)
            await asyncio.sleep(TIMEOUT_S / 4)
        return b"+OK\r\n"

    async with Scripted(late).running() as fake, server_at(fake.port, TIMEOUT_S) as server:
        await server.call([PING])
        assert await server.call([("SLOW",)]) == [b"OK"]


async def test_a_greeting_that_came_while_the_process_was_held_up_is_one():
    asked, answered = threading.Event(), threading.Event()

    def greet() -> None:
        """As a server does that is another process."""
        connection, _ = listener.accept()
        with connection:
            assert b"INFO" in connection.recv(4096)
            asked.set()
            assert is_held_up.wait(BOUND_S)
            connection.sendall(bulk(b"run_id:" + b"a" * 40))
            answered.set()
            while connection.recv(4096):
                connection.sendall(b"+PONG\r\n")

    is_held_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeting = asyncio.create_task(asyncio.to_thread(greet))
        async with server_at(listener.getsockname()[1], TIMEOUT_S) as server:
            calling = asyncio.create_task(server.call([PING]))
            while not asked.is_set():
                await asyncio.sleep(0)
            is_held_up.set()
            time.sleep(2 * TIMEOUT_S)
            assert answered.wait(BOUND_S)
            assert await calling == [b"PONG"]
        await greeting


# --- connecting, and connecting again


async def test_a_long_round_trip_works_after_any_reset(monkeypatch):
    """Item 7: 0.35 s there and back, a timeout of 1 s."""
    monkeypatch.setattr(redis_patience, "GRACE_S", 1.0)  # who holds up this process holds up the way, too
    async with (
        Scripted().running() as fake,
        Proxy(fake.port, 0.175).running() as proxy,
        server_at(proxy.port, 1.0) as server,
    ):
        for _ in range(3):
            assert await server.call([PING]) == [b"OK"]
            calls = [asyncio.create_task(server.call([PING])) for _ in range(20)]
            await asyncio.sleep(0.1)
            proxy.cut()
            assert await asyncio.gather(*calls) == [[b"OK"]] * 20
        assert server.breaker.state == "closed"
        assert proxy.accepted == 4


async def test_what_was_under_way_on_a_lost_link_is_sent_again(real):
    """Replies stay with their questions."""
    async with Proxy(real.port).running() as proxy, server_at(proxy.port, 5.0) as server:
        await server.call([PING])
        sleeping = asyncio.create_task(server.call([("DEBUG", "SLEEP", 0.2)]))
        calls = [asyncio.create_task(server.call([("ECHO", n)])) for n in range(500)]
        await until(lambda: server._queue.link.under_way)
        proxy.cut()
        assert await asyncio.gather(*calls) == [[str(n).encode()] for n in range(500)]
        assert await sleeping == [b"OK"]
        assert server.breaker.state == "closed"


async def test_a_command_that_costs_its_connection_each_time_fails_alone():
    """It is not sent for ever, and the server does not count as away for others."""

    def answer(words):
        if words[0] == b"KILL":
            fake.writers[-1].transport.abort()
        return b"+OK\r\n"

    async with Scripted(answer).running() as fake, server_at(fake.port) as server:
        for _ in range(4):
            assert await server.call([PING]) == [b"OK"]
            with pytest.raises(StoreUnavailable, match="again and again"):
                await server.call([("KILL",)])
            assert server.breaker.state == "closed"
        assert fake.count(b"KILL") == 4 * (1 + redis_sendqueue.RESENDS_MAX)


async def test_a_server_that_only_ever_hangs_up_is_not_asked_for_ever():
    def answer(words):
        fake.hang_up()

    async with Scripted(answer).running() as fake, server_at(fake.port) as server:
        calls = [server.call([PING]) for _ in range(50)]
        assert {type(a) for a in await asyncio.gather(*calls, return_exceptions=True)} == {StoreUnavailable}
        with contextlib.suppress(StoreUnavailable):
            await server.call([PING])
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await server.call([PING])
        assert len(fake.writers) < 20


async def test_too_many_clients_is_said(tmp_path):
    with closing_all(real := RealServer(tmp_path)), contextlib.closing(real.client()) as admin:
        admin.config_set("maxclients", 1)
        async with server_at(real.port) as server:
            with pytest.raises(StoreUnavailable, match="max number of clients"):
                await server.call([PING])
        admin.config_set("maxclients", 100)


async def test_one_lost_link_does_not_cost_the_others():
    waiting = asyncio.Event()

    async def answer(words):
        if words[0] == b"SLOW":
            await waiting.wait()
        return b":1\r\n"

    async with Scripted(answer).running() as fake, server_at(fake.port, 5.0) as server:
        await server.call([PING])
        slow = asyncio.create_task(server.call([("SLOW",)]))
        await until(lambda: fake.count(b"SLOW"))
        await server.call([PING], confirm=True)
        lasting = asyncio.create_task(server.call([("SLOW",)], confirm=True))
        await until(lambda: fake.count(b"SLOW") == 2)
        fake.hang_up(slice(1, 2))
        await until(lambda: fake.count(b"SLOW") == 3)
        waiting.set()
        assert await slow == [1]
        assert await lasting == [1, 1]
        assert fake.count(b"SLOW") == 3


# --- writes that wait for a replica


@pytest.mark.timed
async def test_who_waits_for_a_replica_holds_up_nobody(tmp_path):
    """And many wait together: their WAIT is one."""
    primary = RealServer(tmp_path, {"repl-diskless-sync-delay": 0})
    replica = RealServer(tmp_path, {"replicaof": f"127.0.0.1 {primary.port}"})
    with closing_all(primary, replica):
        await asyncio.to_thread(wait_until, replica.is_in_sync, "replica in sync")
        async with server_at(primary.port, 2.0) as server:
            writes = [server.call([("INCR", "n")], confirm=True) for _ in range(600)]
            answers = await asyncio.gather(*writes)
            assert sorted(n for n, _ in answers) == list(range(1, 601))
            assert {confirmed for _, confirmed in answers} == {1}
            replica.pause()
            began_s = time.monotonic()
            writes = [asyncio.create_task(server.call([("INCR", "n")], confirm=True)) for _ in range(600)]
            await asyncio.sleep(0.1)
            writes += [asyncio.create_task(server.call([("INCR", "n")], confirm=True)) for _ in range(5)]
            while time.monotonic() < began_s + 0.7:
                asked_s = time.monotonic()
                assert await server.call([PING]) == [b"PONG"]
                assert time.monotonic() - asked_s < 0.3
                writes.append(asyncio.create_task(server.call([("INCR", "n")], confirm=True)))
                await asyncio.sleep(0.02)
            answers = await asyncio.gather(*writes)
            assert {confirmed for _, confirmed in answers} == {0}
            assert time.monotonic() - began_s < 6 + SLACK_S
            assert server.breaker.state == "closed"
            replica.resume()


# --- another server


async def test_another_run_id_drops_every_link_to_the_old_one():
    """A new connection shows it. No reply of the new one comes before `on_change`, none of the old
    one after it.
    """
    told: list[str] = []
    held = asyncio.Event()

    async def answer(words):
        if words[0] == b"SLOW" and fake.run_id[0] == "a":
            await held.wait()
        return (
            array(bulk(b"subscribe"), bulk(b"c"), b":1\r\n")
            if words[0] == b"SUBSCRIBE"
            else bulk(fake.run_id[:1].encode())
        )

    async with (
        Scripted(answer).running() as fake,
        server_at(fake.port, 5.0, lambda server: told.append("change")) as server,
    ):
        listener = await server.subscribe("c")
        assert await server.call([PING]) == [b"a"]
        slow = asyncio.create_task(server.call([("SLOW",)]))
        slow.add_done_callback(lambda _: told.append("reply"))
        await until(lambda: fake.count(b"SLOW"))
        assert told == []
        fake.run_id = "b" * 40
        assert (await server.call([PING], confirm=True))[0] == b"b"
        assert await slow == [b"b"]
        assert told == ["change", "reply"]
        with pytest.raises(ConnectionError, match="another server"):
            await listener.next(5)
        assert await server.call([PING]) == [b"b"]
        assert told == ["change", "reply"]


@pytest.mark.parametrize("reply", [b"-READONLY no\r\n", b"-MASTERDOWN no\r\n", b"-LOADING no\r\n", b"-NOAUTH no\r\n"])
async def test_a_server_that_is_no_primary_is_as_good_as_away(reply):
    async with Scripted(lambda _: reply).running() as fake, server_at(fake.port) as server:
        calls = [server.call([PING]) for _ in range(5)]
        assert {type(a) for a in await asyncio.gather(*calls, return_exceptions=True)} == {StoreUnavailable}
        assert server.breaker.state != "closed"


# --- cancelling, closing


async def test_cancelling_a_caller_cancels_nobody_else(real):
    async with server_at(real.port, 5.0) as server:
        await server.call([PING])
        for confirm in (False, True):
            sleeping = asyncio.create_task(server.call([("DEBUG", "SLEEP", 0.1)], confirm=confirm))
            calls = [asyncio.create_task(server.call([("ECHO", n)], confirm=confirm)) for n in range(100)]
            await asyncio.sleep(0.02)
            calls += [asyncio.create_task(server.call([("ECHO", n)], confirm=confirm)) for n in range(100, 200)]
            await asyncio.sleep(0)
            sleeping.cancel()
            for call in calls[::2]:
                call.cancel()
            kept = await asyncio.gather(*calls[1::2])
            assert [reply[0] for reply in kept] == [str(n).encode() for n in range(1, 200, 2)]
        assert server.breaker.state == "closed"


async def test_a_probe_whose_caller_has_gone_is_not_for_ever():
    """The breaker is half-open, and nobody waits for the one call that may go through."""
    async with Scripted(lambda _: None).running() as fake, server_at(fake.port, 0.1) as server:
        with pytest.raises(StoreUnavailable):
            await server.call([PING])
        await until(lambda: server.breaker.state == "half-open")
        probe = asyncio.create_task(server.call([PING]))
        await asyncio.sleep(0)
        probe.cancel()
        fake.answer = lambda _: b"+OK\r\n"
        await until_answers(server)


@pytest.mark.timed
async def test_closing_is_bounded_and_idempotent(real):
    async with Proxy(real.port).running() as proxy, server_at(proxy.port, 30.0) as server:
        await server.call([PING])
        listener = await server.subscribe("c")
        proxy.swallows = True
        hanging = [asyncio.create_task(server.call([PING], confirm=confirm)) for confirm in (False, True)]
        await asyncio.sleep(0.01)
        began_s = time.monotonic()
        await asyncio.gather(server.aclose(), server.aclose())
        assert time.monotonic() - began_s < CLOSE_S + SLACK_S
        for call in hanging:
            with pytest.raises(StoreUnavailable, match="closed"):
                await call
        with pytest.raises(ConnectionError):
            await listener.next(5)
        with pytest.raises(StoreUnavailable, match="closed"):
            await server.call([PING])


async def test_what_is_under_way_ends_before_the_close(real, monkeypatch):
    monkeypatch.setattr(redis_servers, "CLOSE_S", BOUND_S)
    async with server_at(real.port, 5.0) as server:
        slow = asyncio.create_task(server.call([("DEBUG", "SLEEP", 0.2)]))
        await until(lambda: server._queue.link and server._queue.link.under_way)
        await server.aclose()
        assert await slow == [b"OK"]


async def test_a_task_that_swallows_cancellations_ends(caplog):
    swallowed = 0

    async def stubborn():
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING):
        await tasks.end(task, None)
    assert task.cancelled()
    assert "stubborn: a cancellation got lost" in caplog.text


# --- Sentinel


def a_masters_answer(host: str, port: int, epoch: int, name: bytes = b"main") -> bytes:
    fields = [
        b"name",
        name,
        b"ip",
        host.encode(),
        b"port",
        b"%d" % port,
        b"flags",
        b"master",
        b"config-epoch",
        b"%d" % epoch,
    ]
    return array(array(*map(bulk, fields)))


class ScriptedSentinel(Scripted):
    """Says who the master is; may say nothing."""

    def __init__(self, port: int, epoch: int = 1, *, hangs: bool = False):
        super().__init__(self._say)
        self.says = (port, epoch)
        self.hangs = hangs

    def _say(self, words):
        if self.hangs:
            return None
        if words[0] == b"SUBSCRIBE":
            return array(bulk(b"subscribe"), bulk(words[1]), b":1\r\n")
        return a_masters_answer("127.0.0.1", *self.says)

    def publish(self, old: int, new: int) -> None:
        text = f"main 127.0.0.1 {old} 127.0.0.1 {new}".encode()
        for writer in self.writers:
            writer.write(array(bulk(b"message"), bulk(b"+switch-master"), bulk(text)))


class Watched:
    """A Sentinel topology over scripted sentinels and two scripted masters; what was told of
    changes and answered, in order.
    """

    def __init__(self, *epochs_or_none: int | None):
        self.masters = [Scripted(lambda _, n=n: b":%d\r\n" % n) for n in range(2)]
        for number, master in enumerate(self.masters):
            master.run_id = str(number) * 40
        self.epochs = epochs_or_none
        self.changes = 0

    @contextlib.asynccontextmanager
    async def running(self, timeout_s: float = PATIENCE_S, confirm_s: float = CONFIRM_S):
        async with contextlib.AsyncExitStack() as stack:
            for master in self.masters:
                await stack.enter_async_context(master.running())
            self.sentinels = [
                ScriptedSentinel(self.masters[0].port, epoch or 0, hangs=epoch is None) for epoch in self.epochs
            ]
            for sentinel in self.sentinels:
                await stack.enter_async_context(sentinel.running())
            url = f"redis+sentinel://{','.join(sentinel.address for sentinel in self.sentinels)}/main"
            address = parse_url(f"{url}?timeout_ms={int(timeout_s * 1000)}", Path())
            self.topology = make_topology(address, self._changed, confirm_s)
            assert isinstance(self.topology, Sentinel)
            try:
                yield self
            finally:
                async with asyncio.timeout(BOUND_S):
                    await self.topology.aclose()

    def _changed(self, server: Server) -> None:
        self.changes += 1

    async def rounds(self, number: int) -> None:
        """Until the last sentinel was asked so often, after what it and the others say now."""
        heard = self.sentinels[-1].count(b"SENTINEL")
        await until(lambda: self.sentinels[-1].count(b"SENTINEL") > heard + number)

    async def asked(self) -> int:
        """Which master answers."""
        (number,) = await (await self.topology.server_of(0)).call([PING])
        return number

    async def until_asked(self, number: int) -> None:
        async with asyncio.timeout(BOUND_S):
            while await self.asked() != number:
                await asyncio.sleep(0.005)


@pytest.mark.timed
@pytest.mark.parametrize("epochs", [(None, None, 1), (None, None, 1, 1, 1), (1, None, 1), (None, 1, None, None, 1)])
async def test_sentinels_that_hang_delay_nobody(epochs):
    """The sentinels of which one answers decide, however many of the others hang."""
    async with Watched(*epochs).running(2.0) as watched:
        began_s = time.monotonic()
        assert await watched.asked() == 0
        assert time.monotonic() - began_s < 0.25 + 0.75
        rounds = watched.sentinels[-1].count(b"SENTINEL")
        await until(lambda: watched.sentinels[-1].count(b"SENTINEL") > rounds + 2)


async def test_no_sentinel_names_a_master():
    async with Watched(None, None).running(TIMEOUT_S) as watched:
        with pytest.raises(StoreUnavailable, match="no sentinel names a master"):
            await watched.asked()
        watched.sentinels[0].hangs = False
        with contextlib.suppress(StoreUnavailable):
            await watched.asked()
        async with asyncio.timeout(BOUND_S):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    assert await watched.asked() == 0
                    break


async def test_the_highest_epoch_is_believed_whoever_says_it(monkeypatch):
    monkeypatch.setattr(redis_sentinel, "LAGGING_S", BOUND_S)
    async with Watched(1, 1, 1).running() as watched:
        assert await watched.asked() == 0
        watched.sentinels[1].says = (watched.masters[1].port, 2)
        await watched.until_asked(1)
        assert watched.changes == 1
        await watched.rounds(3)  # the others are behind
        assert await watched.asked() == 1
        assert watched.changes == 1


async def test_a_first_connect_takes_the_best_answer(monkeypatch):
    monkeypatch.setattr(redis_polling, "STRAGGLERS_S", BOUND_S)  # the moment that the others are given
    watched = Watched(1, 1, 5)
    async with watched.running():
        watched.sentinels[2].says = (watched.masters[1].port, 5)
        assert await watched.asked() == 1
        assert watched.changes == 0


async def test_a_switch_is_heard_at_once():
    """Before the sentinel is asked, and although it is the only one."""
    async with Watched(1, 1, 1).running() as watched:
        assert await watched.asked() == 0
        await until(lambda: all(sentinel.count(b"SUBSCRIBE") for sentinel in watched.sentinels))
        for sentinel in watched.sentinels[:2]:
            sentinel.hangs = True
        old, new = (master.port for master in watched.masters)
        watched.sentinels[2].publish(old, new)
        await until(lambda: watched.changes == 1)  # none of them says so yet
        watched.sentinels[2].says = (new, 2)
        assert await watched.asked() == 1
        watched.sentinels[2].publish(old, free_port())  # of a master that was, or of none of ours
        watched.sentinels[2].publish(1, 2)
        await watched.rounds(2)
        assert (watched.changes, await watched.asked()) == (1, 1)


async def test_another_master_without_a_higher_epoch_needs_a_majority_for_a_while(monkeypatch):
    """Sentinels that were set up anew count from zero."""
    async with Watched(7, 7, 7).running() as watched:
        assert await watched.asked() == 0
        new = watched.masters[1].port
        monkeypatch.setattr(redis_sentinel, "LAGGING_S", 0.0)
        watched.sentinels[0].says = (new, 0)
        await watched.rounds(3)
        assert await watched.asked() == 0
        monkeypatch.setattr(redis_sentinel, "LAGGING_S", BOUND_S)
        watched.sentinels[1].says = watched.sentinels[2].says = (new, 0)
        await watched.rounds(3)
        assert await watched.asked() == 0
        monkeypatch.setattr(redis_sentinel, "LAGGING_S", 0.0)
        await watched.until_asked(1)
        assert watched.changes == 1


async def test_what_was_under_way_is_sent_to_the_new_master():
    async with Watched(1).running(5.0) as watched:
        assert await watched.asked() == 0
        watched.masters[0].answer = lambda _: None
        order = []
        waiting = [asyncio.create_task(watched.asked()) for _ in range(10)]
        for task in waiting:
            task.add_done_callback(lambda _: order.append(watched.changes))
        await until(lambda: watched.masters[0].count(b"PING") == 11)
        watched.sentinels[0].says = (watched.masters[1].port, 2)
        assert await asyncio.gather(*waiting) == [1] * 10
        assert order == [1] * 10


async def test_a_demoted_master_is_a_reason_to_ask():
    async with Watched(1).running(confirm_s=60) as watched:
        assert await watched.asked() == 0
        await until(lambda: watched.sentinels[0].count(b"SENTINEL") >= 2)  # at first, and when it was subscribed
        watched.sentinels[0].says = (watched.masters[1].port, 2)
        rounds = watched.sentinels[0].count(b"SENTINEL")
        watched.masters[0].answer = lambda _: b"-READONLY You can't write against a read only replica.\r\n"
        with contextlib.suppress(StoreUnavailable):
            await watched.asked()
        await until(lambda: watched.sentinels[0].count(b"SENTINEL") > rounds)
        await until(lambda: watched.changes)
        assert await watched.asked() == 1


async def test_a_failover_of_a_master_that_lives(tmp_path):
    """Item 2: once the switch was published no answer of the old one is used, by whichever of
    several gateways.
    """
    setup = await asyncio.to_thread(SentinelSetup, tmp_path)
    try:
        changes: list[Server] = []
        address = parse_url(f"{setup.url}?timeout_ms=1000", Path())
        topologies = [make_topology(address, changes.append, CONFIRM_S) for _ in range(2)]
        answers: list[tuple[float, float, int]] = []
        asking = [asyncio.create_task(_ask_ports(topology, answers)) for topology in topologies]
        await until(lambda: len(answers) > 50)
        fail_over = lambda: setup.sentinels[1].admin("SENTINEL", "FAILOVER", "main")  # noqa: E731
        await asyncio.to_thread(wait_until, fail_over, "it knows the replica well enough")
        await asyncio.to_thread(wait_until, lambda: _masters(setup) != {setup.master.port}, "the switch")
        switched_s = time.monotonic()
        held_up_s: list[float] = []
        asking.append(asyncio.create_task(lateness(held_up_s)))
        await until(lambda: len(changes) == 2)
        await asyncio.sleep(3)
        await tasks.end(*asking)
        await asyncio.gather(*(topology.aclose() for topology in topologies))
        new = setup.replicas[0].port
        by_s = switched_s + 0.1 + max(held_up_s)  # who is held up cannot have read the news
        late = [received_s - switched_s for _, received_s, port in answers if port != new and received_s > by_s]
        print(f"\n{len(answers)} answers, {len(late)} of the old one late {late[-1:]}, {len(changes)} changes")
        assert not late
        assert len(changes) == 2
        assert [port for _, _, port in answers[-20:]] == [new] * 20
    finally:
        setup.close()


def _masters(setup: SentinelSetup) -> set[int]:
    return {int(sentinel.admin("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1]) for sentinel in setup.sentinels}


async def _ask_ports(topology: Sentinel, answers: list[tuple[float, float, int]]) -> None:
    """Ask the topology for ever, and note (asked, answered, port of the server that answered)."""
    while True:
        asked_s = time.monotonic()
        with contextlib.suppress(StoreUnavailable):
            server = await topology.server_of(0)
            ((_, port),) = await server.call([("CONFIG", "GET", "port")])
            answers.append((asked_s, time.monotonic(), int(port)))
        await asyncio.sleep(0.002)


async def test_a_switch_is_believed_although_the_others_are_behind(monkeypatch):
    """The one that published it is gone before it was asked."""
    monkeypatch.setattr(redis_sentinel, "LAGGING_S", BOUND_S)
    async with Watched(1, 1, 1).running() as watched:
        assert await watched.asked() == 0
        await until(lambda: all(sentinel.count(b"SUBSCRIBE") for sentinel in watched.sentinels))
        watched.sentinels[2].hangs = True
        watched.sentinels[2].publish(*(master.port for master in watched.masters))
        await until(lambda: watched.changes)
        rounds = watched.sentinels[0].count(b"SENTINEL")
        watched.sentinels[0].says = watched.sentinels[1].says = (watched.masters[0].port, 1)
        await until(lambda: watched.sentinels[0].count(b"SENTINEL") > rounds + 2)
        for sentinel in watched.sentinels[:2]:
            sentinel.says = (watched.masters[1].port, 2)
        await until(lambda: watched.sentinels[0].count(b"SENTINEL") > rounds + 5)
        assert (watched.changes, await watched.asked()) == (1, 1)
        # That was no higher epoch than the one that a switch has at least; a third one has.
        for sentinel in watched.sentinels[:2]:
            sentinel.says = (watched.masters[0].port, 3)
        await watched.until_asked(0)


async def test_what_a_switch_says_is_not_taken_back_by_its_own_epoch(monkeypatch):
    """Another sentinel says the old master with the next epoch: as new as the switch, no newer."""
    monkeypatch.setattr(redis_sentinel, "LAGGING_S", BOUND_S)
    async with Watched(1, 1, 1).running() as watched:
        assert await watched.asked() == 0
        await until(lambda: all(sentinel.count(b"SUBSCRIBE") for sentinel in watched.sentinels))
        watched.sentinels[2].publish(*(master.port for master in watched.masters))
        watched.sentinels[2].says = (watched.masters[0].port, 2)
        await until(lambda: watched.changes)
        rounds = watched.sentinels[2].count(b"SENTINEL")
        await until(lambda: watched.sentinels[2].count(b"SENTINEL") > rounds + 2)
        assert (watched.changes, await watched.asked()) == (1, 1)


async def test_who_was_stopped_asks_who_the_master_is_before_anything_else(monkeypatch):
    """The switch was not heard either; the old master lives, and answers."""
    async with Watched(1, 1, 1).running() as watched:
        assert await watched.asked() == 0
        await until(lambda: all(sentinel.count(b"SUBSCRIBE") for sentinel in watched.sentinels))
        for sentinel in watched.sentinels:
            sentinel.says = (watched.masters[1].port, 2)
        time.sleep(CONFIRM_S + 0.5)
        assert await watched.asked() == 1
        assert watched.changes == 1


@pytest.mark.timed
@pytest.mark.parametrize("number", [3, 5])
async def test_the_first_two_sentinels_are_stopped(tmp_path, number):
    """Item 9, with real ones: the store opens, and goes on."""
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, replicas=0, sentinels=number)
    try:
        for sentinel in setup.sentinels[:2]:
            sentinel.pause()
        store = fastticket.open_store(setup.url)
        began_s = time.monotonic()
        await store.open()
        assert time.monotonic() - began_s < 1.0
        await store.time_ms()
        await store.aclose()
    finally:
        setup.close()


async def test_who_may_not_subscribe_at_the_sentinels_goes_on_asking(tmp_path, caplog):
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, replicas=0, sentinels=1)
    try:
        sentinel = setup.sentinels[0]
        sentinel.admin("ACL", "SETUSER", "asker", "on", ">pw", "-@all", "+sentinel|masters")
        url = f"{setup.url}?sentinel_username=asker&sentinel_password=pw"
        with caplog.at_level(logging.WARNING, "fastticket.redis"):
            topology = make_topology(parse_url(url, Path()), lambda server: None, CONFIRM_S)
            assert await (await topology.server_of(0)).call([PING]) == [b"PONG"]
            await until(lambda: "instead (how-to/redis in the documentation)" in caplog.text)
            await topology.aclose()
        assert "pw" not in caplog.text
    finally:
        setup.close()


async def test_forty_short_lives_with_sentinel_end(tmp_path):
    """Item 10: opened, asked, closed; the sentinels hang or answer, the master hangs or answers."""
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, replicas=0)
    try:
        for life in range(40):
            store = await opened_in_the_end(f"{setup.url}?timeout_ms=300")
            hanging = [setup.servers[0], *setup.sentinels[:2]][life % 4 : life % 4 + 1]
            async with asyncio.timeout(BOUND_S):
                for server in hanging:
                    server.pause()
                asking = [asyncio.create_task(store.time_ms()) for _ in range(3)]
                await asyncio.sleep(0.001 * (life % 10))
                asking[0].cancel()
                await store.aclose()
                await asyncio.wait(asking)
            for server in hanging:
                server.resume()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("fastticket")]
    finally:
        setup.close()


async def opened_in_the_end(url: str) -> Store:
    """Servers on a busy machine may be silent for longer than the URL allows."""
    async with asyncio.timeout(BOUND_S):
        while True:
            store = fastticket.open_store(url)
            try:
                await store.open()
            except StoreUnavailable:
                await store.aclose()
            else:
                return store


# --- Cluster


def slots(*ranges: tuple[int, int, int]) -> bytes:
    """First, last, port."""
    return array(
        *(
            array(b":%d\r\n" % first, b":%d\r\n" % last, array(bulk(b"127.0.0.1"), b":%d\r\n" % port))
            for first, last, port in ranges
        )
    )


@contextlib.asynccontextmanager
async def scripted_cluster(number: int):
    """Servers that say who they are; `tables[n]`: what the n-th says of slots."""
    servers = [Scripted() for _ in range(number)]
    async with contextlib.AsyncExitStack() as stack:
        for place, server in enumerate(servers):
            await stack.enter_async_context(server.running())
            server.run_id = str(place) * 40
            server.table = b""
            server.answer = lambda words, s=server, n=place: s.table if words[0] == b"CLUSTER" else b":%d\r\n" % n
        address = parse_url(
            f"redis+cluster://{','.join(s.address for s in servers)}?timeout_ms={int(PATIENCE_S * 1000)}", Path()
        )
        cluster = make_topology(address, lambda server: None, CONFIRM_S)
        assert isinstance(cluster, Cluster)
        try:
            yield cluster, servers
        finally:
            async with asyncio.timeout(BOUND_S):
                await cluster.aclose()


async def test_a_former_primary_does_not_win_against_the_others():
    async with scripted_cluster(4) as (cluster, servers):
        ports = [server.port for server in servers]
        true = slots((0, 8000, ports[1]), (8001, 16383, ports[2]))
        false = slots((0, 8000, ports[0]), (8001, 16383, ports[2]))
        for server in servers:
            server.table = false
        assert (await (await cluster.server_of(5)).call([PING])) == [0]
        waiting = asyncio.Event()
        servers[0].answer = lambda words: waiting.wait() if words[0] == b"PING" else false
        under_way = asyncio.create_task((await cluster.server_of(5)).call([PING]))
        await until(lambda: servers[0].count(b"PING") == 2)
        for server in servers[1:]:
            server.table = true
        # What waits for the one that lost its slots is to ask again who has them.
        ((again,),) = await asyncio.gather(under_way)
        assert isinstance(again, TryAgainError)
        assert (await (await cluster.server_of(5)).call([PING])) == [1]
        assert (await (await cluster.server_of(9000)).call([PING])) == [2]


async def test_most_of_those_who_answer_are_believed():
    async with scripted_cluster(3) as (cluster, servers):
        for server in servers:
            server.table = slots((0, 16383, servers[0].port))
        assert await (await cluster.server_of(5)).call([PING]) == [0]
        for server in servers[1:]:
            server.table = slots((0, 16383, servers[1].port))
        async with asyncio.timeout(BOUND_S):
            while (await cluster.server_of(5)).name != servers[1].address:
                await asyncio.sleep(0.01)


async def test_who_was_stopped_reads_the_slots_before_anything_else():
    async with scripted_cluster(3) as (cluster, servers):
        for server in servers:
            server.table = slots((0, 16383, servers[0].port))
        assert await (await cluster.server_of(5)).call([PING]) == [0]
        for server in servers:
            server.table = slots((0, 16383, servers[1].port))
        time.sleep(CONFIRM_S + 0.5)
        assert await (await cluster.server_of(5)).call([PING]) == [1]
        for server in servers:
            server.table = b"-NOPERM no\r\n"
        time.sleep(CONFIRM_S + 0.5)
        assert await (await cluster.server_of(5)).call([PING]) == [1]


async def test_p2_a_reply_of_the_former_primary_does_not_hide_the_gap_from_who_asks_the_new_one():
    """A shard moves to another server while a question is under way at the old one, which stays,
    for it has other shards.
    """
    shard, slot = 3, slot_of("{ft:003}:live")
    known, held = (5, 0), [asyncio.Event(), asyncio.Event()]

    def says(number: int):
        async def evaluate():
            await held[number].wait()  # and whatever comes after it
            return array(bulk(b"5-0"), b":0\r\n", array(), array())

        replies = {
            b"HGETALL": lambda: array(bulk(b"format"), bulk(b"2"), bulk(b"shards"), bulk(b"16")),
            b"TIME": lambda: array(bulk(b"1700000000"), bulk(b"0")),
            b"XREVRANGE": array,
            b"SUBSCRIBE": lambda: array(bulk(b"subscribe"), bulk(b"ft:doorbell"), b":1\r\n"),
            b"CLUSTER": lambda: servers[number].table,
            b"EVALSHA": evaluate,
        }
        return lambda words: replies.get(words[0], lambda: b"+OK\r\n")()

    def table(owner):
        assert 0 < slot < 16383
        return slots(
            (0, 0, old.port), (1, slot - 1, other.port), (slot, slot, owner.port), (slot + 1, 16383, other.port)
        )

    async def ask():
        return (await store.exchange({shard: Request(known)}))[shard]

    async with scripted_cluster(3) as (_, servers):
        old, new, other = servers
        for number, server in enumerate(servers):
            server.table = table(old)
            server.answer = says(number)
        store = fastticket.open_store(f"redis+cluster://{new.address},{other.address}?timeout_ms=20000")
        await store.open()
        try:
            late = asyncio.create_task(ask())
            await until(lambda: old.count(b"EVALSHA"))
            for server in servers:
                server.table = table(new)
            read = new.count(b"CLUSTER")
            await until(lambda: new.count(b"CLUSTER") > read + 1)  # the table of the first one is there
            asking = asyncio.create_task(ask())
            await until(lambda: new.count(b"EVALSHA") and not store._takeover.behind)
            held[0].set()
            assert (await late).gap
            held[1].set()
            assert (await asking).gap
            await ask()
            assert not (await ask()).gap
        finally:
            for each in held:
                each.set()
            await store.aclose()


async def test_a_tie_changes_nothing(monkeypatch):
    monkeypatch.setattr(redis_polling, "FEW_S", BOUND_S)  # or there is none, when one comes late
    async with scripted_cluster(2) as (cluster, servers):
        for server in servers:
            server.table = slots((0, 16383, servers[0].port))
        assert (await cluster.server_of(5)).name == servers[0].address
        for server in servers:
            server.table = slots((0, 16383, server.port))
            seen = server.count(b"CLUSTER")
            await until(lambda s=server, n=seen: s.count(b"CLUSTER") > n + 1)
        assert (await cluster.server_of(5)).name == servers[0].address


async def test_a_server_without_slots_is_forgotten(monkeypatch):
    monkeypatch.setattr(redis_cluster, "FORGET_S", 0.2)
    async with scripted_cluster(1) as (cluster, (server,)), Scripted().running() as other:
        server.table = slots((0, 100, server.port), (101, 16383, other.port))
        await (await cluster.server_of(500)).call([PING])
        assert set(cluster.servers) == {server.address, other.address}
        server.table = slots((0, 16383, server.port))
        await until(lambda: set(cluster.servers) == {server.address})
        await until(lambda: not other.tasks)


@pytest.mark.timed
async def test_servers_of_a_cluster_that_hang_do_not_hold_up_the_table():
    async with scripted_cluster(3) as (cluster, servers):
        servers[0].table = slots((0, 16383, servers[0].port))
        for server in servers[1:]:
            server.answer = lambda words: None
        began_s = time.monotonic()
        assert (await cluster.server_of(5)).name == servers[0].address
        assert time.monotonic() - began_s < 0.25 + 0.25


async def test_a_cluster_is_confirmed_in_the_background(tmp_path):
    """A slot moves while nobody asks."""
    setup = await asyncio.to_thread(ClusterSetup, tmp_path)
    cluster = make_topology(parse_url(setup.url, Path()), lambda server: None, CONFIRM_S)
    try:
        slot = slot_of("{ft:003}:live")
        source = setup.owner_of(slot)
        assert (await cluster.server_of(slot)).name == source.address
        target = next(server for server in setup.primaries if server is not source)
        for server in (target, source, *setup.primaries):
            server.admin("CLUSTER", "SETSLOT", slot, "NODE", target.admin("CLUSTER MYID"))
        await until(lambda: cluster._in_table(slot).name == target.address)
    finally:
        await cluster.aclose()
        setup.close()


def test_no_secret_in_a_place():
    address = parse_url("redis+sentinel://u:hush@h/m?sentinel_password=hush", Path())
    assert "hush" not in repr(place_of(address, "h", 1)) + repr(redis_sentinel._places(address))


# --- the whole store


@pytest.mark.alone
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_burst_of_logins_is_no_outage(real, loop):
    """Item 3: 20,000 at once, through the cache; none fails, no breaker opens, no shard is away."""

    async def burst():
        keys = fastticket.Keyring.generate()
        store = fastticket.open_store(f"redis://{real.address}/0")
        async with fastticket.TicketCache(store, keys) as cache:
            began_s = time.monotonic()
            tickets = await asyncio.gather(*(cache.login(f"user{n}") for n in range(20_000)))
            print(f"\n20,000 logins in {time.monotonic() - began_s:.1f} s")
            assert len(set(tickets)) == 20_000
            assert (cache.stats["store_errors"], cache.stats["shards_away"]) == (0, 0)
            assert set(cache.store_servers.values()) == {"closed"}

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(burst())
    real.admin("FLUSHALL")


async def test_a_store_far_away_works_after_a_reset(real, monkeypatch):
    """Item 7, through the cache; a timeout is less than three round trips."""
    monkeypatch.setattr(redis_patience, "GRACE_S", 1.0)  # as above
    keys = fastticket.Keyring.generate()
    async with Proxy(real.port, 0.25).running() as proxy:
        store = fastticket.open_store(f"{proxy.url}?timeout_ms=1400")
        async with fastticket.TicketCache(store, keys, capacity=2) as cache:
            tickets = [await cache.login(f"user{n}") for n in range(3)]
            for _ in range(2):
                proxy.cut()
                sessions = await asyncio.gather(*map(cache.authenticate, tickets))
                assert [session.principal for session in sessions] == ["user0", "user1", "user2"]
            assert cache.stats["store_errors"] == 0


# --- closing that is interrupted


class Unanswered:
    """A command that gets no reply."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.came = asyncio.Event()

    def answer(self, words):
        if words[0] != self.name:
            return b"+OK\r\n"
        self.came.set()
        return None


URLS = {
    "redis://{}/0?timeout_ms=60000": b"PING",
    "redis+sentinel://{}/m?timeout_ms=60000": b"SENTINEL",
    "redis+cluster://{}?timeout_ms=60000": b"CLUSTER",
}


@pytest.mark.parametrize("url", URLS, ids=lambda url: url.partition(":")[0])
async def test_a_closing_that_is_cancelled_leaves_nothing_open(url, monkeypatch):
    """`tasks.end` cancels a second time whoever takes long to end, and closing waits longer than
    that for a call that is under way.
    """
    monkeypatch.setattr(tasks, "STEP_S", 0.01)
    monkeypatch.setattr(redis_servers, "CLOSE_S", BOUND_S)
    held = Unanswered(URLS[url])
    async with Scripted(held.answer).running() as fake:
        topology = make_topology(parse_url(url.format(fake.address), Path()), lambda server: None)
        asking = asyncio.create_task(ask(topology))
        await held.came.wait()
        closing = asyncio.create_task(topology.aclose())
        await asyncio.sleep(0)
        await tasks.end(closing)
        assert closing.cancelled()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(asking, BOUND_S)
        await until(lambda: not fake.tasks and len(asyncio.all_tasks()) == 1)


async def ask(topology):
    return await (await topology.server_of(0)).call([PING])


async def test_a_store_whose_closing_is_cancelled_at_once_leaves_nothing_open(real):
    async with Proxy(real.port).running() as link:
        store = fastticket.open_store(link.url)
        await store.open()
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        await until(lambda: not link.open_links)


async def test_an_address_that_answers_when_its_time_is_over_is_taken():
    """The pause before the next address ends in the same turn of the loop."""
    loop, made = asyncio.get_running_loop(), socket.socket()

    async def connected():
        await asyncio.sleep(0)
        return made

    with made:
        first, second = asyncio.create_task(connected()), loop.create_future()
        await asyncio.wait([first])
        taken = redis_connecting._first_of([first, second], None)
        assert await asyncio.wait_for(taken, BOUND_S) is made
        second.cancel()

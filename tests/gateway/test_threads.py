"""`threads = 2`: one process, one near cache, one limit of each kind. Real processes."""

import asyncio
import os
import select
import signal
import socket
import threading
import time

import pytest
from conftest import BOUND_S, Client, fields_of, status_of
from lab.redis_servers import wait_until
from test_reload import get, log_in, metric

import fastticket
from fastticket.keyfile import create_key_file

FLUSH_MS = 500
LEASE_MS = 60_000  # so that no stall of the machine has sessions looked up again
SLACK_MS = 1500  # of a busy machine, for a flush that is due


@pytest.fixture
def table(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    behind = origin()

    def make(**gateway):
        return {
            "gateway": {
                "listen": ["127.0.0.1:0"],
                "admin": "unix:admin.sock",
                "threads": 2,
                "drain_timeout_s": 2.0,
                **gateway,
            },
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db", "flush_interval_ms": FLUSH_MS, "lease_ms": LEASE_MS},
            "upstream": [{"name": "app", "servers": [behind.address]}],
            "route": [{"path": "/"}, {"path": "/open", "auth": "none"}],
        }

    return make


def seconds_of_threads(pid):
    """The processor time that each thread has had."""
    ticks = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            ticks[thread] = int(file.read().split()[0]) / 1e9
    return ticks


def test_p7_threads_make_one_load_and_one_touch_of_a_session(site, table, tmp_path):
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table())
    (worker,) = at.workers()
    clients = [at.connect() for _ in range(40)]
    for _ in range(5):
        for client in clients:
            client.sendall(get(ticket))
        for client in clients:
            assert status_of(client.read_response()[0]) == 200
    wait_until(lambda: metric(at, "near_cache_hits_total") >= 190, "a note", BOUND_S)
    assert metric(at, "store_loads_total") == 1
    assert metric(at, "connections_accepted_total") == 40
    assert metric(at, "requests_total", verdict="admitted", reason="") == 200
    busy = [thread for thread, seconds in seconds_of_threads(worker).items() if seconds > 0.001]
    assert len(busy) >= 2
    for client in clients:
        client.close()


@pytest.mark.parametrize("kind", ["unix", "inherited"])
def test_a_socket_that_cannot_be_bound_twice_is_shared(site, table, tmp_path, kind):
    with socket.socket(socket.AF_UNIX) as kept:
        if kind == "unix":
            at = site(table(listen=["127.0.0.1:0", "unix:g.sock"]))
        else:
            kept.bind(str(tmp_path / "g.sock"))
            kept.listen()
            at = site(table(listen=["127.0.0.1:0", f"fd:{kept.fileno()}"]), pass_fds=[kept.fileno()])
        clients = [Client(str(tmp_path / "g.sock")) for _ in range(30)]
        for client in clients:
            client.sendall(get(path="/open"))
        assert {status_of(client.read_response()[0]) for client in clients} == {200}
        assert at.reload().startswith("reloaded: the worker")
        for client in clients:
            client.sendall(get(path="/open"))
        assert {status_of(client.read_response()[0]) for client in clients} == {200}
        for client in clients:
            client.close()


def test_a_login_on_any_thread_is_known_on_all(site, table, origin):
    """And its session's end is."""
    changes = {b"/in": b"X-Ticket-Login: alice", b"/out": b"X-Ticket-Logout: session"}

    def serve(connection):
        while head := connection.read_head():
            field = changes.get(head.split(b" ")[1], b"X-Nothing: 1")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n\r\n" % field)

    config = table()
    config["upstream"][0]["servers"] = [origin(serve).address]
    config["route"] = [{"path": "/"}, {"path": "/in", "auth": "none", "login": True}, {"path": "/out", "login": True}]
    at = site(config)
    for _ in range(8):
        head, _ = at.ask(get(path="/in"))
        ticket = fields_of(head)[b"set-cookie"].partition(b";")[0].partition(b"=")[2].decode()
        assert {status_of(at.ask(get(ticket))[0]) for _ in range(8)} == {200}
        assert status_of(at.ask(get(ticket, path="/out"))[0]) == 200
        assert {status_of(at.ask(get(ticket))[0]) for _ in range(8)} == {401}


def test_p9_connections_max_is_of_all_threads(site, table):
    at = site({**table(), "limits": {"connections_max": 10}})
    clients = [at.connect() for _ in range(14)]
    for client in clients:
        client.sendall(get(path="/open"))

    def answered():
        return select.select(clients, [], [], 0)[0]

    wait_until(lambda: len(answered()) >= 10, "as many as may be", BOUND_S)
    wait_until(lambda: metric(at, "connections_full_total") > 0, "others wait", BOUND_S)
    let_in = answered()
    assert len(let_in) == 10
    assert metric(at, "connections_accepted_total") == 10
    for client in let_in:
        assert status_of(client.read_response()[0]) == 200
        client.close()
    for client in set(clients) - set(let_in):
        assert status_of(client.read_response()[0]) == 200
        client.close()


@pytest.mark.timed
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_p5_a_worker_killed_under_traffic_loses_no_more_than_a_flush_interval(site, table, tmp_path, request, kind):
    """It is replaced, and what was used before the last flush is in the store."""
    store = "sqlite:///s.db" if kind == "sqlite" else f"redis://{request.getfixturevalue('redis_server').address}/0"
    tickets = log_in(tmp_path, *(f"user{n}" for n in range(20)), store=store)
    config = table()
    config["store"]["url"] = store
    at = site(config)
    used_ms = [0.0] * len(tickets)
    is_over = threading.Event()

    def use(first):
        with at.connect() as client:
            while not is_over.is_set():
                for number in range(first, len(tickets), 4):
                    try:
                        began_ms = time.time() * 1000
                        client.sendall(get(tickets[number]))
                        assert status_of(client.read_response()[0]) == 200
                        used_ms[number] = began_ms
                    except (OSError, EOFError):
                        return

    threads = [threading.Thread(target=use, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    threading.Event().wait(2.5)
    (victim,) = at.workers()
    os.kill(victim, signal.SIGKILL)
    is_over.set()
    for thread in threads:
        thread.join(BOUND_S)

    async def last_accesses():
        keys = fastticket.Keyring.from_file(tmp_path / "keys.toml")
        async with fastticket.TicketCache(fastticket.open_store(store, base=tmp_path), keys) as cache:
            return [(await cache.sessions(f"user{n}"))[0].last_access_ms for n in range(len(tickets))]

    lost_ms = [used - kept for used, kept in zip(used_ms, asyncio.run(last_accesses()), strict=True)]
    assert max(lost_ms) <= FLUSH_MS + SLACK_MS
    wait_until(lambda: at.workers() and victim not in at.workers(), "it is replaced", BOUND_S)
    assert {status_of(at.ask(get(ticket))[0]) for ticket in tickets} == {200}
    assert at.at.end(signal.SIGTERM) == 0

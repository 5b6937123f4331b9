"""A reload inside the worker forgets nothing: real processes, and what a worker can and can not
take over.
"""

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import re
import signal
import socket
import sqlite3
import time
import weakref

import pytest
from conftest import BOUND_S, Client, fields_of, status_of
from lab.redis_servers import Server, wait_until
from lab.traffic import Traffic, get, hold, log_in, metric, noted

import fastticket
import fastticket.sync
from fastticket.gateway import channel
from fastticket.gateway.changes import obstacles
from fastticket.gateway.control import Reload, ReplaceKeys
from fastticket.gateway.inheritance import Given
from fastticket.gateway.reader import read_config
from fastticket.keyfile import add_key, create_key_file, key_file_text, read_keys

SESSIONS = 200
UPGRADE = b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
LEASE_MS = 60_000  # so that no stall of the machine has sessions looked up again,
IDLE_S = 60  # or closes a connection that is kept
THE_WORKER = "reloaded: the worker serves by fastticket.toml, with the sessions that it holds"


def naming(name):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name)


@pytest.fixture
def table(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    behind = origin()

    def make(*, servers=None, ticket=None, store=None, routes=None, **gateway):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 2.0, **gateway},
            "ticket": {"keys": "keys.toml", **(ticket or {})},
            "store": {"url": "sqlite:///s.db", "lease_ms": LEASE_MS, **(store or {})},
            "upstream": [{"name": "app", "servers": servers or [behind.address]}],
            "route": routes or [{"path": "/"}, {"path": "/open", "auth": "none"}],
            "timeouts": {"upstream_idle_s": IDLE_S},
        }

    return make


def descriptors_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_reload_under_traffic_fails_no_request_and_loads_no_session_again(site, table, tmp_path):
    tickets = log_in(tmp_path, *(f"user{n}" for n in range(SESSIONS)))
    at = site(table())
    before = at.workers()
    hold(at, tickets)
    with Traffic(at, tickets) as traffic:
        for changed in ({"request_id_header": "X-Request-Id"}, {"threads": 2}, {"login_url": "/open"}, {}):
            asked = traffic.asked
            assert at.reload(table(**changed)) == THE_WORKER
            wait_until(lambda n=asked: traffic.asked > n + SESSIONS, "requests after it", BOUND_S)
    assert traffic.failures == []
    assert noted(at, "store_loads_total") == SESSIONS
    assert metric(at, "near_cache_sessions") == SESSIONS
    assert at.workers() == before


def test_what_is_before_a_reload_leaves_nothing_behind(site, table, tmp_path):
    """No descriptor, no connection, and no count is lost."""
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table(access_log="access.log"))
    (worker,) = at.workers()

    def lines():
        return len((tmp_path / "access.log").read_text().splitlines())

    with at.connect() as kept:
        for n in range(4):
            kept.sendall(get(ticket))
            assert status_of(kept.read_response()[0]) == 200
            wait_until(lambda n=n: lines() == n + 1, "its line: the log is open by now", BOUND_S)
            descriptors = descriptors_of(worker)
            assert at.reload() == THE_WORKER
            wait_until(lambda n=n: at.log.count("the configuration before has ended") == n + 1, "its end", BOUND_S)
            wait_until(lambda d=descriptors: descriptors_of(worker) < d, "all is closed", BOUND_S)  # the pool is empty
    wait_until(lambda: metric(at, "workers", state="retiring") == 0, "nobody retires", BOUND_S)
    assert metric(at, "requests_total", verdict="admitted", reason="") == 4
    assert metric(at, "reloads_total", result="done") == 4
    assert lines() == 4


def test_what_has_retired_is_freed_without_the_collector(gateway, origin):
    """A worker's objects are frozen: nobody looks for circles among them."""
    at = gateway(origin(), gateway={"threads": 1})
    at.ask(get(path="/"))
    before = weakref.ref(at.worker._services.present)
    one, other = channel.channel_pair()
    at.worker._channel = one
    asked = Reload(at.config, at.config.key_pairs(), {}, [[0]])
    gc.disable()
    try:
        at.run(at.worker._reload(asked, [each.dup() for each in at._listeners]))
        wait_until(lambda: before() is None, "it is freed", BOUND_S)
    finally:
        gc.enable()
        one.close()
        other.close()
    assert status_of(at.ask(get(path="/"))[0]) == 200


def test_a_removed_key_is_refused_at_once_and_the_others_sessions_stay(site, table, tmp_path):
    ring = tmp_path / "keys.toml"
    old = log_in(tmp_path, "alice", "bob")
    added = add_key(ring)
    (tmp_path / "new.toml").write_text(key_file_text([key for key in read_keys(ring) if key[0] == added]))
    new = log_in(tmp_path, "carol", "dave", ring="new.toml")
    at = site(table())
    hold(at, [*new, *old])
    ring.write_text((tmp_path / "new.toml").read_text())
    assert at.reload() == THE_WORKER
    for ticket in old:
        head, body = at.ask(get(ticket))
        assert (status_of(head), b"unknown_key" in body) == (401, True)
    for ticket in new:
        assert status_of(at.ask(get(ticket))[0]) == 200
    assert noted(at, "store_loads_total") == 4
    assert metric(at, "near_cache_sessions") == 2


def test_a_refused_reload_changes_nothing(site, table, tmp_path):
    """Neither the keys nor a setting of the ticket cache; the next one does."""
    ring = tmp_path / "keys.toml"
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table())
    at.fresh = get(ticket)
    assert status_of(at.ask(get(ticket))[0]) == 200
    kept = ring.read_text()
    added = add_key(ring)
    ring.write_text(key_file_text([key for key in read_keys(ring) if key[0] == added]))
    said = at.reload(table(servers=["nowhere.invalid:1"], listen=["127.0.0.1:0", "unix:new.sock"]))
    assert "nowhere.invalid:1: the name does not resolve" in said
    assert status_of(at.ask(get(ticket))[0]) == 200
    with pytest.raises(OSError):
        Client(str(tmp_path / "new.sock"))
    assert noted(at, "store_loads_total") == 1
    ring.write_text(kept)
    assert at.reload(table()) == THE_WORKER
    assert noted(at, "store_loads_total") == 1


def test_a_reload_that_the_ticket_cache_can_not_take_over_is_refused(site, table):
    at = site(table())
    assert "idle_timeout_s is 1, shorter than four flush intervals" in at.reload(table(ticket={"idle_timeout_s": 1}))
    assert at.reload(table(ticket={"idle_timeout_s": 60})) == THE_WORKER


def test_whatever_changes_inside(site, table, tmp_path, origin):
    """Routes, upstreams, limits, timeouts, trust, log files, cookie and login: each is in force
    after its reload, in the same worker.
    """
    (ticket,) = log_in(tmp_path, "alice")
    login = b"HTTP/1.1 200 OK\r\nX-Ticket-Login: bob\r\nContent-Length: 0\r\n\r\n"
    other = origin(answer=naming(b"other"))
    logs_in = origin(answer=login)
    at = site(table())
    before = at.workers()
    assert status_of(at.ask(get(ticket))[0]) == 200

    assert at.reload(table(servers=[other.address])) == THE_WORKER
    assert at.ask(get(ticket))[1] == b"other"

    assert at.reload(table(routes=[{"path": "/", "auth": "none"}])) == THE_WORKER
    assert status_of(at.ask(get())[0]) == 200

    assert at.reload({**table(), "limits": {"target_bytes_max": 64}}) == THE_WORKER
    assert status_of(at.ask(get(path="/" + "x" * 100))[0]) == 414

    assert at.reload({**table(), "timeouts": {"request_head_s": 0.5}}) == THE_WORKER
    with at.connect() as client:
        client.sendall(b"GET /")
        assert status_of(client.read_response()[0]) == 408

    assert at.reload(table(trusted_proxies=["127.0.0.1/32"], servers=[other.address])) == THE_WORKER
    at.ask(get(ticket)[:-2] + b"X-Forwarded-For: 9.9.9.9\r\n\r\n")
    assert fields_of(other.requests[-1][0])[b"x-forwarded-for"].startswith(b"9.9.9.9")

    assert at.reload(table(access_log="one.log")) == THE_WORKER
    at.ask(get(ticket))
    wait_until(lambda: "/x" in (tmp_path / "one.log").read_text(), "a line")
    at.configure(table(access_log="two.log", access_log_format="json", error_log="errors"))
    at.at.process.send_signal(signal.SIGHUP)
    wait_until(lambda: THE_WORKER in (tmp_path / "errors").read_text(), "the reload", BOUND_S)
    at.ask(get(ticket))
    assert json.loads(wait_until((tmp_path / "two.log").read_text, "a line").splitlines()[0])["path"] == "/x"
    assert at.reload(table()) == THE_WORKER  # on the standard error again

    changed = {"cookie": "pass", "idle_timeout_s": 60, "absolute_lifetime_s": 600}
    routes = [{"path": "/", "auth": "optional", "login": True}]
    assert at.reload(table(ticket=changed, routes=routes, servers=[logs_in.address])) == THE_WORKER
    head, _ = at.ask(get())
    made = re.match(rb"pass=([^;]+)", fields_of(head)[b"set-cookie"])[1].decode()
    verified = fastticket.Keyring.from_file(tmp_path / "keys.toml").verify(made, int(2e12))
    shown = fastticket.Keyring.from_file(tmp_path / "keys.toml").verify(made, 0)
    assert verified is fastticket.errors.Verdict.EXPIRED
    assert (shown.idle_timeout_s, shown.absolute_lifetime_s) == (60, 600)
    assert at.workers() == before


@pytest.mark.parametrize("retire_timeout_s", [1.0, 60.0])
def test_a_tunnel_outlives_a_reload_and_is_cut_when_its_time_is_over(site, table, origin, retire_timeout_s):
    """However busy the machine is: with a second nothing can be said before the cut, with a minute
    nobody waits for that.
    """

    def serve(connection):
        connection.read_head()
        connection.sendall(SWITCHING)
        while data := connection.recv(100):
            connection.sendall(data)

    def config():
        return table(
            servers=[behind.address],
            upgrades=["echo"],
            retire_timeout_s=retire_timeout_s,
            drain_timeout_s=0.5,
            routes=[{"path": "/", "auth": "none"}],
        )

    behind = origin(serve)
    at = site(config())
    with at.connect() as tunnel:
        tunnel.sendall(UPGRADE)
        assert status_of(tunnel.read_head()) == 101
        began_s = time.monotonic()
        assert at.reload(config()) == THE_WORKER
        if retire_timeout_s > BOUND_S:
            tunnel.sendall(b"still there")
            assert tunnel.read_exactly(11) == b"still there"
            wait_until(lambda: metric(at, "workers", state="retiring") == 1, "it retires", BOUND_S)
            return
        assert tunnel.read_all() == b""
        assert time.monotonic() - began_s >= retire_timeout_s
    wait_until(lambda: "the configuration before has ended" in at.log, "its end", BOUND_S)


def test_a_password_file_that_changed_needs_a_new_worker(site, table, tmp_path):
    server = Server(tmp_path, {"requirepass": "hush"})
    try:
        (tmp_path / "password").write_text("hush\n")
        store = {"url": f"redis://{server.address}/0?password_file=password"}
        at = site(table(store=store))
        assert at.reload() == THE_WORKER
        (tmp_path / "password").write_text("hush")
        said = "reloaded: a new worker serves by fastticket.toml, because of the files that [store] url names"
        assert at.reload() == said
        assert "hush" not in at.log
    finally:
        server.kill()


# --- a new worker is handed what the one before holds


@pytest.mark.parametrize("changed", [{"cache": {"capacity": 5000}}, {"store": {"lease_ms": 30_000}}], ids=str)
def test_a_new_worker_looks_nobody_up_again(site, table, tmp_path, changed):
    tickets = log_in(tmp_path, *(f"user{n}" for n in range(SESSIONS)))
    at = site(table())
    hold(at, tickets)
    with Traffic(at, tickets) as traffic:
        asked = traffic.asked
        config = table()
        for name, values in changed.items():
            config[name] = {**config.get(name, {}), **values}
        assert at.reload(config).startswith("reloaded: a new worker")
        wait_until(lambda: traffic.asked > asked + SESSIONS, "requests after it", BOUND_S)
    assert traffic.failures == []
    wait_until(lambda: f"begins with {SESSIONS} sessions of the one before" in at.log, "it says so", BOUND_S)
    wait_until(lambda: metric(at, "workers", state="retiring") == 0, "it has retired", BOUND_S)
    assert noted(at, "store_loads_total") == SESSIONS


def test_a_new_worker_hears_what_ended_meanwhile_and_verifies_what_it_is_handed(site, table, tmp_path):
    ring = tmp_path / "keys.toml"
    (old,) = log_in(tmp_path, "alice")
    added = add_key(ring)
    (tmp_path / "new.toml").write_text(key_file_text([key for key in read_keys(ring) if key[0] == added]))
    new = log_in(tmp_path, "carol", "dave", ring="new.toml")
    at = site(table())
    at.fresh = get(new[0])
    for ticket in (old, *new):
        assert status_of(at.ask(get(ticket))[0]) == 200
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")  # the next one cannot open it
        ring.write_text((tmp_path / "new.toml").read_text())
        at.configure({**table(), "cache": {"capacity": 5000}})
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "begins with 2 sessions" in at.log, "it was handed two of them", BOUND_S)
        db.execute("ROLLBACK")
    wait_until(lambda: "reloaded: a new worker" in at.log, "the reload", BOUND_S)
    wait_until(lambda: status_of(at.ask(get(old))[0]) == 401, "the one before knows it, too, or is gone", BOUND_S)
    assert [status_of(at.ask(get(ticket))[0]) for ticket in new] == [200, 200]


def test_a_worker_of_another_store_is_handed_nothing(site, table, tmp_path):
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table())
    assert status_of(at.ask(get(ticket))[0]) == 200
    assert at.reload(table(store={"url": "sqlite:///other.db"})).startswith("reloaded: a new worker")
    wait_until(lambda: status_of(at.ask(get(ticket))[0]) == 401, "the one before takes nobody any more", BOUND_S)
    assert "begins with" not in at.log


def test_a_worker_that_hands_nothing_over_is_not_waited_for(site, table, tmp_path):
    """It hangs: the next one begins without."""
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table(watchdog_timeout_s=0.0))
    assert status_of(at.ask(get(ticket))[0]) == 200
    (hung,) = at.workers()
    at.halt(hung)
    assert at.reload({**table(), "cache": {"capacity": 5000}}).startswith("reloaded: a new worker")
    assert status_of(at.ask(get(ticket))[0]) == 200
    os.kill(hung, signal.SIGCONT)


#: Waits for a worker for much less than the store's lease is here.
HASTY = (
    "-c",
    "import sys, fastticket.gateway.supervisor as supervisor; supervisor.HANDING_TIMEOUT_S = 0.5;"
    "from fastticket_start import main; sys.exit(main())",
)


def test_a_worker_that_gives_sessions_back_is_waited_for_however_long_the_lease_is(site, table, tmp_path):
    """The next one would know nobody: what the store has lost would be lost."""
    server = Server(tmp_path)
    url = f"redis://{server.address}/0"
    try:
        config = table(store={"url": url, "lease_ms": 4000, "restore_from_cache": True})
        at = site(config, program=HASTY)
        with fastticket.sync.TicketCache(url, fastticket.Keyring.from_file(tmp_path / "keys.toml")) as gone:
            ticket = gone.login("alice")
        assert status_of(at.ask(get(ticket))[0]) == 200
        wait_until(lambda: metric(at, "touches_written_total"), "all is written", BOUND_S)
        server.admin("FLUSHALL")
        wait_until(lambda: metric(at, "store_log_gaps_total"), "the loss is noticed", BOUND_S)
        assert at.reload({**config, "cache": {"capacity": 5000}}).startswith("reloaded: a new worker")
        assert "the reload waits for worker" in at.log
        wait_until(lambda: "begins with 1 sessions of the one before" in at.log, "it says so", BOUND_S)
        assert status_of(at.ask(get(ticket))[0]) == 200
    finally:
        server.kill()


# --- which changes a worker takes over


@pytest.fixture
def given(tmp_path, table):
    def make(changes):
        config = table()
        for name, values in changes.items():
            config[name] = {**config.get(name, {}), **values} if isinstance(values, dict) else values
        read = read_config(config, "test", tmp_path)
        return Given(read, read.key_pairs())

    return make


INSIDE = [
    {},
    {"gateway": {"threads": 4}},
    {"gateway": {"listen": ["127.0.0.1:1", "unix:x"]}},
    {"gateway": {"admin": ""}},
    {"gateway": {"trusted_proxies": ["10.0.0.0/8"], "proxy_protocol": True}},
    {"gateway": {"access_log": "a", "error_log": "e", "log_level": "debug"}},
    {"gateway": {"identity_header": "X-User", "watchdog_timeout_s": 5.0, "retire_timeout_s": 1.0}},
    {"ticket": {"cookie": "c", "cookie_secure": True, "forward_ticket": True, "login_details": ["address"]}},
    {"ticket": {"idle_timeout_s": 60, "absolute_lifetime_s": 60, "remember_lifetime_s": 60}},
    {"ticket": {"sessions_max": 1, "sessions_max_policy": "refuse"}},
    {"store": {"outage_policy": "deny", "outage_grace_s": 1}},
    {"limits": {"connections_max": 5}},
    {"timeouts": {"keep_alive_s": 5}},
    {"upstream": [{"name": "b", "servers": ["127.0.0.1:1"]}]},
    {"route": [{"path": "/", "auth": "none"}]},
]
OUTSIDE = [
    ({"store": {"url": "sqlite:///other.db"}}, "[store] url"),
    ({"store": {"lease_ms": 3000}}, "[store] lease_ms"),
    ({"store": {"flush_interval_ms": 400}}, "[store] flush_interval_ms"),
    ({"store": {"touch_resolution_ms": 10}}, "[store] touch_resolution_ms"),
    ({"cache": {"capacity": 5}}, "[cache] capacity"),
    ({"ticket": {"audience": "other"}}, "[ticket] audience"),
]


@pytest.mark.parametrize("changes", INSIDE, ids=str)
def test_what_a_worker_takes_over(given, changes):
    assert obstacles(given({}), given(changes)) == []


@pytest.mark.parametrize(("changes", "named"), OUTSIDE, ids=str)
def test_what_needs_a_new_worker(given, changes, named):
    assert obstacles(given({}), given(changes)) == obstacles(given(changes), given({})) == [named]


def test_a_ring_of_the_environment_is_no_ring_of_a_file(given, monkeypatch):
    monkeypatch.setenv("FASTTICKET_KEYS", "1:" + "00" * 32)
    before = given({})
    assert obstacles(before, dataclasses.replace(before)) == []


# --- the way between supervisor and worker


def exchanged(message, sockets=()):
    """What comes out of a channel's other end."""

    async def act():
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        one, other = channel.channel_pair()
        one.attach(loop, lambda *_: None)
        one.send(message, sockets)
        other.attach(loop, lambda *received: heard.set_result(received))
        try:
            async with asyncio.timeout(BOUND_S):
                return await heard
        finally:
            one.close()
            other.close()

    return asyncio.run(act())


def test_a_message_of_any_size_comes_with_all_its_sockets(given):
    """More sockets than one call takes, and more bytes than the kernel keeps."""
    config = dataclasses.replace(given({}).config)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(450)]
        for number, each in enumerate(sockets[:3]):
            each.bind((f"127.0.0.{number + 1}", 0))
        servers = {"x" * 4_000_000: []}
        message, received = exchanged(Reload(config, [(1, b"s" * 32)], servers, [[0, 1]]), sockets)
        for each in received:
            stack.enter_context(each)
        assert (message.config, message.servers, message.listeners) == (config, servers, [[0, 1]])
        assert len(received) == 450
        assert [s.getsockname() for s in received[:3]] == [s.getsockname() for s in sockets[:3]]
        assert not any(os.get_inheritable(s.fileno()) for s in received)


def test_no_message_shows_a_secret():
    for message in (ReplaceKeys([(1, b"secret")]), Reload(None, [(1, b"secret")], {}, [])):
        assert "secret" not in repr(message)


def test_who_is_gone_is_told_nothing():
    one, other = channel.channel_pair()
    other.close()
    one.send("x" * 1_000_000)
    one.send("y")
    one.read_last()
    one.close()

"""The admin listener, as a probe and a Prometheus see it: real processes, a real Redis, upstream
servers that go away.
"""

import asyncio
import contextlib
import json
import os
import pwd
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from http import HTTPStatus

import pytest
from conftest import BOUND_S, Client, fields_of, status_of
from lab.processes import Site, starting_none
from lab.redis_servers import free_port, wait_until
from prometheus_client.parser import text_string_to_metric_families

import fastticket
from fastticket.gateway import notes, sharedmemory, worker
from fastticket.gateway.addresses import is_loopback, parse_address
from fastticket.gateway.admin import listener
from fastticket.gateway.admin.access import Access
from fastticket.gateway.admin.dispatch import Answer
from fastticket.gateway.admin.listener import CONNECTIONS_MAX, HEAD_BYTES_MAX
from fastticket.gateway.inheritance import Given
from fastticket.gateway.metrics import COUNTERS, GAUGES
from fastticket.gateway.reader import read_config
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.snapshot import NOTE_AGE_MAX_S, Snapshot
from fastticket.keyfile import create_key_file

DOCUMENT = os.path.join(os.path.dirname(__file__), "../../docs/reference/metrics.md")


@pytest.fixture
def site(tmp_path, redis_server, origin):
    """`site(threads=2, servers=[...])`: a gateway on Redis, with an admin listener on a Unix
    socket; `/open` needs no ticket.
    """
    create_key_file(tmp_path / "keys.toml")
    behind = origin()
    started = []

    def table(*, servers=None, store=None, **gateway):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 2.0, **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://{redis_server.address}/0", **(store or {})},
            "upstream": [{"name": "app", "servers": servers or [behind.address]}],
            "route": [{"path": "/"}, {"path": "/open", "auth": "none"}],
        }

    def start(**options):
        started.append(Watched(tmp_path, table(**options)))
        started[-1].table = table
        return started[-1]

    yield start
    for each in started:
        each.stop()


class Watched(Site):
    """A site and its admin listener."""

    def exchange(self, raw, to_head=False):
        """(head, body) of the admin listener's answer, and nothing after it."""
        with Client(str(self.folder / "admin.sock")) as client:
            client.sendall(raw)
            answer = client.read_response(to_head)
            assert client.read_all() == b""
            return answer

    def page(self, path):
        """(status, body)"""
        head, body = self.exchange(f"GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode())
        assert b"Connection: close" in head
        return status_of(head), body

    def state(self, path):
        """(status, what is away)"""
        status, body = self.page(path)
        return status, json.loads(body)["away"]

    def samples(self):
        """What Prometheus makes of the page: (name, labels) to value; of counters alone with
        `counters`.
        """
        status, body = self.page("/metrics")
        assert status == 200
        return {
            (sample.name, *sorted(sample.labels.items())): (family.type, sample.value)
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def value(self, name, **labels):
        return self.samples()[(name, *sorted(labels.items()))][1]

    def log_in(self):
        return subprocess.run(
            [sys.executable, "-m", "fastticket", "issue", "alice", "--config", "fastticket.toml"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=3 * BOUND_S,
            check=True,
        ).stdout.strip()


def get(ticket="", path="/x"):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n".encode()


ADMITTED = {"verdict": "admitted", "reason": ""}


def test_counters_are_summed_and_never_go_back(site):
    """Over workers, their deaths, and reloads. No stall of the machine ends a lease meanwhile."""
    options = {"threads": 2, "store": {"lease_ms": 60_000}}
    at = site(**options)
    ticket = at.log_in()
    clients = [at.connect() for _ in range(10)]
    for _ in range(10):
        for client in clients:
            client.sendall(get(ticket))
        assert {status_of(client.read_response()[0]) for client in clients} == {200}
    at.ask(get())
    at.ask(get("x" * 100))
    at.ask(b"GET\r\n\r\n")
    assert at.value("fastticket_requests_total", **ADMITTED) == 100
    assert at.value("fastticket_requests_total", verdict="refused", reason="missing") == 1
    assert at.value("fastticket_requests_total", verdict="refused", reason="malformed") == 1
    assert at.value("fastticket_requests_total", verdict="malformed", reason="bad_request") == 1
    # It is counted once the answer has gone out.
    wait_until(lambda: at.value("fastticket_request_duration_seconds_count") >= 100, "how long they took", BOUND_S)

    def cached():
        found = [at.value(f"fastticket_near_cache_{name}_total") for name in ("hits", "misses")]
        return found if sum(found) >= 100 else None

    hits, misses = wait_until(cached, "the worker's note", BOUND_S)
    assert 1 <= misses <= 20  # first requests, once in the data plane and once where they are looked up
    assert hits >= 80
    wait_until(lambda: at.value("fastticket_touches_written_total") >= 1, "a flush", BOUND_S)
    wait_until(lambda: at.value("fastticket_touches_coalesced_total") >= 80, "all but the first uses", BOUND_S)
    assert at.value("fastticket_connections_accepted_total") == 13

    for client in clients:
        client.close()
    seen = at.samples()

    def is_monotone():
        nonlocal seen
        now = at.samples()
        for key, (kind, value) in now.items():
            if kind in ("counter", "histogram") and key in seen:
                assert value >= seen[key][1], key
        seen = now
        return True

    def restarted(times):
        return is_monotone() and at.value("fastticket_worker_restarts_total") == times

    for number in (1, 2):
        os.kill(at.workers()[0], signal.SIGKILL)
        wait_until(lambda n=number: restarted(n) and at.state("/healthz")[0] == 200, "a new worker", BOUND_S)
        for changed in ({}, {"cache": {"capacity": 1000 + number}}):  # inside, and by a new worker
            assert at.reload({**at.table(**options), **changed}).startswith("reloaded")
        wait_until(lambda: is_monotone() and at.value("fastticket_workers", state="retiring") == 0, "gone", BOUND_S)
    for _ in range(50):
        assert status_of(at.ask(get(ticket))[0]) == 200
    assert at.value("fastticket_requests_total", **ADMITTED) == 150
    assert at.value("fastticket_reloads_total", result="done") == 4
    assert at.value("fastticket_workers", state="serving") == 1


def test_no_secret_is_on_a_page(site, redis_server):
    at = site()
    ticket = at.log_in()
    assert status_of(at.ask(get(ticket))[0]) == 200
    secret = (at.folder / "keys.toml").read_text().split('"')[1]
    for page in ("/metrics", "/healthz", "/readyz"):
        text = at.page(page)[1].decode()
        assert ticket[:12] not in text
        assert secret not in text
        assert "alice" not in text
    assert ticket not in at.log
    assert secret not in at.log


def test_what_becomes_of_sessions_and_keys_is_counted(site, origin, tmp_path):
    """Logins, rotations, logouts; tickets verified by key; forgeries. Each from the start, so that
    a rate sees the first.
    """
    wishes = {b"/login": b"X-Ticket-Login: alice", b"/rotate": b"X-Ticket-Rotate: 1"}
    wishes |= {b"/logout": b"X-Ticket-Logout: session", b"/everywhere": b"X-Ticket-Logout: everywhere"}

    def serve(connection):
        while True:
            path = connection.read_head().split(b" ")[1]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n\r\n" % wishes.get(path, b"X: y"))

    at = site(servers=[origin(serve).address])
    at.reload(
        {
            **at.table(servers=[origin(serve).address]),
            "route": [
                {"path": "/login", "auth": "none", "login": True},
                {"path": "/"},
            ],
        }
    )
    changes = ("login", "rotation", "logout", "logout_everywhere")

    def counted():
        return [at.value("fastticket_session_changes_total", change=change) for change in changes]

    assert counted() == [0, 0, 0, 0]

    def log_in(path="/login", ticket=""):
        return fields_of(at.ask(get(ticket, path))[0])[b"set-cookie"].partition(b"=")[2].partition(b";")[0].decode()

    rotated = log_in("/rotate", log_in())
    assert status_of(at.ask(get(rotated, "/logout"))[0]) == 200
    ticket = log_in()
    assert status_of(at.ask(get(ticket[:-6] + "AAAAAA"))[0]) == 401
    assert status_of(at.ask(get(ticket, "/everywhere"))[0]) == 200
    wait_until(lambda: counted() == [2, 1, 1, 1], "the counters", BOUND_S)
    key_id = fastticket.Keyring.from_file(tmp_path / "keys.toml").ids[0]
    assert at.value("fastticket_key_uses_total", key_id=str(key_id)) > 0
    assert at.value("fastticket_tickets_forged_total") == 1


def test_every_metric_is_documented(site):
    with open(DOCUMENT) as file:
        text = file.read()
    for name, *_ in site().samples():
        name = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        assert f"`{name}" in text, name
    assert len(COUNTERS) + len(GAUGES) > 20


def test_readiness_follows_the_store(site, redis_server):
    at = site(threads=2, readiness=["store-any"])
    ticket = at.log_in()
    for _ in range(10):
        assert status_of(at.ask(get(ticket))[0]) == 200
    assert at.state("/readyz") == (200, [])
    redis_server.kill()
    wait_until(lambda: at.state("/readyz") == (503, ["store"]), "it is noticed", BOUND_S)
    assert at.state("/healthz") == (200, [])  # nothing is wrong with the workers
    # Its breaker, a shard that is asked, the duration: each is noted by the worker's next exchange
    # or flush, in no order.
    wait_until(lambda: at.value("fastticket_store_shards_away") >= 1, "a shard is away", BOUND_S)
    wait_until(lambda: at.value("fastticket_store_server_up", server=redis_server.address) == 0, "breaker", BOUND_S)
    wait_until(lambda: at.value("fastticket_store_outage_seconds") > 0, "how long", BOUND_S)
    redis_server.start()
    wait_until(lambda: at.state("/readyz") == (200, []), "it is back", BOUND_S)
    wait_until(lambda: at.value("fastticket_store_server_up", server=redis_server.address) == 1, "for all", BOUND_S)


def test_readiness_follows_the_upstream_servers(site, origin, tmp_path):
    path = str(tmp_path / "app.sock")
    app, other = origin(path=path), f"127.0.0.1:{free_port()}"
    at = site(servers=[app.address, other])

    def state_after_a_request():
        return status_of(at.ask(get(path="/open"))[0]), at.state("/readyz")

    assert [state_after_a_request() for _ in range(4)] == [(200, (200, []))] * 4  # one of two is enough
    wait_until(lambda: at.value("fastticket_upstream_up", upstream="app", server=other) == 0, "one down", BOUND_S)
    app.close()
    os.unlink(path)
    assert state_after_a_request()[0] == 502
    wait_until(lambda: at.state("/readyz") == (503, ["upstream app"]), "all are down", BOUND_S)
    origin(path=path)
    wait_until(lambda: state_after_a_request() == (200, (200, [])), "one is back", 2 * BOUND_S)


def test_health_follows_the_worker(site):
    at = site(threads=2)
    assert at.state("/healthz") == (200, [])
    with starting_none(at):
        os.kill(at.workers()[0], signal.SIGKILL)
        wait_until(lambda: at.state("/healthz")[0] == 503, "it is missing", BOUND_S)
        assert at.state("/readyz") == (503, ["worker"])
        assert at.value("fastticket_workers", state="missing") == 1
    wait_until(lambda: at.state("/healthz") == (200, []), "it is back", BOUND_S)


@pytest.mark.parametrize(("age_s", "away"), [(0.0, []), (NOTE_AGE_MAX_S, ["worker"]), (None, ["worker"])])
def test_a_worker_that_tells_nothing_hangs(age_s, away):
    note = {"now": {"shards_away": 0}, "store": {}, "without_servers": [], "upstreams": []}
    serving = None if age_s is None else {**note, "at_s": time.monotonic() - age_s}
    snapshot = Snapshot(False, ["workers"], serving, [], {}, 0, 0, {})
    assert snapshot.unhealthy() == snapshot.away() == snapshot.unready() == away


def test_what_a_client_may_ask(site):
    at = site()
    head, body = at.exchange(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", to_head=True)
    assert (status_of(head), body) == (200, b"")
    assert int(fields_of(head)[b"content-length"]) > 1000
    assert fields_of(head)[b"content-type"].startswith(b"text/plain; version=")
    assert at.page("/healthz?verbose")[0] == 200
    assert at.page("/nothing")[0] == 404
    assert at.page("/metrics/")[0] == 404
    head, _ = at.exchange(b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    assert (status_of(head), fields_of(head)[b"allow"]) == (405, b"GET, HEAD")
    assert status_of(at.exchange(b"nonsense\r\n\r\n")[0]) == 400
    assert status_of(at.exchange(b"\r\n\r\n")[0]) == 400
    assert status_of(at.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2 * HEAD_BYTES_MAX)[0]) == 431


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"/metrics HTTP/1.1\r\nX : y\r\n\r\n", 400),
        (b"/metrics HTTP/1.1\r\n\r\n", 400),
        (b"/" + b"u" * 8300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"/ HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
        (b"/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2 * HEAD_BYTES_MAX, 431),
        (b"/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"/nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)
def test_answers_to_head_have_no_content(site, rest, status):
    head, _ = site().exchange(b"HEAD " + rest, to_head=True)
    assert status_of(head) == status
    assert int(fields_of(head)[b"content-length"]) > 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_probe_of_http_1_0_needs_no_host(site, path):
    """HAProxy's, and many a script's."""
    at = site()
    assert status_of(at.exchange(f"GET {path} HTTP/1.0\r\n\r\n".encode())[0]) == 200
    assert status_of(at.exchange(f"HEAD {path} HTTP/1.0\r\n\r\n".encode(), to_head=True)[0]) == 200
    with Client(str(at.folder / "admin.sock")) as gone:
        gone.sendall(b"GET /he")
    assert at.page("/healthz")[0] == 200


def test_a_slow_client_is_not_waited_for(site):
    """A deadline for the whole of it."""
    at = site()
    with Client(str(at.folder / "admin.sock")) as slow:
        slow.sendall(b"GET /healthz HT")
        assert slow.read_all() == b""
    assert at.page("/healthz")[0] == 200


@pytest.mark.parametrize("said", [b"", b"GET /healthz HT"], ids=["idle", "slow"])
def test_clients_that_ask_nothing_keep_no_probe_out(site, said):
    """64 of them, and the next probe was reset."""
    at = site()
    with contextlib.ExitStack() as stack:
        path = str(at.folder / "admin.sock")
        check_probes(at, [stack.enter_context(Client(path)) for _ in range(CONNECTIONS_MAX)], said)


def check_probes(at, waiting, said):
    for client in waiting:
        client.sendall(said)
    for _ in range(3):
        assert at.page("/healthz")[0] == 200
    assert waiting[0].read_all() == b""  # the oldest one made room
    waiting[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"[len(said) :])
    assert status_of(waiting[-1].read_response()[0]) == 200


def mode_and_owner(path):
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_the_socket_is_for_whom_the_configuration_says(site, tmp_path):
    """It was for whomever the umask left it to."""
    at = site()
    path = tmp_path / "admin.sock"
    assert mode_and_owner(path) == (0o600, os.geteuid(), os.getegid())
    assert at.reload(at.table(admin_mode="0660")).startswith("reloaded")
    assert mode_and_owner(path)[0] == 0o660
    assert "'0888' is not a mode like 0660" in at.reload(
        (tmp_path / "fastticket.toml").read_text().replace("0660", "0888")
    )
    text = (tmp_path / "fastticket.toml").read_text().replace("0888", "0640")
    assert "name not found: 'nobody-such'" in at.reload(text.replace('admin_owner = ""', 'admin_owner = "nobody-such"'))
    assert mode_and_owner(path)[0] == 0o660  # nothing has changed
    assert at.page("/healthz")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_socket_can_be_a_groups(site, tmp_path):
    at = site(admin_mode="0660", admin_owner=":65534")
    assert mode_and_owner(tmp_path / "admin.sock") == (0o660, 0, 65534)
    assert at.reload(at.table(admin_mode="0600", admin_owner="nobody")).startswith("reloaded")
    assert mode_and_owner(tmp_path / "admin.sock") == (0o600, pwd.getpwnam("nobody").pw_uid, 0)
    assert at.page("/healthz")[0] == 200


def test_as_many_servers_as_there_may_be_are_shown(site):
    """Their states did not fit into a worker's note, and then it told nothing any more."""
    table = {
        "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 2.0},
        "upstream": [
            {"name": f"{n}{'ü' * 60}", "servers": [f"127.{n}.0.{host}:9" for host in range(1, 251)]} for n in range(4)
        ],
    }
    at = site()
    full = {**at.table(), **table}
    assert at.reload(full).startswith("reloaded")
    assert at.state("/healthz") == (200, [])
    shown = [name for name in at.samples() if name[0] == "fastticket_upstream_up"]
    assert len(shown) == 1000


def test_a_note_that_does_not_fit_is_not_the_last_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(notes, "NOTE_INTERVAL_S", 0.01)
    servers = [f"127.0.0.{host}:9" for host in range(1, 201)]

    async def publish():
        create_key_file(tmp_path / "keys.toml")
        table = {
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite://:memory:"},
            "upstream": [{"name": "app", "servers": servers}],
            "route": [{"path": "/"}],
        }
        memory = Slot()

        def shown():
            return len((memory.note() or {"upstreams": []})["upstreams"])

        config = read_config(table, "test", tmp_path)
        at = worker.Worker(Given(config, config.key_pairs()), [[]], memory)
        monkeypatch.setattr(sharedmemory, "NOTE_BYTES_MAX", 8000)
        await at.start()
        assert shown() == 0
        monkeypatch.undo()
        await asyncio.to_thread(wait_until, lambda: shown() == len(servers), "the next note", BOUND_S)
        await at.stop()

    asyncio.run(publish())
    assert re.search(r"a note of \d+ bytes", caplog.text)


def test_the_listener_moves_by_a_reload(site):
    at = site()
    port = free_port()
    assert at.reload(at.table(admin=f"127.0.0.1:{port}")).startswith("reloaded")
    with Client(("127.0.0.1", port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(client.read_response()[0]) == 200
    with pytest.raises(ConnectionRefusedError):
        at.page("/healthz")
    assert at.reload(at.table(admin="")).startswith("reloaded")
    with pytest.raises(ConnectionRefusedError):
        Client(("127.0.0.1", port))
    assert at.reload(at.table()).startswith("reloaded")
    assert at.page("/healthz")[0] == 200
    assert at.at.end(signal.SIGTERM) == 0


def test_only_this_machine_may_ask(site, tmp_path):
    for text, holds in {
        "127.0.0.1:1": True,
        "127.9.9.9:1": True,
        "[::1]:1": True,
        "localhost:1": True,
        "unix:x": True,
        "0.0.0.0:1": False,
        "[::]:1": False,
        "10.0.0.1:1": False,
        "example.org:1": False,
        "fd:3": False,
    }.items():
        assert is_loopback(parse_address(text, tmp_path)) is holds, text
    at = site()
    text = (at.folder / "fastticket.toml").read_text().replace("unix:admin.sock", "0.0.0.0:1")
    assert "[gateway] admin: 0.0.0.0:1 is not" in at.reload(text)
    assert at.page("/healthz")[0] == 200


def test_stats_know_how_old_the_oldest_unwritten_use_is(tmp_path):
    """`flush_lag_ms`: 0 with nothing to write, then as long as the store has not taken it."""

    async def lags():
        create_key_file(tmp_path / "keys.toml")
        keys = fastticket.Keyring.from_file(tmp_path / "keys.toml")
        store = fastticket.open_store("sqlite://:memory:")
        async with fastticket.TicketCache(store, keys, flush_interval_ms=60_000, lease_ms=120_000) as cache:
            ticket = await cache.login("alice")
            assert cache.stats["flush_lag_ms"] == 0
            await asyncio.sleep(0.02)
            await cache.authenticate(ticket)
            lag_ms = cache.stats["flush_lag_ms"]
            assert lag_ms >= 20
            assert cache.stats["shards_leased"] == 1
            await cache.flush()
            return cache.stats["flush_lag_ms"]

    assert asyncio.run(lags()) == 0


def test_the_socket_file_of_a_predecessor_is_no_obstacle(site, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin.sock"))
    at = site()
    assert at.page("/healthz")[0] == 200
    (tmp_path / "notes").write_text("precious")
    assert "a file that is not a socket" in at.reload(at.table(admin="unix:notes"))
    assert (tmp_path / "notes").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.glob("notes*")) == ["notes"]


def test_a_tolerated_outage_is_no_reason_to_avoid_a_gateway(site, redis_server):
    """While it admits those whom it knows. When nobody is admitted any more, it is one."""
    at = site(watchdog_timeout_s=3.0)
    ticket = at.log_in()
    assert status_of(at.ask(get(ticket))[0]) == 200
    redis_server.kill()
    wait_until(lambda: at.state("/readyz") == (200, ["store"]), "it is noticed", BOUND_S)
    assert status_of(at.ask(get(ticket))[0]) == 200
    os.kill(at.workers()[0], signal.SIGKILL)  # the next one knows nobody
    wait_until(lambda: at.state("/readyz") == (503, ["store"]), "nobody is admitted", BOUND_S)
    assert json.loads(at.page("/readyz")[1])["reasons"] == ["store"]
    assert status_of(at.ask(get(path="/open"))[0]) == 200


def test_one_upstream_of_two_is_no_reason_to_avoid_a_gateway():
    def note(*states):
        servers = [{"group": f"g{n}", "state": state} for n, state in enumerate(states)]
        now = {"shards_away": 0, "shards_leased": 16}
        return {"at_s": time.monotonic(), "now": now, "store": {}, "without_servers": [], "upstreams": servers}

    def unready(readiness, *states):
        return Snapshot(False, readiness, note(*states), [], {}, 0, 0, {}).unready()

    assert unready(["upstreams"], "up", "down") == []
    assert unready(["upstreams"], "down", "down") == ["upstream g0", "upstream g1"]
    assert unready(["upstreams-any"], "up", "down") == ["upstream g1"]
    assert unready([], "down", "down") == []


def test_a_gateway_is_drained_before_it_is_ended(site):
    """POST /drain: it is not ready, and every answer says that the connection closes; it serves
    whoever comes.
    """
    at = site()
    assert at.exchange(b"POST /drain HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")[0].startswith(b"HTTP/1.1 503")
    assert at.state("/readyz") == (503, ["gateway: it stops"])
    wait_until(
        lambda: fields_of(at.ask(get(path="/open"))[0]).get(b"connection") == b"close", "workers have heard", BOUND_S
    )
    assert at.state("/healthz") == (200, [])
    assert at.at.end(signal.SIGTERM) == 0


DRAIN = b"POST /drain HTTP/1.1\r\nHost: a\r\n%sContent-Length: 0\r\n\r\n"


def test_a_drained_gateway_may_be_wanted_again(site):
    at = site()
    at.exchange(DRAIN % b"")
    wait_until(lambda: fields_of(at.ask(get(path="/open"))[0]).get(b"connection") == b"close", "they leave", BOUND_S)
    assert at.reload().startswith("reloaded")  # it goes by its files all the same
    assert at.state("/readyz") == (503, ["gateway: it stops"])
    assert fields_of(at.ask(get(path="/open"))[0])[b"connection"] == b"close"
    assert at.exchange(DRAIN.replace(b"POST", b"DELETE") % b"")[0].startswith(b"HTTP/1.1 200")
    assert at.state("/readyz") == (200, [])
    wait_until(lambda: b"connection" not in fields_of(at.ask(get(path="/open"))[0]), "they stay", BOUND_S)


@pytest.mark.timed
def test_the_time_since_a_drain_counts_in_the_delay(site):
    at = site(shutdown_delay_s=2.0)
    at.exchange(DRAIN % b"")
    threading.Event().wait(2.1)
    began_s = time.monotonic()
    assert at.at.end(signal.SIGTERM) == 0
    assert time.monotonic() - began_s < 1.5


def test_a_gateway_that_stops_in_a_moment_says_that_it_does_not_reload(site):
    at = site(shutdown_delay_s=60.0)
    at.at.process.send_signal(signal.SIGTERM)
    wait_until(lambda: at.state("/readyz")[0] == 503, "it is not ready", BOUND_S)
    assert at.reload() == "not reloaded, the configuration before stays: the gateway stops in a moment"
    assert at.at.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("field", [b"Origin: http://127.0.0.1:9100\r\n", b"Sec-Fetch-Site: none\r\n"])
def test_no_page_in_a_browser_drains_a_gateway(site, field):
    at = site()
    assert at.exchange(DRAIN % field)[0].startswith(b"HTTP/1.1 403")
    assert at.state("/readyz") == (200, [])


@pytest.mark.parametrize(
    ("leased", "held", "is_tolerated", "is_avoided"),
    [
        (16, 9, True, False),
        (0, 9, True, True),  # a process that was stopped, say: it may not trust what it holds
        (
            0,
            0,
            True,
            False,
        ),  # a quiet worker would admit nobody, and nobody asks it; so it is on a quiet fleet everywhere
        (0, 0, False, True),  # it began without a store, or the outage is longer than it may be
        (0, 9, False, True),
    ],
)
def test_which_worker_without_a_store_is_a_reason_to_avoid_its_gateway(leased, held, is_tolerated, is_avoided):
    now = {"shards_away": 1, "shards_leased": leased, "sessions_held": held, "is_outage_tolerated": is_tolerated}
    note = {"at_s": time.monotonic(), "now": now, "store": {}, "without_servers": [], "upstreams": []}
    reasons = Snapshot(False, ["store"], note, [], {}, 0, 0, {}).unready()
    assert reasons == (["store"] if is_avoided else [])


# --- clients that take nothing


@pytest.mark.parametrize("size", [230_000, 10_000_000], ids=["all but some", "much"])
async def test_who_does_not_take_the_answer_keeps_no_connection_open(tmp_path, monkeypatch, size):
    """Some of it waits in this process even when the listener has written all of it."""
    monkeypatch.setattr(listener, "TIMEOUT_S", 0.1)
    at = listener.AdminListener(None, {"/": Answer(HTTPStatus.OK, b"x" * size)})
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "admin.sock"))
    await at.move_to(bound, Access((), frozenset(), frozenset(), {}, None, is_private=True))
    with Client(str(tmp_path / "admin.sock")) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: admin\r\n\r\n")
        assert await asyncio.to_thread(hangs_up, client)
        assert status_of(client.read_all()) == 200
    await at.close()


def hangs_up(client):
    """Whether the other end is closed, while nothing is read here."""
    poll = select.poll()
    poll.register(client, 0)
    return poll.poll(BOUND_S * 1000)

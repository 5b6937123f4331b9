"""SIGUSR2: another program takes the place of the one that runs, and forgets nothing."""

import asyncio
import dataclasses
import hashlib
import os
import re
import signal
import textwrap
import threading

import pytest
from conftest import BOUND_S, Client, status_of
from lab.redis_servers import wait_until
from lab.traffic import Traffic, get, hold, log_in, metric, noted

import fastticket
from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring
from fastticket.dataplane.counters import COUNTERS_BYTES, NUMBERS
from fastticket.gateway import control, sharedmemory, upgrade
from fastticket.keyfile import create_key_file
from fastticket.sessions.handing import Known

SESSIONS = 200
LEASE_MS = 60_000  # so that no stall of the machine has sessions looked up again
UPGRADE_BOUND_S = 3 * BOUND_S  # three programs start, one after the other
UPGRADED = "reloaded: a new worker serves by fastticket.toml, because of the upgrade of the program"


@pytest.fixture
def table(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    behind = origin()

    def make(*, store="sqlite:///s.db", servers=None, **gateway):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 2.0, **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": store, "lease_ms": LEASE_MS},
            "upstream": [{"name": "app", "servers": servers or [behind.address]}],
            "route": [{"path": "/"}, {"path": "/open", "auth": "none"}],
        }

    return make


@pytest.fixture
def program(tmp_path):
    """A program that a test replaces by another: `fastticket` after some lines of its own."""
    path = tmp_path / "program.py"

    def install(lines=""):
        path.write_text(f"{textwrap.dedent(lines)}\nfrom fastticket_start import main\nraise SystemExit(main())\n")
        return (str(path),)

    return install


def said(at, pattern, before=0):
    """What the log says, once it says it once more."""
    return wait_until(lambda: re.findall(pattern, at.log)[before:], pattern, UPGRADE_BOUND_S)[0]


def outcome(at, before=0):
    """What has come of SIGUSR2."""
    at.at.process.send_signal(signal.SIGUSR2)
    return said(at, "reloaded: .*|not reloaded.*|not upgraded.*", before)


def alone(at):
    """Its only worker, once the others have ended."""
    return wait_until(lambda: at.workers()[0] if len(at.workers()) == 1 else None, "one worker", UPGRADE_BOUND_S)


def test_an_upgrade_under_traffic_fails_no_request_and_loads_no_session_again(site, table, tmp_path):
    tickets = log_in(tmp_path, *(f"user{n}" for n in range(SESSIONS)))
    at = site(table())
    before = at.workers()
    hold(at, tickets)
    with Traffic(at, tickets) as traffic:
        for n in range(2):
            asked = traffic.asked
            assert outcome(at, n) == UPGRADED
            wait_until(lambda n=asked: traffic.asked > n + SESSIONS, "requests after it", UPGRADE_BOUND_S)
    assert traffic.failures == []
    assert noted(at, "store_loads_total") == SESSIONS  # and no count is lost
    assert metric(at, "requests_total", verdict="admitted", reason="") >= traffic.asked
    begins = f"begins with {SESSIONS} sessions of the one before"
    wait_until(lambda: at.log.count(begins) == 2, "both say so", BOUND_S)
    assert alone(at) not in before
    assert metric(at, "worker_restarts_total") == 0


def test_what_serves_then_is_the_program_that_is_installed_now(site, table, program):
    at = site(table(), program=program())
    program(
        """
        import fastticket, sys
        fastticket.__version__ = "2.0"
        print("the other one, with", *sys.argv[1:], file=sys.stderr, flush=True)
        """
    )
    assert outcome(at) == UPGRADED
    assert at.log.count("the other one, with serve --config fastticket.toml\n") == 1
    assert at.log.count(f"upgraded from version {fastticket.__version__} to 2.0") == 1
    assert at.at.process.poll() is None


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("raise SystemExit('half of it is missing')", "half of it is missing"),
        ("from fastticket.gateway import upgrade\nupgrade.FORMAT += 1", "restart the gateway instead"),
        ("import signal\nsignal.raise_signal(signal.SIGKILL)", "has ended with -9"),
    ],
    ids=["broken", "other-format", "killed"],
)
def test_a_program_that_would_not_serve_changes_nothing(site, table, program, lines, why):
    at = site(table(), program=program())
    before = at.workers()
    program(lines)
    assert why in (outcome(at) + at.log)
    assert at.log.count("not upgraded, the program before goes on") == 1
    assert at.workers() == before
    assert status_of(at.ask(get(path="/open"))[0]) == 200
    program()
    assert outcome(at, 1) == UPGRADED


def test_a_configuration_that_is_wrong_now_changes_nothing(site, table):
    at = site(table())
    before = at.workers()
    at.configure("nonsense = 1")
    assert outcome(at).startswith("not upgraded, the program before goes on: fastticket: ")
    assert at.workers() == before
    at.configure(table())
    assert outcome(at, 1) == UPGRADED


def test_a_program_that_fails_only_as_a_worker_leaves_the_worker_of_the_one_before(site, table, program):
    at = site(table(), program=program())
    before = at.workers()
    program(
        """
        from fastticket.gateway import worker
        from fastticket.errors import FastticketError

        async def fail(*_):
            raise FastticketError("the new program can not")

        worker.Worker.run = fail
        """
    )
    assert "the new program can not" in outcome(at)
    assert at.workers() == before
    assert status_of(at.ask(get(path="/open"))[0]) == 200
    assert metric(at, "reloads_total", result="refused") == 1
    program()
    assert outcome(at, 1) == UPGRADED


def test_what_was_revoked_meanwhile_is_refused_by_the_new_one(site, table, tmp_path):
    tickets = log_in(tmp_path, *(f"user{n}" for n in range(SESSIONS)))
    at = site(table())
    hold(at, tickets)
    at.at.process.send_signal(signal.SIGUSR2)
    end(tmp_path, tickets[::2])
    assert said(at, "reloaded: .*") == UPGRADED
    for ticket in tickets[::2]:  # the worker before may take a client still, and be the last to hear of it
        wait_until(lambda ticket=ticket: status_of(at.ask(get(ticket))[0]) == 401, "it is refused", BOUND_S)
    assert {status_of(at.ask(get(ticket))[0]) for ticket in tickets[1::2]} == {200}


def test_another_store_is_not_given_the_sessions_of_the_one_before(site, table, tmp_path):
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table())
    assert status_of(at.ask(get(ticket))[0]) == 200
    at.configure(table(store="sqlite:///other.db"))
    assert outcome(at) == UPGRADED
    assert "begins with" not in at.log
    wait_until(lambda: status_of(at.ask(get(ticket))[0]) == 401, "the worker before accepts nobody", BOUND_S)


def test_a_replacement_in_another_store_hands_nothing_to_the_one_that_comes_back(site, table, tmp_path):
    """The new configuration was refused, but then the old worker dies: what serves is of it."""
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table())
    (before,) = at.workers()
    at.configure(table(store="sqlite:///there/other.db"))
    assert outcome(at).startswith("not reloaded")
    (tmp_path / "there").mkdir()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: at.workers() and before not in at.workers(), "another worker", UPGRADE_BOUND_S)
    wait_until(lambda: status_of(at.ask(get(ticket))[0]) == 401, "it serves by the other store", UPGRADE_BOUND_S)
    at.configure(table())
    assert at.reload().startswith("reloaded")
    assert "begins with" not in at.log
    wait_until(lambda: status_of(at.ask(get(ticket))[0]) == 200, "it serves by the first store", UPGRADE_BOUND_S)


def test_a_file_that_takes_the_place_of_the_store_is_given_no_sessions(site, table, tmp_path):
    """It may be an older copy, in which they have ended, or that never had them."""
    (ticket,) = log_in(tmp_path, "alice")
    at = site(table())
    assert status_of(at.ask(get(ticket))[0]) == 200
    for name in ("s.db", "s.db-wal", "s.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    log_in(tmp_path, *(f"user{n}" for n in range(5)))
    assert outcome(at) == UPGRADED
    assert "begins with" not in at.log
    wait_until(lambda: status_of(at.ask(get(ticket))[0]) == 401, "the worker before accepts nobody", BOUND_S)


def test_a_configuration_that_goes_away_in_the_middle_is_waited_for(site, table, program):
    at = site(table(), program=program())
    before = at.workers()
    program(
        """
        import os, sys
        if "--trial" not in sys.argv:
            os.rename("fastticket.toml", "away.toml")
        """
    )
    at.at.process.send_signal(signal.SIGUSR2)
    said(at, "the upgrade waits for its configuration.*")
    assert at.workers() == before
    assert status_of(at.ask(get(path="/open"))[0]) == 200
    os.rename(at.folder / "away.toml", at.folder / "fastticket.toml")
    assert said(at, "reloaded: .*") == UPGRADED


def test_a_signal_to_stop_ends_the_worker_before_while_there_is_no_configuration(site, table, program, origin):
    """It drains, and the supervisor waits for it: a container ends with its first process."""
    asked, answers = threading.Event(), threading.Event()

    def serve(connection):
        connection.read_head()
        asked.set()
        answers.wait(UPGRADE_BOUND_S)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    at = site(table(servers=[origin(serve).address], drain_timeout_s=UPGRADE_BOUND_S), program=program())
    (worker,) = at.workers()
    program(
        """
        import os, sys
        if "--trial" not in sys.argv:
            os.rename("fastticket.toml", "away.toml")
        """
    )
    with at.connect() as client:
        client.sendall(get(path="/open"))
        assert asked.wait(UPGRADE_BOUND_S)
        at.at.process.send_signal(signal.SIGUSR2)
        said(at, "the upgrade waits for its configuration.*")
        at.at.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(at), "it accepts nobody", UPGRADE_BOUND_S)
        assert at.at.process.poll() is None
        answers.set()
        assert status_of(client.read_response()[0]) == 200
    at.at.process.wait(UPGRADE_BOUND_S)
    assert not os.path.exists(f"/proc/{worker}")
    assert "stopped before the upgrade had its configuration" in at.log


def refuses(at):
    try:
        at.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_drained_gateway_stays_drained(site, table):
    at = site(table())
    drain(at, b"POST")
    assert readiness(at) == 503
    assert outcome(at) == UPGRADED
    assert readiness(at) == 503
    drain(at, b"DELETE")
    wait_until(lambda: readiness(at) == 200, "ready again", UPGRADE_BOUND_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_stop_in_the_middle_of_it_stops(site, table, program, number):
    """It comes while no program has a handler for it."""
    at = site(table(), program=program())
    program(f"import os, signal, sys\nif '--trial' not in sys.argv: os.kill(os.getpid(), {int(number)})")
    at.at.process.send_signal(signal.SIGUSR2)
    assert at.at.process.wait(UPGRADE_BOUND_S) == 0
    assert "upgrading" in at.log


def test_a_worker_that_dies_during_it_is_replaced_by_one_of_the_new_program(site, table, program):
    at = site(table(), program=program())
    (before,) = at.workers()
    program(f"import os, sys\nif '--trial' not in sys.argv: os.kill({before}, 9)")
    at.at.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: at.workers() and before not in at.workers(), "another worker", UPGRADE_BOUND_S)
    wait_until(lambda: status_of(at.ask(get(path="/open"))[0]) == 200, "it serves", UPGRADE_BOUND_S)
    assert at.reload().startswith("reloaded")


def test_kept_connections_go_along(site, table):
    at = site(table())
    with at.connect() as kept:
        kept.sendall(get(path="/open"))
        assert status_of(kept.read_response()[0]) == 200
        assert outcome(at) == UPGRADED
        alone(at)  # the worker before has handed the connection over, and ended
        kept.sendall(get(path="/open"))
        assert status_of(kept.read_response()[0]) == 200


def test_no_descriptor_is_left_open(site, table):
    at = site(table())
    assert outcome(at) == UPGRADED
    alone(at)
    count = descriptors_of(at)
    for n in (1, 2):
        assert outcome(at, n) == UPGRADED
    wait_until(lambda: descriptors_of(at) <= count, "what belonged to others is closed", UPGRADE_BOUND_S)


def descriptors_of(at):
    return len(os.listdir(f"/proc/{at.pid}/fd"))


def test_the_format_stands_for_all_that_two_versions_must_agree_on():
    """If this fails, raise `upgrade.FORMAT`, and write the present layout here."""
    messages = (control.Serve, control.Leave, control.ReplaceKeys, control.HandSessions, control.Handed)
    shapes = [
        (shape.__name__, [field.name for field in dataclasses.fields(shape)])
        for shape in (*messages, upgrade.Legacy, upgrade.HeldProcess)
    ]
    memory = (COUNTERS_BYTES, NUMBERS, sharedmemory.PAGES_MAX, sharedmemory.NOTE_BYTES_MAX)
    handed = (Known._fields, bytes_beside_the_ticket())
    layout = hashlib.sha256(repr((upgrade.FORMAT, shapes, memory, handed)).encode()).hexdigest()[:16]
    assert (upgrade.FORMAT, layout) == (4, "19b511699cc6a2d5")


def bytes_beside_the_ticket():
    """Of an entry that is handed over."""
    near, ring, now_ms = NearCache(16), Keyring([(1, bytes(32))]), 1_700_000_000_000
    raw = ring.verify(ring.mint("alice", now_ms), now_ms).raw
    near.renew_lease(0, now_ms + 60_000)
    near.insert(raw, 0, now_ms + 7, now_ms, True)
    return len(near.snapshot(0)[0]) - len(raw)


def end(folder, tickets):
    """Revoke, from another process's cache."""

    async def act():
        keys = Keyring.from_file(folder / "keys.toml")
        async with fastticket.TicketCache(fastticket.open_store("sqlite:///s.db", base=folder), keys) as cache:
            for ticket in tickets:
                await cache.logout(ticket)

    asyncio.run(act())


def ask_admin(at, method, path):
    with Client(str(at.folder / "admin.sock")) as client:
        client.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        return status_of(client.read_response()[0])


def drain(at, method):
    ask_admin(at, method, b"/drain")


def readiness(at):
    return ask_admin(at, b"GET", b"/readyz")

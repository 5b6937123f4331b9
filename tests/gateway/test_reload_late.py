"""Reloads that come at a bad time: descriptors are short, the gateway is about to stop, the worker
dies.
"""

import contextlib
import os
import resource
import signal
import socket
import time

from conftest import BOUND_S, status_of
from lab.operators import Operator
from lab.processes import stop_still
from lab.redis_servers import free_port, wait_until
from test_reload import SWITCHING, UPGRADE, get, log_in, metric, table  # noqa: F401

from fastticket.gateway.channel import channel_pair
from fastticket.gateway.control import Handed
from fastticket.gateway.listeners import is_of
from fastticket.gateway.processes import WorkerProcess
from fastticket.gateway.sharedmemory import Slot
from fastticket.keyfile import create_key_file
from fastticket.sessions.handing import Known

TOKEN = "t" * 36
PUBLIC = [{"path": "/", "auth": "none"}]
PATIENT = "redis://{}/0?timeout_ms=30000"  # a worker that comes while it stands still waits until it goes on


@contextlib.contextmanager
def stopped(pid):
    stop_still(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def tunnels(at, behind, count):
    held = []
    for _ in range(count):
        client = at.connect()
        client.sendall(UPGRADE)
        connection, _ = behind.accept()
        connection.recv(65536)
        connection.sendall(SWITCHING)
        assert status_of(client.read_response()[0]) == 101
        held += [client, connection]
    return held


def test_sockets_for_which_the_worker_has_no_descriptors_are_a_refusal(site, table):  # noqa: F811
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    with socket.create_server(("127.0.0.1", 0), backlog=200) as behind:
        behind.settimeout(BOUND_S)
        changed = {"servers": [f"127.0.0.1:{behind.getsockname()[1]}"], "routes": PUBLIC, "upgrades": ["echo"]}
        at = site(table(**changed), preexec_fn=few)
        (worker,) = at.workers()
        held = tunnels(at, behind, 90)
        used = len(os.listdir(f"/proc/{worker}/fd"))
        assert "Too many open files" in at.reload(table(threads=64, **changed))
        wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= used, "what has come is closed", BOUND_S)
        assert at.reload(table(threads=2, **changed)).startswith("reloaded")
        assert at.workers() == [worker]
        for each in held:
            each.close()


def test_a_reload_that_the_worker_hears_of_after_sigterm_comes_to_nothing(site, table):  # noqa: F811
    """The message is long, so it is read in several turns of the loop."""
    with socket.create_server(("127.0.0.1", 0)) as behind:
        fields = {f"X-{n}": "y" * 150 for n in range(11)}
        routes = PUBLIC + [{"path": f"/{n}", "auth": "none", "response_headers": fields} for n in range(200)]
        changed = {"servers": [f"127.0.0.1:{behind.getsockname()[1]}"], "routes": routes, "upgrades": ["echo"]}
        at = site(table(**changed))
        (worker,) = at.workers()
        held = tunnels(at, behind, 1)
        at.configure(table(threads=2, **changed))
        with stopped(worker):
            at.at.process.send_signal(signal.SIGHUP)
            time.sleep(1)
            at.at.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert at.at.process.wait(BOUND_S) == 0
        assert "is killed" not in at.log
        for each in held:
            each.close()


def test_a_sighup_before_the_stop_leaves_the_coming_worker_its_sockets(site, table, redis_server):  # noqa: F811
    store = {"url": PATIENT.format(redis_server.address)}
    at = site(table(store=store, shutdown_delay_s=60.0))
    addresses = ["127.0.0.1:0", f"127.0.0.1:{free_port()}"]
    at.configure({**table(store=store, shutdown_delay_s=60.0, listen=addresses), "cache": {"capacity": 2000}})
    with stopped(redis_server._process.pid):
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(at.workers()) == 2, "the coming worker", BOUND_S)
        at.at.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "not ready any more" in at.log, "the delay", BOUND_S)
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the gateway stops in a moment" in at.log, "the refusal", BOUND_S)
    wait_until(lambda: "reloaded: " in at.log, "the coming worker", BOUND_S)
    assert at.at.end(signal.SIGTERM) == 0  # the second one ends the delay
    assert "Traceback" not in at.log


def test_a_signal_to_stop_in_the_midst_of_a_reload_leaves_no_file(site, table, redis_server):  # noqa: F811
    """Of the coming admin listener; its name has the pid, so that nobody would take it away."""
    settings = {"store": {"url": f"redis://{redis_server.address}/0"}, "routes": PUBLIC}
    at = site(table(**settings))
    at.configure({**table(**settings), "cache": {"capacity": 2000}})
    with stopped(redis_server._process.pid):
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(at.workers()) == 2, "the coming worker", BOUND_S)
        assert [*at.folder.glob("admin.sock.*")]
        at.at.process.send_signal(signal.SIGTERM)
        wait_until(lambda: at.workers() == [], "both have ended", BOUND_S)
    at.at.process.wait(BOUND_S)
    assert not [*at.folder.glob("admin.sock.*")]


def test_a_file_of_the_coming_admin_listener_that_goes_away_ends_nothing(site, table, redis_server, tmp_path):  # noqa: F811
    """As by what cleans a folder up; the coming worker has taken its time. A token that this reload
    takes out is known no more.
    """
    (tmp_path / "tokens").write_text(f"ops {TOKEN}\n")
    (tmp_path / "tokens").chmod(0o600)
    settings = {"store": {"url": f"redis://{redis_server.address}/0"}, "routes": PUBLIC}
    former = table(**settings)
    at = site({**former, "gateway": {**former["gateway"], "admin_token_file": "tokens"}})
    operator = Operator(str(tmp_path / "admin.sock"), TOKEN)
    assert operator.get("/v1/status")["is_healthy"]
    at.configure({**table(**settings), "cache": {"capacity": 2000}})
    with stopped(redis_server._process.pid):
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(at.workers()) == 2, "the coming worker", BOUND_S)
        (at.folder / f"admin.sock.{at.at.process.pid}").unlink()
    wait_until(lambda: "reloaded: " in at.log, "the reload", BOUND_S)
    assert "the admin listener stays where it was: listen unix:" in at.log
    assert operator.refused("GET", "/v1/status") == (403, "forbidden")
    assert status_of(at.ask(get())[0]) == 200
    assert metric(at, "reloads_total", result="done") == 1
    assert at.reload(table(**settings)).startswith("reloaded")
    assert metric(at, "reloads_total", result="done") == 2


def test_sockets_are_not_renewed_under_a_coming_worker(site, table, redis_server):  # noqa: F811
    """They would listen beside its own, and nobody would accept their clients."""
    store = {"url": PATIENT.format(redis_server.address)}
    at = site(table(store=store, routes=PUBLIC))
    for _ in range(4):
        (worker,) = at.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda before=worker: at.workers() not in ([], [before]), "the next one", BOUND_S)
    assert at.ask(get())
    (worker,) = at.workers()
    at.configure({**table(store=store, routes=PUBLIC), "cache": {"capacity": 2000}})
    with stopped(redis_server._process.pid):
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(at.workers()) == 2, "the coming worker", BOUND_S)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "the next one starts in 1.6 s" in at.log, "the pause", BOUND_S)
    wait_until(lambda: "reloaded: " in at.log, "the reload", BOUND_S)
    for _ in range(20):
        assert status_of(at.ask(get())[0]) == 200


def test_uses_of_a_key_id_do_not_go_back_with_another_secret(site, table, tmp_path):  # noqa: F811
    def uses():
        return metric(at, "key_uses_total", key_id="1")

    at = site(table())
    for principal in ("alice", "bob"):
        (ticket,) = log_in(tmp_path, principal)
        before = uses()
        assert status_of(at.ask(get(ticket))[0]) == 200
        wait_until(lambda least=before: uses() > least, "a note", BOUND_S)
        seen = uses()
        (tmp_path / "keys.toml").unlink()
        create_key_file(tmp_path / "keys.toml")
        assert at.reload().startswith("reloaded")
        assert uses() == seen


def test_what_was_handed_for_a_reload_that_was_given_up_does_not_go_along():
    """An entry that is older than the positions may be of a session whose end they have passed."""
    ours, theirs = channel_pair()
    process = WorkerProcess(0, ours, Slot(), None)
    for part in (b"late", known := Known(0, [None], [0]), b"entries", None):
        process._hear(Handed(part))
    assert process.handed == [known, b"entries"]
    assert process.has_handed
    ours.close()
    theirs.close()


def test_a_client_is_handed_over_without_a_further_descriptor():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as another,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert is_of(connection.fileno(), [another, listener])
            assert not is_of(connection.fileno(), [another])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        connection.getsockname()  # it is open


def test_a_name_that_does_not_resolve_is_one_error(site, table):  # noqa: F811
    at = site(table())
    assert "does not resolve" in at.reload(table(servers=["no.such.invalid:80"]))
    assert at.log.count(" ERROR ") == 1

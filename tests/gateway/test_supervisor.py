"""Workers that die, configurations that change, signals in the middle of things: real processes,
and nobody's request is dropped.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from lab.processes import Process, Site, starting_none, stop_still
from lab.redis_servers import Server, free_port, wait_until

import fastticket
from fastticket.gateway.reader import read_config
from fastticket.gateway.services import RETIRING_MAX
from fastticket.gateway.sharedmemory import NOTE_BYTES_MAX, PAGES_MAX, Slot, add
from fastticket.gateway.supervisor import RETIRING_GENERATIONS_MAX
from fastticket.gateway.writer import to_toml
from fastticket.keyfile import add_key, create_key_file, key_file_text, promote_key, read_keys

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class SlowApplication:
    """Answers at once, but `/slow` waits until `go_on` is set. `asked`: a request waits."""

    def __init__(self):
        self.asked, self.go_on = threading.Event(), threading.Event()

    def __call__(self, connection):
        while True:
            if b"/slow" in connection.read_head():
                self.asked.set()
                assert self.go_on.wait(BOUND_S)
            connection.sendall(OK)


def get(ticket):
    return f"GET /x HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode()


def naming(name):
    """An answer that says who gave it."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name)


@pytest.fixture
def folder(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    return tmp_path


@pytest.fixture
def table(folder, origin):
    """A good configuration: everything goes to an origin that answers `ok`."""
    behind = origin()

    def make(*, auth="none", servers=None, store=None, **gateway):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 2.0, **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db", **(store or {})},
            "upstream": [{"name": "app", "servers": servers or [behind.address]}],
            "route": [{"path": "/", "auth": auth}],
            "timeouts": {"request_head_s": 60, "upstream_idle_s": 60},  # no stall of the machine is the client's
        }

    return make


def in_store(folder, action):
    """Do something with a cache of our own on the gateway's store."""

    async def act():
        keys = fastticket.Keyring.from_file(folder / "keys.toml")
        async with fastticket.TicketCache(fastticket.open_store("sqlite:///s.db", base=folder), keys) as cache:
            return await action(cache)

    return asyncio.run(act())


def log_in(folder):
    return in_store(folder, lambda cache: cache.login("alice"))


def deadline(folder):
    (session,) = in_store(folder, lambda cache: cache.sessions("alice"))
    return session.idle_deadline_ms


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


class Ways:
    """Reloads a site in one of the two ways: inside its worker, or with another one beside it."""

    def __init__(self, is_inside):
        self.is_inside = is_inside
        self._reloads = 0

    def reload(self, at, config):
        """Returns when the configuration is in force; what was before may still retire."""
        before = at.workers()
        self._reloads += 1
        said = at.reload(config if self.is_inside else anew(config, 1000 + self._reloads))
        assert said.startswith("reloaded: the worker" if self.is_inside else "reloaded: a new worker")
        assert self.is_inside == (at.workers()[-1:] == before)
        return said

    def reload_wholly(self, at, config):
        """Returns when what was before has ended."""
        self.reload(at, config)
        wait_until(lambda: has_retired(at, self._reloads), "what was before has ended", BOUND_S)


def anew(config, capacity=1000):
    """A configuration that needs a new worker."""
    return {**config, "cache": {"capacity": capacity}}


def has_retired(at, times=1):
    """Whether so many configurations have retired, and all are gone."""
    return times <= at.log.count(" retires: ") == len(re.findall(r"(?:before|\)) has ended", at.log))


@pytest.fixture(params=["inside", "a new worker"])
def ways(request):
    return Ways(request.param == "inside")


# --- workers


def test_a_worker_that_dies_young_is_replaced_after_longer_and_longer_pauses(site, table):
    at = site(table(threads=2))
    for pause in ("0.1", "0.2", "0.4"):
        (victim,) = at.workers()
        os.kill(victim, signal.SIGKILL)
        line = wait_until(lambda v=victim: re.search(rf"worker \(pid {v}\) (.*)", at.log), "the replacement")[1]
        assert re.fullmatch(rf"was killed by SIGKILL, after \d\.\d s; the next one starts in {pause} s", line)
        wait_until(lambda v=victim: at.workers() and v not in at.workers(), "the next worker")
        assert {status_of(at.ask(GET)[0]) for _ in range(10)} == {
            200
        }  # those that it had not accepted wait for the next
    assert at.at.end(signal.SIGTERM) == 0


def test_a_worker_that_can_not_start_is_tried_again(site, table):
    at = site(table())
    with starting_none(at):
        os.kill(at.workers()[0], signal.SIGKILL)
        wait_until(lambda: re.search(r"can not be started: .*starts in 0\.2 s", at.log), "a reason", BOUND_S)
    # After longer pauses clients are refused meanwhile.
    assert status_of(wait_until(lambda: at.ask(GET), "it serves", BOUND_S)[0]) == 200
    assert at.at.end(signal.SIGTERM) == 0


def test_a_worker_that_can_not_start_at_first_ends_the_gateway(folder, table):
    """With the reason in one line, as for any other command."""
    config = to_toml(read_config(table(store={"url": "sqlite:///nowhere/s.db"}, threads=2), "test", folder))
    (folder / "fastticket.toml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "fastticket", "serve", "--config", "fastticket.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=3 * BOUND_S,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.search(r"^fastticket: .*nowhere", done.stderr, re.MULTILINE)


def test_workers_end_with_their_supervisor_and_lose_no_touch(site, table, folder):
    ticket = log_in(folder)
    at = site(table(auth="required", threads=2, store={"flush_interval_ms": 60_000, "lease_ms": 120_000}))
    before = deadline(folder)
    assert status_of(at.ask(get(ticket))[0]) == 200
    workers = at.workers()
    at.at.process.kill()
    wait_until(lambda: all(map(is_gone, workers)), "the workers are gone", BOUND_S)
    assert deadline(folder) > before


#: A gateway that waits less long for workers: to be ready, and to write what they have.
HASTY = (
    "-c",
    "import sys; from fastticket.gateway import processes as p, supervisor as s; s.READY_TIMEOUT_S, p.END_MARGIN_S = 4.0, 0.25; "
    "from fastticket.commands.cli import main; sys.exit(main())",
)


def test_p9_a_worker_that_does_not_go_is_killed_after_all_the_time_that_it_may_take(site, table):
    """One that retires: its time to retire, its time to drain, and a margin; one that is stopped
    has no time to retire.
    """
    times = {"retire_timeout_s": 1.5, "drain_timeout_s": 0.5, "watchdog_timeout_s": 0.0}
    at = site(table(**times), program=HASTY)
    (old,) = at.workers()
    at.halt(old)
    assert at.reload(anew(table(**times))).startswith("reloaded")
    wait_until(lambda: re.search(rf"pid {old}\) is killed: not gone in 2\.25 s", at.log), "it is killed", BOUND_S)
    wait_until(lambda: len(at.workers()) == 1, "it is gone", BOUND_S)
    (new,) = at.workers()
    at.halt(new)
    assert at.at.end(signal.SIGTERM) == 1
    assert f"pid {new}) is killed: not gone in 0.75 s" in at.log


def test_p9_a_worker_that_is_not_ready_is_killed_and_those_that_are_live(site, table, silent_store):
    at = site(table(), program=HASTY)
    (old,) = at.workers()
    said = at.reload(table(store={"url": silent_store}))
    assert said.startswith("not reloaded")
    assert "is killed: not ready in 4 s" in at.log
    assert at.log.count("is killed") == 1
    assert at.workers() == [old]
    assert status_of(at.ask(GET)[0]) == 200


def test_a_worker_that_hangs_is_killed_in_the_end(site, table):
    at = site(table(drain_timeout_s=0.1, watchdog_timeout_s=0.0))
    (worker,) = at.workers()
    at.halt(worker)
    assert at.at.process.poll() is None
    at.at.process.send_signal(signal.SIGTERM)
    assert at.at.process.wait(3 * BOUND_S) == 1
    assert is_gone(worker)
    assert "not gone in" in at.log


def test_a_replacement_needs_no_password_file(site, table, folder):
    """The configuration has read it, and a worker is forked with the configuration."""
    server = Server(folder, {"requirepass": "hush"})
    try:
        (folder / "password").write_text("hush\n")
        url = f"redis://{server.address}/0?password_file=password"
        at = site(table(store={"url": url}, auth="required"))
        (folder / "password").unlink()
        victim = at.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: at.workers() and victim not in at.workers(), "the replacement", BOUND_S)
        assert status_of(at.ask(GET)[0]) == 401
        assert "password_file: " in at.reload()
        assert "hush" not in at.log
    finally:
        server.kill()


@pytest.mark.parametrize("option", ["--threads", "--workers"])
def test_serve_takes_a_number_of_threads(folder, origin, option):
    """By its former name, too, and says so. With flags, nothing but the keys can change."""
    flags = ("--listen", "127.0.0.1:0", "--upstream", origin().address, "--keys", "keys.toml", option, "3")
    log = folder / "log"
    with log.open("wb") as said:
        at = Process("serve", *flags, cwd=folder, stderr=said)
    with at.process.stdout:
        before = at.workers()
        assert (len(before), sockets_at(at)) == (1, 3)
        add_key(folder / "keys.toml")
        at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in log.read_text(), "the reload", BOUND_S)
        assert at.workers() == before
        assert at.end(signal.SIGINT) == 0
    assert ("--workers: is called threads now" in log.read_text()) == (option == "--workers")


def sockets_at(at):
    """How many sockets listen at a gateway's port."""
    listening = subprocess.run(["ss", "-Hltn", "sport", "=", str(at.address[1])], capture_output=True, text=True)
    return len(listening.stdout.splitlines())


def test_nobody_waits_for_a_worker_that_does_not_come(site, table):
    """Who comes is refused, and goes elsewhere, instead of waiting in the queue of a socket that
    listens.
    """
    at = site(table(threads=2))
    with starting_none(at):
        os.kill(at.workers()[0], signal.SIGKILL)
        wait_until(lambda: "starts in 1.6 s" in at.log, "it has died often", BOUND_S)
        for _ in range(10):
            with pytest.raises(ConnectionRefusedError):
                at.connect()
    wait_until(at.workers, "it can start", BOUND_S)
    assert status_of(wait_until(lambda: at.ask(GET), "it serves", BOUND_S)[0]) == 200
    assert {status_of(at.ask(GET)[0]) for _ in range(30)} == {200}
    assert at.at.end(signal.SIGTERM) == 0


# --- reload


def test_a_reload_takes_whatever_is_in_the_file(site, table, origin):
    """Upstreams, routes, more threads, fewer; nobody notices more than that."""
    other = origin(answer=naming(b"other"))
    at = site(table())
    before = at.workers()
    assert at.ask(GET)[1] == b"ok"
    said = "reloaded: the worker serves by fastticket.toml, with the sessions that it holds"
    assert at.reload(table(servers=[other.address], threads=3)) == said
    assert {at.ask(GET)[1] for _ in range(20)} == {b"other"}
    assert at.reload(table(auth="required")) == said
    assert {status_of(at.ask(GET)[0]) for _ in range(20)} == {401}  # the sockets of three threads have one now
    assert at.workers() == before
    said = "reloaded: a new worker serves by fastticket.toml, because of [store] lease_ms, [cache] capacity"
    assert at.reload(anew(table(store={"lease_ms": 1500}))) == said
    wait_until(lambda: len(at.workers()) == 1, "the one before has retired", BOUND_S)
    assert at.workers() != before
    assert {at.ask(GET)[1] for _ in range(20)} == {b"ok"}
    assert at.at.end(signal.SIGTERM) == 0


def test_a_reload_listens_elsewhere(site, table, folder, ways):
    first, second = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    at = site(table(listen=[first]))
    ways.reload(at, table(listen=[first, second, "unix:g.sock"]))
    for address in (at.address, ("127.0.0.1", int(second.rpartition(":")[2])), str(folder / "g.sock")):
        with Client(address) as client:
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 200
    ways.reload_wholly(at, table(listen=[second]))
    with socket.socket() as late:
        assert late.connect_ex(at.address) != 0


def test_a_reload_disturbs_no_connection(site, table, origin, ways):
    """In flight, idle, and new ones: each gets its answer. Who waited for one is told to come
    again; who was idle stays connected.
    """
    slow = SlowApplication()
    config = table(servers=[origin(slow).address])
    at = site(config)
    with at.connect() as busy, at.connect() as idle:
        idle.sendall(GET)
        assert b"Connection: close" not in idle.read_response()[0]
        busy.sendall(GET.replace(b"/x", b"/slow"))
        assert slow.asked.wait(BOUND_S)
        ways.reload(at, config)
        wait_until(lambda: " retires: 1 connections" in at.log, "it has heard of it")
        assert status_of(at.ask(GET)[0]) == 200
        slow.go_on.set()
        head, body = busy.read_response()
        assert (status_of(head), body, fields_of(head)[b"connection"]) == (200, b"ok", b"close")
        assert busy.read_all() == b""
        wait_until(lambda: has_retired(at), "what was before has ended", BOUND_S)
        for _ in range(2):
            idle.sendall(GET)
            head, body = idle.read_response()
            assert (status_of(head), body, b"connection" in fields_of(head)) == (200, b"ok", False)


def routing(config, *hosts):
    """Everything on these hosts, and nothing on others."""
    return {**config, "route": [{"path": "/", "host": host, "auth": "none"} for host in hosts]}


@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_reload_nobody_is_answered_by_the_old_routes(site, table, threads, ways):
    """Not on a connection that was kept, either, of which there may be more than the way to a new
    worker takes at once.
    """
    config = table(threads=threads)
    at = site(routing(config, "old.test"))
    ask = "GET /x HTTP/1.1\r\nHost: {}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(at.connect()) for _ in range(400)]
        for client in kept:
            client.sendall(ask.format("old.test").encode())
            assert status_of(client.read_response()[0]) == 200
        ways.reload_wholly(at, routing(config, "new.test"))
        for host, status in (("new.test", 200), ("old.test", 404)):
            for client in kept:
                client.sendall(ask.format(host).encode())
                head, _ = client.read_response()
                assert (status_of(head), b"connection" in fields_of(head)) == (status, False)


def test_a_request_that_is_on_its_way_during_a_reload_is_answered_once(site, table, ways):
    """By whichever configuration; no connection is reset under it."""
    at = site(table(threads=2))
    is_over = threading.Event()
    failures, answers = [], []

    def ask_on():
        try:
            with at.connect() as client:
                while not is_over.is_set():
                    client.sendall(GET)
                    head, body = client.read_response()
                    answers.append((status_of(head), body))
                    if b"Connection: close" in head:
                        client.close()
                        client = stack.enter_context(at.connect())
        except Exception as failure:
            failures.append(failure)

    with contextlib.ExitStack() as stack:
        threads = [threading.Thread(target=ask_on) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            ways.reload(at, table(threads=2))
        is_over.set()
        for thread in threads:
            thread.join(BOUND_S)
    assert failures == []
    assert set(answers) == {(200, b"ok")}


def test_a_kept_connection_to_an_address_that_is_no_more_gets_one_answer(site, table, ways):
    first, second = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    at = site(table(listen=[first, second]))
    with at.connect() as going, Client(("127.0.0.1", int(second.rpartition(":")[2]))) as staying:
        for client in (going, staying):
            client.sendall(GET)
            client.read_response()
        ways.reload_wholly(at, table(listen=[second]))
        for client, is_last in ((going, True), (staying, False)):
            client.sendall(GET)
            head, _ = client.read_response()
            assert (status_of(head), b"Connection: close" in head) == (200, is_last)


def test_whom_a_kept_connection_is_of_is_known_after_a_reload(site, table, origin, folder, ways):
    behind = origin()
    listen = [f"127.0.0.1:{free_port()}", "unix:g.sock"]
    at = site(table(servers=[behind.address], listen=listen))
    with at.connect() as client, Client(str(folder / "g.sock")) as local:
        for each in (client, local):
            each.sendall(GET)
            each.read_response()
        ways.reload_wholly(at, table(servers=[behind.address], listen=listen))
        for each in (client, local):
            each.sendall(GET)
            each.read_response()
    named = [fields_of(head).get(b"x-forwarded-for") for head, _ in behind.requests]
    assert named == [b"127.0.0.1", None, b"127.0.0.1", None]


def test_whom_a_proxy_has_not_named_is_nobody_after_a_reload_either(site, table, origin, ways):
    """The address of such a connection is the trusted proxy's, whose word would be believed."""
    behind = origin()
    config = table(servers=[behind.address], proxy_protocol=True, trusted_proxies=["127.0.0.1/32"])
    at = site(config)
    claim = GET.replace(b"Host: a\r\n", b"Host: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n")
    with at.connect() as client:
        client.sendall(b"PROXY UNKNOWN\r\n" + claim)
        client.read_response()
        ways.reload_wholly(at, config)
        client.sendall(claim)
        client.read_response()
    fields = [fields_of(head) for head, _ in behind.requests]
    assert [(f[b"x-forwarded-for"], f[b"x-forwarded-proto"]) for f in fields] == [(b"127.0.0.1", b"http")] * 2


def test_an_answer_that_said_nothing_of_an_end_has_none_by_a_reload(site, table, origin, ways):
    """Its head went out before. The connection goes on by the new configuration."""
    begun, go_on = threading.Event(), threading.Event()

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        begun.set()
        assert go_on.wait(BOUND_S)
        connection.sendall(b"lf")

    at = site(table(servers=[origin(serve).address]))
    new = table(
        servers=[origin(lambda connection: (connection.read_head(), connection.sendall(naming(b"new")))).address]
    )
    with at.connect() as client:
        client.sendall(GET)
        assert begun.wait(BOUND_S)
        ways.reload(at, new)
        go_on.set()
        head, body = client.read_response()
        assert (body, fields_of(head).get(b"connection")) == (b"half", None)
        wait_until(lambda: has_retired(at), "what was before has ended", BOUND_S)
        client.sendall(GET)
        assert client.read_response()[1] == b"new"


def test_who_was_let_in_is_not_shut_out_by_a_reload(site, table, ways):
    """More connections of one client are there than the new limit lets in."""
    config = {**table(), "limits": {"connections_per_client_max": 7}}
    at = site(config)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(at.connect()) for _ in range(7)]
        for client in clients:
            client.sendall(GET)
            client.read_response()
        ways.reload_wholly(at, {**config, "limits": {"connections_per_client_max": 4}})
        for client in clients:
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 200
        with at.connect() as late:
            late.sendall(GET)
            assert late.read_all() == b""


def test_a_removed_key_is_refused_by_what_retires_too(site, table, folder, ways):
    old = log_in(folder)
    at = site(table(auth="required"))
    with at.connect() as kept, at.connect() as other:
        for client in (kept, other):
            client.sendall(get(old))
            assert status_of(client.read_response()[0]) == 200
        other.sendall(get(old)[:5])  # the rest comes while the one that has it retires
        added = add_key(folder / "keys.toml")
        new = [key for key in read_keys(folder / "keys.toml") if key[0] == added]
        (folder / "keys.toml").write_text(key_file_text(new))
        ways.reload(at, table(auth="required"))

        def is_refused():
            with at.connect() as fresh:
                fresh.sendall(get(old))
                return status_of(fresh.read_response()[0]) == 401

        wait_until(lambda: "retires" in at.log, "it has read the keys, and accepts no more", BOUND_S)
        assert is_refused()
        for client in (kept, other):
            client.sendall(get(old)[5 * (client is other) :])
            assert status_of(client.read_response()[0]) == 401
        assert status_of(at.ask(get(log_in(folder)))[0]) == 200


def test_who_retires_is_given_the_ring_that_was_checked_and_reads_no_file(site, table, folder):
    """The file may be another one by then: that ring nobody has asked for. And one who retired
    before has the new one, too.
    """
    path, first = folder / "keys.toml", log_in(folder)
    at = site(table(auth="required"))
    with at.connect() as kept:
        kept.sendall(get(first))
        assert status_of(kept.read_response()[0]) == 200
        kept.sendall(get(first)[:5])  # the rest comes while the worker that has it retires
        promote_key(path, add_key(path))
        good = path.read_text()
        path.unlink()
        at.configure(anew(table(auth="required")))
        os.mkfifo(path)  # whoever opens it waits until this is written, and there is one more
        at.at.process.send_signal(signal.SIGHUP)
        path.write_text(good)
        path.unlink()
        path.write_text("rubbish")
        wait_until(lambda: "retires" in at.log, "the old worker accepts no more", BOUND_S)
        second = asyncio.run(issue(folder, good))
        kept.sendall(get(second)[5:])
        assert status_of(kept.read_response()[0]) == 200
    assert "rubbish" not in at.log
    assert "not reloaded" not in at.log


async def issue(folder, ring):
    (folder / "ring.toml").write_text(ring)
    keys = fastticket.Keyring.from_file(folder / "ring.toml")
    async with fastticket.TicketCache(fastticket.open_store(f"sqlite:///{folder}/s.db"), keys) as cache:
        return await cache.login("alice")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_at_the_start_ends_nobody(table, folder, number):
    """It came before anybody answered it; what it asks for is being done."""
    (folder / "fastticket.toml").write_text(to_toml(read_config(table(), "test", folder)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fastticket", "serve", "--config", "fastticket.toml"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    try:
        wait_until(lambda: is_prepared_for(process.pid, number), "it is there", BOUND_S)
        process.send_signal(number)
        assert b"serving" in process.stdout.readline()
        process.terminate()
        assert process.wait(BOUND_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_prepared_for(pid, number):
    """Whether it ignores a signal, as at the start, or has a handler by now."""
    masks = re.findall(r"Sig(?:Ign|Cgt):\s+([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def test_touches_of_a_retiring_worker_are_written(site, table, folder):
    ticket = log_in(folder)
    config = table(auth="required", store={"flush_interval_ms": 60_000, "lease_ms": 120_000})
    at = site(config)
    (old,) = at.workers()
    before = deadline(folder)
    with at.connect() as kept:
        kept.sendall(GET)
        kept.read_response()
        kept.sendall(get(ticket)[:5])
        at.reload(anew(config))
        kept.sendall(get(ticket)[5:])
        assert status_of(kept.read_response()[0]) == 200
        wait_until(lambda: is_gone(old), "the old worker has retired", BOUND_S)
    assert deadline(folder) > before


def test_retirement_ends(site, table, ways):
    """A client that does not finish its request does not keep what retires for ever."""
    at = site(table(retire_timeout_s=0.5))
    with at.connect() as idle:
        idle.sendall(GET)
        idle.read_response()
        idle.sendall(GET[:5])
        ways.reload(at, table(retire_timeout_s=0.5))
        assert idle.read_all() == b""
        wait_until(lambda: has_retired(at), "what was before has ended", BOUND_S)


@pytest.mark.parametrize("listen", ["127.0.0..1:8080", "fd:99999999999999", "no.such.name.invalid:1"])
def test_an_address_that_is_none_is_refused_and_the_gateway_goes_on(site, table, listen):
    at = site(table())
    assert at.ask(GET)[1] == b"ok"
    assert "not reloaded" in at.reload(table(listen=[listen]))
    assert at.ask(GET)[1] == b"ok"


def test_not_many_generations_retire_at_once(site, table, ways):
    """However often it is reloaded: the oldest makes room."""
    assert RETIRING_MAX == RETIRING_GENERATIONS_MAX
    at = site(table())
    with contextlib.ExitStack() as stack:
        idle = []
        for generation in range(RETIRING_GENERATIONS_MAX + 1):
            idle.append(stack.enter_context(at.connect()))
            idle[-1].sendall(GET)
            idle[-1].read_response()
            idle[-1].sendall(GET[:5])
            ways.reload(at, table())
            # Until then an old worker accepts, too.
            wait_until(lambda n=generation: at.log.count(" retires: 1 connections") == n + 1, "it retires")
        assert idle[0].read_all() == b""
        wait_until(
            lambda: at.log.count(") has ended") + at.log.count("before has ended") == 1, "one has made room", BOUND_S
        )
        for client in idle[1:]:
            client.sendall(GET[5:])
            assert status_of(client.read_response()[0]) == 200


@pytest.fixture
def taken():
    """A port where somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_bad_configuration_is_refused_and_the_old_one_stays(site, table, folder, taken):
    at = site(table(threads=2))
    before = at.workers()
    ring = (folder / "keys.toml").read_text()

    def refused(config, reason):
        line = at.reload(config)
        assert line.startswith("not reloaded, the configuration before stays: ")
        assert reason in line
        wait_until(lambda: at.workers() == before, "nobody but the old worker", BOUND_S)
        assert {status_of(at.ask(GET)[0]) for _ in range(10)} == {200}

    refused("this is not TOML", "not TOML")
    refused({**table(), "ticket": {"keys": "nowhere.toml"}}, "nowhere.toml")
    refused(table(listen=["127.0.0.1:0", f"127.0.0.1:{taken}"]), "is another one running?")
    refused(table(admin=f"127.0.0.1:{taken}"), "is another one running?")
    refused(table(servers=["nowhere.invalid:1"], threads=4), "nowhere.invalid:1: the name does not resolve")
    refused(anew(table(servers=["nowhere.invalid:1"])), "nowhere.invalid:1: the name does not resolve")
    refused(table(store={"outage_policy": "deny", "flush_interval_ms": 1500}), "lease_ms is 2000")
    nobody = f"127.0.0.1:{free_port()}"
    refused(table(store={"url": f"redis://{nobody}/0"}), f"redis {nobody}: ")
    (folder / "keys.toml").write_text("nonsense")
    refused(table(), "keys.toml")
    assert ring not in at.log
    (folder / "keys.toml").write_text(ring)
    assert at.reload(table()).startswith("reloaded")
    assert at.log.count("not reloaded") == 9


def test_a_reload_waits_until_the_new_worker_is_ready(site, table, folder):
    """It dies before: the one before stays."""
    at = site(table())
    before = set(at.workers())
    with contextlib.closing(sqlite3.connect(folder / "s.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")  # the next one cannot open it
        at.configure(anew(table()))
        at.at.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(at.workers()) == 2, "the next worker", BOUND_S)
        (slow,) = set(at.workers()) - before
        stop_still(slow)
        db.execute("COMMIT")
    assert status_of(at.ask(GET)[0]) == 200
    os.kill(slow, signal.SIGKILL)
    wait_until(lambda: re.search(rf"reloaded.*pid {slow}\) was killed by SIGKILL", at.log), "the end", BOUND_S)
    wait_until(lambda: set(at.workers()) == before, "the one of before", BOUND_S)
    assert "reloaded: " not in at.log
    assert {status_of(at.ask(GET)[0]) for _ in range(10)} == {200}


def test_reloads_do_not_overlap(site, table, origin):
    """SIGHUPs during a reload make one more after it, by what the file says then."""
    at = site(table(threads=2))
    other = origin(answer=naming(b"other"))
    for _ in range(5):
        at.at.process.send_signal(signal.SIGHUP)
    at.configure(table(threads=2, servers=[other.address]))
    at.at.process.send_signal(signal.SIGHUP)
    wait_until(lambda: at.ask(GET)[1] == b"other", "the last configuration", BOUND_S)
    wait_until(lambda: has_retired(at), "the others have retired", BOUND_S)
    wait_until(lambda: "reloaded: " in at.log, "the log", BOUND_S)
    assert at.log.count("reloaded: ") <= 6
    assert at.at.end(signal.SIGTERM) == 0


def test_a_reload_that_is_asked_for_during_another_one_is_done_after_it(site, table, origin, silent_store):
    """Here the one before comes to nothing."""
    other = origin(answer=naming(b"other"))
    at = site(table(), program=HASTY)
    at.configure(table(store={"url": silent_store}))
    at.at.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(at.workers()) == 2, "the next worker", BOUND_S)
    at.configure(table(servers=[other.address]))
    at.at.process.send_signal(signal.SIGHUP)
    wait_until(lambda: at.ask(GET)[1] == b"other", "the last configuration", BOUND_S)
    said = ["not reloaded", "reloaded"]  # which is written after the switch
    wait_until(lambda: re.findall(r"(?:not )?reloaded", at.log) == said, "the log", BOUND_S)


def test_a_reload_that_is_refused_disturbs_no_connection(site, table, origin):
    """Neither those that are there, which go on as if nothing had been, nor those that come
    meanwhile.
    """
    slow = SlowApplication()
    config = table(servers=[origin(slow).address], threads=2)
    at = site(config)
    before = at.workers()
    with at.connect() as busy, at.connect() as idle, asking(at.address) as failures:
        idle.sendall(GET)
        idle.read_response()
        busy.sendall(GET.replace(b"/x", b"/slow"))
        assert slow.asked.wait(BOUND_S)
        nowhere = {"url": f"redis://127.0.0.1:{free_port()}/0"}
        assert at.reload("this is not TOML").startswith("not reloaded")
        assert at.reload(table(threads=4, store=nowhere)).startswith("not reloaded")
        wait_until(lambda: at.workers() == before, "nobody but the old worker", BOUND_S)
        assert at.reload(table(threads=4, servers=["nowhere.invalid:1"])).startswith("not reloaded")
        slow.go_on.set()
        for client in (busy, idle):
            client.sendall(GET)
        for client in (busy, busy, idle):
            head, body = client.read_response()
            assert (status_of(head), body, fields_of(head).get(b"connection")) == (200, b"ok", None)
    assert failures == []


@pytest.fixture
def silent_store():
    """A Redis that takes connections and says nothing; its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0?timeout_ms=30000"


def test_sigterm_during_a_reload(site, table, silent_store):
    at = site(table(threads=2))
    at.configure(table(threads=2, store={"url": silent_store}))
    at.at.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(at.workers()) == 2, "the next worker", BOUND_S)
    workers = at.workers()
    assert status_of(at.ask(GET)[0]) == 200
    assert at.at.end(signal.SIGTERM) == 0
    assert all(map(is_gone, workers))


def test_a_worker_that_dies_during_a_reload_is_replaced(site, table, silent_store):
    """An old one by its own configuration; a new one's death ends the reload."""
    at = site(table())
    at.configure(table(store={"url": silent_store}))
    (old,) = at.workers()
    at.at.process.send_signal(signal.SIGHUP)
    coming = wait_until(lambda: set(at.workers()) - {old}, "the next worker", BOUND_S).pop()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: old not in at.workers() and len(at.workers()) == 2, "a replacement", BOUND_S)
    assert status_of(at.ask(GET)[0]) == 200
    os.kill(coming, signal.SIGKILL)
    wait_until(lambda: re.search(rf"not reloaded.*pid {coming}\) was killed by SIGKILL", at.log), "the end", BOUND_S)
    assert status_of(at.ask(GET)[0]) == 200


# --- upgrade


@contextlib.contextmanager
def asking(address):
    """One connection after the other meanwhile; yields what was not answered, and nothing is tried
    again.
    """
    stop, failures = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                with Client(address) as client:
                    client.sendall(GET)
                    assert status_of(client.read_response()[0]) == 200
            except (OSError, EOFError, AssertionError) as failure:
                failures.append(failure)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield failures
    finally:
        stop.set()
        thread.join(2 * BOUND_S)


def test_a_successor_takes_over_a_port(site, table):
    """The rolling upgrade of docs/how-to/operate.md: start the new one, then stop the old one; both
    on one port meanwhile.
    """
    config = table(listen=[f"127.0.0.1:{free_port()}"], admin="unix:admin.sock", threads=2)
    old = site(config)
    with asking(old.address) as failures:
        new = site(config)
        assert new.address == old.address
        assert old.at.end(signal.SIGTERM) == 0
        assert status_of(new.ask(GET)[0]) == 200
    # Each of the two threads may reset who arrives between its last accept and its close: the
    # kernel offers nothing better.
    assert len(failures) <= 2
    assert {type(failure) for failure in failures} <= {ConnectionResetError}


def serve_in_vain(folder):
    """The error output of a gateway that cannot start by the folder's configuration."""
    done = subprocess.run(
        [sys.executable, "-m", "fastticket", "serve", "--config", "fastticket.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=2 * BOUND_S,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    return done.stderr


def test_a_successor_that_can_not_serve_takes_no_socket_from_one_that_does(site, table, folder):
    """Nor by its address, on a path that somebody listens on; one whose owner is gone is taken
    over.
    """
    admin, client = folder / "admin.sock", folder / "g.sock"
    at = site(table(listen=["127.0.0.1:0", "unix:g.sock"], admin="unix:admin.sock"))

    def answers(path, raw):
        with Client(str(path)) as asker:
            asker.sendall(raw)
            return status_of(asker.read_response()[0]) == 200

    at.configure(table(admin="unix:admin.sock", store={"url": "sqlite:///nowhere/s.db"}))
    assert "does not exist" in serve_in_vain(folder)
    at.configure(table(listen=["unix:g.sock"]))
    assert "is another one running?" in serve_in_vain(folder)
    assert answers(admin, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers(client, GET)
    assert sorted(path.name for path in folder.glob("*.sock*")) == ["admin.sock", "g.sock"]
    at.at.kill()
    site(table(listen=["127.0.0.1:0", "unix:g.sock"], admin="unix:admin.sock"))
    assert answers(admin, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers(client, GET)


def test_a_socket_that_somebody_keeps(folder, table):
    """As systemd's: while no gateway runs, clients wait in its queue."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        kept.listen()

        def start():
            return Site(
                folder, table(listen=["fd:3"], threads=2), preexec_fn=lambda: os.dup2(kept.fileno(), 3), pass_fds=(3,)
            )

        with Client(kept.getsockname()) as early:
            early.sendall(GET)
            with contextlib.ExitStack() as stack:
                at = start()
                stack.callback(at.stop)
                assert status_of(early.read_response()[0]) == 200
                assert at.reload().startswith("reloaded")
                assert status_of(at.ask(GET)[0]) == 200
                assert at.at.end(signal.SIGTERM) == 0
        with Client(kept.getsockname()) as patient:
            patient.sendall(GET)
            at = start()
            assert status_of(patient.read_response()[0]) == 200
            at.stop()


# --- the shared memory


def test_a_page_goes_on_counting_for_the_next_plane():
    slot = Slot()
    pages = slot.take_pages(3)
    for page in pages:
        page.counters[0] = 1  # of `accepted`
    assert slot.counted()["accepted"] == 3
    slot.give_back(pages[1:2])
    again, fresh = slot.take_pages(2)
    assert (again.number, again.counters[0], fresh.number, fresh.counters[0]) == (1, 1, 3, 0)
    again.counters[0] += 1
    assert slot.counted()["accepted"] == 4
    with pytest.raises(fastticket.errors.FastticketError, match="too many"):
        slot.take_pages(PAGES_MAX - 3)
    assert len(slot.take_pages(PAGES_MAX - 4)) == PAGES_MAX - 4


def test_a_note_is_whole_or_the_one_before_it():
    slot = Slot()
    assert slot.note() is None
    slot.publish({"counters": {"hits": 1}})
    slot.publish({"counters": {"hits": 2}})
    assert slot.note() == {"counters": {"hits": 2}}
    slot._notes[0][20] ^= 1  # the writer was killed
    assert slot.note() == {"counters": {"hits": 1}}
    assert slot.counted()["hits"] == 1
    with pytest.raises(ValueError, match="there is room for"):
        slot.publish({"long": "x" * NOTE_BYTES_MAX})


def test_counters_are_added_by_name_and_by_bound():
    one = {"requests": 1, "refused": {"idle": 2}, "latency_us": [(100, 3), (None, 4)]}
    two = {"requests": 10, "refused": {"idle": 20, "revoked": 30}, "latency_us": [(100, 30), (None, 40)], "hits": 5}
    both = {"requests": 11, "refused": {"idle": 22, "revoked": 30}, "latency_us": [(100, 33), (None, 44)], "hits": 5}
    assert add(one, two) == add(two, one) == both
    assert add({}, one) == one

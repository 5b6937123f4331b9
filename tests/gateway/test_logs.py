"""Logs of real processes: whoever does not read them, or takes them away, stops nobody."""

import array
import asyncio
import contextlib
import datetime
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading

import pytest
from conftest import BOUND_S, OK, Client, status_of
from lab.operators import Operator
from lab.processes import Process
from lab.redis_servers import Server, free_port, wait_until

import fastticket
from fastticket.gateway.reader import read_config
from fastticket.gateway.writer import to_toml
from fastticket.keyfile import create_key_file
from fastticket.loglines import JsonLines, TextLines

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LOGIN = b"GET /login HTTP/1.1\r\nHost: a\r\n\r\n"  # each makes a line in the log of errors
BAD_LOGIN = b"HTTP/1.1 200 OK\r\nX-Ticket-Login: \xff\r\nContent-Length: 2\r\n\r\nok"
END_S = 9.0  # before it would be killed


def application(connection):
    while True:
        connection.sendall(BAD_LOGIN if b"/login" in connection.read_head() else OK)


@pytest.fixture
def table(tmp_path, origin):
    """A good configuration whose application names nobody whom one could log in."""
    create_key_file(tmp_path / "keys.toml")
    behind = origin(application)

    def make(**gateway):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 1.0, **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": [behind.address]}],
            "route": [{"path": "/login", "auth": "none", "login": True}, {"path": "/", "auth": "none"}],
        }

    return make


def small_pipe():
    """Both ends; it holds a page."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    return reading, writing


def ended_in_time(process):
    process.process.send_signal(signal.SIGTERM)
    try:
        return process.process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_standard_error_that_nobody_reads_stops_nobody(site, table, tmp_path):
    reading, writing = small_pipe()
    at = site(table())  # writes the configuration
    at.stop()
    process = Process("serve", "--config", "fastticket.toml", cwd=tmp_path, stderr=writing)
    try:
        for _ in range(100):
            assert status_of(process.ask(LOGIN)[0]) == 502
            assert status_of(process.ask(GET)[0]) == 200
        assert ended_in_time(process) == 0
    finally:
        process.process.kill()
        process.process.wait(BOUND_S)
        process.process.stdout.close()
        os.close(reading)
        os.close(writing)


def test_a_standard_output_that_nobody_reads_is_no_reason_to_wait(table, tmp_path):
    """A pipe full before the gateway said that it serves: it answered clients, but no signal."""
    (tmp_path / "fastticket.toml").write_text(to_toml(read_config(table(admin="unix:admin.sock"), "test", tmp_path)))
    reading, writing = small_pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fastticket", "serve", "--config", "fastticket.toml"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=writing, stderr=subprocess.DEVNULL, env=environment)
    try:
        wait_until(lambda: b"200 OK" in page(tmp_path / "admin.sock", b"/readyz"), "it is ready", BOUND_S)
        process.terminate()
        assert process.wait(END_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


def page(address, path):
    with Client(str(address)) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        return client.read_head()


def test_an_access_log_that_nobody_reads_does_not_hold_up_the_end(site, table):
    at = site(table(access_log="-"))
    fcntl.fcntl(at.at.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    with at.connect() as client:
        for _ in range(200):
            client.sendall(GET)
            client.read_response()
    wait_until(lambda: pending_bytes(at.at.process.stdout), "it is written to")  # it takes a third of that
    assert ended_in_time(at.at) == 0
    assert "the end of the access log is lost" in at.log


def pending_bytes(pipe):

    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


def test_one_message_is_said_so_often_and_then_counted(site, table):
    at = site(table())
    for _ in range(80):
        assert status_of(at.ask(LOGIN)[0]) == 502
    assert ended_in_time(at.at) == 0
    said = re.findall("ERROR fastticket.gateway: a session could not be changed: the application named", at.log)
    assert len(said) == 50
    assert "left out 30 more in 10 s like 'a session could not be changed: %s'" in at.log


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_is_one_line_whatever_is_in_it_and_its_time_is_utc(site, table, monkeypatch, form):
    """Somebody chooses a name with which he would forge a line, and colour the terminal."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    at = site(table(error_log_format=form))
    good = (at.folder / "fastticket.toml").read_text()
    odd = r"a\n2026-01-31T12:00:00.000Z ERROR fastticket.gateway: forged\u2028\u001b[31m\u0085"
    at.reload(f'{good}\n["{odd}"]\nx = 1\n')
    lines = at.log.splitlines()
    assert at.log.count("\n") == len(lines)  # which knows more line ends than one
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", at.log)
    read = [json.loads(line) if form == "json" else text_record(line) for line in lines]
    assert [record for record in read if "forged" in record["message"]] == read[-1:]
    for record in read:
        at_s = datetime.datetime.fromisoformat(record["time"]).timestamp()
        assert record["time"].endswith("Z")
        assert abs(at_s - datetime.datetime.now(datetime.UTC).timestamp()) < 3600


def text_record(line):
    """A line of the text log: anything else is no record."""
    found = re.fullmatch(r"(?P<time>\S+) (?P<level>[A-Z]+) (?P<logger>fastticket\.\w+): (?P<message>.*)", line)
    assert found, line
    return found


def test_the_trace_of_an_exception_is_in_the_line_of_its_record():
    try:
        raise ValueError("bad\r\nname")
    except ValueError:
        record = logging.LogRecord("fastticket.gateway", logging.ERROR, "", 1, "failed", (), sys.exc_info())
    text, as_json = TextLines().format(record), JsonLines().format(record)
    assert len(text.splitlines()) == len(as_json.splitlines()) == 1
    assert text.endswith(r"ValueError: bad\r\nname")
    assert json.loads(as_json)["exception"].endswith("ValueError: bad\r\nname")


def test_sigusr1_opens_both_logs_anew(site, table, tmp_path):
    """As logrotate does it: the files are moved, then the signal; nothing is loaded again, and no
    line is lost.
    """
    at = site(
        table(access_log="access.log", error_log="error.log", error_log_format="json", log_level="error", workers=2)
    )
    workers = at.workers()
    for number in range(3):
        at.ask(GET)
        at.ask(LOGIN)
        for name, count in (("access", 2), ("error", 1)):
            log, old = tmp_path / f"{name}.log", tmp_path / f"{name}.{number}"
            wait_until(lambda log=log, count=count: len(lines_of(log)) == count, f"the lines of {log}")
            shutil.move(log, old)
        at.at.process.send_signal(signal.SIGUSR1)
        for name in ("access", "error"):
            log, old = tmp_path / f"{name}.log", tmp_path / f"{name}.{number}"
            wait_until(log.exists, f"{log} is made anew")
            wait_until(lambda old=old: not any(opens(pid, old) for pid in workers), f"{old} is let go")
    assert at.workers() == workers
    error = json.loads((tmp_path / "error.0").read_text())
    assert (error["level"], error["logger"]) == ("error", "fastticket.gateway")
    assert error["message"] == "a session could not be changed: the application named a principal that is not UTF-8"
    assert error["pid"] in workers
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", error["time"])
    assert ended_in_time(at.at) == 0


def test_sigusr1_reaches_a_worker_that_is_still_starting(site, table, redis_server, tmp_path):
    """It has opened its log, and answers no signal before its store has answered or a second is
    over.
    """
    config = table(access_log="access.log")
    config["store"] = {"url": f"redis://{redis_server.address}/0"}
    at = site(config)
    (before,) = at.workers()
    redis_server.pause()
    os.kill(before, signal.SIGKILL)
    (worker,) = wait_until(lambda: [pid for pid in at.workers() if pid != before], "the next worker")
    wait_until(lambda: opens(worker, tmp_path / "access.log"), "it has the log open")
    (tmp_path / "access.log").rename(tmp_path / "access.0")
    at.at.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: not opens(worker, tmp_path / "access.0"), "it is let go")
    redis_server.resume()


def opens(pid, path):
    """Whether a process has that file open."""
    folder = f"/proc/{pid}/fd"
    return any(os.path.realpath(f"{folder}/{fd}") == str(path) for fd in os.listdir(folder))


def test_a_full_disk_costs_lines_and_says_so(site, table):
    """At once, and then not with each line that is lost; all are counted."""
    at = site(table(access_log="/dev/full", admin="unix:admin.sock"))
    assert status_of(at.ask(GET)[0]) == 200
    wait_until(lambda: "/dev/full: No space left on device: 1 lines of the access log are lost" in at.log, "the word")
    for lost in (2, 3):
        assert status_of(at.ask(GET)[0]) == 200
        wait_until(lambda lost=lost: lines_lost(at) == lost, "the count")
    assert at.log.count("lines of the access log are lost") == 1
    assert ended_in_time(at.at) == 0
    assert "/dev/full: 2 lines of the access log are lost" in at.log


def lines_lost(at):
    with Client(str(at.folder / "admin.sock")) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        body = client.read_response()[1].decode()
    return float(re.search(r"^fastticket_access_log_lines_lost_total (\S+)$", body, re.MULTILINE)[1])


@pytest.mark.parametrize("name", ["access_log", "error_log"])
def test_a_log_that_can_not_be_opened(site, table, tmp_path, name):
    """At the start an error of the configuration. Later it costs lines, and no worker (P12)."""
    (tmp_path / "logs").mkdir()
    at = site(table(**{name: "logs/a.log"}))
    shutil.rmtree(tmp_path / "logs")
    before = at.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: at.workers() and at.workers() != before, "another worker")
    assert status_of(at.ask(LOGIN)[0]) == 502
    assert (
        at.reload()
        == f"not reloaded, the configuration before stays: fastticket.toml: [gateway] {name}: "
        + ("logs/a.log: No such file or directory")
        if name == "access_log"
        else True
    )
    assert ended_in_time(at.at) == 0
    done = subprocess.run(
        [*at.at.process.args], cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert done.returncode == 2
    assert f"[gateway] {name}: logs/a.log: No such file or directory" in done.stderr


def test_a_pipe_that_nobody_reads_yet_holds_up_neither_a_start_nor_a_reload(site, table, tmp_path):
    """Its lines wait for the reader."""
    os.mkfifo(tmp_path / "pipe")
    at = site(table(access_log="pipe"))
    assert at.reload().startswith("reloaded: ")
    assert status_of(at.ask(LOGIN)[0]) == 502
    with open(tmp_path / "pipe", "rb") as pipe:
        assert b"/login" in pipe.readline()


def test_a_socket_is_no_log(site, table, tmp_path):
    """Opening one fails as opening a pipe without a reader does."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        at = site(table())
        assert at.reload(table(access_log="socket")).endswith("access_log: socket: No such device or address")


def test_an_upstream_that_is_down_is_said_and_why(site, table, tmp_path):
    """Without any health check, and of one that was down from the start."""
    port = free_port()
    config = table()
    config["gateway"]["admin"] = "unix:admin.sock"
    config["upstream"] = [{"name": "app", "servers": [f"127.0.0.1:{port}"]}]
    at = site(config)
    assert status_of(at.ask(GET)[0]) == 502
    wait_until(lambda: f"upstream app: 127.0.0.1:{port} is down: Connection refused" in at.log, "the word")
    wait_until(lambda: servers_of(at) == {f"127.0.0.1:{port}": ("down", "Connection refused")}, "the operators' word")
    with socket.create_server(("127.0.0.1", port)) as listener:
        answering = threading.Thread(target=answer_one, args=(listener,))
        answering.start()
        wait_until(lambda: status_of(at.ask(GET)[0]) == 200, "an answer")
        answering.join(BOUND_S)
    wait_until(lambda: f"upstream app: 127.0.0.1:{port} is up again" in at.log, "the word")
    wait_until(lambda: servers_of(at) == {f"127.0.0.1:{port}": ("up", "")}, "the operators' word")
    assert at.log.count("is down") == at.log.count("is up again") == 1


def servers_of(at):
    """The state of each server, and why it is down, as operators are told."""
    (upstream,) = Operator(str(at.folder / "admin.sock")).get("/v1/upstreams")["upstreams"]
    return {each["server"]: (each["state"], each["why"]) for each in upstream["servers"]}


def answer_one(listener):
    """The first request. A connection without one is the gateway's, which asks whether it is up
    again.
    """
    listener.settimeout(BOUND_S)
    while True:
        with Client(fileno=listener.accept()[0].detach()) as client, contextlib.suppress(EOFError):
            client.read_head()
            client.sendall(OK)
            return


def test_a_health_check_says_why(site, table, origin):
    """From the start on."""
    behind = origin(answer=b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    port = free_port()
    config = table()
    config["gateway"]["admin"] = "unix:admin.sock"
    health = {"health_path": "/healthz", "health_interval_s": 0.05, "health_failures": 1}
    config["upstream"] = [{"name": "app", "servers": [behind.address, f"127.0.0.1:{port}"], **health}]
    at = site(config)
    wait_until(lambda: f"upstream app: {behind.address} is not well: status 500" in at.log, "the word")
    wait_until(lambda: f"upstream app: 127.0.0.1:{port} is not well: Connection refused" in at.log, "the word")
    assert at.log.count("is not well") == 2
    why = {behind.address: ("down", "status 500"), f"127.0.0.1:{port}": ("down", "Connection refused")}
    wait_until(lambda: servers_of(at) == why, "the operators' word")


def test_debug_says_what_the_store_is_asked_and_what_it_says(site, table, redis_server):
    """It said nothing more than info. No id is whole, and no ticket is there."""
    config = table(log_level="debug")
    config["store"] = {"url": f"redis://{redis_server.address}/0"}
    config["route"] = [{"path": "/"}]
    at = site(config)
    (ticket,) = asyncio.run(log_in_many(redis_server, at.folder / "keys.toml", 1))
    assert status_of(at.ask(f"GET /x HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())[0]) == 200
    session_id = fastticket.Keyring.from_file(at.folder / "keys.toml").verify(ticket, 0).session_id
    for said in ("0 touches, 1 sessions", "1 touches, 0 sessions"):  # of one shard, or of others that are due, too
        exchange = re.compile(f"DEBUG fastticket.cache: exchange: {said} looked up, [0-9]+ shards of")
        wait_until(lambda exchange=exchange: exchange.search(at.log), said)
    asyncio.run(revoke(redis_server, session_id))
    wait_until(lambda: f"heard: revoked session {session_id[:6]} of 'user0'" in at.log, "the log's entry")
    assert session_id not in at.log
    assert ticket not in at.log


def test_a_store_that_restarts_is_one_line(site, table, redis_server):
    """Each of its shards has a gap then; it was a line for each."""
    config = table()
    config["store"] = {"url": f"redis://{redis_server.address}/0"}
    config["route"] = [{"path": "/"}]
    at = site(config)
    tickets = asyncio.run(log_in_many(redis_server, at.folder / "keys.toml"))
    with at.connect() as client:
        for ticket in tickets:
            client.sendall(f"GET /x HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())
            assert status_of(client.read_response()[0]) == 200
    redis_server.restart()
    gap = r"the store's log has a gap; every session will be looked up again of the shards (.*)"
    (shards,) = wait_until(lambda: re.findall(gap, at.log), "the word")
    assert shards == ", ".join(map(str, range(16)))
    assert len(re.findall("has a gap", at.log)) == 1


async def revoke(server, session_id):
    async with contextlib.aclosing(fastticket.open_store(f"redis://{server.address}/0")) as store:
        await store.open()
        assert await store.revoke(session_id, "user0")


async def log_in_many(server, keys, count=100):
    """By default so many that every shard has somebody."""
    store = fastticket.open_store(f"redis://{server.address}/0")
    async with fastticket.TicketCache(store, fastticket.Keyring.from_file(keys)) as cache:
        return [await cache.login(f"user{number}") for number in range(count)]


@pytest.fixture
def redis_server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()

"""P12: a gateway goes on without what it needed to start. Real processes, a real Redis."""

import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import BOUND_S, fields_of, status_of
from lab.redis_servers import wait_until

import fastticket
from fastticket.gateway.reader import read_config
from fastticket.gateway.writer import to_toml
from fastticket.keyfile import create_key_file

OPEN = b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def table(tmp_path, origin, redis_server):
    """A gateway on Redis; `/open` needs no ticket, `/other` is for another upstream, if there is
    one.
    """
    create_key_file(tmp_path / "keys.toml")
    behind = origin()

    def make(*, other=None, **gateway):
        made = {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 2.0, **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://{redis_server.address}/0"},
            "upstream": [{"name": "app", "servers": [behind.address], "resolve_interval_s": 1}],
            "route": [{"path": "/"}, {"path": "/open", "auth": "none"}],
        }
        if other:
            made["upstream"].append({"name": "other", "servers": [other]})
            made["route"].append({"path": "/other", "auth": "none", "upstream": "other"})
        return made

    return make


def ticket_of(folder):
    """Good, of a session that nobody has."""
    return fastticket.Keyring.from_file(folder / "keys.toml").mint("alice", 1_700_000_000_000)


def get(ticket):
    return f"GET /x HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode()


def replaced(at):
    """SIGKILL to the only worker; the pid of the next."""
    (before,) = at.workers()
    os.kill(before, signal.SIGKILL)
    return wait_until(lambda: [pid for pid in at.workers() if pid != before], "the next worker", BOUND_S)[0]


def test_a_store_that_is_away_from_the_start_is_an_outage(site, table, redis_server, tmp_path):
    redis_server.kill()
    at = site(table())
    ticket = ticket_of(tmp_path)
    assert status_of(at.ask(OPEN)[0]) == 200
    head, body = at.ask(get(ticket))
    assert (status_of(head), b"store_unavailable" in body, fields_of(head)[b"retry-after"]) == (503, True, b"1")
    redis_server.start()
    wait_until(lambda: status_of(at.ask(get(ticket))[0]) == 401, "the store is asked", BOUND_S)
    wait_until(lambda: "answers again, for every shard" in at.log, "it says so", BOUND_S)
    assert len(re.findall("away from the start", at.log)) == 1
    assert len(re.findall("answers again, for every shard", at.log)) == 1


def test_a_worker_is_replaced_while_the_store_is_away(site, table, redis_server):
    at = site(table())
    redis_server.kill()
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200
    assert not re.search("has ended with", at.log)
    assert at.reload().startswith("reloaded")  # nobody's session is held, so nothing is lost by it
    assert status_of(at.ask(OPEN)[0]) == 200


def test_a_worker_is_replaced_while_the_store_hangs(site, table, redis_server):
    at = site(table())
    redis_server.pause()
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200
    redis_server.resume()


def test_a_store_that_is_another_by_now_is_an_outage_for_a_replacement(site, table, redis_server, tmp_path):
    at = site(table())
    redis_server.admin("HSET", "ft:meta", "shards", 3)
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200
    assert status_of(at.ask(get(ticket_of(tmp_path)))[0]) == 503
    wait_until(lambda: "made with shards 3" in at.log, "it says so", BOUND_S)
    redis_server.admin("HSET", "ft:meta", "shards", 16)
    wait_until(lambda: status_of(at.ask(get(ticket_of(tmp_path)))[0]) == 401, "it is the right one", BOUND_S)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("HSET", "ft:meta", "format", 2, "shards", 3), "made with shards 3"),
        (("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"), "allkeys-lru"),
        (("CONFIG", "SET", "requirepass", "other"), "password"),
    ],
)
def test_a_store_that_answers_and_is_none_for_us_ends_the_first_start(table, redis_server, tmp_path, command, said):
    redis_server.admin(*command)
    done = serve_in_vain(tmp_path, table())
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def serve_in_vain(folder, config):
    (folder / "fastticket.toml").write_text(to_toml(read_config(config, "test", folder)))
    return subprocess.run(
        [sys.executable, "-m", "fastticket", "serve", "--config", "fastticket.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=3 * BOUND_S,
    )


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_a_standard_stream_that_is_closed_is_nobody_elses(table, tmp_path, closed):
    """The next socket had its number: the gateway ended without a word, or could have logged into a
    client's connection.
    """
    (tmp_path / "fastticket.toml").write_text(to_toml(read_config(table(admin="unix:admin.sock"), "test", tmp_path)))
    command = f"exec {sys.executable} -m fastticket serve --config fastticket.toml {closed}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, shell=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "admin.sock").exists(), "it is there", BOUND_S)
        (worker,) = wait_until(lambda: children(process.pid), "its worker", BOUND_S)
        for pid in (process.pid, worker):
            assert os.readlink(f"/proc/{pid}/fd/{closed[0]}") == "/dev/null"
        process.terminate()
        assert process.wait(BOUND_S) == 0
    finally:
        process.kill()
        process.wait()


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]


def test_a_name_without_an_address_is_an_outage_of_its_routes(site, table):
    at = site(table(other="nowhere.invalid:1"))
    assert status_of(at.ask(OPEN)[0]) == 200
    head, body = at.ask(OPEN.replace(b"/open", b"/other"))
    assert (status_of(head), b"upstream_unresolved" in body, fields_of(head)[b"retry-after"]) == (503, True, b"1")
    said = "nowhere.invalid:1: the name does not resolve"
    wait_until(lambda: at.log.count(said) == 1, "it is said", BOUND_S)  # what is killed says no more
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200
    assert at.reload().startswith("reloaded")
    wait_until(lambda: at.log.count(said) == 3, "once each worker", BOUND_S)


RESOLVER = """
import os, socket, time
real = socket.getaddrinfo

def look_up(host, port, *rest, **options):
    if host != "app.test":
        return real(host, port, *rest, **options)
    with open(os.environ["APP_TEST"]) as file:
        address = file.read().strip()
    if address == "silence":
        time.sleep(60)
    if address == "too many":
        return [entry for n in range(300) for entry in real(f"127.0.9.{n}" if n < 256 else f"127.0.8.{n - 256}", port, **options)]
    if not address:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return real(address, port, *rest, **options)

socket.getaddrinfo = look_up
"""


@pytest.fixture
def app_test(tmp_path, monkeypatch):
    """`app_test(address)`: what the name server says of app.test from now on; "": nothing; or
    "silence", or "too many".
    """
    (tmp_path / "resolver").mkdir()
    (tmp_path / "resolver" / "sitecustomize.py").write_text(RESOLVER)
    monkeypatch.syspath_prepend(str(tmp_path / "resolver"))
    monkeypatch.setenv("APP_TEST", str(tmp_path / "address"))

    def say(address):
        (tmp_path / "next").write_text(address)
        (tmp_path / "next").rename(tmp_path / "address")

    return say


@pytest.fixture
def named(table, origin):
    """A configuration whose routes all lead to app.test."""

    def make():
        made = table()
        port = origin().address.rpartition(":")[2]
        made["upstream"] = [{"name": "app", "servers": [f"app.test:{port}"], "resolve_interval_s": 1}]
        return made

    return make


@pytest.mark.parametrize("lost", ["", "silence"])
def test_a_replacement_knows_the_addresses_that_names_had(site, named, app_test, lost):
    app_test("127.0.0.1")
    at = site(config := named())
    assert status_of(at.ask(OPEN)[0]) == 200
    app_test(lost)
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200
    if not lost:
        assert at.reload(config).startswith("reloaded")  # it goes on with them, too
        assert status_of(at.ask(OPEN)[0]) == 200
        app_test("127.0.0.1")
        wait_until(lambda: "app.test" in at.log and "the name resolves again" in at.log, "it is said", BOUND_S)


def test_a_name_with_more_addresses_than_there_is_room_for_changes_nothing(site, named, app_test):
    app_test("127.0.0.1")
    at = site(named())
    assert status_of(at.ask(OPEN)[0]) == 200
    app_test("too many")
    wait_until(lambda: "an upstream has 1 to 256 servers, not 300" in at.log, "it is said", BOUND_S)
    assert status_of(at.ask(OPEN)[0]) == 200
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200


def test_a_name_with_too_many_addresses_from_the_start_is_one_that_is_away(site, named, app_test):
    app_test("too many")
    at = site(named())
    assert status_of(at.ask(OPEN)[0]) == 503
    app_test("127.0.0.1")
    wait_until(lambda: status_of(at.ask(OPEN)[0]) == 200, "it has an address", BOUND_S)


@pytest.mark.parametrize("lost", ["", "silence"])
def test_a_name_that_comes_later(site, named, app_test, lost):
    app_test(lost)
    at = site(named())
    assert status_of(at.ask(OPEN)[0]) == 503
    assert at.at.end(signal.SIGTERM) == 0 if lost else True  # the end waits for no name server
    if not lost:
        app_test("127.0.0.1")
        wait_until(lambda: status_of(at.ask(OPEN)[0]) == 200, "it has an address", BOUND_S)
        wait_until(lambda: "the name resolves again" in at.log, "it is said", BOUND_S)


def test_a_broken_key_file_is_for_the_next_reload(site, table, tmp_path):
    """Neither a replacement reads it, nor is it half in force: one that was edited and not reloaded
    counts for nobody.
    """
    at = site(table())
    ticket = ticket_of(tmp_path)
    assert status_of(at.ask(get(ticket))[0]) == 401
    first = at.ask(get(ticket))[1]
    create_key_file(tmp_path / "others.toml")
    for text in ("oops", (tmp_path / "others.toml").read_text()):
        (tmp_path / "keys.toml").write_text(text)
        if text == "oops":
            assert at.reload().startswith("not reloaded")
        replaced(at)
        assert {at.ask(get(ticket))[1] for _ in range(20)} == {first}  # the same reason: its key is known
    assert "has ended with" not in at.log


def test_sqlite_whose_disk_is_gone_is_an_outage_for_a_replacement(site, table, tmp_path):
    config = table()
    (tmp_path / "data").mkdir()
    config["store"] = {"url": "sqlite:///data/s.db"}
    at = site(config)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    replaced(at)
    assert status_of(at.ask(OPEN)[0]) == 200
    assert status_of(at.ask(get(ticket_of(tmp_path)))[0]) == 503
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    wait_until(lambda: status_of(at.ask(get(ticket_of(tmp_path)))[0]) == 401, "it is back", BOUND_S)

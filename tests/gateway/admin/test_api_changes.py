"""The admin API as an operator changes a running gateway by it: real gateways on a Redis, and what
their clients see. Every change leaves a line in the audit log.
"""

import contextlib
import json
import os
import signal
import threading

import pytest
from conftest import status_of
from lab.operators import Operator
from lab.processes import BOUND_S, Site
from lab.redis_servers import wait_until

from fastticket.keyfile import create_key_file


def table(redis_server, servers, **gateway):
    return {
        "gateway": {
            "listen": ["127.0.0.1:0"],
            "admin": "unix:admin.sock",
            "admin_audit_log": "audit.log",
            "drain_timeout_s": 2.0,
            **gateway,
        },
        "ticket": {"keys": "keys.toml"},
        "store": {"url": f"redis://{redis_server.address}/0"},
        "upstream": [{"name": "app", "servers": servers}],
        "route": [{"path": "/"}, {"path": "/open", "auth": "none"}],
    }


class Administered(Site):
    """A gateway, its operator, its audit log."""

    def __init__(self, folder, config):
        super().__init__(folder, config)
        self.operator = Operator(str(folder / "admin.sock"))
        self.do, self.get, self.refused = self.operator.do, self.operator.get, self.operator.refused

    def status(self, ticket="", path="/x"):
        cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
        return status_of(self.ask(f"GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n".encode())[0])

    def audited(self):
        """(operation, result) of each line; it is written a moment after the answer."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [(line["audit"], line["result"]) for line in map(json.loads, lines)]


@pytest.fixture
def start(tmp_path, redis_server, origin):
    """`start(name)`: a gateway in a folder of that name."""
    create_key_file(tmp_path / "keys.toml")
    behind, started = origin(), []

    def begin(name="a", servers=None, **gateway):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "keys.toml").write_bytes((tmp_path / "keys.toml").read_bytes())
        started.append(Administered(folder, table(redis_server, servers or [behind.address], **gateway)))
        return started[-1]

    yield begin
    for each in started:
        each.stop()


def test_sessions_are_begun_seen_rotated_and_ended_from_any_gateway(start):
    one, other = start("one"), start("other")
    issued = one.do("POST", "/v1/sessions", {"principal": "alice", "idle_timeout_s": 600, "details": {"by": "ops"}})
    ticket, session_id = issued["ticket"], issued["id"]
    assert (one.status(ticket), other.status(ticket)) == (200, 200)
    [seen] = other.get("/v1/principals/alice/sessions")["sessions"]
    assert (seen["id"], seen["details"]) == (session_id, {"by": "ops"})
    alike = other.get(f"/v1/sessions/{session_id}")  # whosoever it is
    moving = ("last_access_ms", "idle_deadline_ms")  # both gateways have used it and tell the store when they flush
    assert {**alike, **{name: seen[name] for name in moving}} == seen
    assert all(alike[name] >= seen[name] for name in moving)
    # Another ticket for it: the old one is over everywhere, what is in it stays.
    rotated = other.do("POST", f"/v1/sessions/{session_id}/rotate")
    assert rotated["id"] != session_id
    wait_until(lambda: one.status(ticket) == 401, "the old ticket is refused", BOUND_S)
    assert (other.status(ticket), one.status(rotated["ticket"]), other.status(rotated["ticket"])) == (401, 200, 200)
    assert one.get(f"/v1/sessions/{rotated['id']}")["details"] == {"by": "ops"}
    # All of them, page by page, begun here and gone on there.
    names = [f"user{number}" for number in range(20)]
    for name in names:
        one.do("POST", "/v1/sessions", {"principal": name})
    assert one.get("/v1/sessions/count") == other.get("/v1/sessions/count") == {"count": 21}
    page = other.get("/v1/sessions")
    assert (len(page["sessions"]), page["cursor"]) == (21, "")  # however many shards they are in
    found, cursor = [], ""
    for gateway in (one, other) * 50:
        page = gateway.get("/v1/sessions", cursor=cursor, limit=4)
        assert len(page["sessions"]) >= 4 or not page["cursor"]
        found += [each["principal"] for each in page["sessions"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert sorted(set(found)) == sorted([*names, "alice"])
    # End one; all but one; all.
    ended = other.do("DELETE", f"/v1/sessions/{rotated['id']}")
    assert ended == {"ended": 1, "principal": "alice"}
    wait_until(lambda: one.status(rotated["ticket"]) == 401, "it has ended", BOUND_S)
    assert other.refused("DELETE", f"/v1/sessions/{rotated['id']}") == (404, "no_such_session")
    three = [one.do("POST", "/v1/sessions", {"principal": "bob"}) for _ in range(3)]
    kept = three[1]
    path = "/v1/principals/bob/sessions"
    assert one.refused("DELETE", f"{path}?but={session_id}") == (404, "no_such_session")
    assert one.do("DELETE", path, but=kept["id"]) == {"ended": 2}
    assert [each["id"] for each in other.get(path)["sessions"]] == [kept["id"]]
    assert one.refused("DELETE", "/v1/sessions") == (409, "not_confirmed")
    assert one.status(kept["ticket"]) == 200
    assert other.do("DELETE", "/v1/sessions", yes="true") == {"ended": 21, "is_complete": True}
    assert one.get("/v1/sessions/count") == {"count": 0}
    wait_until(lambda: one.status(kept["ticket"]) == 401, "everybody is out", BOUND_S)
    # What is no session, and what cannot be one.
    assert one.refused("POST", "/v1/sessions", {"principal": " "}) == (400, "invalid_principal")
    assert one.refused("POST", "/v1/sessions", {"principal": "x", "idle_timeout_s": 1}) == (400, "bad_request")
    assert one.refused("POST", "/v1/sessions", {"principal": "x", "rank": 1}) == (400, "bad_request")
    assert one.refused("POST", "/v1/sessions", b"{") == (400, "bad_request")
    changes = [
        ("rotate", "done"),
        ("end_session", "done"),
        ("end_session", "no_such_session"),
        ("end_all_sessions", "done"),
    ]
    wait_until(lambda: [line for line in other.audited() if line[0] != "issue"] == changes, "the audit log", BOUND_S)
    lines = (one.folder / "audit.log").read_text() + (other.folder / "audit.log").read_text() + one.log + other.log
    for each in (issued, rotated, kept):
        assert each["ticket"] not in lines
    [line] = [json.loads(line) for line in (other.folder / "audit.log").read_text().splitlines() if "end_all" in line]
    assert line["who"] | {"pid": 0} == {"name": "root", "uid": os.geteuid(), "pid": 0}
    assert (line["what"], line["ended"]) == ({"yes": True}, 21)


def test_keys_roll(start):
    at = start()
    secret = (at.folder / "keys.toml").read_text().split('"')[1]
    old = at.do("POST", "/v1/sessions", {"principal": "alice"})["ticket"]
    assert at.do("POST", "/v1/keys", {}) == {"id": 2, "state": "verifies"}
    assert at.refused("POST", "/v1/keys", {"id": 2}) == (409, "key_file")
    assert [(key["id"], key["state"], key["is_loaded"]) for key in at.get("/v1/keys")["keys"]] == [
        (2, "verifies", True),
        (1, "signs", True),
    ]
    assert at.refused("DELETE", "/v1/keys/1") == (409, "key_in_use")
    assert at.do("POST", "/v1/keys/2/promote") == {"id": 2, "state": "signs"}
    new = at.do("POST", "/v1/sessions", {"principal": "bob"})["ticket"]
    assert (at.status(old), at.status(new)) == (200, 200)
    wait_until(lambda: at.get("/v1/keys")["keys"][0]["last_used_s"] is not None, "its use is seen", BOUND_S)
    assert at.refused("DELETE", "/v1/keys/1") == (409, "key_in_use")  # a session of it is in use
    assert at.refused("DELETE", "/v1/keys/7") == (404, "no_such_key")
    assert at.refused("POST", "/v1/keys/7/promote") == (404, "no_such_key")
    assert at.do("DELETE", "/v1/keys/1", force="true") == {"id": 1}
    assert (at.status(old), at.status(new)) == (401, 200)
    # A change that cannot be loaded is in the file, and the answer says so; no key is lost.
    good = (at.folder / "fastticket.toml").read_text()
    at.configure(good.replace('balance = "round_robin"', 'balance = "none"'))
    status, said, _ = at.operator.ask("POST", "/v1/keys", {})
    assert (status, said["error"]) == (409, "reload_refused")
    assert "key 3 is in the file, but this gateway has not loaded it" in said["message"]
    assert at.refused("POST", "/v1/keys/3/promote") == (409, "key_not_loaded")
    at.configure(good)
    assert at.do("POST", "/v1/reload") == {"configuration": "fastticket.toml"}
    assert at.do("POST", "/v1/keys/3/promote") == {"id": 3, "state": "signs"}
    assert at.status(new) == 200
    shown = json.dumps(at.get("/v1/keys")) + at.log + (at.folder / "audit.log").read_text()
    assert secret not in shown
    for line in (at.folder / "keys.toml").read_text().split('"')[1::2]:
        assert line not in shown


def test_a_drained_server_gets_no_request_whatever_is_replaced(start, origin):
    """And what it has still under way is said at once: whoever stops it at 0 breaks nothing off."""
    names, long, over = {}, [], threading.Event()

    def named(name):
        def serve(connection):
            while True:
                if b"/open/long" in connection.read_head():
                    long.append(name)
                    over.wait(BOUND_S)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%s" % name)

        found = origin(serve)
        names[found.address] = name
        return found

    first, second = named(b"1"), named(b"2")
    at = start(servers=[first.address, second.address], threads=2)
    path = f"/v1/upstreams/app/servers/{first.address}/drain"

    def asked():
        """Who answers, over all planes."""
        return {at.ask(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n")[1] for _ in range(24)}

    def states():
        servers = at.get("/v1/upstreams")["upstreams"][0]["servers"]
        return {names[server["server"]]: (server["state"], server["active"]) for server in servers}

    assert asked() == {b"1", b"2"}
    with contextlib.ExitStack() as waiting:
        while b"1" not in long:
            count = len(long)
            waiting.enter_context(at.connect()).sendall(b"GET /open/long HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(lambda count=count: len(long) > count, "one is under way", BOUND_S)
        assert at.do("POST", path) == {"drained": [{"upstream": "app", "server": first.address}]}
        assert states()[b"1"] == ("drained", 1)
        assert asked() == {b"2"}
        assert at.reload().startswith("reloaded: the worker")
        assert states()[b"1"] == ("drained", 1)  # of the configuration before
        at.configure((at.folder / "fastticket.toml").read_text().replace("capacity = 100000", "capacity = 2000"))
        assert at.reload().startswith("reloaded: a new worker")
        assert states()[b"1"] == ("drained", 1)  # of the worker before
        over.set()
        wait_until(lambda: states()[b"1"] == ("drained", 0), "it is over", BOUND_S)
    assert at.refused("POST", path.replace(first.address, second.address)) == (409, "last_server")
    assert at.refused("POST", path.replace("app", "other")) == (404, "no_such_server")
    assert at.refused("POST", path.replace(first.address, "127.0.0.1:1")) == (404, "no_such_server")
    os.kill(at.workers()[0], signal.SIGKILL)  # a worker in its place
    wait_until(lambda: at.operator.ask("GET", "/v1/upstreams")[0] == 200, "another worker", BOUND_S)
    wait_until(lambda: at.operator.ask("GET", "/v1/sessions/count")[0] == 200, "it serves", BOUND_S)
    assert asked() == {b"2"}
    assert at.reload().startswith("reloaded: the worker")  # by the same worker
    assert asked() == {b"2"}
    at.configure((at.folder / "fastticket.toml").read_text().replace("capacity = 2000", "capacity = 1000"))
    assert at.reload().startswith("reloaded: a new worker")
    assert asked() == {b"2"}
    os.kill(at.pid, signal.SIGUSR2)  # another program
    wait_until(lambda: "upgraded from version" in at.log and at.get("/v1/workers"), "the upgrade", 3 * BOUND_S)
    wait_until(lambda: at.operator.ask("GET", "/v1/sessions/count")[0] == 200, "it serves", 3 * BOUND_S)
    assert asked() == {b"2"}
    assert at.do("DELETE", path) == {"drained": []}
    assert asked() == {b"1", b"2"}


def test_drain_reload_and_log_level(start):
    at = start()
    assert at.do("POST", "/v1/drain")["is_ready"] is False
    assert at.get("/v1/status")["reasons"] == ["gateway: it stops"]
    assert at.do("DELETE", "/v1/drain") == {"is_draining": False, "is_ready": True, "reasons": []}
    assert at.do("PUT", "/v1/log-level", {"level": "debug"}) == {"level": "debug", "configured": "info"}
    assert at.status(at.do("POST", "/v1/sessions", {"principal": "alice"})["ticket"]) == 200
    wait_until(lambda: " DEBUG fastticket" in at.log, "the worker says more", BOUND_S)
    os.kill(at.workers()[0], signal.SIGKILL)
    wait_until(lambda: at.operator.ask("GET", "/v1/sessions/count")[0] == 200, "another worker", BOUND_S)
    assert at.get("/v1/log-level")["level"] == "debug"
    assert at.do("POST", "/v1/reload") == {"configuration": "fastticket.toml"}
    assert at.get("/v1/log-level") == {"level": "info", "configured": "info"}
    wait_until(lambda: "the log level is info again" in at.log, "it is said", BOUND_S)
    at.configure("[gateway]\nnonsense = 1\n")
    status, said, _ = at.operator.ask("POST", "/v1/reload")
    assert (status, said["error"]) == (409, "reload_refused")
    assert "nonsense" in said["message"]
    assert at.status(path="/open") == 200
    wait_until(lambda: at.audited()[-1] == ("reload", "reload_refused"), "the audit log", BOUND_S)
    # A page of another site cannot make a change, and what is no JSON is none.
    bare = {"X_Fastticket_Admin": None}
    assert at.refused("POST", "/v1/drain", **bare) == (403, "forbidden")
    assert at.refused("POST", "/v1/drain", **bare, Content_Type="text/plain") == (403, "forbidden")
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert at.refused("POST", "/v1/sessions", b"principal=alice", **form) == (403, "forbidden")
    assert at.refused("POST", "/v1/drain", Origin="http://evil.example") == (403, "forbidden")
    assert at.refused("POST", "/v1/sessions", b"{}", X_Fastticket_Admin="1", Content_Type="text/plain")[0] == 415
    assert at.get("/v1/status")["is_ready"]


def test_a_drain_that_was_answered_too_late_holds_as_well(start, origin):
    """The worker hangs while it is asked, and does it afterwards: the one in its place hears of
    it.
    """
    first, second = origin().address, origin().address
    at = start(servers=[first, second], watchdog_timeout_s=0)

    def drained():
        servers = at.get("/v1/upstreams")["upstreams"][0]["servers"]
        return [each["server"] for each in servers if each["state"] == "drained"]

    worker = at.workers()[0]
    at.halt(worker)
    assert at.refused("POST", f"/v1/upstreams/app/servers/{first}/drain") == (503, "worker_silent")
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: drained() == [first], "it is done", BOUND_S)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in at.workers() and at.workers(), "another worker", BOUND_S)
    wait_until(lambda: at.operator.ask("GET", "/v1/sessions/count")[0] == 200, "it serves", BOUND_S)
    wait_until(lambda: drained() == [first], "it is as before", BOUND_S)

"""The benchmarks of the store and of a reload run, in small, and what they find is what the
promises say. Their figures are not judged here.
"""

import itertools
import json
import re
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.append(str(BENCH))

from loader import Loader, build  # noqa: E402

BOUND_S = 120
pytestmark = pytest.mark.timeout(2 * BOUND_S)


def run(tmp_path, script, *arguments):
    """The figures of a benchmark, budgets met or not."""
    report = tmp_path / "report.json"
    command = [sys.executable, BENCH / script, *arguments, "--json", report]
    subprocess.run(command, check=False, timeout=BOUND_S, stdout=subprocess.DEVNULL)
    return {name: figure["value"] for name, figure in json.loads(report.read_text())["figures"].items()}


def test_p2_no_revocation_is_unknown_for_longer_than_the_lease(tmp_path):
    """With the doorbell in a few milliseconds; killed or silent, within the lease."""
    found = run(tmp_path, "revocation.py", "--revocations", "250")
    assert found["revocation/doorbell/p50"] < found["revocation/blocked/p50"]
    assert all(found[f"revocation/{way}/last_admitted"] <= 2000 for way in ("doorbell", "killed", "blocked"))


@pytest.mark.alone
@pytest.mark.alone
def test_a_gateway_asks_redis_almost_never(tmp_path):
    found = run(tmp_path, "store_load.py", "--seconds", "2", "--only", "fastticket", "naive: GET, EXPIRE")
    assert found["store load/fastticket/commands"] < 20  # 10 at full rate, which a busy machine may not reach
    assert found["store load/naive: GET, EXPIRE/commands"] >= 2000


def test_bytes_a_session(tmp_path):
    found = run(tmp_path, "store_memory.py", "--sessions", "20000")
    assert found["store memory/Linkis"] < found["store memory/fastticket"] < found["store memory/Spring Session"]


@pytest.mark.alone
def test_a_reload_fails_no_request(tmp_path):
    found = run(tmp_path, "reload.py", "--reloads", "1", "--sessions", "2000", "--rate", "500")
    assert found["reload/requests"] == 4000  # two windows of 2 s, and each session once
    assert found["reload/failed"] == 0
    assert found["reload/loads"] == 0


class Unreliable(socketserver.ThreadingTCPServer):
    """Answers what load.c asks, as `WAYS` says in turn."""

    WAYS = ("good", "good", "announces", "refuses", "breaks off", "good, then closes")
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.turns, self.done = itertools.cycle(self.WAYS), []


class Answering(socketserver.BaseRequestHandler):
    def handle(self):
        while request := self.request.recv(4096):
            way = next(self.server.turns)
            self.server.done.append(way)
            if way == "breaks off":
                return
            number = re.search(rb"/api/items/(\w{8})", request)[1]
            status = b"503 Service Unavailable" if way == "refuses" else b"200 OK"
            closes = b"Connection: close\r\n" if way == "announces" else b""
            body = b'{"id": "' + number + b'"' + b" " * 164
            self.request.sendall(b"HTTP/1.1 %b\r\n%bContent-Length: 181\r\n\r\n%b" % (status, closes, body))
            if way in ("announces", "refuses", "good, then closes"):
                return


def test_the_loader_counts_what_fails(tmp_path):
    """At a steady rate: a refusal and an answer that never came have failed; a connection that
    closes while idle is told from one whose close was announced.
    """
    build()
    (tmp_path / "tickets").write_text("ticket\n")
    loader = Loader(tmp_path, "load", 1, tmp_path / "tickets")
    with Unreliable() as server:
        threading.Thread(target=server.serve_forever).start()
        loader.connect(server.server_address[1])
        seen = loader.pace(1700, 10)
        loader.stop()
        server.shutdown()
    assert len(server.done) == 17
    assert {name: seen[name] for name in ("requests", "failed", "reopened")} == {
        "requests": 11,
        "failed": 6,
        "reopened": 3,
    }
    assert seen["closed"] == 2

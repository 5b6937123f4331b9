"""What a scrape of `/metrics` costs: processor time of supervisor and worker, and bytes, with one
upstream and with eight.

    .venv/bin/python bench/scrape.py [--scrapes 200]

Method: an idle gateway on a Redis. The page is asked for again and again over the admin listener,
in both formats. What is counted is the processor time that the supervisor's process has used, not
what has passed, so that a busy machine disturbs little. Each upstream has answered once, so that
all its series are there. The worker's share is what it uses while nobody asks, its notes, flushes
and canaries included.
"""

from __future__ import annotations

import argparse
import http.server
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from children import GATEWAY_CORE, LOAD_CORE, START_TIMEOUT_S, Child, claim_machine, cpu_ns, free_port, run_program
from sessions import start_redis

from fastticket.keyfile import create_key_file

INTERVAL_S = 5  # of a Prometheus
IDLE_S = 10.0
OPENMETRICS = "application/openmetrics-text"


class Answering(http.server.BaseHTTPRequestHandler):
    """An upstream server."""

    def do_GET(self) -> None:
        """An empty answer."""
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing."""


def page(port: int, accept: str) -> bytes:
    """One scrape."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asked) as answer:
        return bytes(answer.read())


def measure(folder: Path, upstreams: int, scrapes: int) -> None:
    """Print the figures of a gateway with so many upstreams."""
    folder.mkdir()
    redis, redis_port = start_redis(folder, GATEWAY_CORE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    admin = free_port()
    create_key_file(folder / "keys.toml")
    tables = [
        f'[[upstream]]\nname = "u{n}"\nservers = ["127.0.0.1:{server.server_address[1]}"]' for n in range(upstreams)
    ]
    tables += [f'[[route]]\npath = "/u{n}"\nauth = "none"\nupstream = "u{n}"' for n in range(upstreams)]
    config = folder / "fastticket.toml"
    head = f'[gateway]\nlisten = ["127.0.0.1:0"]\nadmin = "127.0.0.1:{admin}"\n[ticket]\nkeys = "keys.toml"\n'
    config.write_text(head + f'[store]\nurl = "redis://127.0.0.1:{redis_port}/0"\n' + "\n".join(tables))
    gateway = Child(GATEWAY_CORE, [sys.executable, "-m", "fastticket", "serve", "--config", config], folder / "log")
    try:
        port = int(gateway.read_line(START_TIMEOUT_S).rpartition(":")[2])
        for number in range(upstreams):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/u{number}").close()
        time.sleep(IDLE_S)  # a canary, and the worker's note
        supervisor, *workers = gateway.processes()
        before, began_s = cpu_ns(workers), time.monotonic()
        time.sleep(IDLE_S)
        idle = (cpu_ns(workers) - before) / 1e9 / (time.monotonic() - began_s)
        print(f"{upstreams} upstreams; the idle worker uses {idle:.2%} of a core")
        for accept in ("text/plain", OPENMETRICS):
            size, before = len(page(admin, accept)), cpu_ns([supervisor])
            for _ in range(scrapes):
                page(admin, accept)
            took_s = (cpu_ns([supervisor]) - before) / 1e9 / scrapes
            lines = sum(not line.startswith(b"#") for line in page(admin, accept).splitlines())
            print(
                f"  {accept}: {took_s * 1000:.1f} ms of processor time, {size:,} bytes, {lines} series; "
                f"every {INTERVAL_S} s that is {took_s / INTERVAL_S:.2%} of a core"
            )
    finally:
        gateway.stop()
        redis.stop()
        server.shutdown()


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapes", type=int, default=200, help="%(default)s")
    options = parser.parse_args()
    claim_machine(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="fastticket-bench-") as folder:
        for upstreams in (1, 8):
            measure(Path(folder) / str(upstreams), upstreams, options.scrapes)
    return 0


if __name__ == "__main__":
    run_program(main)

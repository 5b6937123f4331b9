"""How many commands a gateway sends to Redis, beside the naive path.

    python bench/store_load.py [--seconds 10] [--json FILE]

Method: a real redis-server, 1,000 sessions, 10,000 requests a second (in bursts, ten a second) for 10 s through one gateway.
Commands are those that Redis itself counts (`INFO commandstats`), with those that scripts call; what this bench asks is taken off.
A gateway first answers every session once, so that it holds them; what this warm-up costs is shown apart.

"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from gateway import BUILD, FASTTICKET_CONF, GATEWAY_CORE, LOAD_CORE, START_TIMEOUT_S, Child, build  # noqa: E402
from redis_servers import Server  # noqa: E402

import fastticket  # noqa: E402
from fastticket.keyfile import create_key_file  # noqa: E402

SESSIONS = 1000
REQUESTS_PER_S = 10_000
BURSTS_PER_S = 10
CONNECTIONS = 64
BUDGET = 10.0
OURS = ("info", "config|resetstat", "ping", "client|setinfo", "client|kill")


def commands(client: redis.Redis) -> dict[str, int]:
    """How often each command was called since the last reset."""
    stats = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
    return {name: number for name, number in calls.items() if name not in OURS}


def start_fastticket(folder: Path, upstream: str, server: Server) -> Child:
    config = folder / "fastticket.toml"
    text = FASTTICKET_CONF.format(keys=folder / "keys.toml", store="", touch_resolution_ms=0, upstream=upstream)
    config.write_text(text.replace("sqlite:///", f"redis://{server.address}/0"))
    return Child(
        GATEWAY_CORE, [sys.executable, "-m", "fastticket", "serve", "--config", config], folder / "gateway.log"
    )


def start_naive(pattern: str) -> Callable[[Path, str, Server], Child]:
    def start(folder: Path, upstream: str, server: Server) -> Child:
        ports = [upstream.rpartition(":")[2], str(server.port)]
        command = [sys.executable, HERE / "naive.py", *ports, folder / "keys.toml", "--pattern", pattern]
        return Child(GATEWAY_CORE, command, folder / "gateway.log")

    return start


CANDIDATES = {
    "fastticket": start_fastticket,
    "naive: GET, EXPIRE": start_naive("get-expire"),
    "naive: Linkis": start_naive("linkis"),
    "naive: Spring Session": start_naive("spring"),
}


async def make_sessions(folder: Path, server: Server) -> None:
    """In the layouts of all candidates."""
    keys = fastticket.Keyring.from_file(folder / "keys.toml")
    async with fastticket.TicketCache(fastticket.open_store(f"redis://{server.address}/0"), keys) as cache:
        tickets = [await cache.login(f"user-{number:05}") for number in range(SESSIONS)]
    (folder / "tickets").write_text("\n".join(tickets) + "\n")
    with redis.Redis(port=server.port) as client:
        for ticket in tickets:
            session_id = keys.verify(ticket, 0).raw[2:18].hex()
            client.set(f"session:{session_id}", "x", ex=7200)
            client.hset("user_ticket_redis_key", session_id, "1732170000000")
            client.hset(f"spring:session:sessions:{session_id}", "creationTime", "1732170000000")


def port_of(line: str) -> int:
    return int(json.loads(line)["listening"] if line.startswith("{") else line.rsplit(":", 1)[1])


def measure(name: str, seconds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        server = Server(folder)
        children: list[Child] = []
        try:
            create_key_file(folder / "keys.toml")
            asyncio.run(make_sessions(folder, server))
            loader = Child(
                LOAD_CORE, [BUILD / "load", str(CONNECTIONS), folder / "tickets", "tcp"], folder / "load.log"
            )
            children.append(loader)
            upstream = json.loads(loader.read_line(START_TIMEOUT_S))["upstream"]
            gateway = CANDIDATES[name](folder, upstream, server)
            children.append(gateway)
            port = port_of(gateway.read_line(START_TIMEOUT_S))
            with redis.Redis(port=server.port) as client:
                return load(loader, port, client, seconds)
        finally:
            for child in reversed(children):
                child.stop()
            server.kill()


def load(loader: Child, port: int, client: redis.Redis, seconds: int) -> dict[str, float]:
    def ask(text: str) -> dict[str, float]:
        loader.write_line(text)
        return json.loads(loader.read_line(60))

    ask(f"connect {port}")
    client.config_resetstat()
    warm = 0.0
    while warm < 3 * SESSIONS:
        warm += ask("slice 20")["requests"]
    warm_up = sum(commands(client).values())
    client.config_resetstat()
    requests = 0.0
    began = time.monotonic()
    burst_ms = 20.0
    for burst in range(seconds * BURSTS_PER_S):
        time.sleep(max(0.0, began + burst / BURSTS_PER_S - time.monotonic()))
        wanted = (burst + 1) * REQUESTS_PER_S / BURSTS_PER_S - requests
        got = ask(f"slice {max(1, round(burst_ms))}")["requests"] if wanted > 0 else 0.0
        burst_ms = min(95.0, max(1.0, burst_ms * wanted / got)) if got else burst_ms
        requests += got
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    calls = commands(client)
    elapsed_s = time.monotonic() - began
    return {
        "requests": requests,
        "requests_per_s": requests / elapsed_s,
        "commands": sum(calls.values()),
        "per_1000_requests": sum(calls.values()) / requests * 1000,
        "warm_up_commands": warm_up,
        "calls": calls,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Redis commands per 1,000 requests.")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--only", nargs="*", metavar="CANDIDATE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    build()
    found = {}
    for name in options.only or CANDIDATES:
        found[name] = measure(name, options.seconds)
        print(
            "{0:22} {per_1000_requests:9.2f} commands per 1,000 requests ({requests:,.0f} requests at {requests_per_s:,.0f}/s; "
            "warm-up {warm_up_commands:,} commands)".format(name, **found[name]),
            flush=True,
        )
        print(" " * 22, dict(sorted(found[name]["calls"].items(), key=lambda item: -item[1])), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found))
    is_met = "fastticket" not in found or found["fastticket"]["per_1000_requests"] <= BUDGET
    print(f"budget: {BUDGET:g} for fastticket: {'met' if is_met else 'MISSED'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())

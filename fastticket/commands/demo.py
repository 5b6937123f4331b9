"""`fastticket demo`: a gateway and what is behind it, to try by hand.

gateway        the real one, on SQLite
applications   two processes that keep no state, in turns (demo_application)
desk           one process that shows figures and sessions to the page (demo_desk)
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fastticket.commands.demo_application import Application
from fastticket.commands.demo_desk import Desk, DeskServer
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Address, is_loopback, parse_address
from fastticket.gateway.binding import bind
from fastticket.gateway.forking import end_with_parent
from fastticket.gateway.reader import read_config
from fastticket.gateway.settings import Config
from fastticket.gateway.supervisor import run
from fastticket.keyfile import create_key_file

APP_PORTS = (9001, 9002)
STORE = "sqlite:///sessions.db"
KEYS = "keys.toml"
OPEN = ": whoever reaches this machine can log in, by any name and without a password"


def demo(listen: str, app_ports: list[int] | None, folder: Path) -> int:
    """Run until interrupted; the exit code. Keys and sessions stay in `folder`. ConfigError.

    `app_ports` None: 9001 and 9002, or free ones if they are taken.
    """
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(_reserved(listen))
        admin = stack.enter_context(_reserved("127.0.0.1:0"))
        _prepare(folder)
        servers: list[ThreadingHTTPServer] = []
        for number in app_ports or APP_PORTS:
            servers.append(stack.enter_context(_serve(number, is_wanted=bool(app_ports))))
        store = f"sqlite:///{(folder / 'sessions.db').absolute()}"
        desk = stack.enter_context(DeskServer(gateway, str(admin), store, folder / KEYS))
        config = demo_config(gateway, admin, [server.server_port for server in servers], desk.server_port, folder)
        for server in (*servers, desk):
            process = multiprocessing.get_context("fork").Process(target=_run, args=(server, os.getpid()), daemon=True)
            process.start()
            server.server_close()  # the child has its own
            stack.callback(process.terminate)
        return run(lambda: config, lambda addresses: _greet(addresses[0], config, folder))


@contextlib.contextmanager
def _reserved(listen: str) -> Iterator[Address]:
    """The address, with a number for port 0, kept meanwhile: the gateway binds it beside
    (SO_REUSEPORT). ConfigError: it is none, or it is taken.

    By that option the gateway would also bind it beside another gateway, and each would get some of
    the requests. So the port is first tried without.
    """
    try:
        address = parse_address(listen, Path())
    except ValueError as error:
        raise ConfigError(f"demo --listen {error}") from None
    if not address.host:
        raise ConfigError(f"demo --listen {listen}: write HOST:PORT, for a browser")
    try:
        family, *_, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port = probe.getsockname()[1]
        kept = bind(Address(str(place[0]), port), shared=True)
    except OSError as error:
        other = address.port + 1 if 0 < address.port < 65535 else 8080
        hint = f"; choose another port: --port {other} (make run PORT={other})"
        raise ConfigError(f"demo: {address}: {error.strerror}{hint}") from None
    with kept:
        yield address._replace(port=port)


def _prepare(folder: Path) -> None:
    """The folder and a key file in it. ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "this user may not write there")
    except OSError as error:
        raise ConfigError(f"demo: {folder}: {error.strerror}; choose another folder with --dir") from None
    if not (folder / KEYS).exists():
        create_key_file(folder / KEYS)


def _serve(port: int, *, is_wanted: bool) -> ThreadingHTTPServer:
    """An application's server on that port. Unless the port `is_wanted`, on another if it is
    taken.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Application)
    except OSError as error:
        if not is_wanted:
            return ThreadingHTTPServer(("127.0.0.1", 0), Application)
        raise ConfigError(
            f"demo: application on port {port}: {error.strerror}; choose others with --app-ports"
        ) from None


def demo_config(gateway: Address, admin: Address, app_ports: list[int], desk_port: int, folder: Path) -> Config:
    """As `serve` without a file has it, and the desk beside. The desk is also told of those who are
    not logged in (optional): its page asks every second, and looking on is no use of a session.
    """
    table: dict[str, Any] = {
        "gateway": {"listen": [str(gateway)], "login_url": "/login", "admin": str(admin)},
        # By plain http to another machine a browser takes no cookie that is Secure.
        "ticket": {
            "keys": KEYS,
            "login_details": ["user_agent"],
            "cookie_secure": "auto" if is_loopback(gateway) else False,
        },
        "store": {"url": STORE},
        "limits": {"connections_max": 1000},  # more would need more descriptors than many a shell allows
        "upstream": [
            {"name": "app", "servers": [f"127.0.0.1:{port}" for port in app_ports]},
            {"name": "desk", "servers": [f"127.0.0.1:{desk_port}"]},
        ],
        "route": [
            {"path": "/login", "auth": "optional", "login": True},
            {"path": Desk.path_of_all, "auth": "optional", "touch": False, "upstream": "desk"},
            {"path": "/"},
        ],
    }
    return read_config(table, "demo", folder)


def _run(server: ThreadingHTTPServer, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    end_with_parent(parent)  # also after SIGKILL, so that its port is free again
    server.serve_forever()


def _greet(url: str, config: Config, folder: Path) -> None:
    print(
        f"""fastticket demo{"" if is_loopback(config.listen_addresses()[0]) else OPEN}
  gateway       {url}
  applications  {", ".join(config.upstream[0].servers)}, in turns
  metrics       http://{config.gateway.admin}/metrics
  sessions      {folder / "sessions.db"} (they outlive a restart), keys {folder / KEYS}

Open {url} in a browser, or in another terminal:
  curl -c jar -d user=alice {url}/login
  curl -b jar {url}/whoami
  curl -b jar -X POST {url}/logout
End with Ctrl-C.""",
        flush=True,
    )

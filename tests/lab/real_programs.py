"""Real programs of others: those that run to their end, and those that serve, as upstream servers
that a test starts and ends.

A server is handed a socket that listens already: its port is nobody else's, and who connects too
early waits in the kernel's queue.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import BOUND_S

from lab.processes import Nginx

PEERS = Path(__file__).parent / "peers"
DEBIANS_NODE_MODULES = Path("/usr/share/nodejs")


def program(name: str) -> str:
    """Where it is: beside this Python, as what PyPI brings, or in the system."""
    places = [Path(sys.executable).parent, *os.get_exec_path(), "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    assert found, f"{name} is missing; make test installs it"
    return found


def run(name: str, *arguments, bound_s: float = 3 * BOUND_S, **options) -> str:
    """The output of a program that ends in time and with exit code 0."""
    command = [program(name), *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=bound_s, **options)
    return done.stdout


def uvicorn(folder: Path, application: str = "asgi_application:application", environment: dict[str, str] | None = None):
    """An application of `peers`, on a Unix socket."""
    options = ("--app-dir", PEERS, "--log-level", "warning", "--timeout-graceful-shutdown", 1)
    command = (program("uvicorn"), *options, application, "--fd")
    return serving(
        lambda descriptor: [*command, descriptor], folder, path=folder / "uvicorn.sock", environment=environment
    )


def gunicorn(folder: Path):
    """`peers/wsgi_application.py`, by a worker that serves one connection after the other and keeps
    none.
    """
    options = ("--chdir", PEERS, "--worker-class", "sync", "--log-level", "warning")
    command = (program("gunicorn"), *options, "wsgi_application:application")
    return serving(lambda descriptor: [*command, "--bind", f"fd://{descriptor}"], folder, environment=home(folder))


def node(folder: Path):
    """`peers/server.js`."""
    return serving(lambda descriptor: [program("node"), PEERS / "server.js", descriptor], folder)


CADDY = """
{{
    admin off
    log {{
        level ERROR
    }}
    servers {{
        timeouts {{
            idle {idle}
        }}
    }}
}}
http:// {{
    bind fd/{descriptor}
    respond /hello "hello"
    file_server {{
        root {folder}
    }}
}}
"""


def caddy(folder: Path, idle: str = "30s"):
    """The folder's files, and `/hello`; connections that are idle for so long are closed."""
    file = folder / "Caddyfile"

    def command(descriptor):
        file.write_text(CADDY.format(idle=idle, descriptor=descriptor, folder=folder))
        return [program("caddy"), "run", "--adapter", "caddyfile", "--config", file]

    return serving(command, folder, environment=home(folder))


def home(folder: Path) -> dict[str, str]:
    """For programs that keep files of their own there."""
    return dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))


NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen unix:{folder}/nginx.sock;
    {directives}
    root {folder};
    location = /hello {{ return 200 "hello"; }}
  }}
}}
"""


def nginx_config(folder: Path, directives: str) -> str:
    return NGINX.format(folder=folder, directives=directives)


@contextlib.contextmanager
def nginx(folder: Path, directives: str = "") -> Iterator[str]:
    """The folder's files, and `/hello`, on a Unix socket."""
    assert program("nginx")
    server = Nginx(folder, nginx_config(folder, directives), f"{folder}/nginx.sock")
    try:
        yield f"unix:{folder}/nginx.sock"
    finally:
        server.stop()


@contextlib.contextmanager
def serving(
    command: Callable[[int], list], folder: Path, *, path: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[str]:
    """The command for the descriptor of a listening socket, as a process. Its address, as the
    gateway's configuration has it.
    """
    with listening(path) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [str(word) for word in command(descriptor)],
            cwd=folder,
            pass_fds=[descriptor],
            env={**os.environ, **(environment or {})},
        )
        port = None if path else listener.getsockname()[1]
    with ending(process):
        yield f"unix:{path}" if path else f"127.0.0.1:{port}"


@contextlib.contextmanager
def ending(process: subprocess.Popen) -> Iterator[None]:
    """Ends a process with SIGTERM. One that does not end by that is killed, and is an error."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(BOUND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def listening(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener

"""`fastticket demo`: a gateway and two small applications behind it, to try by hand.

The applications show what an application behind a gateway has to do: nothing for authentication
(the gateway names the user in `X-Forwarded-User`), `X-Ticket-Login` in the response that follows a
correct password, `X-Ticket-Logout` to end the session. They keep no state.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

from fastticket.errors import ConfigError
from fastticket.gateway.forking import end_with_parent
from fastticket.gateway.reader import simple_config
from fastticket.gateway.supervisor import run
from fastticket.keyfile import create_key_file

PAGE = resources.files("fastticket.commands").joinpath("demo.html").read_text("utf-8")


class Application(BaseHTTPRequestHandler):
    """An application behind the gateway, which has authenticated the user."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The page, or the user as JSON."""
        path = self.path.partition("?")[0]
        if path == "/whoami":
            self._answer(200, "application/json", json.dumps(self._whoami()) + "\n")
        elif path in ("/", "/login"):
            self._answer(200, "text/html; charset=utf-8", PAGE)
        else:
            self._answer(404, "text/plain", "there is no such page\n")

    def do_POST(self) -> None:
        """Log in, by any name and without a password, or log out."""
        form = urllib.parse.parse_qs(
            self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        )
        path, _, query = self.path.partition("?")
        if path == "/login":
            user = form.get("user", [""])[0].strip()
            if user:
                wanted = return_address(urllib.parse.parse_qs(query).get("next", [""])[0])
                self._answer(303, "text/plain", f"logged in as {user}\n", {"X-Ticket-Login": user, "Location": wanted})
            else:
                self._answer(400, "text/plain", "which user?\n")
        elif path in ("/logout", "/logout-everywhere"):
            scope = "everywhere" if path.endswith("everywhere") else "session"
            self._answer(303, "text/plain", "logged out\n", {"X-Ticket-Logout": scope, "Location": "/login"})
        else:
            self._answer(404, "text/plain", "there is no such page\n")

    def _whoami(self) -> dict[str, object]:
        user = self.headers.get("X-Forwarded-User", "").encode("latin-1").decode(errors="replace")
        return {"user": user, "application": self.server.server_port}  # type: ignore[attr-defined]

    def _answer(self, status: int, kind: str, text: str, fields: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing: the page shows which application answered."""


def return_address(wanted: str) -> str:
    r"""Where to go after the login: `wanted` if it is a path of this host, else the front page.

    The gateway only sends such paths, but anybody can write a link to the login page. Browsers take
    `//host` and `/\host` for other hosts, and drop tabs and line ends.
    """
    return wanted if re.fullmatch(r"/(?![/\\])[!-~]*", wanted) else "/"


def demo(port: int, application_ports: list[int], folder: Path) -> int:
    """Run until interrupted; the exit code. Keys and sessions stay in `folder`. ConfigError."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "keys.toml"
    if not keys.exists():
        create_key_file(keys)
    config = simple_config(
        [f"127.0.0.1:{port}"],
        [f"127.0.0.1:{number}" for number in application_ports],
        "sqlite:///sessions.db",
        keys.name,
        source="demo",
        base=folder,
    )
    servers = [_serve(application_port) for application_port in application_ports]
    processes = [
        multiprocessing.get_context("fork").Process(target=_run, args=(server, os.getpid()), daemon=True)
        for server in servers
    ]
    for process, server in zip(processes, servers, strict=True):
        process.start()
        server.server_close()  # the child has its own
    try:
        return run(lambda: config, lambda addresses: _greet(addresses, application_ports, folder))
    finally:
        for process in processes:
            process.terminate()


def _serve(port: int) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Application)
    except OSError as error:
        raise ConfigError(
            f"demo: application on port {port}: {error.strerror}; choose others with --app-ports"
        ) from None


def _run(server: ThreadingHTTPServer, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    end_with_parent(parent)  # also after SIGKILL, so that its port is free again
    server.serve_forever()


def _greet(addresses: list[str], application_ports: list[int], folder: Path) -> None:
    url = addresses[0]
    print(
        f"""fastticket demo
  gateway       {url}
  applications  {", ".join(f"127.0.0.1:{port}" for port in application_ports)}, in turns
  sessions      {folder / "sessions.db"} (they outlive a restart), keys {folder / "keys.toml"}

Open {url} in a browser, or in another terminal:
  curl -c jar -d user=alice {url}/login
  curl -b jar {url}/whoami
  curl -b jar -X POST {url}/logout
End with Ctrl-C.""",
        flush=True,
    )

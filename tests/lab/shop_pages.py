"""The shops that the pages of docs/how-to show, served as the pages say, in two processes on one
Redis; and customers, who keep cookies.

A page's `console` block is what is done here: the packages are those that are installed, the
commands that come next are run, and the last one serves. Only its port is another one.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple

from conftest import BOUND_S

import fastticket
from fastticket.sync import TicketCache
from lab.real_programs import ending, program, serving
from lab.redis_servers import Server, free_port, wait_until

HOST = "shop.test"  # no loopback name: the cookie is Secure
CLAIM = {"name": "alice", "password": "wonderland"}


class Answer(NamedTuple):
    status: int
    fields: http.client.HTTPMessage
    said: object

    @property
    def cookies(self) -> list[str]:
        return self.fields.get_all("Set-Cookie") or []


class Customer:
    """A browser of one user. Follows no redirect by itself."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    def ask(self, at: str, method: str, path: str, said: object = None, *, host: str = HOST) -> Answer:
        fields = {"Host": host}
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if said is not None:
            fields["Content-Type"] = "application/json"
        with contextlib.closing(http.client.HTTPConnection(at, timeout=3 * BOUND_S)) as connection:
            connection.request(method, path, None if said is None else json.dumps(said), fields)
            response = connection.getresponse()
            body = response.read()
        answer = Answer(response.status, response.headers, read(response.headers, body))
        self._take(answer)
        return answer

    def get(self, at: str, path: str) -> object:
        answer = self.ask(at, "GET", path)
        assert answer.status == 200, answer
        return answer.said

    def post(self, at: str, path: str, said: object = None) -> object:
        answer = self.ask(at, "POST", path, said)
        assert answer.status in (200, 201), answer
        return answer.said

    def is_refused_soon(self, at: str, path: str = "/whoami") -> None:
        wait_until(lambda: self.ask(at, "GET", path).status == 401, f"{path} is 401 at {at}", BOUND_S)

    def _take(self, answer: Answer) -> None:
        for line in answer.cookies:
            for name, cookie in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if cookie["max-age"] != "0" and "1970" not in cookie["expires"]:
                    self.cookies[name] = cookie.value


def read(fields: http.client.HTTPMessage, body: bytes) -> object:
    is_json = fields.get_content_type() == "application/json"
    return json.loads(body) if is_json and body else body.decode()


class Shop(NamedTuple):
    """Two processes of one application, by their addresses."""

    here: str
    there: str
    folder: Path
    redis: Server

    @contextlib.contextmanager
    def cache(self) -> Iterator[TicketCache]:
        """Another application on the same store: the test itself."""
        keys = fastticket.Keyring.from_file(self.folder / "keys.toml")
        with TicketCache(fastticket.open_store(f"redis://{self.redis.address}/0?timeout_ms=10000"), keys) as cache:
            yield cache


@contextlib.contextmanager
def shop(folder: Path, serve: str, environment: dict[str, str], redis: Server) -> Iterator[Shop]:
    """The arguments are those of `prepared`, and what it returned."""
    with serving_page(folder, serve, environment) as here, serving_page(folder, serve, environment) as there:
        yield Shop(here, there, folder, redis)


def prepared(folder: Path, commands: list[str], redis: Server) -> tuple[str, dict[str, str]]:
    """A page's files are in the folder, and these are its commands: the one that serves, and its
    environment, when all that stand before it were run.
    """
    install, *before, serve = commands
    has_what_is_installed(install)
    store = f"redis://{redis.address}/0?timeout_ms=10000"  # it may have to wait for a processor; dead, it refuses
    own = {"STORE_URL": store, "BROKER_URL": f"redis://{redis.address}/1", "HOME": str(folder)}
    path = os.pathsep.join([str(Path(program("fastticket")).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", "\n".join([*before, "env -0"])],
        cwd=folder,
        env={**os.environ, **own, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=2 * BOUND_S,
    )
    return serve, dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def has_what_is_installed(command: str) -> None:
    pip, install, *packages = shlex.split(command)
    assert (pip, install) == ("pip", "install")
    for package in packages:
        assert importlib.metadata.version(re.match(r"[\w-]+", package)[0])


@contextlib.contextmanager
def serving_page(folder: Path, command: str, environment: dict[str, str]) -> Iterator[str]:
    """`uvicorn … --port 8000`, or `python …`, which reads PORT: the address."""
    name, *arguments = shlex.split(command)
    if "--port" in arguments:
        at = arguments.index("--port")
        arguments = [*arguments[:at], *arguments[at + 2 :], "--log-level", "warning"]
        with serving(lambda fd: [program(name), *arguments, "--fd", fd], folder, environment=environment) as address:
            yield address
        return
    port = free_port()
    process = subprocess.Popen([program(name), *arguments], cwd=folder, env={**environment, "PORT": str(port)})
    with ending(process):
        wait_until(lambda: is_there(process, port), f"{command} listens")
        yield f"127.0.0.1:{port}"


def is_there(process: subprocess.Popen, port: int) -> bool:
    assert process.poll() is None
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)) as connection:
        connection.connect()
    return True

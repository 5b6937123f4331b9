"""A client with a cookie jar and an address of its own. It is small, so that it takes little time
from what it measures.
"""

from __future__ import annotations

import contextlib
import http.cookies
import socket
from collections.abc import Sequence
from typing import NamedTuple

BOUND_S = 10.0


class Answer(NamedTuple):
    """One response."""

    status: int
    text: str
    application: str  # the application that answered; "" if none did


class Browser:
    """A client of 127.0.0.1:`port`. `address` is its source address, any of 127.0.0.0/8."""

    def __init__(self, port: int, *, address: str = "127.0.0.1", cookies: dict[str, str] | None = None) -> None:
        self.port = port
        self.address = address
        self.cookies = dict(cookies or {})
        self._connection: socket.socket | None = None

    def ask(self, target: str) -> Answer:
        """Send one request on a new connection."""
        with contextlib.closing(self):
            self.send(target)
            return self.receive()

    def send(self, target: str) -> None:
        """Send one request on the open connection, or on a new one. Call `receive` next."""
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self.port), BOUND_S, (self.address, 0))
            self._received = self._connection.makefile("rb")
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        field = f"Cookie: {cookies}\r\n" if cookies else ""
        self._connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{field}\r\n".encode())

    def receive(self) -> Answer:
        status = int(self._received.readline().split()[1])
        fields = {}
        while line := self._received.readline().rstrip():
            name, _, value = line.decode().partition(": ")
            fields[name.lower()] = value
        self._keep(fields.get("set-cookie", ""))
        body = self._received.read(int(fields["content-length"]))
        return Answer(status, body.decode(), fields.get("x-application", ""))

    def close(self) -> None:
        if self._connection is not None:
            self._received.close()
            self._connection.close()
            self._connection = None

    def _keep(self, field: str) -> None:
        for name, cookie in http.cookies.SimpleCookie(field).items() if field else ():
            self.cookies[name] = cookie.value
            if cookie["max-age"] == "0":
                del self.cookies[name]


def ask_together(browsers: Sequence[Browser], target: str, rounds: int) -> list[Answer]:
    """Send concurrent requests of all browsers, so many times each, on connections that stay open:
    the highest rate that is possible.
    """
    answers = []
    for _ in range(rounds):
        for browser in browsers:
            browser.send(target)
        answers += [browser.receive() for browser in browsers]
    for browser in browsers:
        browser.close()
    return answers

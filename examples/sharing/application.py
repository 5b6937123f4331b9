"""The base of the applications: an HTTP server on an inherited socket, with the standard library
alone.
"""

from __future__ import annotations

import http.cookies
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


class Application(BaseHTTPRequestHandler):
    """A request handler; subclasses answer in `get`. `name` identifies the application in each
    answer.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet
    name = ""

    def get(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.get(url.path, dict(parse_qsl(url.query)))

    def cookie(self, name: str) -> str:
        """The cookie's value, "" if there is none."""
        found = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get(name)
        return found.value if found else ""

    def answer(self, status: int, text: str, fields: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response_only(status)
        for name, value in {
            "X-Application": self.name,
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            **(fields or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing."""


def serve(application: type[Application], descriptor: int) -> None:
    """Serve until the process is ended."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), application, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=descriptor)
    server.serve_forever()

"""What an application behind the gateway has to do: nothing for authentication (the gateway names
the user in `X-Forwarded-User`), `X-Ticket-Login` in the response that follows a correct password,
`X-Ticket-Logout` to end the session. It keeps no state.

The pages need nothing from elsewhere, and say so to the browser (Content-Security-Policy): one
style and one script, each by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from importlib import resources

from fastticket.core.ticket import check_principal
from fastticket.errors import InvalidPrincipal

FORM_BYTES_MAX = 4096
BAD_NAME = "A name has 1 to 190 bytes of UTF-8, without control characters."


def text_of(name: str) -> str:
    """A file beside this one; read when it is needed: most commands need none."""
    return resources.files("fastticket.commands").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%2314507a' "
    "d='M1 3h14v3a2 2 0 0 0 0 4v3H1v-3a2 2 0 0 0 0-4z'/%3E%3Cpath stroke='%23fff' d='M5 6h6M5 10h4'/%3E%3C/svg%3E"
)
POLICY = (
    "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Answering(BaseHTTPRequestHandler):
    """What the demo's servers have in common: they stand behind the gateway, which has
    authenticated the user.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def user(self) -> str:
        """Whose ticket came with the request; "": nobody's."""
        return (self.headers.get("X-Forwarded-User") or "").encode("latin-1").decode(errors="replace")

    def form(self) -> dict[str, str]:
        """The fields of the form that was sent. ValueError: there is none that can be read."""
        length = int(self.headers.get("Content-Length", 0))
        if length > FORM_BYTES_MAX:
            self.close_connection = True  # the rest is not read
            raise ValueError("the form is too long")
        sent = self.rfile.read(length).decode()
        return dict(urllib.parse.parse_qsl(sent, errors="strict", max_num_fields=10))

    def answer(self, status: int, kind: str, text: str, fields: Mapping[str, str] | None = None) -> None:
        """Send a whole response."""
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)

    def answer_text(self, status: int, text: str, fields: Mapping[str, str] | None = None) -> None:
        """Send a line of text."""
        self.answer(status, "text/plain; charset=utf-8", f"{text}\n", fields)

    def answer_json(self, status: int, value: object) -> None:
        """Send a value, which is of this moment."""
        self.answer(status, "application/json", json.dumps(value) + "\n", {"Cache-Control": "no-store"})

    def answer_page(self, status: int, page: str, **texts: str) -> None:
        """Send a page of this folder with texts in place of their names, as `{{name}}`."""
        style, script = text_of("demo.css"), text_of("demo.js")
        parts = {"icon": ICON, "style": style, "script": script, **{name: html.escape(texts[name]) for name in texts}}
        page = re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], text_of(page))
        policy = POLICY.format(style=_digest(style), script=_digest(script))
        fields = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        self.answer(status, "text/html; charset=utf-8", page, fields)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing: the page shows what happens."""


class Application(Answering):
    """An application behind the gateway."""

    def do_GET(self) -> None:
        """A page, or the user as JSON."""
        path, _, query = self.path.partition("?")
        if path == "/whoami":
            self.answer_json(200, {"user": self.user(), "application": self.server.server_port})  # type: ignore[attr-defined]
        elif path == "/":
            self.answer_page(200, "demo.html", user=self.user())
        elif path == "/login" and self.user():
            self.answer_text(303, "you are logged in", {"Location": _wanted(query)})
        elif path == "/login":
            self.answer_page(200, "demo_login.html", action=self.path, problem="", user="")
        else:
            self.answer_text(404, "there is no such page")

    def do_POST(self) -> None:
        """Log in, by any name and without a password, or log out."""
        path, _, query = self.path.partition("?")
        if path == "/login":
            self._log_in(query)
        elif path in ("/logout", "/logout-everywhere"):
            scope = "everywhere" if path.endswith("everywhere") else "session"
            self.answer_text(303, "logged out", {"X-Ticket-Logout": scope, "Location": "/login"})
        else:
            self.answer_text(404, "there is no such page")

    def _log_in(self, query: str) -> None:
        name = ""
        try:
            name = self.form().get("user", "").strip()
            check_principal(name)
        except (ValueError, InvalidPrincipal):
            if "text/html" in self.headers.get("Accept", ""):
                self.answer_page(400, "demo_login.html", action=self.path, problem=BAD_NAME, user=name)
            else:
                self.answer_text(400, BAD_NAME)
        else:
            self.answer_text(303, f"logged in as {name}", {"X-Ticket-Login": name, "Location": _wanted(query)})


def _wanted(query: str) -> str:
    return return_address(urllib.parse.parse_qs(query).get("next", [""])[0])


def return_address(wanted: str) -> str:
    r"""Where to go after the login: `wanted` if it is a path of this host, else the front page.

    The gateway only sends such paths, but anybody can write a link to the login page. Browsers take
    `//host` and `/\host` for other hosts, and drop tabs and line ends.
    """
    return wanted if re.fullmatch(r"/(?![/\\])[!-~]*", wanted) else "/"

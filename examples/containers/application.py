"""A small application behind the gateways of compose.yaml, with the standard library alone. It has
no sessions of its own: the gateway says who asks.

It logs in by any name, without a password: replace `log_in`.
"""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

FORM_BYTES_MAX = 4096
PAGE = """<!doctype html><meta name="viewport" content="width=device-width"><title>Log in</title>
<form method="post"><label>Name <input name="user" required></label> <button>Log in</button></form>
"""


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.partition("?")[0] == "/login":
            self.answer(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        else:
            # The field is UTF-8; http.server decodes it as Latin-1.
            user = self.headers["X-Forwarded-User"].encode("latin-1").decode()
            says = {"user": user, "client": self.headers["X-Forwarded-For"], "application": socket.gethostname()}
            self.answer(200, json.dumps(says) + "\n", {"Content-Type": "application/json"})

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > FORM_BYTES_MAX:
            self.close_connection = True
            self.answer(413, "too long\n")
            return
        form = parse_qs(self.rfile.read(length).decode())
        if self.path == "/logout":
            self.answer(303, "bye\n", {"X-Ticket-Logout": "session", "Location": "/login"})
        elif self.path.partition("?")[0] == "/login" and (user := self.log_in(form)):
            self.answer(303, "welcome\n", {"X-Ticket-Login": user, "Location": "/"})
        else:
            self.answer(403, "no\n")

    def log_in(self, form):
        """The user's name if the password is right, else ""."""
        return form.get("user", [""])[0]

    def answer(self, status, text, fields=None):
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", int(os.environ.get("PORT", "9001"))), Application).serve_forever()

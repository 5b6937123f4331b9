"""An application behind the gateway, with the standard library alone.

fastticket keygen --out keys.toml
fastticket serve --keys keys.toml --upstream 127.0.0.1:9001
python examples/application.py
curl -c jar -d 'user=alice&password=wonder' localhost:8080/login && curl -b jar localhost:8080/
"""

import hmac
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

PASSWORDS = {"alice": "wonder", "Zoë": "wonder"}


def is_password(user, password):
    return user in PASSWORDS and hmac.compare_digest(PASSWORDS[user].encode(), password.encode())


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # The field is UTF-8; http.server decodes it as Latin-1.
        name = self.headers["X-Forwarded-User"].encode("latin-1").decode()
        self.answer(200, f"hello {name}\n")

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        user, password = form.get("user", [""])[0], form.get("password", [""])[0]
        if self.path == "/logout":
            self.answer(200, "bye\n", {"X-Ticket-Logout": "session"})
        elif self.path == "/login" and is_password(user, password):
            remember = {"X-Ticket-Remember": "1"} if "remember" in form else {}
            self.answer(200, "welcome\n", {"X-Ticket-Login": user, **remember})
        else:
            self.answer(403, "no\n")

    def answer(self, status, text, fields=None):
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", 9001), Application).serve_forever()

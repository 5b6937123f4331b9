"""An application behind the gateway, with the standard library alone.

fastticket keygen --out keys.toml
fastticket serve --keys keys.toml --upstream 127.0.0.1:9001
python examples/application.py
curl -c jar -d 'user=alice&password=wonder' localhost:8080/login && curl -b jar localhost:8080/
"""

import hmac
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PASSWORDS = {"alice": "wonder", "Zoë": "wonder"}
FORM = """<!doctype html><meta charset="utf-8"><title>log in</title>
<form method="post"><input name="user"><input name="password" type="password"><button>log in</button></form>
"""


def is_password(user, password):
    return user in PASSWORDS and hmac.compare_digest(PASSWORDS[user].encode(), password.encode())


def return_address(wanted):
    """A path of this host, or none: anybody can write a link to the login page."""
    return wanted if re.fullmatch(r"/(?![/\\])[!-~]*", wanted) else ""


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if urlsplit(self.path).path == "/login":  # the form is sent to this address, `next` included
            self.answer(200, FORM, {"Content-Type": "text/html"})
            return
        # The field is UTF-8; http.server decodes it as Latin-1. Without a user, it is not there.
        name = self.headers.get("X-Forwarded-User", "").encode("latin-1").decode()
        self.answer(200, f"hello {name}\n")

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        user, password = form.get("user", [""])[0], form.get("password", [""])[0]
        url = urlsplit(self.path)
        if url.path == "/logout":
            self.answer(200, "bye\n", {"X-Ticket-Logout": "session"})
        elif url.path == "/login" and is_password(user, password):
            remember = {"X-Ticket-Remember": "1"} if "remember" in form else {}
            back = return_address(parse_qs(url.query).get("next", [""])[0])
            status, location = (303, {"Location": back}) if back else (200, {})
            self.answer(status, "welcome\n", {"X-Ticket-Login": user, **remember, **location})
        else:
            self.answer(403, "no\n")

    def answer(self, status, text, fields=None):
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(fields or {})}.items():
            self.send_header(name, value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(body)


PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9001
ThreadingHTTPServer(("127.0.0.1", PORT), Application).serve_forever()

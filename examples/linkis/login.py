"""A login service for fastticket in the place of linkis-gateway, with the standard library alone.
It answers what Linkis' web pages ask below /api/rest_j/v1/user/.

LOGIN_PASSWORD=wonder python examples/linkis/login.py 9201

Replace `is_password` by your directory's check (LDAP). The login page sends the password as it was
typed, unless your Linkis encrypts it (wds.linkis.login_encrypt.enable).
"""

import hmac
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_BYTES_MAX = 65_536


def is_password(user, password):
    """Here: everybody has the one password of the environment. Without it, nobody gets in."""
    expected = os.environ.get("LOGIN_PASSWORD", "")
    return bool(user and expected) and hmac.compare_digest(expected.encode(), password.encode())


class Login(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # fastticket sets the field, and nobody else can. It is UTF-8, which http.server reads as
        # Latin-1.
        user = self.headers.get("X-Forwarded-User", "").encode("latin-1").decode()
        act = self.path.partition("?")[0].rpartition("/")[2]
        if act == "publicKey":
            self.answer(200, "Gain success!", {"enableLoginEncrypt": False, "enableSSL": False})
        elif not user:
            self.answer(401, "You are not logged in, please login first!", {})
        elif act == "logout":
            self.answer(200, "Logout successful!", {}, {"X-Ticket-Logout": "session"})
        elif act in ("userInfo", "heartbeat"):
            self.answer(200, "OK", {"userName": user})
        else:
            self.answer(404, "no such method", {})

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(min(size, BODY_BYTES_MAX))
        self.close_connection = size > BODY_BYTES_MAX
        if not self.path.partition("?")[0].endswith("/login"):
            self.do_GET()
            return
        try:
            said = json.loads(body)
            user, password = str(said["userName"]), str(said["password"])
        except (ValueError, KeyError, TypeError):
            self.answer(400, "userName and password are missing", {})
            return
        if is_password(user, password):
            # fastticket makes the session and sets the cookie. The value is UTF-8, too.
            login = {"X-Ticket-Login": user.encode().decode("latin-1")}
            self.answer(200, "login successful!", {"userName": user}, login)
        else:
            self.answer(400, "The user name or password is wrong", {})

    def answer(self, status, message, data, fields=None):
        """In the form of Linkis' messages: status 0 is success, -1 a missing login."""
        code = {200: 0, 401: -1}.get(status, 1)
        body = json.dumps({"method": self.path, "status": code, "message": message, "data": data}).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(fields or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """fastticket has an access log."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9201
    server = ThreadingHTTPServer(("127.0.0.1", port), Login)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()

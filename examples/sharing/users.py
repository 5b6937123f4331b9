"""The interceptor example, behind fastticket: its interceptor is the gateway, and what is left here is what the application is for.

python users.py DESCRIPTOR NAME

    /user/login?username=&password=    needs no ticket; a good password gives one
    /user/logout                       needs none either; with one the session ends
    /user/find/NAME                    whoever comes here has a ticket: the gateway has seen to it
    /user/session                      the session's id

A password in a URL is the example's way, to be tried in a browser's address line; a real login is a POST.
"""

from __future__ import annotations

import base64
import hmac
import json
import sys

from application import Application, serve

PASSWORDS = {f"user{number}": f"user{number}" for number in range(1, 65)}
JSON = {"Content-Type": "application/json; charset=utf-8"}


class Users(Application):
    """Keeps no sessions, and no keys."""

    def get(self, path: str, query: dict[str, str]) -> None:
        user = self.headers.get("X-Forwarded-User", "")  # nobody but the gateway can set it
        if path == "/user/login":
            self.log_in(query.get("username", ""), query.get("password", ""))
        elif path == "/user/logout":
            self.say("bye", {"X-Ticket-Logout": "session"} if user else {})
        elif path == "/user/session":
            self.answer(200, json.dumps({"user": user, "session": self.session_id()}), JSON)
        elif path.startswith("/user/find/"):
            name = path.removeprefix("/user/find/")
            self.answer(200, json.dumps({"name": name, "known": name in PASSWORDS, "asked by": user}), JSON)
        else:
            self.answer(404, "no such page")

    def log_in(self, name: str, password: str) -> None:
        if hmac.compare_digest(PASSWORDS.get(name, "").encode(), password.encode()) and password:
            self.say("welcome", {"X-Ticket-Login": name})
        else:
            self.answer(403, json.dumps({"message": "wrong name or password"}), JSON)

    def say(self, message: str, fields: dict[str, str]) -> None:
        self.answer(200, json.dumps({"message": message}), {**JSON, **fields})

    def session_id(self) -> str:
        """Bytes 2 to 17 of the ticket (docs/ticket-format.md), which the gateway has verified."""
        raw = base64.urlsafe_b64decode(self.cookie("ticket") + "==")
        return base64.urlsafe_b64encode(raw[2:18]).decode().rstrip("=")


if __name__ == "__main__":
    descriptor, Users.name = sys.argv[1:]
    serve(Users, int(descriptor))

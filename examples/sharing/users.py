"""The interceptor example, behind fastticket: its interceptor is the gateway, and what is left here
is what the application is for.

python users.py DESCRIPTOR NAME KEY-FILE

    /user/login?username=&password=    needs no ticket; a good password gives one
    /user/logout                       needs none either; with one the session ends
    /user/find/NAME                    whoever comes here has a ticket: the gateway has seen to it
    /user/session                      the session's id

A password in a URL is the example's way, to be tried in a browser's address line; a real login is a
POST.
"""

from __future__ import annotations

import hmac
import json
import sys
import time

from application import Application, serve

import fastticket

PASSWORDS = {f"user{number}": f"user{number}" for number in range(1, 65)}
JSON = {"Content-Type": "application/json; charset=utf-8"}


class Users(Application):
    """Keeps no sessions. The keys are for the session's id, which the ticket has."""

    keys: fastticket.Keyring

    def get(self, path: str, query: dict[str, str]) -> None:
        user = self.headers.get("X-Forwarded-User", "")  # nobody but the gateway can set it; it is UTF-8
        user = user.encode("latin-1").decode()
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
            self.say("welcome", {"X-Ticket-Login": name.encode().decode("latin-1")})
        else:
            self.answer(403, json.dumps({"message": "wrong name or password"}), JSON)

    def say(self, message: str, fields: dict[str, str]) -> None:
        self.answer(200, json.dumps({"message": message}), {**JSON, **fields})

    def session_id(self) -> str:
        """Asks no store: that the session is alive, the gateway has seen to."""
        return self.keys.verify(self.cookie("ticket"), time.time_ns() // 1_000_000).session_id


if __name__ == "__main__":
    descriptor, Users.name, key_file = sys.argv[1:]
    Users.keys = fastticket.Keyring.from_file(key_file)
    serve(Users, int(descriptor))

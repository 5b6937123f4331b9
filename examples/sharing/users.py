"""The interceptor example behind fastticket: its interceptor is the gateway, and the application
contains only its own task.

python users.py DESCRIPTOR NAME KEY-FILE

    /user/login?username=&password=    needs no ticket; a good password gives one
    /user/logout                       needs none either; with one the session ends
    /user/find/NAME                    needs a ticket; the gateway has checked it
    /user/session                      the session's id

The password is in the URL so that you can try the example in a browser's address line. A real login
is a POST.
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
    """The application. It keeps no sessions. It has the keys to read the session's id from the
    ticket.
    """

    keys: fastticket.Keyring

    def get(self, path: str, query: dict[str, str]) -> None:
        user = self.headers.get("X-Forwarded-User", "")  # only the gateway can set it; it is UTF-8
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
        """The session's id. No store is asked: the gateway has checked that the session is
        alive.
        """
        return self.keys.verify(self.cookie("ticket"), time.time_ns() // 1_000_000).session_id


if __name__ == "__main__":
    descriptor, Users.name, key_file = sys.argv[1:]
    Users.keys = fastticket.Keyring.from_file(key_file)
    serve(Users, int(descriptor))

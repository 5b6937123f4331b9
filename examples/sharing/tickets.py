"""An application that checks tickets itself: `/login?user=x` issues one, `/whoami` answers its
user, `/logout` clears the cookie.

python tickets.py DESCRIPTOR NAME KEY-FILE LIFETIME-S [PATTERN REDIS-SOCKET]

The application verifies the signature. With a pattern, it also asks Redis on every request whether
the session is alive.
"""

from __future__ import annotations

import sys
import time

from application import Application, serve
from asking import PATTERNS, EveryRequest

import fastticket


class Tickets(Application):
    """Admits every request with a good ticket."""

    keys: fastticket.Keyring
    lifetime_s: int
    sessions: EveryRequest | None = None

    def get(self, path: str, query: dict[str, str]) -> None:
        if path == "/login":
            self.log_in(query["user"])
            return
        found = self.keys.verify(self.cookie("ticket"), now_ms())
        if not found or (self.sessions and not self.sessions.is_alive(found.session_id)):
            self.answer(401, "please log in")
        elif path == "/logout":
            if self.sessions:
                self.sessions.end(found.session_id)
            self.answer(200, "bye", {"Set-Cookie": "ticket=; Path=/; Max-Age=0"})
        else:
            self.answer(200, found.principal)

    def log_in(self, user: str) -> None:
        ticket = self.keys.mint(user, now_ms(), absolute_lifetime_s=self.lifetime_s)
        if self.sessions:
            self.sessions.begin(self.keys.verify(ticket, now_ms()).session_id)
        self.answer(200, "welcome", {"Set-Cookie": f"ticket={ticket}; Path=/; HttpOnly; SameSite=Lax"})


def now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    descriptor, Tickets.name, key_file, lifetime_s, *store = sys.argv[1:]
    Tickets.keys = fastticket.Keyring.from_file(key_file)
    Tickets.lifetime_s = int(lifetime_s)
    if store:
        Tickets.sessions = PATTERNS[store[0]](store[1])
    serve(Tickets, int(descriptor))

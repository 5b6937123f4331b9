"""5. Redis on every request: all applications ask one store, so any of them can answer. Redis
itself counts the commands.

This is the classic way of Apache Linkis' gateway and of Spring Session, each with its own commands.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import table
from asking import IDLE_TIMEOUT_S, PATTERNS, Linkis
from balancer import Balancer
from browser import Browser, ask_together
from lab import Lab
from redis_server import RedisServer

from fastticket.keyfile import create_key_file

USERS = 50
ROUNDS = 20  # each user sends so many requests: 1,000 in all
LIFETIME_S = 86_400
COPIES = 10  # requests with a copy of a cookie


def measure() -> list[table.Row]:
    rows = [measure_pattern(pattern, pattern) for pattern in PATTERNS]
    return [*rows, measure_pattern("Linkis", "Linkis, half the idle timeout over", age=True)]


def measure_pattern(pattern: str, shown: str, *, age: bool = False) -> table.Row:
    with Lab() as lab:
        create_key_file(lab.folder / "keys.toml")
        server = RedisServer(lab)
        arguments = ["keys.toml", LIFETIME_S, pattern, server.path]
        applications = [lab.application("tickets.py", f"application {number}", *arguments) for number in (1, 2, 3)]
        nginx = Balancer(lab, applications[:2])
        browsers = [Browser(nginx.port) for _ in range(USERS)]
        for number, browser in enumerate(browsers):
            browser.ask(f"/login?user=user{number}")
        if age:
            age_sessions(server)
        server.forget()
        answers = ask_together(browsers, "/whoami", ROUNDS)
        commands = server.commands()

        nginx.balance(applications)
        lost_by_adding = refused(browsers)
        nginx.balance(applications[1:])
        applications[0].stop()
        lost_by_removing = refused(browsers)

        copy = Browser(nginx.port, cookies=browsers[0].cookies)
        browsers[0].ask("/logout")
        return {
            "sessions as kept by": shown,
            "sessions": USERS,
            "requests": len(answers),
            "refused": sum(each.status != 200 for each in answers),
            "Redis commands": commands,
            "commands/1,000 requests": 1000 * commands / len(answers),
            "lost by adding": lost_by_adding,
            "lost by removing": lost_by_removing,
            "copies admitted after logout": sum(copy.ask("/whoami").status == 200 for _ in range(COPIES)),
        }


def refused(browsers: Sequence[Browser]) -> int:
    return sum(browser.ask("/whoami").status != 200 for browser in browsers)


def age_sessions(server: RedisServer) -> None:
    """Make the sessions look unused for slightly more than half the idle timeout."""
    last_access_ms = int(time.time() * 1000) - IDLE_TIMEOUT_S * 500 - 1000
    for session_id in server.client.hkeys(Linkis.KEY):
        server.client.hset(Linkis.KEY, session_id, last_access_ms)


TITLE = "5. Redis on every request"

if __name__ == "__main__":
    table.run(TITLE, measure)

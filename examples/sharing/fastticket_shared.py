"""6. fastticket: two gateways in turns, two applications behind them, one Redis that is asked almost never.

The interceptor example (`users.py`): everything but login and logout needs a ticket, and who has none reads "please log in". The
gateway says 401, nginx puts the words; no application has a line for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import table
from balancer import Balancer
from browser import Answer, Browser, ask_together
from gateway import Gateway
from lab import Lab, Program, wait_until
from redis_server import RedisServer

from fastticket.keyfile import create_key_file

USERS = 64
COPIES = 10  # requests with a copy of a cookie
ROUNDS = 250  # of a request by everybody: 16,000
PLEASE_LOG_IN = {"message": "please log in"}
INTERCEPTOR = f"""
proxy_intercept_errors on;
error_page 401 /please-log-in;
location = /please-log-in {{
  internal;
  default_type "application/json; charset=utf-8";
  return 401 '{json.dumps(PLEASE_LOG_IN)}';
}}
"""


class Fleet:
    """What runs, and what it answered."""

    def __init__(self, lab: Lab) -> None:
        create_key_file(lab.folder / "keys.toml")
        self._lab = lab
        self.redis = RedisServer(lab)
        self.applications = [self._application(1), self._application(2)]
        self.gateways = [self._gateway(1), self._gateway(2)]
        self.nginx = Balancer(lab, self._programs(), directives=INTERCEPTOR)

    def add_gateway(self) -> None:
        self.gateways.append(self._gateway(3))
        self.nginx.balance(self._programs())

    def remove_gateway(self) -> None:
        leaving = self.gateways.pop(0)
        self.nginx.balance(self._programs())
        leaving.program.stop()

    def add_application(self) -> None:
        self.applications.append(self._application(3))
        self._balance()

    def remove_application(self) -> None:
        leaving = self.applications.pop(0)
        self._balance()
        leaving.stop()

    def _balance(self) -> None:
        for gateway in self.gateways:
            gateway.balance(self.applications)

    def _application(self, number: int) -> Program:
        return self._lab.application("users.py", f"application {number}", "keys.toml")

    def _gateway(self, number: int) -> Gateway:
        return Gateway(self._lab, f"gateway {number}", self.redis.url, self.applications)

    def _programs(self) -> list[Program]:
        return [gateway.program for gateway in self.gateways]

    def row(self, step: str, answers: Sequence[Answer], **more: object) -> table.Row:
        """`refused`: with 401 and the words, or for a wrong password."""
        return {
            "step": step,
            "gateways": len(self.gateways),
            "applications": len(self.applications),
            "requests": len(answers),
            "admitted": sum(each.status == 200 for each in answers),
            "refused": sum(is_refusal(each) for each in answers),
            "session ids": None,
            "requests/s": None,
            "commands/s": None,
            "commands/1,000 requests": None,
            "refused after, ms": None,
            **more,
        }


def measure() -> list[table.Row]:
    with Lab() as lab:
        fleet = Fleet(lab)
        browsers = [Browser(fleet.nginx.port) for _ in range(USERS)]
        rows = [
            *without_ticket(fleet, browsers[0]),
            fleet.row("everybody logs in", [log_in(browser, user) for user, browser in enumerate(browsers, 1)]),
            loaded(fleet, browsers),
        ]
        changes = {
            "a gateway is added": fleet.add_gateway,
            "a gateway is removed": fleet.remove_gateway,
            "an application is added": fleet.add_application,
            "an application is removed": fleet.remove_application,
        }
        for change, make in changes.items():
            make()
            rows.append(fleet.row(change, find(browsers)))
        rows += logged_out(fleet, browsers[0])
        return rows


def is_refusal(answer: Answer) -> bool:
    return answer.status == 403 or (answer.status == 401 and json.loads(answer.text) == PLEASE_LOG_IN)


def without_ticket(fleet: Fleet, browser: Browser) -> list[table.Row]:
    return [
        fleet.row("without a ticket: find, session", [browser.ask("/user/find/user1"), browser.ask("/user/session")]),
        fleet.row("without a ticket: logout", [browser.ask("/user/logout")]),
        fleet.row("a wrong password", [browser.ask("/user/login?username=user1&password=user2")]),
    ]


def log_in(browser: Browser, user: int) -> Answer:
    return browser.ask(f"/user/login?username=user{user}&password=user{user}")


def find(browsers: Sequence[Browser]) -> list[Answer]:
    """Everybody, so often that each gateway and each application has its turn."""
    return [browser.ask("/user/find/user1") for _ in range(4) for browser in browsers]


def loaded(fleet: Fleet, browsers: Sequence[Browser]) -> table.Row:
    """As many requests a second as there can be: what fastticket asks Redis depends on time, not on requests."""
    fleet.redis.forget()
    began_s = time.monotonic()
    answers = ask_together(browsers, "/user/session", ROUNDS)
    elapsed_s = time.monotonic() - began_s
    commands = fleet.redis.commands()
    ids = {json.loads(each.text)["session"] for each in answers}
    return fleet.row(
        "everybody asks for the session's id",
        answers,
        **{
            "session ids": len(ids),
            "requests/s": round(len(answers) / elapsed_s),
            "commands/s": round(commands / elapsed_s),
            "commands/1,000 requests": 1000 * commands / len(answers),
        },
    )


def logged_out(fleet: Fleet, browser: Browser) -> list[table.Row]:
    """At one gateway; a copy of the cookie is refused at the other."""
    here, there = (Browser(gateway.program.port, cookies=browser.cookies) for gateway in fleet.gateways)
    there.ask("/user/session")  # now that one has it in its near cache
    left = here.ask("/user/logout")
    at_s = time.monotonic()
    wait_until(lambda: there.ask("/user/session").status == 401, "the other gateway refuses")
    elapsed_ms = 1000 * (time.monotonic() - at_s)
    copy = Browser(fleet.nginx.port, cookies=browser.cookies)
    refusals = [copy.ask("/user/find/user1") for _ in range(COPIES)]
    return [
        fleet.row("user1 logs out at one gateway", [left]),
        fleet.row("a copy of the cookie", refusals, **{"refused after, ms": elapsed_ms}),
    ]


TITLE = "6. fastticket: two gateways, two applications, one Redis"

if __name__ == "__main__":
    table.run(TITLE, measure)

"""6. fastticket: two gateways in turns, two applications behind them, and one Redis that is asked
almost never.

The interceptor example (`users.py`): every path but login and logout needs a ticket, and a request
without one gets "please log in". The gateway answers 401, and nginx puts the words; the
applications have no code for it. The values that the applications keep in sessions
(`shared_values.py`) are found wherever the next request arrives.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence

import table
from balancer import Balancer
from browser import Answer, Browser, ask_together
from gateway import Gateway
from lab import Lab, Program, wait_until
from redis_server import RedisServer

from fastticket.keyfile import create_key_file

USERS = 63  # odd, so that turns take a user to another gateway each time
VALUES = [f"value-of-user{user}" for user in range(1, USERS + 1)]
COPIES = 10  # requests with a copy of a cookie
ROUNDS = 250  # each user sends so many requests: 15,750 in all
TURNS = 4  # of each user: to each of two gateways, and from there to each of two applications
IN_TURNS = [value for value in VALUES for _ in range(TURNS)]
FOR_VALUES = re.compile(r" [\w-]{22} user\d+( |$)")  # of a command that reads or writes values: session id and user
KNOWN = "known everywhere after, ms"
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
    """The running programs, and the rows of the table."""

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
        return self._lab.application("shared_values.py", f"application {number}", "keys.toml", self.redis.url)

    def _gateway(self, number: int) -> Gateway:
        return Gateway(self._lab, f"gateway {number}", self.redis.url, self.applications)

    def _programs(self) -> list[Program]:
        return [gateway.program for gateway in self.gateways]

    def row(self, step: str, answers: Sequence[Answer], **more: object) -> table.Row:
        """Add a row. `refused` counts 401 with the expected words, and answers to a wrong
        password.
        """
        return {
            "step": step,
            "gateways": len(self.gateways),
            "applications": len(self.applications),
            "requests": len(answers),
            "admitted": sum(each.status == 200 for each in answers),
            "refused": sum(is_refusal(each) for each in answers),
            "session ids": None,
            "values found": None,
            "requests/s": None,
            "commands/s": None,
            "commands/1,000 requests": None,
            "sent for values": None,
            KNOWN: None,
            **more,
        }


def measure() -> list[table.Row]:
    with Lab() as lab:
        fleet = Fleet(lab)
        browsers = [Browser(fleet.nginx.port) for _ in range(USERS)]
        rows = [
            *without_ticket(fleet, browsers[0]),
            fleet.row("everybody logs in", [log_in(browser, user) for user, browser in enumerate(browsers, 1)]),
            asked_for_ids(fleet, browsers),
            *values_kept(fleet, browsers),
        ]
        changes = {
            "a gateway is added": fleet.add_gateway,
            "a gateway is removed": fleet.remove_gateway,
            "an application is added": fleet.add_application,
            "an application is removed": fleet.remove_application,
        }
        for change, make in changes.items():
            make()
            rows.append(asked_after(fleet, change, browsers))
        rows.append(another_value(fleet, browsers[0]))
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


def ask_in_turns(browsers: Sequence[Browser], target: str) -> list[Answer]:
    """Each user asks so often that each gateway and each application has its turn."""
    return [browser.ask(target) for browser in browsers for _ in range(TURNS)]


def asked_for_ids(fleet: Fleet, browsers: Sequence[Browser]) -> table.Row:
    """Request the session's id at the highest possible rate: what fastticket asks Redis depends on
    time, not on requests.
    """
    answers, figures = counted(fleet, lambda: ask_together(browsers, "/user/session", ROUNDS))
    ids = {json.loads(each.text)["session"] for each in answers}
    return fleet.row("everybody asks for the session's id", answers, **{"session ids": len(ids)}, **figures)


def counted(fleet: Fleet, ask: Callable[[], list[Answer]]) -> tuple[list[Answer], dict[str, object]]:
    """The answers, and their cost. Redis' count includes what scripts call; `sent for values` does
    not.
    """
    with fleet.redis.overheard() as sent:
        fleet.redis.forget()
        began_s = time.monotonic()
        answers = ask()
        elapsed_s = time.monotonic() - began_s
        commands = fleet.redis.commands()
    return answers, {
        "requests/s": round(len(answers) / elapsed_s),
        "commands/s": round(commands / elapsed_s),
        "commands/1,000 requests": 1000 * commands / len(answers),
        "sent for values": sum(bool(FOR_VALUES.search(command)) for command in sent),
    }


def values_kept(fleet: Fleet, browsers: Sequence[Browser]) -> list[table.Row]:
    """Write values at one application, and read them at both. Each application then has its own
    copy.
    """
    wrote, of_writes = counted(fleet, lambda: [set_value(*each) for each in zip(browsers, VALUES, strict=True)])
    first, of_first = counted(fleet, lambda: ask_in_turns(browsers, "/get-session"))
    again, of_again = counted(fleet, lambda: ask_together(browsers, "/get-session", ROUNDS))
    return [
        fleet.row("everybody sets a value", wrote, **of_writes),
        fleet.row("everybody asks for the value", first, **{"values found": found(first, IN_TURNS)}, **of_first),
        fleet.row("everybody asks for it again", again, **{"values found": found(again, VALUES * ROUNDS)}, **of_again),
    ]


def set_value(browser: Browser, value: str) -> Answer:
    return browser.ask(f"/set-session?sessionVal={value}")


def found(answers: Sequence[Answer], values: Sequence[str]) -> int:
    """How many answers are the values that their users have set."""
    return sum(answer.text == value for answer, value in zip(answers, values, strict=True))


def asked_after(fleet: Fleet, change: str, browsers: Sequence[Browser]) -> table.Row:
    finds, values = (ask_in_turns(browsers, target) for target in ("/user/find/user1", "/get-session"))
    return fleet.row(change, [*finds, *values], **{"values found": found(values, IN_TURNS)})


def another_value(fleet: Fleet, browser: Browser) -> table.Row:
    """Set another value, when each application has a copy of the one before."""
    wrote = set_value(browser, "another")
    at_s = time.monotonic()
    wait_until(lambda: all(each.text == "another" for each in ask_in_turns([browser], "/get-session")), "all read it")
    return fleet.row("user1 sets another value", [wrote], **{KNOWN: 1000 * (time.monotonic() - at_s)})


def logged_out(fleet: Fleet, browser: Browser) -> list[table.Row]:
    """Log out at one gateway, and try a copy of the cookie at the other, which refuses it."""
    here, there = (Browser(gateway.program.port, cookies=browser.cookies) for gateway in fleet.gateways)
    there.ask("/user/session")  # so that this gateway holds it in its near cache
    left = here.ask("/user/logout")
    at_s = time.monotonic()
    wait_until(lambda: there.ask("/user/session").status == 401, "the other gateway refuses")
    elapsed_ms = 1000 * (time.monotonic() - at_s)
    copy = Browser(fleet.nginx.port, cookies=browser.cookies)
    refusals = [copy.ask("/user/find/user1") for _ in range(COPIES)]
    return [
        fleet.row("user1 logs out at one gateway", [left]),
        fleet.row("a copy of the cookie", refusals, **{KNOWN: elapsed_ms}),
    ]


TITLE = "6. fastticket: two gateways, two applications, one Redis"

if __name__ == "__main__":
    table.run(TITLE, measure)

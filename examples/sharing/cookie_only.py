"""4. The cookie alone: a signed ticket, and no store. Every server can check it, and none can
revoke it.

A logout clears the cookie in the browser that logged out. A copy of it remains valid until it
expires, or until the key is replaced, which logs out everybody.
"""

from __future__ import annotations

import table
from balancer import Balancer
from browser import Browser
from lab import Lab, Program, wait_until

from fastticket.keyfile import create_key_file

ASKED = 10
LONG_S, SHORT_S = 3600, 2
NAMES = {"user1": "a name of 5 bytes", "u" * 190: "a name of 190 bytes"}


def measure() -> list[table.Row]:
    with Lab() as lab:
        create_key_file(lab.folder / "keys.toml")
        create_key_file(lab.folder / "other-keys.toml")
        long, short = (applications(lab, "keys.toml", lifetime_s) for lifetime_s in (LONG_S, SHORT_S))
        other = applications(lab, "other-keys.toml", LONG_S)
        nginx = Balancer(lab, long)
        rows = [ask(f"logged in, {what}", logged_in(nginx, name)) for name, what in NAMES.items()]

        browser = logged_in(nginx, "user1")
        nginx.balance([*long, *short])
        rows.append(ask("servers are added", browser))
        nginx.balance(long[1:])
        long[0].stop()
        rows.append(ask("a server is removed", browser))

        copy = logged_out(browser)
        rows.append(ask("logged out", browser))
        rows.append(ask("logged out, a copy of the cookie", copy))
        rows.append(ask("a copy, changed by one character", changed(copy)))

        nginx.balance(short)
        brief = logged_out(logged_in(nginx, "user1"))
        wait_until(lambda: brief.ask("/whoami").status == 401, "it expires")
        rows.append(ask("a copy, once it has expired", brief))

        nginx.balance(other)
        rows.append(ask("a copy, the key replaced", copy))
        return rows


def applications(lab: Lab, keys: str, lifetime_s: int) -> list[Program]:
    """Two applications with the same key that know nothing of each other."""
    return [lab.application("tickets.py", f"{keys}, {lifetime_s} s, {number}", keys, lifetime_s) for number in (1, 2)]


def logged_in(nginx: Balancer, name: str) -> Browser:
    browser = Browser(nginx.port)
    browser.ask(f"/login?user={name}")
    return browser


def logged_out(browser: Browser) -> Browser:
    """Another browser, with a copy of the cookie from before the logout."""
    copy = Browser(browser.port, cookies=browser.cookies)
    browser.ask("/logout")
    return copy


def changed(copy: Browser) -> Browser:
    """The ticket with one character of the principal changed."""
    ticket = copy.cookies["ticket"]
    at = len(ticket) // 2
    other = "A" if ticket[at] != "A" else "B"
    return Browser(copy.port, cookies={"ticket": ticket[:at] + other + ticket[at + 1 :]})


def ask(situation: str, browser: Browser) -> table.Row:
    statuses = [browser.ask("/whoami").status for _ in range(ASKED)]
    ticket = browser.cookies.get("ticket")
    return {
        "situation": situation,
        "requests": ASKED,
        "admitted": statuses.count(200),
        "refused": statuses.count(401),
        "cookie, bytes": len(f"ticket={ticket}") if ticket else 0,
    }


TITLE = "4. The cookie alone: a signed ticket, no store"

if __name__ == "__main__":
    table.run(TITLE, measure)

"""The budgets of the design, each with the figure that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import figures
from figures import Figure


class Budget(NamedTuple):
    """A figure that is to be at most so much; or at least, if `is_minimum`."""

    text: str
    figure: str
    bound: float
    is_minimum: bool = False

    @property
    def wanted(self) -> str:
        """The bound as text."""
        return f"{'≥' if self.is_minimum else '≤'} {self.bound:g}"

    def is_met(self, found: Mapping[str, Figure]) -> bool:
        """Whether the figure that was measured is within the bound."""
        return self._holds(found[self.figure]["value"])

    def said(self, found: Mapping[str, Figure]) -> str:
        """The figure as text, with as many digits as show on which side of its bound it is."""
        value = found[self.figure]["value"]
        texts = (figures.said(value), f"{value:.3f}", f"{value:.4f}")
        return next(
            (text for text in texts if self._holds(float(text.replace(",", ""))) == self._holds(value)), texts[-1]
        )

    def _holds(self, value: float) -> bool:
        return value >= self.bound if self.is_minimum else value <= self.bound


BUDGETS = [
    Budget(
        "gateway CPU a request ÷ nginx proxy_pass, which authenticates nobody", "gateway/ratio/fastticket ÷ nginx", 0.75
    ),
    Budget("the same, with a Unix socket to the upstream", "gateway/fastticket, Unix upstream/cpu ÷ nginx", 0.58),
    Budget("of it in user mode, µs", "gateway/fastticket/user", 1.5),
    Budget("÷ nginx + auth_request", "gateway/ratio/fastticket ÷ nginx, auth_request", 0.50),
    Budget("÷ haproxy + jwt_verify", "gateway/ratio/fastticket ÷ haproxy, jwt_verify", 0.67),
    Budget("÷ nginx + Lua + Redis", "gateway/ratio/fastticket ÷ nginx, Lua, HMAC, Redis", 0.30),
    Budget(
        "naive per-request path, as usual ÷ gateway",
        "gateway/ratio/naive: aiohttp, itsdangerous ÷ fastticket",
        25,
        True,
    ),
    Budget("naive per-request path, done well ÷ gateway", "gateway/ratio/naive: GET, EXPIRE ÷ fastticket", 25, True),
    Budget("p99 at 64 connections ÷ nginx proxy_pass", "gateway/ratio/p99: fastticket ÷ nginx", 0.8),
    Budget("p99 at 256 connections ÷ nginx proxy_pass", "gateway at 256/ratio/p99: fastticket ÷ nginx", 0.8),
    Budget("two threads ÷ one: requests/s on two cores, by CPU", "scale/threads/ratio/requests", 1.8, True),
    Budget("two threads ÷ one: store commands", "scale/threads/ratio/commands", 1.05),
    Budget("two threads ÷ one: touches", "scale/threads/ratio/touches", 1.05),
    Budget("reload at 10,000 requests/s, 100,000 sessions held: loaded again", "reload/loads", 0),
    Budget("reload: requests failed", "reload/failed", 0),
    Budget(
        "store commands for 1,000 requests (1,000 sessions, 10,000 requests/s)", "store load/fastticket/commands", 10
    ),
    Budget("CPU of a flush, µs a session touched", "flush/cpu", 0.5),
    Budget("the longest that a flush of 20,000 holds the event loop, ms", "flush/loop held", 0.2),
    Budget("itsdangerous unsign ÷ cached check", "core/ratio/unsign ÷ cached check", 100, True),
    Budget("itsdangerous unsign ÷ check with HMAC", "core/ratio/unsign ÷ check with HMAC", 30, True),
    Budget("near cache, bytes a session (principal of 24 bytes)", "core/near cache, bytes a session", 160),
    Budget("cost of a hit at 1,000,000 sessions ÷ at 1,000", "core/ratio/hit at 1,000,000 ÷ at 1,000", 3),
    Budget("Redis, bytes a session (1,000,000, one a user)", "store memory/fastticket", 290),
    Budget(
        "revocation: last admission after the logout, ms (lease_ms 2,000)", "revocation/blocked/last_admitted", 2000
    ),
]


def measured(found: Mapping[str, Figure]) -> list[Budget]:
    """Those that these figures show."""
    return [budget for budget in BUDGETS if budget.figure in found]


def lines(found: Mapping[str, Figure]) -> Iterator[str]:
    """Each of those, with its figure."""
    for budget in measured(found):
        verdict = "met" if budget.is_met(found) else "MISSED"
        yield f"{budget.text:72} {budget.said(found):>9}  wanted {budget.wanted:8} {verdict}"


def all_met(found: Mapping[str, Figure]) -> bool:
    """Whether all budgets that were measured are met."""
    return all(budget.is_met(found) for budget in measured(found))

"""The parsers that are Python, compared with their twins: properties files
(tests/lab/java_properties.py), cookies (those of cookiefields.pyx).

Inputs are made of pieces that mean something, and of earlier inputs that reached lines of a parser
which no other had reached.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

from lab import java_properties  # noqa: E402

from fastticket.dataplane.cookiefields import cookies_named  # noqa: E402
from fastticket.gateway.properties import MalformedProperties, read_properties  # noqa: E402
from fastticket.web.cookies import TicketCookie  # noqa: E402

PIECES_MAX = 24
KEPT_MAX = 2000
PROPERTIES = [
    *(
        "a",
        "b",
        "=",
        ":",
        " ",
        "\t",
        "\f",
        "#",
        "!",
        "\\",
        "\n",
        "\r",
        "\r\n",
        "\\\n",
        "\\\r\n",
        "\u2028",
        "\x85",
        "\v",
        "\x1c",
    ),
    *(
        "\ufeff",
        "é",
        "文",
        "𝄞",
        "\0",
        "\\u0041",
        "\\u12",
        "\\uD834",
        "\\uDD1E",
        "\\u",
        "\\t",
        "\\n",
        "\\=",
        "0",
        "D",
        "key",
        "value",
    ),
]
COOKIES = [
    "ticket",
    "=",
    ";",
    "; ",
    " ",
    "\t",
    "a",
    '"',
    ",",
    "ticket=",
    "ticket=x",
    "tickets=y",
    "é",
    "\\",
    "%3B",
    "TICKET=",
    "-seen",
]


def check_properties(text: str) -> str:
    """How the readers of properties files differ on an input; empty if they agree."""
    try:
        ours: object = read_properties(text)
    except MalformedProperties:
        ours = "malformed"
    try:
        theirs: object = java_properties.load(text)
    except java_properties.Malformed:
        theirs = "malformed"
    return "" if ours == theirs else f"properties {text!r}: {ours!r}, not {theirs!r}"


def check_cookies(text: str) -> str:
    """How the readers of Cookie differ on an input; empty if they agree."""
    count, last = cookies_named(text.encode(), b"ticket")
    theirs = last.decode() if count == 1 else ""
    ours = TicketCookie().find(text)
    return "" if ours == theirs else f"cookies {text!r}: {ours!r}, not {theirs!r}"


CHECKS: list[tuple[Callable[[str], str], list[str]]] = [(check_properties, PROPERTIES), (check_cookies, COOKIES)]


class Reached:
    """Which lines of the two parsers have run."""

    FILES = ("properties.py", "cookies.py")

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._new = False

    def follow(self, check: Callable[[str], str], text: str) -> tuple[str, bool]:
        """What a check says, and whether it ran a line for the first time."""
        self._new = False
        sys.settrace(self._trace)
        try:
            return check(text), self._new
        finally:
            sys.settrace(None)

    def _trace(self, frame, event, _):  # type: ignore[no-untyped-def]
        if not frame.f_code.co_filename.endswith(self.FILES):
            return None
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and place not in self.lines:
            self.lines.add(place)
            self._new = True
        return self._trace


def mutated(text: str, pieces: list[str], choose: random.Random) -> str:
    at, to = sorted(choose.choices(range(len(text) + 1), k=2))
    return (
        text[:at] + "".join(choose.choices(pieces, k=choose.randrange(4))) + text[to if choose.random() < 0.5 else at :]
    )


def run(runs: int, seed: int) -> tuple[int, str]:
    """How many executions there were, and the finding that ended them, or empty. Every hundredth
    execution is traced line by line.
    """
    choose = random.Random(seed or None)
    reached = Reached()
    kept: list[list[str]] = [[] for _ in CHECKS]
    for number in range(runs):
        which = number % len(CHECKS)
        check, pieces = CHECKS[which]
        if kept[which] and choose.random() < 0.5:
            text = mutated(choose.choice(kept[which]), pieces, choose)
        else:
            text = "".join(choose.choices(pieces, k=choose.randrange(PIECES_MAX)))
        if number % 100 < len(CHECKS):
            said, is_new = reached.follow(check, text)
        else:
            said, is_new = check(text), choose.random() < 0.001
        if said:
            return number + 1, said
        if is_new and len(kept[which]) < KEPT_MAX:
            kept[which].append(text)
    return runs, ""

"""The parsers that are Python, compared with their twins: properties files
(tests/lab/java_properties.py), cookies (those of cookiefields.pyx).
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

from guided import Check  # noqa: E402
from lab import java_properties  # noqa: E402

from fastticket.dataplane.cookiefields import cookies_named  # noqa: E402
from fastticket.gateway.properties import MalformedProperties, read_properties  # noqa: E402
from fastticket.web.cookies import TicketCookie  # noqa: E402

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


CHECKS = [
    Check(check_properties, "gateway/properties.py", PROPERTIES),
    Check(check_cookies, "web/cookies.py", COOKIES),
]

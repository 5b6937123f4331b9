"""`man fastticket`, from the parser of the command line: docs/man/fastticket.1, which a wheel
installs below share/man.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from fastticket.commands.cli import parser
from fastticket.commands.examples import EXAMPLES, every_command
from fastticket.gateway.reader import STORE_VARIABLE
from generators.commands import name_of, says, shown, usage_of

KEYS_VARIABLE = "FASTTICKET_KEYS"

AFTER = f"""\
.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
there was nothing to end; a ticket is not good, or its session has ended (inspect); something is
away (probe, status); or the command failed
.TP
.B 2
bad usage or configuration
.SH ENVIRONMENT
.TP
.B {STORE_VARIABLE}
the store's URL, where neither \\-\\-store nor \\-\\-config is given
.TP
.B {KEYS_VARIABLE}
the key ring, as id:secret,id:secret, where neither \\-\\-keys nor \\-\\-config is given
"""


def man_page(version: str) -> str:
    """The page, in the macros of man(7)."""
    whole = parser()
    return "\n".join(
        [
            f'.TH FASTTICKET 1 "" "fastticket {version}" "User Commands"',
            ".ad l",
            ".nh",
            ".SH NAME",
            "fastticket \\- session tickets: a gateway, and tools around it",
            ".SH SYNOPSIS",
            ".B fastticket",
            ".I COMMAND",
            "[options]",
            ".SH DESCRIPTION",
            "Runs a gateway that knows by a signed ticket whose session each request is of, and works on",
            "its sessions, keys and configuration.",
            ".SH COMMANDS",
            *(line for name, says, command in every_command(whole) for line in _section(name, says, command)),
            AFTER,
        ]
    )


def _section(name: str, text: str, command: argparse.ArgumentParser) -> Iterator[str]:
    if not shown(command):
        return  # it has commands of its own, which say all
    yield f".SS {_roff(name)}"
    yield _roff(f"{text[0].upper()}{text[1:]}.")
    yield ".PP"
    yield f".B {_roff(usage_of(command))}"
    for action in shown(command):
        yield ".TP"
        yield f".B {_roff(name_of(action))}"
        yield _roff(says(command, action))
    if name in EXAMPLES:
        yield ".PP"
        yield "Examples:"
    for typed, does in EXAMPLES.get(name, ()):
        yield ".IP"
        yield f".B {_roff(typed)}"
        yield ".br"
        yield _roff(does)


def _roff(text: str) -> str:
    """A line that roff prints as it stands. It may break a long name after a dot."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub(r"\S{50,}", lambda found: found[0].replace(".", r".\:"), escaped)
    return re.sub(r"^([.'])", r"\\&\1", escaped)

"""`fastticket completion`: a script by which a shell completes commands, options and files.

`shtab` writes it from the parser; it is in the extra `completion`, and only asked for here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from fastticket.commands.schemas import SCHEMAS
from fastticket.errors import ConfigError

SHELLS = ("bash", "zsh")
#: Options and arguments whose value is a file, by the name that the help has for it.
FILES = ("FILE",)
FOLDERS = ("DIR",)
COMMANDS = ("COMMAND",)  #: one that prints JSON


def print_completion(options: argparse.Namespace, parser: Callable[[], argparse.ArgumentParser]) -> int:
    """Print the script of a shell, for the commands of `parser`. ConfigError: without shtab."""
    try:
        import shtab
    except ImportError:
        raise ConfigError("completion needs the package shtab: pip install 'fastticket[completion]'") from None
    whole = parser()
    _name_values(whole, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(whole, options.shell))
    return 0


def _name_values(parser: argparse.ArgumentParser, file: Mapping[str, Any], folder: Mapping[str, Any]) -> None:
    """Say to shtab which values are files, or commands: it looks for an attribute of the action."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_values(command, file, folder)
        elif action.metavar in FILES:
            action.complete = file  # type: ignore[attr-defined]
        elif action.metavar in FOLDERS:
            action.complete = folder  # type: ignore[attr-defined]
        elif action.metavar in COMMANDS:
            action.choices = sorted({word for name in SCHEMAS for word in name.split()})

"""Every command with its options, from the parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fastticket.commands.cli import parser
from generators.tables import table


def _below(command: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Its own commands, with what the help says of each."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            yield from ((each, said[name]) for name, each in action.choices.items())


def _shown(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in command._actions
        if action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    ]


def _value(action: argparse.Action) -> str:
    name = action.metavar or action.dest.upper()
    return str(name) if action.nargs != 0 else ""


def _name(action: argparse.Action) -> str:
    return " ".join([", ".join(action.option_strings), _value(action)]) if action.option_strings else _value(action)


def _brief(action: argparse.Action) -> str:
    """As a line of usage has it."""
    text = f"{action.option_strings[-1]} {_value(action)}".strip() if action.option_strings else _value(action)
    return text if action.required and action.nargs != "?" else f"[{text}]"


def _says(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = command._get_formatter()
    return formatter._expand_help(action) if action.help else ""


def _section(command: argparse.ArgumentParser, says: str, depth: int) -> Iterator[str]:
    below = list(_below(command))
    shown = _shown(command)
    usage = " ".join([command.prog, *map(_brief, shown), *(["COMMAND"] if below else [])])
    yield f"{'#' * depth} {command.prog}\n\n{says[0].upper()}{says[1:].rstrip('.')}.\n\n`{usage}`\n"
    if shown:
        rows = [[f"`{_name(action)}`", _says(command, action)] for action in shown]
        yield table(["argument", "meaning"], rows) + "\n"
    for each, text in below:
        yield from _section(each, text, depth + 1)


def commands(_: str) -> str:
    """A section for each command."""
    whole = parser()
    options = [[f"`{_name(action)}`", _says(whole, action)] for action in _shown(whole)]
    first = [table(["option", "meaning"], options) + "\n"] if options else []
    return "\n".join([*first, *(part for command, text in _below(whole) for part in _section(command, text, 2))])


BLOCKS = {"commands": commands}

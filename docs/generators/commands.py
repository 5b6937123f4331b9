"""Every command with its options, from the parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fastticket.commands.cli import parser
from fastticket.commands.examples import EXAMPLES
from fastticket.commands.schemas import SCHEMAS
from generators.tables import table


def _below(command: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Its own commands, with what the help says of each."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            yield from ((each, said[name]) for name, each in action.choices.items())


def shown(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """Its arguments and options."""
    return [
        action
        for action in command._actions
        if action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    ]


def _value(action: argparse.Action) -> str:
    name = action.metavar or action.dest.upper()
    return str(name) if action.nargs != 0 else ""


def name_of(action: argparse.Action) -> str:
    """As `--store URL`."""
    return " ".join([", ".join(action.option_strings), _value(action)]) if action.option_strings else _value(action)


def _brief(action: argparse.Action) -> str:
    """As a line of usage has it."""
    text = f"{action.option_strings[-1]} {_value(action)}".strip() if action.option_strings else _value(action)
    return text if action.required and action.nargs not in ("?", "*") else f"[{text}]"


def usage_of(command: argparse.ArgumentParser) -> str:
    """A line of usage."""
    return " ".join([command.prog, *map(_brief, shown(command)), *(["COMMAND"] if list(_below(command)) else [])])


def says(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What the help says of an argument."""
    formatter = command._get_formatter()
    return formatter._expand_help(action) if action.help else ""


def _section(command: argparse.ArgumentParser, text: str, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {command.prog}\n\n{text[0].upper()}{text[1:].rstrip('.')}.\n\n`{usage_of(command)}`\n"
    if actions := shown(command):
        rows = [[f"`{name_of(action)}`", says(command, action)] for action in actions]
        yield table(["argument", "meaning"], rows) + "\n"
    name = command.prog.partition(" ")[2]
    if name in EXAMPLES:
        yield "Examples:\n\n" + "\n".join(f"- `{typed}`: {does}" for typed, does in EXAMPLES[name]) + "\n"
    for each, text in _below(command):
        yield from _section(each, text, depth + 1)


def commands(_: str) -> str:
    """A section for each command."""
    whole = parser()
    options = [[f"`{name_of(action)}`", says(whole, action)] for action in shown(whole)]
    first = [table(["option", "meaning"], options) + "\n"] if options else []
    return "\n".join([*first, *(part for command, text in _below(whole) for part in _section(command, text, 2))])


def schemas(_: str) -> str:
    """The commands whose `--json` has a schema, each with what is to be known beside it."""
    return table(["command", "prints"], [[f"`{name}`", _kind(name)] for name in SCHEMAS])


def _kind(name: str) -> str:
    text, schema = SCHEMAS[name]
    kinds = dict.fromkeys(f"an {each['type']}" for each in schema.get("anyOf", [schema]))
    return f"{' or '.join(kinds)}. {text}".strip()


BLOCKS = {"commands": commands, "schemas": schemas}

"""What `--help` shows below the options of each command: examples.
tests/commands/test_command_examples.py runs every one of them.

They are of an operator who has `fastticket.toml` (with `[gateway] admin = "unix:admin.sock"`) and
`keys.toml` in the current folder, whose gateway runs, and whose old sessions are in a Redis on
127.0.0.1:6379.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

CONFIG = "--config fastticket.toml"

#: Command -> (what to type, what that does).
EXAMPLES: Mapping[str, Sequence[tuple[str, str]]] = {
    "serve": [
        (f"fastticket serve {CONFIG}", "until SIGTERM; SIGHUP reloads"),
        ("fastticket serve --upstream 127.0.0.1:9001 --keys keys.toml", "on 127.0.0.1:8080, with ./fastticket.db"),
    ],
    "demo": [("fastticket demo --port 0", "on a free port; its files are in ./demo")],
    "keygen": [("fastticket keygen --out new-keys.toml", "a ring of one key, mode 600")],
    "keys list": [
        ("fastticket keys list keys.toml", "ids, ages, and which one signs"),
        ("fastticket keys list keys.toml --admin unix:admin.sock --json", "with their uses in a running gateway"),
    ],
    "keys add": [("fastticket keys add keys.toml", "a new key, which verifies only")],
    "keys promote": [("fastticket keys promote keys.toml 2", "once every gateway has reloaded")],
    "keys retire": [
        ("fastticket keys retire keys.toml 1 --admin unix:admin.sock --watch-s 1", "unless it is still in use"),
    ],
    "issue": [(f"fastticket issue alice {CONFIG}", "a session, and its ticket on the standard output")],
    "inspect": [
        ('fastticket inspect "$TICKET" --keys keys.toml', "what it says, by the keys alone"),
        (f'echo "$TICKET" | fastticket inspect - {CONFIG}', "and whether its session lives in the store"),
    ],
    "sessions": [
        (f"fastticket sessions --user alice {CONFIG}", "those of one user"),
        (f"fastticket sessions --all --count {CONFIG}", "how many there are"),
        (f"fastticket sessions --all --json {CONFIG}", "every one; a session that moves meanwhile may come twice"),
    ],
    "revoke": [
        (f'fastticket revoke "$TICKET" {CONFIG}', "the session of a ticket"),
        (f"fastticket revoke --user alice {CONFIG}", "all sessions of a user"),
        (f'fastticket revoke --user alice --but="$SESSION_ID" {CONFIG}', "all but one"),
        (f"fastticket revoke --all --yes {CONFIG}", "everybody's: all have to log in again"),
    ],
    "events": [
        (f"fastticket events {CONFIG}", "as far back as the store's log goes"),
        (f"fastticket events --follow --json {CONFIG}", "and what comes, an object a line, until Ctrl-C"),
    ],
    "export": [
        (f"fastticket export sessions.jsonl {CONFIG}", "the same again, if it was killed: it goes on"),
    ],
    "import": [
        ("fastticket import sessions.jsonl --store sqlite:///other.db --dry-run", "what would be done"),
        ("fastticket import sessions.jsonl --store sqlite:///other.db", "the same again, if it was killed"),
    ],
    "migrate linkis": [
        (f"fastticket migrate linkis --from redis://127.0.0.1:6379/0 {CONFIG} --dry-run", "what would be done"),
    ],
    "migrate spring": [
        (f"fastticket migrate spring --from redis://127.0.0.1:6379/0 {CONFIG} --rate 500", "500 sessions a second"),
        (f"fastticket migrate spring --csv sessions.csv {CONFIG} --progress csv.progress", "of Spring Session JDBC"),
    ],
    "migrate flask-session": [
        (
            f"fastticket migrate flask-session --from redis://127.0.0.1:6379/0 {CONFIG} --principal-attribute user_id",
            'where session["user_id"] says who is logged in',
        ),
    ],
    "migrate starsessions": [
        (
            f"fastticket migrate starsessions --from redis://127.0.0.1:6379/0 {CONFIG} --principal-attribute user.name",
            'where session["user"]["name"] says who is logged in',
        ),
    ],
    "migrate oauth2-proxy": [
        (
            "fastticket migrate oauth2-proxy oauth2-proxy.cfg --out ours.toml",
            "and what has no counterpart, a line each",
        ),
        (
            "fastticket migrate oauth2-proxy oauth2-proxy.cfg --alpha-config alpha.yaml",
            "both files, if it was started with both",
        ),
    ],
    "copy": [
        (f"fastticket copy {CONFIG} --mirror sqlite:///mirror.db", "again and again, if it was killed"),
    ],
    "probe": [
        (f"fastticket probe {CONFIG}", "exit code 0: ready"),
        ("fastticket probe healthz --admin unix:admin.sock", "exit code 0: healthy"),
    ],
    "status": [
        (f"fastticket status {CONFIG}", "exit code 0: nothing is away"),
        ("fastticket status --admin unix:admin.sock --json", "for a monitoring script"),
    ],
    "top": [
        (
            f"fastticket top {CONFIG}",
            "q quits, s sorts by the next column, i the other way round, p pauses; g, u, k, r: what is listed",
        )
    ],
    "check-config": [
        (f"fastticket check-config {CONFIG}", "before a reload"),
        (f"fastticket check-config {CONFIG} --live", "and whether store and names answer from here"),
    ],
    "schema": [
        ("fastticket schema sessions", "what `fastticket sessions --json` prints, as a JSON Schema"),
        ("fastticket schema", "those of all commands, by name"),
    ],
    "completion": [
        ("fastticket completion bash", "write it to ~/.local/share/bash-completion/completions/fastticket"),
        ("fastticket completion zsh", "write it to a folder of $fpath, as _fastticket"),
    ],
}


def every_command(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """(name, what its line of the help says, parser) of all commands; "keys" before "keys list"."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                path = command.prog.partition(" ")[2]
                yield path, said[name], command
                yield from every_command(command)


def add_examples(parser: argparse.ArgumentParser) -> None:
    """To the help of every command of this parser, and what it does to its first line."""
    for name, says, command in every_command(parser):
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.description = f"{says[0].upper()}{says[1:]}."
        if examples := EXAMPLES.get(name):
            command.epilog = "examples:\n" + "\n".join(f"  {typed}\n      {does}" for typed, does in examples)

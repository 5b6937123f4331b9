"""The examples that `--help` shows are run, in the order of the commands, beside a gateway."""

import contextlib
import re
import shlex

import pytest
from conftest import OK
from lab.commands import Commands
from lab.operators_site import operators_site, use

from fastticket.commands.cli import main, parser
from fastticket.commands.examples import EXAMPLES, every_command
from fastticket.commands.options import config_of
from fastticket.core.ticket import Keyring
from fastticket.moving.sources.spring_jdbc import COLUMNS

#: What does not end by itself. Other tests run them; here the command line reads them.
ENDLESS = ("serve", "demo", "top")


@pytest.fixture(scope="module")
def commands():
    with contextlib.closing(Commands()) as made:
        yield made


def test_every_command_has_one_and_shows_it(capsys):
    for name, _, command in every_command(parser()):
        if command._defaults.get("run"):
            assert EXAMPLES[name]
            with pytest.raises(SystemExit):
                main([*name.split(), "--help"])
            shown = capsys.readouterr().out
            assert all(f"  {typed}\n      {does}\n" in shown for typed, does in EXAMPLES[name])
    assert set(EXAMPLES) <= {name for name, _, _ in every_command(parser())}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_goes_on_is_read(name, tmp_path, monkeypatch):
    with operators_site(tmp_path):
        monkeypatch.chdir(tmp_path)
        for typed, _ in EXAMPLES[name]:
            options = parser().parse_args(shlex.split(typed)[1:])
            assert name != "serve" or config_of(options)


def test_the_others_succeed(commands, tmp_path, redis_server, origin):
    with operators_site(tmp_path, application=origin(answer=OK).address) as site:
        (tmp_path / "sessions.csv").write_text(f"{','.join(COLUMNS)}\n")
        (tmp_path / "oauth2-proxy.cfg").write_text('http_address = "127.0.0.1:4180"\n')
        (tmp_path / "alpha.yaml").write_text("server:\n  bindAddress: 127.0.0.1:4180\n")
        ticket = issue(commands, tmp_path)
        use(site, ticket)
        for name, examples in EXAMPLES.items():
            for typed, _ in () if name in ENDLESS else examples:
                real = re.sub(r"127\.0\.0\.1:6379/(\d)", rf"{redis_server.address}/\1?timeout_ms=10000", typed)
                code, error = run(commands, real, ticket, tmp_path)
                assert code == 0, f"{typed}: {error}"
                if name in ("keys retire", "revoke"):  # it has ended what the next ones need
                    ticket = issue(commands, tmp_path)


def issue(commands, folder):
    return commands.run("issue", "alice", "--config", "fastticket.toml", cwd=folder)[1].decode().strip()


def run(commands, typed, ticket, folder):
    """As a shell does it: (exit code, what it says of an error)."""
    first, is_piped, second = typed.partition(" | ")
    session_id = Keyring.from_file(folder / "keys.toml").verify(ticket, 0).session_id
    if "$SESSION_ID" in typed:  # it stays, and another one ends
        issue(commands, folder)
    typed = (second if is_piped else first).replace('"$TICKET"', ticket).replace('"$SESSION_ID"', session_id)
    words = shlex.split(typed)
    assert words[0] == "fastticket"
    assert not is_piped or first == 'echo "$TICKET"'
    code, _, error = commands.run(
        *(word for word in words[1:] if word != "--follow"),  # which would not end; another test follows
        cwd=folder,
        stdin=f"{ticket}\n".encode() if is_piped else b"",
    )
    return code, error.decode()

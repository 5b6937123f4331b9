"""A shell completes what we print for it."""

import shutil
import subprocess
import sys

import pytest
from conftest import BOUND_S

from fastticket.commands.cli import main

#: Prints what bash offers for a line that is typed up to here.
BASH = """
source ./script
COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMP_LINE='{line}' COMP_POINT=99
_shtab_fastticket
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(tmp_path, capsys, monkeypatch):
    """Write the script of a shell into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(shell):
        assert main(["completion", shell]) == 0
        (tmp_path / "script").write_text(capsys.readouterr().out)
        return tmp_path / "script"

    return write


@pytest.fixture
def offered(script):
    """What bash offers."""
    script("bash")

    def ask(line):
        done = subprocess.run(
            ["bash", "--norc", "-c", BASH.format(line=line)], capture_output=True, text=True, timeout=BOUND_S
        )
        assert done.stderr == ""
        return done.stdout.split()

    return ask


def test_bash_offers_commands_options_and_files(offered, tmp_path):
    (tmp_path / "keys.toml").touch()
    assert set(offered("fastticket ke")) == {"keygen", "keys"}
    assert set(offered("fastticket keys ''")) >= {"list", "add", "promote", "retire"}
    assert "--user" in offered("fastticket sessions --u")
    assert "keys.toml" in offered("fastticket keys list k")
    assert "keys.toml" in offered("fastticket issue --keys k")
    assert set(offered("fastticket probe h")) == {"healthz"}
    assert {"keys", "status", "revoke"} <= set(offered("fastticket schema ''"))
    assert "--workers" not in offered("fastticket serve --w")  # a former name, which no help shows


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not here")
def test_zsh_can_read_it(script):
    done = subprocess.run(["zsh", "-n", script("zsh")], capture_output=True, text=True, timeout=BOUND_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_shtab_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'fastticket[completion]'" in capsys.readouterr().err

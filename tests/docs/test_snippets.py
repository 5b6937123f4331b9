"""Everything that the documents say to type is typed here: each fenced block is run or checked, by
its kind.

A block stands alone. It gets a folder with the files that documents name (`prepare`), and real
servers in the place of the addresses that they name (`with_real_addresses`). A block of another
kind, and an indented one, is an error: nobody has run it. `text` is for what nobody types. Not
tried here are pages with a test of their own, and blocks that say why not (lab/snippets.py).
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib

import pytest
from conftest import BOUND_S
from lab.documents import DOCUMENTS, ROOT, blocks, is_made, name, prose_of
from lab.processes import Process, Site
from lab.redis_servers import Server, free_port
from lab.snippets import commands, taken_pages

from fastticket import Keyring
from fastticket.commands.cli import main, parser
from fastticket.commands.options import config_of
from fastticket.gateway.reader import read_config
from fastticket.gateway.tokens import read_tokens
from fastticket.gateway.writer import to_toml
from fastticket.keyfile import create_key_file, read_keys

#: Configuration of other programs: shown as it stands in an example that other tests run.
PARTS_OF_EXAMPLES = ("nginx", "caddyfile", "yaml", "systemd")
KINDS = ("python", "toml", "sh", "console", "redis", "text", *PARTS_OF_EXAMPLES)

#: What a part of a configuration is a part of.
GATEWAY = {
    "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock"},
    "ticket": {"keys": "keys.toml"},
    "upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}],
    "route": [{"path": "/"}],
}
DEFAULT_STORE = "sqlite:///fastticket.db"
TAKEN = taken_pages()


def tried(*kinds):
    return [block for block in blocks(*kinds) if not block.why_not and block.document not in TAKEN]


def of_kind(*kinds):
    return pytest.mark.parametrize("block", tried(*kinds), ids=str)


# --- what there is


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_block_says_what_it_is(document):
    indented = re.findall(r"(?:\A|\n\n)(    .*)", prose_of(document))
    assert indented == []
    assert prose_of(document).count("```") == 0
    assert {str(block) for block in tried() if block.document == document and block.kind not in KINDS} == set()


@of_kind("text")
def test_what_nobody_types_is_no_command(block):
    assert {words[0] for line in block.text.splitlines() if (words := line.split())}.isdisjoint({*PROGRAMS, "ACL"})


# --- the files and servers that they name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTTICKET_KEYS", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def with_real_addresses(redis):
    """The text, with a Redis that is there."""
    return lambda text: re.sub(r"(127\.0\.0\.1|localhost):6379", redis.address, text)


def prepare(folder, text):
    """The files that a block may use and does not make itself."""
    (folder / "fastticket.toml").write_text(to_toml(read_config(GATEWAY, "test", folder)))
    (folder / "linkis.properties").write_text("wds.linkis.server.web.session.timeout=2h\n")
    if "keygen" not in text:
        create_key_file(folder / "keys.toml")
        shutil.copy(folder / "keys.toml", folder / "first-keys.toml")


# --- Python, TOML, Redis, and what is of other programs


@of_kind("python")
def test_python_runs(block, folder, with_real_addresses):
    prepare(folder, block.text)
    (folder / "snippet.py").write_text(with_real_addresses(block.text))
    done = subprocess.run(
        [sys.executable, ROOT / "tests/lab/run_snippet.py", "snippet.py"],
        capture_output=True,
        text=True,
        timeout=2 * BOUND_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@of_kind("toml")
def test_toml_is_a_configuration_or_a_file_of_keys_or_tokens(block, folder):
    create_key_file(folder / "keys.toml")
    said = tomllib.loads(block.text)
    if "key" in said:
        (folder / "block.toml").write_text(block.text)
        Keyring(read_keys(folder / "block.toml"))
    elif "token" in said:
        (folder / "block.toml").write_text(block.text)
        assert len(read_tokens(folder / "block.toml"))
    else:
        read_config(GATEWAY | said, str(block), folder)


@of_kind("redis")
def test_redis_takes_it(block, redis):
    for line in block.text.splitlines():
        assert redis.admin(*line.split()) in (True, "OK")


def test_what_is_of_another_program_is_part_of_an_example():
    examples = [path.read_text() for path in (ROOT / "examples").rglob("*.*") if path.suffix != ".pyc"]
    strange = [block for block in tried(*PARTS_OF_EXAMPLES) if not any(block.text in each for each in examples)]
    assert [str(block) for block in strange] == []


# --- shell


def commands_of(block):
    """Each command with its comment, or with what it prints; lines that go on joined."""
    if block.kind == "console":
        yield from ((command, printed.strip()) for command, printed in commands(block.text))
        return
    for line in re.sub(r"(\\|(?<=\|))\n", " ", block.text).splitlines():
        command, _, comment = line.partition(" # ")
        if command.strip():
            yield command.strip().removesuffix(" &"), comment.strip()


class Shell:
    """Knows each program that a block may name, and how it is tried."""

    def __init__(self, block, request):
        self.block = block
        self.request = request

    def run(self, command, comment):
        program = os.path.basename(shlex.split(command)[0])
        PROGRAMS[program](self, command, comment)

    def bash(self, command):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=2 * BOUND_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(self, command, comment):
        assert is_made(shlex.split(command)[1:])

    def python(self, command, comment):
        script, *arguments = shlex.split(command)[1:]
        self.bash(shlex.join([sys.executable, str(ROOT / script), *arguments]))

    def hexadecimal(self, command, comment):
        """The number that it prints is in the document."""
        (number,) = re.findall(r"[0-9a-f]{64}", self.bash(command).replace(":", "").lower())
        assert number in self.block.document.read_text()

    def kill(self, command, comment):
        assert signal.Signals[f"SIG{shlex.split(command)[1].removeprefix('-')}"]

    def curl(self, command, comment):
        """Against a demo, or a gateway's admin socket; the comment begins with a word of the answer
        or its status.
        """
        for said, fixture in {"127.0.0.1:8080": "demo", "/run/fastticket/admin.sock": "admin_socket"}.items():
            if said in command:
                command = command.replace(said, self.request.getfixturevalue(fixture))
        answer = self.bash(f"{command} -sS -w '\\n%{{http_code}}'")
        assert re.match(r"\w*", comment)[0] in answer

    def fastticket(self, command, comment):
        """By the real command line, in this process. What would not end is read, and not begun."""
        words = shlex.split(command.partition(" > ")[0])[1:]
        options = parser().parse_args(words)
        if words[0] in ("serve", "demo"):
            assert words[0] == "demo" or config_of(options)
        else:
            assert main([word for word in words if word != "--follow"]) == 0


PROGRAMS = {
    "make": Shell.make,
    "python": Shell.python,
    "openssl": Shell.hexadecimal,
    "printf": Shell.hexadecimal,
    "kill": Shell.kill,
    "curl": Shell.curl,
    "fastticket": Shell.fastticket,
}


@pytest.fixture
def demo(folder):
    """The address of a running demo."""
    port, *applications = (free_port() for _ in range(3))
    ports = ",".join(map(str, applications))
    at = Process("demo", "--port", str(port), "--app-ports", ports, "--dir", "state", cwd=folder)
    yield f"127.0.0.1:{port}"
    at.end(signal.SIGTERM)
    at.process.stdout.close()


@pytest.fixture
def admin_socket(folder):
    """Where a gateway tells how it is."""
    site = Site(folder, GATEWAY)
    yield str(folder / "admin.sock")
    site.stop()


def log_in(store, capsys):
    """A ticket of a new session of alice, and the session's id."""
    assert main(["issue", "alice", "--keys", "keys.toml", "--store", store]) == 0
    ticket = capsys.readouterr().out.strip()
    return ticket, Keyring.from_file("keys.toml").verify(ticket, 0).session_id


@of_kind("sh", "console")
def test_shell_runs(block, folder, request, with_real_addresses, capsys):
    text = with_real_addresses(block.text)
    prepare(folder, text)
    if "fastticket revoke" in text:
        store = next(iter(re.findall(r"--store (\S+)", text)), DEFAULT_STORE)
        (ticket, _), (_, session_id), _ = (log_in(store, capsys) for _ in range(3))
        text = text.replace("TICKET", ticket).replace("SESSION-ID", session_id)
    shell = Shell(block, request)
    for command, comment in commands_of(block._replace(text=text)):
        shell.run(command, comment)

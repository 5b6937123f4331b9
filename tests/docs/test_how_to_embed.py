"""docs/how-to/embed.md: each program, run as it is."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.documents import ROOT
from lab.redis_servers import free_port, wait_until
from lab.snippets import blocks, commands, write_files

from fastticket import errors
from fastticket.keyfile import create_key_file

PAGE = (ROOT / "docs/how-to/embed.md").read_text()
SAID = {"embed.py": "alice\nrevoked\n", "fast.py": "miss\n200 alice\n401\n503\n", "threads.py": "100\n"}


@pytest.fixture
def folder(tmp_path):
    write_files("how-to/embed.md", tmp_path)
    create_key_file(tmp_path / "keys.toml")
    return tmp_path


def environment(folder):
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


@pytest.mark.parametrize("name", SAID)
def test_it_prints_what_the_page_says(folder, name):
    done = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3 * BOUND_S,
        env=environment(folder),
    )
    assert (done.stdout, done.stderr) == (SAID[name], "")
    for line in SAID[name].splitlines():
        assert f"`{line}`" in PAGE


def test_every_program_of_the_page_is_run():
    assert {name for _, name, _ in blocks("how-to/embed.md") if name} == {*SAID, "app.py"}


def test_under_gunicorn_each_worker_opens_its_own(folder):
    (text,) = (text for language, _, text in blocks("how-to/embed.md") if language == "console")
    ((command, _),) = commands(text)
    port = free_port()
    words = shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *words[1:]], cwd=folder, stderr=subprocess.DEVNULL, env=environment(folder)
    ) as server:
        try:
            wait_until(lambda: answers(port), "gunicorn answers", 3 * BOUND_S)
            status, fields, _ = ask(port, "/login")
            ticket = re.match(r"ticket=([\w-]+)", fields["Set-Cookie"])[1]
            assert status == 200
            for _ in range(20):  # at both workers
                assert ask(port, "/", ticket)[::2] == (200, "hello, alice\n")
            assert ask(port, "/")[::2] == (401, "malformed\n")
        finally:
            server.terminate()
            server.wait(3 * BOUND_S)


def ask(port, path, ticket=""):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)
    try:
        connection.request("GET", path, headers={"Cookie": f"ticket={ticket}"} if ticket else {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def answers(port):
    try:
        return bool(ask(port, "/"))
    except OSError:
        return False


def test_every_misuse_is_in_the_table():
    table = PAGE.partition("## Mistakes")[2]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(errors.MISUSES)

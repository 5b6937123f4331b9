"""The scripts in examples/: each runs as it is to its end; the application, which has none, as its
first lines say.

examples/auth is run by test_auth_endpoint.py. systemd's units are read: what they start is a
command of ours.
"""

import ast
import contextlib
import http.client
import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from conftest import BOUND_S
from lab.documents import ROOT
from lab.processes import Process
from lab.redis_servers import free_port, wait_until

from fastticket.commands.cli import parser
from fastticket.gateway.exitcodes import BAD_USAGE
from fastticket.gateway.processes import END_MARGIN_S
from fastticket.gateway.reader import read_config
from fastticket.gateway.settings import GatewaySettings

APPLICATION = ROOT / "examples/application.py"
OTHERS = sorted({*ROOT.glob("examples/*.py")} - {APPLICATION})
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("script", OTHERS, ids=lambda path: path.name)
def test_it_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=3 * BOUND_S, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_what_embed_prints(tmp_path):
    printed = subprocess.check_output(
        [sys.executable, ROOT / "examples/embed.py"], cwd=tmp_path, text=True, timeout=3 * BOUND_S, env=ENVIRONMENT
    )
    first, *others = printed.splitlines()
    assert first.startswith("alice ")
    assert others == ["admitted", "refused: revoked"]


@pytest.fixture
def application(tmp_path):
    """The application, started on a free port; the port."""
    port = str(free_port())
    (tmp_path / "application.py").write_text(APPLICATION.read_text().replace("9001", port))
    with subprocess.Popen([sys.executable, "application.py"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        yield port
        process.kill()


@pytest.mark.parametrize(("name", "in_form"), [("alice", "alice"), ("Zoë", "Zo%C3%AB")])
def test_the_application_behind_the_gateway(application, tmp_path, name, in_form):
    keygen, serve, python, curl = ast.get_docstring(ast.parse(APPLICATION.read_text())).splitlines()[-4:]
    assert python == f"python {APPLICATION.relative_to(ROOT)}"
    program = [sys.executable, "-m", *shlex.split(keygen)]
    subprocess.run(program, cwd=tmp_path, check=True, timeout=3 * BOUND_S, env=ENVIRONMENT)
    words = shlex.split(serve.replace("9001", application))[1:]
    gateway = Process(*words, "--listen", "127.0.0.1:0", cwd=tmp_path)
    try:
        command = curl.replace("localhost:8080", "{}:{}".format(*gateway.address)).replace("curl", "curl -sS")
        command = command.replace("user=alice", f"user={in_form}")
        answer = lambda: subprocess.check_output(["bash", "-c", command], cwd=tmp_path, text=True, timeout=BOUND_S)  # noqa: E731
        wait_until(lambda: answer() == f"welcome\nhello {name}\n", "the application answers", BOUND_S)
    finally:
        gateway.process.terminate()
        gateway.process.wait(BOUND_S)
        gateway.process.stdout.close()


def test_the_application_alone_has_a_form_and_greets_whoever_is_not_named(application):
    def ask(method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", int(application), timeout=BOUND_S)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.headers["Location"], answer.read().decode()

    def is_there():
        with contextlib.suppress(ConnectionRefusedError):
            return ask("GET", "/")

    assert wait_until(is_there, "the application listens", BOUND_S) == (200, None, "hello \n")
    assert '<form method="post">' in ask("GET", "/login?next=/orders")[2]
    right = "user=alice&password=wonder"
    assert ask("POST", "/login?next=%2Forders%3Fpage%3D2", right)[:2] == (303, "/orders?page=2")
    for elsewhere in ("//evil.example", "/%5Cevil.example", "https://evil.example", "/a%0Ab", ""):
        assert ask("POST", f"/login?next={elsewhere}", right)[:2] == (200, None)


UNIT = (ROOT / "examples/systemd/fastticket.service").read_text()


def test_the_unit_starts_a_command_of_ours():
    command = re.search(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)[1]
    assert parser().parse_args(shlex.split(command)[1:]).config


def test_the_configuration_that_the_unit_wants_is_one(tmp_path):
    wanted = tomllib.loads("".join(re.findall(r"^#     (.*\n)", UNIT, re.MULTILINE)))
    assert wanted.keys() == {"gateway", "ticket", "store"}
    behind = {"upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}], "route": [{"path": "/"}]}
    read_config(wanted | behind, "fastticket.service", tmp_path)


def test_the_unit_has_the_time_that_its_gateway_may_take():
    grace_s = int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[1])
    defaults = GatewaySettings()
    assert grace_s > defaults.shutdown_delay_s + defaults.drain_timeout_s + END_MARGIN_S


def test_the_unit_is_not_started_again_for_a_wrong_configuration():
    assert re.search(rf"^RestartPreventExitStatus={BAD_USAGE}$", UNIT, re.MULTILINE)

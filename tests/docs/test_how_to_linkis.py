"""The page for those who come from Linkis, typed from top to bottom beside a running installation:
whoever is logged in before is logged in at the end of each step, and after going back.
"""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import BOUND_S
from lab.documents import ROOT
from lab.linkis_installation import Installation, ask
from lab.linkis_tickets import COOKIE
from lab.linkis_users import WHO, User
from lab.processes import Site
from lab.redis_servers import wait_until
from lab.snippets import blocks

from fastticket.commands.cli import parser
from fastticket.gateway.linkis import DEFAULTS
from fastticket.gateway.reader import read_config
from fastticket.gateway.writer import to_toml

TEXT = (ROOT / "docs/how-to/linkis.md").read_text()
ROW = (
    'id\ttoken_name\tlegal_users\tlegal_hosts\tcreate_time\telapse_day\n1\tA-"CODE"\ta,b\t*\t2022-01-01 00:00:00\t-1\n'
)


@pytest.fixture
def installation(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGIN_PASSWORD", "wonder")
    made = Installation(tmp_path, "1.8")
    with made.exits:
        yield made


def typed(kind):
    return [block.text for block in blocks("how-to/linkis.md") if block.language == kind]


def bash(command, folder):
    """A command of the page; `fastticket` is this one."""
    command = re.sub(r"^fastticket ", f"{sys.executable} -m fastticket ", command, flags=re.MULTILINE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 3 * BOUND_S}
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", command], **options)
    assert done.returncode == 0, done.stderr
    return done


def test_the_page_as_it_is_typed(installation, tmp_path):
    prepare, start, look, reload = typed("sh")
    old = [f"127.0.0.1:{each.address[1]}" for each in installation.old]
    (user,) = installation.seed(1)

    # the day before
    for path in (ROOT / "examples/linkis").glob("*.properties"):
        text = path.read_text().replace("redis.port=6379", f"redis.port={installation.redis.port}")
        (tmp_path / path.name).write_text(text)
    (table,) = re.findall(r"mysql .*\\\n    \| (sed .*) > tokens\.csv", TEXT)
    exported = subprocess.run(["bash", "-c", table], input=ROW, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert exported.splitlines()[1] == '"1","A-""CODE""","a,b","*","2022-01-01 00:00:00","-1"'
    (tmp_path / "tokens.csv").write_text(exported)
    said = bash(prepare.replace("127.0.0.1:9001", old[0]).replace("127.0.0.1:9002", old[1]), tmp_path).stderr
    assert "18 settings are not about" in said
    assert "chmod" not in said
    assert " # wds.linkis.server.web.session.timeout=1h in linkis-mg" in (tmp_path / "fastticket.toml").read_text()

    # step 1
    config = tomllib.loads((tmp_path / "fastticket.toml").read_text())
    (listens,) = config["gateway"]["listen"]
    config["gateway"]["listen"] = ["127.0.0.1:0"]
    assert parser().parse_args(start.split()[1:]).config
    site = Site(tmp_path, to_toml(read_config(config, "the page", tmp_path)))
    installation.exits.callback(site.stop)
    look, status = look.replace("TICKET", user.cookies[COOKIE]).split("  # ")
    assert f" {listens}/" in look
    at = f"127.0.0.1:{site.address[1]}"
    assert bash(f"{look.replace(listens, at)} -s -o answer -w '%{{http_code}}'", tmp_path).stdout == status.strip()
    assert ask(site.address, user)[0] == 200
    program = ("GET", b"", 'Token-Code: A-"CODE"', "Token-User: b")
    assert ask(site.address, User("b"), WHO, *program)[0] == 401  # of the stand-in, which has another token
    assert "token linkis token 1: admitted: user 'b'" in site.log

    # step 2
    (table,) = typed("toml")
    config |= tomllib.loads(table)
    services = [f"127.0.0.1:{each.address[1]}" for each in installation.services]
    config["upstream"][0]["servers"] = services
    config["upstream"][1]["servers"] = [f"127.0.0.1:{installation.login.address[1]}"]
    site.configure(config)
    bash(f"PID={site.pid}; {reload}", tmp_path)
    wait_until(lambda: "reloaded: " in site.log, "the reload", BOUND_S)
    assert ask(site.address, user)[0] == 200
    for each in installation.old:
        installation.end(each)
    assert ask(site.address, user)[0] == 200

    # going back
    (again, _) = installation.start_old()
    assert ask(again.address, user)[0] == 200


def test_every_setting_that_is_read_stands_on_the_page():
    shown = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", TEXT)}
    assert {name.rpartition(".")[2] for name in DEFAULTS} <= shown

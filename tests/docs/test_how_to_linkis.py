"""The page for those who come from Linkis, typed from top to bottom beside a running installation:
whoever is logged in before is logged in at the end of each step, and after going back.
"""

import os
import re
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.documents import ROOT
from lab.linkis_installation import USER, Installation, ask, log_in
from lab.linkis_tickets import COOKIE
from lab.linkis_users import WHO, User
from lab.processes import Site
from lab.redis_servers import free_port, wait_until
from lab.snippets import blocks

from fastticket.gateway.linkis import DEFAULTS

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


#: In notes of the worker, of which a later one has all.
COUNTED = (
    'fastticket_migrations_total{result="exchanged",source="linkis"} 1.0',
    'fastticket_token_requests_total{outcome="admitted"} 1.0',
)


class Places:
    """What the page names, and where it is here."""

    def __init__(self, installation):
        self._ours = {f":{port}": f":{free_port()}" for port in (8080, 9100)} | {"0.0.0.0": "127.0.0.1"}
        self._redis = {":6379": f":{installation.redis.port}"}
        self._front = self._of((9001, 9002), installation.old)
        self._behind = self._of((9101, 9102, 9201), [*installation.services, installation.login])

    def _of(self, ports, processes):
        return {f":{port}": f":{each.address[1]}" for port, each in zip(ports, processes, strict=True)}

    def real(self, text, *, in_place=False):
        named = self._ours | self._redis | (self._behind if in_place else self._front)
        return re.sub("|".join(map(re.escape, named)), lambda found: named[found[0]], text)


def test_the_page_as_it_is_typed(installation, tmp_path):
    prepare, try_it, start, look, watch, place, reload, back = typed("sh")
    (user,) = installation.seed(1)
    places = Places(installation)

    # the day before
    for path in (ROOT / "examples/linkis").glob("*.properties"):
        text = path.read_text().replace("redis.port=6379", f"redis.port={installation.redis.port}")
        (tmp_path / path.name).write_text(text)
    (table,) = re.findall(r"mysql .*\\\n    \| (sed .*) > tokens\.csv", TEXT)
    exported = subprocess.run(["bash", "-c", table], input=ROW, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert exported.splitlines()[1] == '"1","A-""CODE""","a,b","*","2022-01-01 00:00:00","-1"'
    (tmp_path / "tokens.csv").write_text(exported)
    said = bash(places.real(prepare), tmp_path).stderr
    assert "18 settings are not about" in said
    assert "chmod" not in said
    assert " # wds.linkis.server.web.session.timeout=1h in linkis-mg" in (tmp_path / "fastticket.toml").read_text()
    tried = bash(places.real(try_it), tmp_path).stdout
    assert tried.startswith("good\n1 sessions read: a dry run")
    assert not installation.redis.admin("EXISTS", "ft:meta")

    # step 1
    site = Site(tmp_path, (tmp_path / "fastticket.toml").read_text())
    installation.exits.callback(site.stop)
    assert start == "fastticket serve --config fastticket.toml\n"
    asked = places.real(look).replace("TICKET", user.cookies[COOKIE])
    assert bash(asked, tmp_path).stdout.lower().startswith("set-cookie: ticket=")
    with pytest.raises(AssertionError):  # whom only linkis-gateway would answer
        bash(places.real(look), tmp_path)
    assert ask(site.address, user)[0] == 200
    for path in ("/dss/open", "/dss/x"):
        assert ask(site.address, user, path)[1]["data"]["user"] == "user0"
    assert ask(site.address, User("nobody")) == (401, {"error": "Unauthorized", "reason": "missing", "status": -1})
    assert ask(site.address, User("nobody"), f"{USER}/oauth-login")[1]["method"]  # Linkis has answered
    program = ("GET", b"", 'Token-Code: A-"CODE"', "Token-User: b")
    assert ask(site.address, User("b"), WHO, *program)[0] == 401  # of the stand-in, which has another token
    wait_until(lambda: "token linkis token 1: admitted: user 'b' from 127.0.0.1, '/api/" in site.log, "it", BOUND_S)

    def counted():
        page = bash(places.real(watch), tmp_path).stdout
        return all(each in page for each in COUNTED) and page

    seen = wait_until(counted, "it counts", 3 * BOUND_S)
    assert '{"ready": true, "away": [], ' in seen
    assert 'fastticket_migration_store_up{source="linkis"} 1.0' in seen

    # step 2
    assert bash(places.real(place, in_place=True), tmp_path).stdout == "good\n"
    bash(f"PID={site.pid}; {reload}", tmp_path)
    wait_until(lambda: "reloaded: " in site.log, "the reload", BOUND_S)
    for each in installation.old:
        installation.end(each)
    assert bash(asked, tmp_path).stdout.lower().startswith("set-cookie: ticket=")
    for path in (WHO, "/dss/open"):
        assert ask(site.address, user, path)[1]["data"]["user"] == "user0"
    newcomer = log_in(site.address, "nora", "wonder")
    assert ask(site.address, newcomer)[1]["data"]["user"] == "nora"

    # going back: they have other ports now
    again = installation.start_old()
    text = (tmp_path / "in-front.toml").read_text()
    for before, after in zip(installation.old, again, strict=True):
        text = text.replace(f":{before.address[1]}", f":{after.address[1]}")
    (tmp_path / "in-front.toml").write_text(text)
    bash(f"PID={site.pid}; {back}", tmp_path)
    wait_until(lambda: site.log.count("reloaded: ") == 2, "the reload", BOUND_S)
    assert ask(site.address, user)[0] == 200
    assert ask(again[0].address, user)[0] == 200


def test_every_setting_that_is_read_stands_on_the_page():
    shown = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", TEXT)}
    assert {name.rpartition(".")[2] for name in DEFAULTS} <= shown

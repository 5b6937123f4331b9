"""The rules and the dashboard ask for what a running gateway has; promtool accepts the rules, and
each alert is raised by its condition.
"""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.documents import DOCS, ROOT
from lab.operators_site import operators_site
from lab.redis_servers import Server, wait_until
from prometheus_client.parser import text_string_to_metric_families
from whole.emergencies import ROWS
from whole.prometheus import program

from fastticket.commands.admin import ask
from fastticket.commands.cli import main

PROMETHEUS = ROOT / "examples/prometheus"
RULES = (PROMETHEUS / "alerts.yml").read_text()
TESTS = (PROMETHEUS / "alerts_test.yml").read_text()
DASHBOARD = json.loads((ROOT / "examples/grafana/fastticket.json").read_text())
PAGE = (DOCS / "how-to/alerts.md").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)

#: What Prometheus adds to every series, and what a panel or a rule may say besides.
ADDED = {"instance", "job"}
SERIES = re.compile(r"\b((?:fastticket|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)=~?\"([^\"]*)\"")


def expressions():
    """(where, expression, labels that it groups by or shows)."""
    for name, expression in re.findall(r"- alert: (\w+)\n +expr: (?:>-\n)?([\s\S]*?)\n +(?:for|labels):", RULES):
        yield name, " ".join(expression.split()), set()
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))


#: The commands that the rules name, as they stand there.
LOOKS = sorted(set(re.findall(r"look: (fastticket .*)", RULES)))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Of a gateway with Redis that has answered a request of a session: its samples, name -> sets
    of labels; and what each command of LOOKS says there: (exit code, text).
    """
    folder = tmp_path_factory.mktemp("gateway")
    server = Server(folder)
    application = subprocess.Popen(
        [sys.executable, "-m", "whole.application"],
        cwd=ROOT / "tests",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        port = int(application.stdout.readline())
        url, patience = f"redis://{server.address}", "?timeout_ms=5000"  # it may have to wait for a processor
        old = f'[[migration]]\nsource = "spring"\nurl = "{url}/1{patience}"\nuntil = "2099-12-31"\n'
        with operators_site(folder, store=f"{url}/0{patience}", application=f"127.0.0.1:{port}", more=old) as site:
            login = site.ask(b"GET /login HTTP/1.1\r\nHost: a\r\nX-User: alice\r\n\r\n")
            cookie = re.search(rb"(?i)set-cookie: ([^;]+)", login[0])[1]
            site.ask(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie)
            samples = wait_until(lambda: settled(f"unix:{folder}/admin.sock"), "all metrics", BOUND_S)
            return samples, {look: said_by(look, folder) for look in LOOKS}
    finally:
        application.communicate()
        server.kill()


def said_by(look, folder):
    """What a command says, with this folder in the place of the usual ones."""
    program, *arguments = re.sub("/(etc|run)/fastticket", str(folder), look).split()
    assert program == "fastticket"
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def samples(seen):
    return seen[0]


def test_the_first_command_to_type_works_as_it_is_written(seen):
    _, said = seen
    assert len(said) >= 6
    for look, (code, text) in said.items():
        if look.startswith("fastticket top"):
            assert "top needs a terminal" in text
        else:
            assert code == 0, (look, text)
    (text,) = (text for look, (_, text) in said.items() if look.startswith("fastticket status"))
    pid = re.search(r"pid (\d+)", text)[1]
    assert re.search(rf"^\S+ \(this one\) +{pid} ", text, re.MULTILINE)  # two of one machine have one name


def settled(address):
    """The samples, once the worker has told of the request."""
    found = {}
    for family in text_string_to_metric_families(ask(address, "/metrics")[1]):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return "fastticket_key_uses_total" in found and "fastticket_store_sessions" in found and found


#: Where a figure is on the operators' page -> how the table of emergencies calls that.
PLACES = {
    "about": "beside *Ready*",
    "own": "*This gateway*",
    "refusals": "*This gateway*",
    "store-figures": "*Store*",
    "servers": "*Upstreams*",
    "trouble": "*the gateway cannot be reached*",
}


def test_the_table_says_where_the_drill_sees_each_emergency_on_the_page():
    for row in ROWS:
        (line,) = re.findall(rf"^\| {row.name}\b.*", PAGE, re.MULTILINE)
        said = line.split(" | ")[3]
        assert PLACES[row.seen.place] in said
        assert row.seen.name in said or row.seen.place == "servers"


@pytest.mark.parametrize(
    ("expression", "shown"), [pytest.param(*what, id=where.replace(" ", "-")) for where, *what in expressions()]
)
def test_every_series_is_there(samples, expression, shown):
    by = {name.strip() for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(",")}
    named = SERIES.findall(expression)
    assert named or "up{" in expression
    for name, matchers in named:
        assert name in samples, name
        wanted = {label: value for label, value in MATCHER.findall(matchers) if label not in ADDED}
        fitting = [labels for labels in samples[name] if wanted.items() <= labels.items()]
        assert fitting, f"{name} with {wanted}"
        assert by | shown <= set(fitting[0]) | ADDED, f"{name} has {set(fitting[0])}"


def promtool(*arguments):
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, cwd=PROMETHEUS, timeout=BOUND_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules_and_each_fires_by_its_condition():
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts:", TESTS)
    assert fired == ALERTS


def test_a_rule_that_changes_is_noticed(tmp_path):
    """That those tests can fail."""
    for name in ("alerts_test.yml", "alerts.yml"):
        shutil.copy(PROMETHEUS / name, tmp_path)
    (tmp_path / "alerts.yml").write_text(RULES.replace("lost_total[15m]) > 0", "lost_total[15m]) > 99"))
    done = subprocess.run(
        [program("promtool"), "test", "rules", "alerts_test.yml"], capture_output=True, cwd=tmp_path, timeout=BOUND_S
    )
    assert done.returncode == 1


def test_prometheus_can_read_the_panels(tmp_path):
    """As rules that record, with Grafana's variables filled in."""
    variables = {"$__rate_interval": "1m", "$instance": ".*"}
    rules = []
    for number, (_, expression, _) in enumerate(expressions()):
        for name, value in variables.items():
            expression = expression.replace(name, value)
        rules.append({"record": f"panel:{number}", "expr": expression})
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "panels.yml")


def test_panels_have_room_and_a_title_of_their_own():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_every_rule_is_explained_and_says_where_to_look(capsys):
    assert re.findall(r"^\| `(Fastticket\w+)` \| [^|]", PAGE, re.MULTILINE)[: len(ALERTS)] == ALERTS
    looks = re.findall(r"look: (.*)", RULES)
    assert len(looks) == len(ALERTS)
    for command in {look for look in looks if look.startswith("fastticket ")}:
        with pytest.raises(SystemExit):
            main([*command.split()[1:], "--help"])
        flags = set(re.findall(r"--[\w-]+", command))
        assert flags <= set(re.findall(r"--[\w-]+", capsys.readouterr().out)), command

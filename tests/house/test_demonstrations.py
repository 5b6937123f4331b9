"""The demonstrations of examples/sharing, run as a reader does: what each is there to show, and
that the page says what is measured.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BOUND_S = 120  # on a busy machine; else some seconds
pytestmark = pytest.mark.timeout(2 * BOUND_S)
FLUSHES_PER_S = 2
COMMANDS_OF_AN_EXCHANGE = 3
SCRIPT_UNKNOWN = 1  # the first command has to be sent again with its script
SHARDS = 16
USERS = 63


def run(*command):
    """What it prints. A `make` that runs these tests says nothing to one that they run."""
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=EXAMPLES,
        env={**outside, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """`rows(name)`: of a demonstration, which is run once."""
    folder = tmp_path_factory.mktemp("demonstrations")
    found = {}

    def measured(name):
        if name not in found:
            file = folder / f"{name}.json"
            printed = run("make", "-s", name, f"PYTHON={sys.executable}", f"OPTIONS=--json {file}")
            found[name] = json.loads(file.read_text())
            assert len(printed.splitlines()) == len(found[name]) + 5  # a title, a head and its rule, two empty lines
        return found[name]

    return measured


def by(rows, *columns):
    return {tuple(row[column] for column in columns) if columns[1:] else row[columns[0]]: row for row in rows}


def test_with_sessions_of_their_own_every_other_read_fails(rows):
    assert [(row["reads"], row["reads that found it"]) for row in rows("problem")] == [(50, 50), (50, 0)]


def test_ip_hash_loses_sessions_with_each_change_and_sees_one_nat_as_one_client(rows):
    found = by(rows("ip_hash"), "clients", "change")
    lost = {change: row["lost"] for (clients, change), row in found.items() if clients == "a /24 each"}
    assert lost["nothing changes"] == 0
    assert lost["a server is added"] > lost["a server is removed"] > lost["a server is marked down"] > 0
    assert found["a /24 each", "nothing changes"]["its share, %"] < 50
    assert found["one NAT", "nothing changes"]["its share, %"] == 100


def test_replication_loses_nothing_and_costs_every_node_all_of_it(rows):
    for row in rows("replication"):
        assert (row["failed reads"], row["lost by adding"], row["lost by removing"]) == (0, 0, 0)
        others = row["nodes"] - 1
        assert row["copies"] == row["nodes"] * row["sessions"]
        assert row["messages/1,000 requests"] == pytest.approx(1000 * others)
        assert row["messages, ip_hash"] == pytest.approx(100 * others)  # a tenth of the requests writes
        assert row["KB to the new node"] > row["sessions"]  # a thousand bytes each, and more


def test_a_cookie_alone_can_not_be_taken_back(rows):
    found = by(rows("cookie_only"), "situation")
    admitted = {situation: row["admitted"] for situation, row in found.items()}
    assert admitted == {
        "logged in, a name of 5 bytes": 10,
        "logged in, a name of 190 bytes": 10,
        "servers are added": 10,
        "a server is removed": 10,
        "logged out": 0,
        "logged out, a copy of the cookie": 10,
        "a copy, changed by one character": 0,
        "a copy, once it has expired": 0,
        "a copy, the key replaced": 0,
    }
    assert all(row["admitted"] + row["refused"] == row["requests"] for row in found.values())
    sizes = [found[f"logged in, a name of {length} bytes"]["cookie, bytes"] for length in (5, 190)]
    assert sizes == [len("ticket=") + 94, len("ticket=") + 340]  # docs/reference/ticket-format.md


def test_redis_on_every_request_is_asked_two_to_seven_times_for_each(rows):
    found = by(rows("redis_per_request"), "sessions as kept by")
    assert {name: row["commands/1,000 requests"] for name, row in found.items()} == {
        "GET, EXPIRE": 2000,
        "Linkis": 2000,
        "Linkis, pool tests counted": 6000,
        "Linkis, half the idle timeout over": 2050,
        "Spring Session, indexed": 7000,
    }
    nothing = ("refused", "lost by adding", "lost by removing", "copies admitted after logout")
    assert {row[column] for row in found.values() for column in nothing} == {0}


def test_fastticket_loses_nothing_and_revokes(rows):
    found = by(rows("fastticket_shared"), "step")
    refused = {"without a ticket: find, session", "a wrong password", "a copy of the cookie"}
    for step, row in found.items():
        assert (row["admitted"], row["refused"]) == (
            (0, row["requests"]) if step in refused else (row["requests"], 0)
        ), step
    assert found["everybody asks for the session's id"]["session ids"] == USERS


def test_fastticket_finds_every_value_wherever_it_was_set_and_whatever_comes_and_goes(rows):
    found = by(rows("fastticket_shared"), "step")
    for read in ("everybody asks for the value", "everybody asks for it again"):
        assert found[read]["values found"] == found[read]["requests"], read
    for change in (f"{what} is {done}" for what in ("a gateway", "an application") for done in ("added", "removed")):
        assert found[change]["values found"] == found[change]["requests"] / 2, change  # the others ask who it is


def test_fastticket_sends_a_command_for_a_write_and_a_first_read_and_none_for_more(rows):
    """But for a lease that ran out on a busy machine: then some reads ask."""
    found = by(rows("fastticket_shared"), "step")
    sent = {step: row["sent for values"] for step, row in found.items()}
    assert sent["everybody asks for the session's id"] == 0
    assert sent["everybody sets a value"] - USERS in (0, SCRIPT_UNKNOWN)
    assert sent["everybody asks for the value"] >= USERS * found["everybody asks for the value"]["applications"]
    assert sent["everybody asks for it again"] < found["everybody asks for it again"]["requests"] / 10


@pytest.mark.parametrize("step", ["everybody asks for the session's id", "everybody asks for it again"])
def test_fastticket_asks_redis_by_the_second_and_not_by_the_request(rows, step):
    """Twice what gateways and applications ask for in that time, and what it takes to learn of each
    session; not two a request.
    """
    busy = by(rows("fastticket_shared"), "step")[step]
    commands = busy["commands/1,000 requests"] * busy["requests"] / 1000
    flushes = FLUSHES_PER_S * busy["requests"] / busy["requests/s"] + 1
    caches = busy["gateways"] + (busy["applications"] if busy["values found"] else 0)
    assert commands <= 2 * caches * COMMANDS_OF_AN_EXCHANGE * (SHARDS * flushes + USERS)


NAMES = ("problem", "ip_hash", "replication", "cookie_only", "redis_per_request", "fastticket_shared")


def test_the_page_says_what_is_measured(rows, tmp_path):
    """Figures that depend on the machine's speed aside."""
    page = (ROOT / "docs/explanation/session-sharing.md").read_text()
    (tmp_path / "session-sharing.md").write_text(page)
    (tmp_path / "run.json").write_text(json.dumps({"where": "here", "rows": {name: rows(name) for name in NAMES}}))
    run(sys.executable, "sharing/page.py", tmp_path / "run.json", tmp_path)
    assert (tmp_path / "session-sharing.svg").read_text().count("<svg ") == 1
    written = (tmp_path / "session-sharing.md").read_text()
    for name in NAMES[:-1]:
        assert block(written, name) == block(page, name)
    assert [row[:8] for row in cells(written, "fastticket_shared")] == [
        row[:8] for row in cells(page, "fastticket_shared")
    ]
    assert [row[:4] + row[5:] for row in cells(written, "comparison")] == [
        row[:4] + row[5:] for row in cells(page, "comparison")
    ]


def block(page, name):
    return page.partition(f"<!-- {name} -->\n")[2].partition("\n<!-- end -->")[0]


def cells(page, name):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in block(page, name).splitlines()]


def test_every_demonstration_can_be_made():
    made = run("make", "-n", *NAMES, "all", "page", "PYTHON=python")
    assert shutil.which("make")
    assert all(f"sharing/{name}.py" in made for name in (*NAMES, "all", "page"))

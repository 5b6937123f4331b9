"""The command line and the configuration file, from the outside: what is wrong is one line and exit
2, and no secret shows.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from lab.commands import Commands
from lab.redis_servers import Server

import fastticket
from fastticket.commands.cli import main
from fastticket.errors import ConfigError
from fastticket.gateway.reader import read_config
from fastticket.gateway.writer import to_toml, without_secrets
from fastticket.keyfile import create_key_file, read_keys

GOOD = """
[gateway]
listen = ["127.0.0.1:0"]

[ticket]
keys = "keys.toml"

[[upstream]]
name = "app"
servers = ["127.0.0.1:9001"]

[[route]]
path = "/"
"""


@pytest.fixture(scope="module")
def commands():
    with contextlib.closing(Commands()) as made:
        yield made


@pytest.fixture
def cli(commands, tmp_path):
    """Run a command in an empty folder: (exit code, output, error output)."""

    def run(*arguments, stdin="", **environment):
        code, *outputs = commands.run(*map(str, arguments), cwd=tmp_path, stdin=stdin.encode(), **environment)
        return code, *(output.decode() for output in outputs)

    return run


@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys):
    """The same in this process, for what needs no process of its own: starting one takes longer
    than most tests.
    """

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def keyfile(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    return tmp_path / "keys.toml"


def refused(result):
    """The one line that says why."""
    code, output, error = result
    assert (code, output) == (2, "")
    assert error.startswith("fastticket: ")
    assert error.count("\n") == 1
    return error


def test_keygen(cli, tmp_path):
    keyfile = tmp_path / "keys.toml"
    assert cli("keygen", "--out", "keys.toml")[0] == 0
    assert stat.S_IMODE(keyfile.stat().st_mode) == 0o600
    assert fastticket.Keyring.from_file(keyfile).ids == (1,)
    assert "not overwritten" in refused(cli("keygen", "--out", "keys.toml"))
    code, output, _ = cli("keygen")
    assert code == 0
    (tmp_path / "other.toml").write_text(output)
    assert read_keys(tmp_path / "other.toml") != read_keys(keyfile)


def test_issue_and_inspect(cli, keyfile, tmp_path):
    code, output, _ = cli("issue", "älice", "--keys", "keys.toml", "--store", "sqlite:///s.db")
    ticket = output.strip()
    assert code == 0
    for result in (
        cli("inspect", ticket, "--keys", "keys.toml"),
        cli("inspect", "-", "--keys", "keys.toml", stdin=f"{ticket}\n"),
    ):
        assert result[0] == 0
        told = json.loads(result[1])
        assert (told["verdict"], told["principal"], told["key_id"], told["idle_timeout_s"]) == (
            "authentic",
            "älice",
            1,
            7200,
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["issued_at"])
    code, output, error = cli("inspect", ticket[:-4] + "AAAA", "--keys", "keys.toml")
    assert (code, json.loads(output)) == (1, {"verdict": "bad_signature"})
    assert "another audience" in error  # of which --keys alone knows nothing
    (tmp_path / "a.toml").write_text(GOOD)
    code, output, error = cli("inspect", ticket[:-4] + "AAAA", "--config", "a.toml")
    assert (code, json.loads(output), "audience" in error) == (1, {"verdict": "bad_signature"}, False)
    assert "schema: keys has commands of its own; there are: keys list, keys add" in cli("schema", "keys")[2]


def test_inspect_an_expired_ticket(cli, keyfile):
    ticket = fastticket.Keyring.from_file(keyfile).mint("alice", 1000, 60, 60)
    code, output, _ = cli("inspect", ticket, "--keys", "keys.toml")
    assert (code, json.loads(output)["verdict"], json.loads(output)["principal"]) == (1, "expired", "alice")


def test_keys_from_the_environment(cli, keyfile):
    secret = re.search(r'secret = "(.*)"', keyfile.read_text())[1]
    assert cli("issue", "alice", "--store", "sqlite:///s.db", FASTTICKET_KEYS=f"1:{secret}")[0] == 0
    error = refused(cli("issue", "alice", "--store", "sqlite:///s.db", FASTTICKET_KEYS=f"1:{secret[:9]}"))
    assert "FASTTICKET_KEYS" in error
    assert secret[:9] not in error
    assert "FASTTICKET_KEYS is not set" in refused(cli("issue", "alice", "--store", "sqlite:///s.db"))


def test_an_impossible_principal(cli, keyfile):
    assert "1 to 190 bytes" in refused(cli("issue", "a\nb", "--keys", "keys.toml", "--store", "sqlite:///s.db"))


# --- operators


@pytest.fixture(params=["sqlite", "redis"])
def store(request, tmp_path):
    if request.param == "sqlite":
        yield "sqlite:///sessions.db"
        return
    server = Server(tmp_path)
    yield f"redis://{server.address}/0?timeout_ms=10000"
    server.kill()


@pytest.fixture
def log_in(store, keyfile, tmp_path):
    """A new session; its ticket."""

    async def issue(principal):
        keys = fastticket.Keyring.from_file(keyfile)
        async with fastticket.TicketCache(fastticket.open_store(store, base=tmp_path), keys) as cache:
            return await cache.login(principal)

    return lambda principal="alice": asyncio.run(issue(principal))


def session_ids(cli, store, principal="alice"):
    code, output, _ = cli("sessions", "--user", principal, "--store", store, "--json")
    assert code == 0
    return [session["id"] for session in json.loads(output)]


def reasons(cli, store):
    """Of the sessions that have ended."""
    events = map(json.loads, cli("events", "--store", store, "--json")[1].splitlines())
    return [event["reason"] for event in events if event["kind"] == "revoked"]


def asked(error):
    """The store that a command says it has asked."""
    return re.findall(r"^fastticket: asking (.*)$", error, re.MULTILINE)


OPERATORS = [("sessions", "--user", "alice"), ("revoke", "--user", "alice"), ("events",)]


@pytest.mark.parametrize("command", [*OPERATORS, ("issue", "alice")], ids=lambda command: command[0])
def test_operators_commands_do_not_guess_which_store(cli, tmp_path, command):
    """`sessions --user alice` made ./fastticket.db, printed nothing and said 0: in an incident that
    reads as "he has none".
    """
    assert f"{command[0]} needs --config FILE, --store URL or FASTTICKET_STORE" in refused(cli(*command))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", OPERATORS, ids=lambda command: command[0])
def test_operators_commands_make_no_store(cli, tmp_path, command):
    assert "there is no such file" in refused(cli(*command, "--store", "sqlite:///none.db"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "other.db").write_bytes(b"")
    assert "no store of fastticket in it" in refused(cli(*command, "--store", "sqlite:///other.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]
    assert (tmp_path / "other.db").read_bytes() == b""
    server = Server(tmp_path)
    try:
        said = f"redis {server.address}, database 3: there is no store of fastticket"
        assert said in refused(cli(*command, "--store", f"redis://{server.address}/3"))
        assert server.admin("DBSIZE") == 0
    finally:
        server.kill()


def test_operators_commands_say_which_store_they_asked(cli, log_in, store):
    log_in()
    for command in OPERATORS[::2]:
        code, _, error = cli(*command, "--store", store)
        assert (code, asked(error)) == (0, [store])
        code, _, error = cli(*command, FASTTICKET_STORE=store)
        assert (code, asked(error)) == (0, [store])


def test_a_store_that_is_away_is_named(cli):
    code, output, error = cli("sessions", "--user", "alice", "--store", "redis://:hush@127.0.0.1:1/0")
    assert (code, output) == (1, "")
    assert "127.0.0.1:1" in error
    assert "hush" not in error


def test_a_password_is_in_no_list_of_processes(cli, keyfile, tmp_path):
    """In a file that the URL names, or with the whole URL in the environment; it is shown by
    neither.
    """
    server = Server(tmp_path, {"requirepass": "hush"})
    try:
        (tmp_path / "password").write_text("hush\n")
        url = f"redis://{server.address}/0?password_file=password&timeout_ms=10000"
        assert cli("issue", "alice", "--keys", "keys.toml", "--store", url)[0] == 0
        for how in ({"FASTTICKET_STORE": f"redis://:hush@{server.address}/0"}, {"FASTTICKET_STORE": url}):
            code, output, error = cli("sessions", "--user", "alice", **how)
            assert (code, output.count("\n")) == (0, 1)
            assert "hush" not in error
        (tmp_path / "a.toml").write_text(GOOD)
        code, output, error = cli("sessions", "--user", "alice", "--config", "a.toml", FASTTICKET_STORE=url)
        assert (code, output.count("\n"), asked(error)) == (0, 1, [url])
        (tmp_path / "password").write_text("wrong")
        assert cli("sessions", "--user", "alice", "--store", url)[0] == 2
    finally:
        server.kill()


def test_sessions_lists_a_users_sessions(cli, log_in, store):
    code, issued, _ = cli("issue", "alice", "--store", store, "--keys", "keys.toml")
    assert code == 0
    tickets = [issued.strip(), log_in()]
    log_in("bob")
    ids = session_ids(cli, store)
    _, output, _ = cli("sessions", "--user", "alice", "--store", store)
    assert [line.split()[0] for line in output.splitlines()] == ids
    assert len(ids) == 2
    assert not any(ticket in output for ticket in tickets)
    assert cli("sessions", "--user", "nobody", "--store", store)[:2] == (0, "")


def test_sessions_of_all_are_listed_and_counted(cli, log_in, store):
    for principal in ("alice", "alice", "bob", "älice"):
        log_in(principal)
    listed = json.loads(cli("sessions", "--all", "--json", "--store", store)[1])
    ids = {each["id"] for each in listed}
    assert [sum(each["principal"] == name for each in listed) for name in ("alice", "bob", "älice")] == [2, 1, 1]
    lines = cli("sessions", "--all", "--store", store)[1].splitlines()
    assert {line.split()[0] for line in lines} == ids
    assert {line.split()[-1] for line in lines} == {"alice", "bob", "älice"}
    assert cli("sessions", "--all", "--count", "--store", store)[:2] == (0, "4\n")
    assert json.loads(cli("sessions", "--user", "alice", "--count", "--json", "--store", store)[1]) == {"count": 2}
    for principal in ("alice", "bob", "älice"):
        cli("revoke", "--user", principal, "--store", store)
    assert json.loads(cli("sessions", "--all", "--json", "--store", store)[1]) == []
    assert cli("sessions", "--all", "--store", store)[:2] == (0, "")


def test_a_long_list_is_read_page_by_page(cli, keyfile, tmp_path, monkeypatch, capsys):
    """More than a page of it, with SQLite."""
    pages = []

    async def log_in_many():
        keys = fastticket.Keyring.from_file(keyfile)
        store = fastticket.open_store("sqlite:///many.db", base=tmp_path)
        async with fastticket.TicketCache(store, keys) as cache:
            for number in range(25):
                await cache.login(f"user{number}")

    asyncio.run(log_in_many())
    monkeypatch.setattr("fastticket.commands.store.PAGE_SESSIONS", 10)
    monkeypatch.setattr(
        "fastticket.commands.store.progress", lambda *about: contextlib.nullcontext(lambda count: pages.append(count))
    )
    monkeypatch.chdir(tmp_path)
    assert main(["sessions", "--all", "--json", "--store", "sqlite:///many.db"]) == 0
    assert len({each["id"] for each in json.loads(capsys.readouterr().out)}) == 25
    assert sum(pages) == 25
    assert max(pages) <= 10


def test_revoke_a_ticket_an_id_and_a_user(cli, log_in, store):
    ticket = log_in()
    assert cli("revoke", ticket, "--store", store, "--keys", "keys.toml")[:2] == (0, "1 session of alice ended\n")
    assert cli("revoke", "-", "--store", store, "--keys", "keys.toml", stdin=ticket)[0] == 1
    log_in()
    (session_id,) = session_ids(cli, store)
    assert reasons(cli, store) == ["revoked"]
    code, output, _ = cli("revoke", "--user", "alice", "--store", store, "--json", "--", session_id)
    assert (code, json.loads(output)) == (0, {"principal": "alice", "ended": [session_id]})
    assert reasons(cli, store) == ["revoked", "revoked"]
    for _ in range(3):
        log_in()
    log_in("bob")
    assert cli("revoke", "--user", "alice", "--store", store)[:2] == (0, "3 sessions of alice ended\n")
    assert cli("revoke", "--user", "alice", "--store", store)[0] == 1
    assert len(session_ids(cli, store, "bob")) == 1


def test_revoke_all_but_one_and_everybodys(cli, log_in, store):
    for _ in range(3):
        log_in()
    log_in("bob")
    kept, *others = session_ids(cli, store)
    but = ("revoke", "--user", "alice", "--store", store, f"--but={kept}", "--json")
    code, output, error = cli("revoke", "--user", "bob", "--store", store, f"--but={kept}")
    assert (code, output) == (1, "")
    assert f"nothing has ended: {kept} is no session of bob" in error
    code, output, _ = cli(*but)
    assert (code, sorted(json.loads(output)["ended"])) == (0, sorted(others))
    assert cli(*but)[0] == 1
    assert session_ids(cli, store) == [kept]
    assert "say --yes" in refused(cli("revoke", "--all", "--store", store))
    assert cli("revoke", "--all", "--yes", "--store", store)[:2] == (0, "2 sessions ended\n")
    code, output, _ = cli("revoke", "--all", "--yes", "--store", store, "--json")
    assert (code, json.loads(output)) == (0, {"ended": 0, "is_complete": True})
    assert reasons(cli, store) == ["revoked"] * 4


def test_revoke_of_a_user_says_what_becomes_of_sessions_that_are_still_at_another_system(cli, log_in, store, tmp_path):
    log_in()
    (tmp_path / "fastticket.toml").write_text(
        f'[ticket]\nkeys = "keys.toml"\n[store]\nurl = "{store}"\n[[upstream]]\nname = "app"\nservers = ["127.0.0.1:1"]\n'
        '[[route]]\npath = "/"\n[[migration]]\nsource = "spring"\nurl = "redis://127.0.0.1:1/0"\nuntil = "2999-12-31"\n'
    )
    code, output, errors = cli("revoke", "--user", "carol", "--config", "fastticket.toml")
    assert code == 0, errors
    assert output.splitlines() == [
        "0 sessions of carol ended",
        "of carol's sessions at spring that nobody has brought yet: the gateways end those there, too",
    ]


def test_revoke_of_what_is_no_ticket(cli, log_in, store):
    ticket = log_in()
    code, output, error = cli(
        "revoke", ticket[:-1] + ("A" if ticket[-1] != "A" else "E"), "--store", store, "--keys", "keys.toml"
    )
    assert (code, output) == (1, "")
    assert "ticket refused" in error
    assert ticket[:-1] not in error
    assert len(session_ids(cli, store)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "needs a ticket"),
        (("A" * 22,), "needs --user"),
        (("--all",), "--all logs everybody out; say --yes"),
        (("--all", "--yes", "--user", "alice"), "leave out the ticket"),
        (("--user", "alice", "--yes"), "--yes is for --all"),
        (("--but", "A" * 22), "name --user"),
        (("--user", "alice", "--but", "A"), "needs the id of a session"),
        (("--user", "alice", "--but="), "needs the id of a session"),
        (("A" * 100, "--user", "alice", "--keys", "keys.toml"), "leave out --user"),
    ],
)
def test_revoke_needs_to_know_what(cli, keyfile, arguments, says):
    assert says in refused(cli("revoke", "--store", "sqlite:///s.db", *arguments))


def test_events_prints_what_happened(cli, log_in, store):
    log_in()
    log_in("bob")
    cli("revoke", "--user", "alice", "--store", store)
    code, output, _ = cli("events", "--store", store, "--json")
    events = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [(event["kind"], event["principal"]) for event in events] == [
        ("created", "alice"),
        ("created", "bob"),
        ("revoked", "alice"),
    ]
    assert events[0]["session_id"] == events[2]["session_id"]
    assert [(event["reason"], event["successor_id"]) for event in events] == [
        ("", ""),
        ("", ""),
        ("revoked", ""),  # as the admin API has it: an operator, and not the user
    ]
    lines = cli("events", "--store", store)[1].splitlines()
    said = [[event[name] for name in ("kind", "session_id", "principal", "reason")] for event in events]
    assert [line.split()[1:] for line in lines] == [list(filter(None, values)) for values in said]


def test_what_became_of_a_session_is_said_of_its_ticket(cli, log_in, store, keyfile, tmp_path):
    """Rotated, ended, or not known."""
    before = log_in()

    async def rotate():
        keys = fastticket.Keyring.from_file(keyfile)
        async with fastticket.TicketCache(fastticket.open_store(store, base=tmp_path), keys) as cache:
            return await cache.rotate(before)

    after = asyncio.run(rotate())
    lives, ended = (cli("inspect", each, "--keys", "keys.toml", "--store", store) for each in (after, before))
    successor = json.loads(lives[1])
    assert (lives[0], successor["session"]) == (0, "lives")
    assert successor["idle_deadline"] < successor["absolute_deadline"]
    said = json.loads(ended[1])
    assert (ended[0], said["verdict"], said["session"]) == (1, "authentic", "ended")
    assert (said["end"]["kind"], said["end"]["successor_id"]) == ("rotated", successor["session_id"])
    line = cli("events", "--store", store)[1].splitlines()[1].split()
    assert line[1:] == ["rotated", said["session_id"], "alice", "now", successor["session_id"]]
    away = cli("inspect", after, "--keys", "keys.toml", "--store", "redis://127.0.0.1:1/0")
    assert (away[0], json.loads(away[1])["session"]) == (1, "unknown")
    assert "127.0.0.1:1" in away[2]


def test_events_follow_goes_on_until_it_is_told_to_stop(cli, log_in, store, tmp_path):
    log_in()
    command = [sys.executable, "-m", "fastticket", "events", "--follow", "--json", "--store", store]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as following:
        bound = threading.Timer(20, following.kill)
        bound.start()
        assert json.loads(following.stdout.readline())["kind"] == "created"
        assert cli("revoke", "--user", "alice", "--store", store)[0] == 0
        assert json.loads(following.stdout.readline())["kind"] == "revoked"
        following.send_signal(signal.SIGTERM)
        assert following.wait(20) == 0
        bound.cancel()


def test_check_config_prints_what_reads_back_the_same(cli, keyfile, tmp_path):
    (tmp_path / "a.toml").write_text(GOOD)
    code, full, _ = cli("check-config", "--config", "a.toml")
    assert code == 0
    assert "idle_timeout_s = 7200" in full
    (tmp_path / "b.toml").write_text(full)
    assert cli("check-config", "--config", "b.toml") == (0, full, "")


def test_check_config_hides_secrets_unless_told_not_to(cli, keyfile, tmp_path):
    (tmp_path / "linkis.properties").write_text(
        "linkis.session.redis.cache.enabled=true\nlinkis.session.redis.password=hush\nsomething.else=1\n"
    )
    flags = ("--config", "linkis.properties", "--upstream", "127.0.0.1:9001", "--keys", "keys.toml")
    code, output, error = cli("check-config", *flags)
    assert code == 0
    assert "hush" not in output + error
    assert output.startswith("# *** stands for a secret")
    assert "linkis.properties: 1 setting is not about the gateway's sessions" in error
    assert "something.else: is not about" in cli("check-config", *flags, "--verbose")[2]
    code, output, _ = cli("check-config", *flags, "--show-secrets")
    (tmp_path / "ours.toml").write_text(output)
    code, again, _ = cli("check-config", "--config", "ours.toml", "--show-secrets")
    assert (code, tomllib.loads(again)) == (0, tomllib.loads(output))
    assert "redis://:hush@127.0.0.1:6379/0" in output


def test_serve_by_linkis_file_needs_to_know_what_is_behind(cli, keyfile, tmp_path):
    (tmp_path / "linkis.properties").write_text("")
    assert "serve needs --upstream" in refused(cli("serve", "--config", "linkis.properties"))
    assert "--store does not go with" in refused(
        cli("sessions", "--user", "a", "--config", "linkis.properties", "--store", "x")
    )


def test_of_two_files_the_later_one_wins(cli, keyfile, tmp_path):
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text('[ticket]\nidle_timeout_s = 60\n[[route]]\npath = "/b"\n')
    code, output, _ = cli("check-config", "--config", "a.toml", "--config", "b.toml")
    shown = tomllib.loads(output)
    assert (code, shown["ticket"]["idle_timeout_s"], [route["path"] for route in shown["route"]]) == (0, 60, ["/b"])
    assert shown["upstream"] == tomllib.loads(cli("check-config", "--config", "a.toml")[1])["upstream"]
    (tmp_path / "b.toml").write_text('[ticket]\ncookie = "a b"\n')
    assert "a.toml, b.toml: [ticket] cookie" in refused(cli("check-config", "--config", "a.toml", "--config", "b.toml"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there/c.toml").touch()
    (tmp_path / "linkis.properties").touch()
    assert "into one folder" in refused(cli("check-config", "--config", "a.toml", "--config", "there/c.toml"))
    assert "do not go together" in refused(cli("check-config", "--config", "a.toml", "--config", "linkis.properties"))


def test_paths_are_relative_to_the_file(cli, keyfile, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a.toml").write_text(GOOD)
    assert "there/keys.toml" in refused(cli("check-config", "--config", "there/a.toml"))
    keyfile.rename(tmp_path / "there/keys.toml")
    assert cli("check-config", "--config", "there/a.toml")[0] == 0
    assert cli("issue", "alice", "--config", "there/a.toml")[0] == 0
    assert (tmp_path / "there/fastticket.db").exists()


# What is written in GOOD, what instead of it, and what is said of that.
BAD = [
    ("listen", "lissten", "[gateway] lissten: no such key; did you mean listen?"),
    ("[gateway]", "[gatewai]", "gatewai: no such key; did you mean gateway?"),
    ('listen = ["127.0.0.1:0"]', 'listen = "127.0.0.1:0"', "[gateway] listen: must be a list of strings"),
    ('listen = ["127.0.0.1:0"]', "listen = []", "[gateway] listen: must name at least one"),
    ('"127.0.0.1:0"', '"127.0.0.1"', "[gateway] listen: 127.0.0.1: the port is missing"),
    ('"127.0.0.1:0"', '"::1:80"', "[gateway] listen: ::1:80: write an IPv6 address in brackets, as [::1]:80"),
    ('"127.0.0.1:0"', '"127.0.0.1:70000"', "70000 is no port"),
    ("[ticket]", 'trusted_proxies = ["10.0.0.1/8"]\n[ticket]', "[gateway] trusted_proxies: 10.0.0.1/8"),
    ("[ticket]", "threads = 0\n[ticket]", "[gateway] threads: must be from 1"),
    ("[ticket]", "workers = 0\n[ticket]", "[gateway] workers: must be from 1"),
    ("[ticket]", "workers = 2\nthreads = 3\n[ticket]", "[gateway] workers: is the former name of threads"),
    ("[ticket]", "workers = true\n[ticket]", "[gateway] workers: must be a whole number, not True"),
    ("[ticket]", 'identity_header = "a b"\n[ticket]', "[gateway] identity_header"),
    (
        "[ticket]",
        'identity_header = "X-Real-IP"\n[ticket]',
        "[gateway] identity_header: the field 'X-Real-IP' has a meaning",
    ),
    (
        "[ticket]",
        'removed_headers = ["Cookie"]\n[ticket]',
        "[gateway] removed_headers: the field 'Cookie' has a meaning",
    ),
    (
        "[ticket]",
        'removed_headers = ["AUTHORIZATION"]\n[ticket]\nforward_ticket = true',
        "[gateway] removed_headers: has Authorization, in which",
    ),
    ("[ticket]", 'login_url = "login"\n[ticket]', "[gateway] login_url"),
    (
        "[ticket]",
        "[timeouts]\nkeepalive_s = 5\n[ticket]",
        "[timeouts] keepalive_s: no such key; did you mean keep_alive_s?",
    ),
    ("[ticket]", "[timeouts]\nkeep_alive_s = 0\n[ticket]", "[timeouts] keep_alive_s: must be a number of seconds"),
    ('keys = "keys.toml"', 'keys = "none.toml"', "none.toml: No such file"),
    ('keys = "keys.toml"', 'keys = "keys.toml"\ncookie = "a b"', "[ticket] cookie"),
    ('keys = "keys.toml"', 'keys = "keys.toml"\ncookie = "a;b"', "[ticket] cookie: must be 1 to 100"),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie = "__Host-t"\ncookie_secure = false',
        "[ticket] cookie_secure: browsers take a cookie named __Host-t only if it is Secure",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie = "__host-http-t"\ncookie_domain_level = 2',
        "[ticket] cookie_domain_level: browsers take __host-http-t only for the host alone",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie = "__Host-t"\ncookie_path = "/a"',
        "[ticket] cookie_path: browsers take __Host-t only with the path /",
    ),
    ('keys = "keys.toml"', 'keys = "keys.toml"\ncookie_path = "a;b"', "[ticket] cookie_path: must begin with /"),
    ('keys = "keys.toml"', 'keys = "keys.toml"\ncookie_domain_level = 1', "cookie_domain_level: must be 0, or 2 to"),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie_secure = "always"',
        "[ticket] cookie_secure: must be true or false or one of auto, not 'always'",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie_same_site = "None"\ncookie_secure = false',
        "[ticket] cookie_secure: browsers take a cookie with SameSite=None only if",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie_partitioned = true\ncookie_secure = false',
        "[ticket] cookie_secure: browsers take a cookie that is Partitioned only if",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\ncookie_same_site = "lax"',
        "[ticket] cookie_same_site: must be one of Lax, Strict, None, not 'lax'",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nidle_timeout_s = 1',
        "idle_timeout_s is 1, shorter than four flush intervals",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nidle_timeout_s = -1',
        "[ticket] idle_timeout_s: must not be negative",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nremember_lifetime_s = 0',
        "[ticket] remember_lifetime_s: must be from 1 to 4294967295",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nremember_lifetime_s = 4294967296',
        "[ticket] remember_lifetime_s: must be from 1 to",
    ),
    ('keys = "keys.toml"', 'keys = "keys.toml"\nsessions_max = -1', "[ticket] sessions_max: must not be negative"),
    ('keys = "keys.toml"', 'keys = "keys.toml"\nsessions_max = 1000001', "[ticket] sessions_max: must be at most"),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nsessions_max_policy = "evict"',
        "[ticket] sessions_max_policy: must be one of evict-oldest, refuse",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nlogin_details = ["address", "password"]',
        "[ticket] login_details: must be a list of address and user_agent, not ['address', 'password']",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\nlogin_details = "address"',
        "[ticket] login_details: must be a list of",
    ),
    ("[[upstream]]", '[store]\nurl = "mysql://x"\n[[upstream]]', "[store] url: mysql"),
    (
        "[[upstream]]",
        '[store]\nurl = "sqlite:///s.db"\nmirror_url = "redis://h?x=1"\n[[upstream]]',
        "[store] mirror_url: x: no such option",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\naccept_audiences = ["old", ""]',
        "[ticket] accept_audiences: an audience must not be empty",
    ),
    (
        'keys = "keys.toml"',
        'keys = "keys.toml"\naudience = "new"\naccept_audiences = ["old", "new"]',
        "[ticket] accept_audiences: 'new' is the audience of this gateway",
    ),
    ("[[upstream]]", "[store]\nlease_ms = 600\n[[upstream]]", "lease_ms is 600"),
    ("[[upstream]]", '[store]\noutage_policy = "maybe"\n[[upstream]]', "must be one of serve-cached, deny"),
    ("[[upstream]]", "[cache]\ncapacity = 0\n[[upstream]]", "[cache] capacity"),
    ('name = "app"', "", "[[upstream]] number 1: name is missing"),
    ('servers = ["127.0.0.1:9001"]', "servers = []", "[[upstream]] app: servers"),
    ("[[upstream]]", "[upstream]", "upstream: write it as [[upstream]]"),
    ('path = "/"', 'path = "x"', "[[route]] x: path must begin with /"),
    ('path = "/"', 'path = "/a%62"', "path is compared after decoding"),
    ('path = "/"', 'path = "/"\nauth = "yes"', "[[route]] number 1 auth: must be one of required, optional, none"),
    ('path = "/"', 'path = "/"\nupstream = "b"', "[[route]] / upstream: there is no upstream 'b'"),
    ('path = "/"', 'path = "/"\n[[route]]\npath = "/"', "[[route]] /: the path is there twice"),
    ('[[route]]\npath = "/"', "", "[[route]]: there must be one"),
    ("[gateway]", "[gateway", "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "where"), BAD)
def test_a_bad_configuration_is_one_line(in_process, keyfile, tmp_path, old, new, where):
    assert old in GOOD
    (tmp_path / "a.toml").write_text(GOOD.replace(old, new, 1))
    assert where in refused(in_process("check-config", "--config", "a.toml"))


MISTAKES = """
[gateway]
listen = ["127.0.0.1:0", "127.0.0.1"]
login_url = "login"
workers = 0
thraeds = 2
[ticket]
keys = "none.toml"
idle_timeout_s = 1
[store]
url = "redis://:hush@h?x=1"
[limits]
fields_max = 1000
[timeouts]
keep_alive_s = "long"
[[upstream]]
name = "app"
servers = ["127.0.0.1", "127.0.0.1:2", "::1:80"]
[[upstream]]
servers = []
[[route]]
path = "/"
auth = "maybe"
exempt = "("
upstream = "other"
[[route]]
path = "/public/*"
auth = "none"
"""


def test_all_that_is_wrong_is_said_at_once(cli, tmp_path):
    """All mistakes of a file are told in one run."""
    (tmp_path / "a.toml").write_text(MISTAKES)
    code, output, error = cli("check-config", "--config", "a.toml")
    assert (code, output) == (2, "")
    lines = [line.removeprefix("fastticket: ") for line in error.splitlines()]
    found = [
        ("[gateway] thraeds: no such key", "did you mean threads?"),
        ("[limits] fields_max: must be from", ""),
        ("[timeouts] keep_alive_s: must be a number", ""),
        ("[[upstream]] number 2: name is missing", ""),
        ("[[route]] number 1 auth: must be one of", ""),
        ("[gateway] login_url: must be a path or a URL", ""),
        ("[gateway] workers: must be from 1", ""),
        ("[[route]] / exempt: not a regular expression", ""),
        ("[[route]] /public/*: there are no wildcards", "write /public"),
        ("[gateway] listen: 127.0.0.1: the port is missing", ""),
        ("[[upstream]] app: servers: 127.0.0.1: the port is missing", ""),
        ("[[upstream]] app: servers: ::1:80: write an IPv6 address", ""),
        ("[store] url: x: no such option", ""),
        ("none.toml: No such file", "keygen"),
    ]
    for begin, rest in found:
        (line,) = [line for line in lines if line.removeprefix("a.toml: ").startswith(begin)]
        assert rest in line
    assert len(lines) == len(found)
    assert "hush" not in error
    # The gateway names the first ones, in one line of its log.
    error = refused(cli("serve", "--config", "a.toml"))
    assert "no such key" in error
    assert error.endswith("; and 8 more, which `fastticket check-config` shows\n")


LOOP = """
[gateway]
login_url = "/login?from=here"
[[upstream]]
name = "app"
servers = ["127.0.0.1:9001"]
"""


@pytest.mark.parametrize(
    ("routes", "loops"),
    [
        ([{"path": "/"}], "/login needs a ticket itself, by [[route]] /:"),
        ([{"path": "/"}, {"path": "/login", "auth": "none"}], ""),
        ([{"path": "/"}, {"path": "/login", "auth": "optional"}], ""),
        ([{"path": "/"}, {"path": "/log", "auth": "none"}], "by [[route]] /:"),
        ([{"path": "/", "exempt": "/login"}], ""),
        ([{"path": "/", "exempt": "/log"}], "by [[route]] /:"),
        ([{"path": "/", "auth": "none"}, {"path": "/login"}], "by [[route]] /login:"),
        ([{"path": "/", "host": "a.b"}, {"path": "/login", "auth": "none"}], "on a.b, by [[route]] a.b/:"),
        (
            [{"path": "/", "host": "*.b"}, {"path": "/login", "host": "a.b", "auth": "none"}],
            "on *.b, by [[route]] *.b/:",
        ),
        ([{"path": "/api", "host": "*.b"}, {"path": "/login", "auth": "none"}], ""),
        ([{"path": "/api"}], ""),  # a 404, and a warning
    ],
)
def test_a_login_page_that_needs_a_ticket_is_a_loop(routes, loops):
    table = tomllib.loads(LOOP) | {"route": routes}
    if not loops:
        assert read_config(table, "test", Path()).gateway.login_url
        return
    with pytest.raises(ConfigError, match=re.escape(loops)):
        read_config(table, "test", Path())


@pytest.mark.parametrize("url", ["https://sso.example.org/login", "//sso.example.org/login"])
def test_a_login_page_elsewhere_is_somebody_elses(url):
    table = tomllib.loads(LOOP) | {"route": [{"path": "/"}], "gateway": {"login_url": url}}
    assert read_config(table, "test", Path()).gateway.login_url == url


@pytest.mark.parametrize("path", ["/public/*", "/*/x", "/a//b", "/a/../b", "/a/."])
def test_a_path_that_no_request_has_is_refused(path):
    table = tomllib.loads(LOOP) | {"route": [{"path": "/login", "auth": "none"}, {"path": path, "auth": "none"}]}
    with pytest.raises(ConfigError, match=r"no request (would fall|falls) under it"):
        read_config(table, "test", Path())


def test_more_servers_than_there_is_room_for(cli, keyfile, tmp_path):
    """Accepted, and `serve` died with a traceback."""
    upstreams = [
        f'[[upstream]]\nname = "u{n}"\nservers = {[f"127.0.{n}.{host}:9" for host in range(250)]!r}\n' for n in range(6)
    ]
    (tmp_path / "a.toml").write_text(GOOD.replace("[[route]]", "\n".join(upstreams) + "[[route]]"))
    said = "at most 1024 servers in all of them, not 1501"
    assert said in refused(cli("check-config", "--config", "a.toml"))
    assert said in refused(cli("serve", "--config", "a.toml"))


def test_keys_that_everybody_can_read_are_a_warning(cli, keyfile, tmp_path):
    (tmp_path / "a.toml").write_text(GOOD)
    keyfile.chmod(0o644)
    code, output, error = cli("check-config", "--config", "a.toml")
    assert (code, error.count("\n")) == (0, 1)
    assert "warning: keys.toml: everybody on this machine can read the keys" in error
    assert "idle_timeout_s = 7200" in output


def test_a_number_of_workers_is_a_number_of_threads_and_a_warning(cli, keyfile, tmp_path):
    (tmp_path / "a.toml").write_text(GOOD.replace("[gateway]\n", "[gateway]\nworkers = 2\n"))
    code, output, error = cli("check-config", "--config", "a.toml")
    assert (code, "threads = 2\n" in output, "workers = " in output) == (0, True, False)
    assert "warning: a.toml: [gateway] workers: is called threads now" in error


def test_a_login_page_that_is_nowhere_is_a_warning(cli, keyfile, tmp_path):
    text = GOOD.replace("[ticket]", 'login_url = "/login"\n[ticket]').replace('path = "/"', 'path = "/api"')
    (tmp_path / "a.toml").write_text(text)
    code, _, error = cli("check-config", "--config", "a.toml")
    assert code == 0
    assert "warning: a.toml: [gateway] login_url: /login falls under no [[route]]: it is 404 there" in error


def test_an_exemption_that_no_path_matches_is_a_warning(cli, keyfile, tmp_path):
    """It is matched as a whole, and a path begins with a slash."""
    (tmp_path / "a.toml").write_text(GOOD.replace('path = "/"', 'path = "/"\nexempt = "public/.*"'))
    code, _, error = cli("check-config", "--config", "a.toml")
    assert code == 0
    assert "warning: a.toml: [[route]] /: exempt: 'public/.*' matches no path: they begin with /" in error


@pytest.mark.parametrize(
    ("routes", "warns"),
    [
        ("login = true", True),
        ('login = true\nauth = "optional"', False),
        ('login = true\nauth = "none"', False),
        ('login = true\nexempt = "/in"', False),
        ('login = true\n[[route]]\npath = "/in"\nlogin = true\nauth = "optional"', False),
    ],
)
def test_a_login_that_nobody_without_a_ticket_can_reach_is_a_warning(cli, keyfile, tmp_path, routes, warns):
    (tmp_path / "a.toml").write_text(GOOD.replace('path = "/"', f'path = "/"\n{routes}'))
    code, _, error = cli("check-config", "--config", "a.toml")
    assert code == 0
    said = 'warning: a.toml: [[route]] /: login = true with auth = "required": nobody without a ticket gets there'
    assert (said in error) is warns


def test_a_live_check_asks_the_world(cli, keyfile, tmp_path):
    """Without --live each of these was 0."""
    server = Server(tmp_path)
    url = f"redis://{server.address}/0?timeout_ms=10000"
    wrong = GOOD.replace("127.0.0.1:9001", "nowhere.invalid:1").replace(
        "[ticket]", 'access_log = "no/such/log"\nadmin = "unix:run/admin.sock"\n[ticket]'
    )
    (tmp_path / "a.toml").write_text(
        f'{wrong}[store]\nurl = "redis://:hush@127.0.0.1:1/0"\nmirror_url = "redis://127.0.0.1:1/1"\n'
    )
    (tmp_path / "b.toml").write_text(f'{GOOD}[store]\nurl = "{url}"\n')
    try:
        assert cli("check-config", "--config", "a.toml")[0] == 0
        code, output, error = cli("check-config", "--live", "--config", "a.toml")
        assert code == 1
        assert "idle_timeout_s = 7200" in output
        for said in (
            "a.toml: [store] url: redis://:***@127.0.0.1:1/0: redis 127.0.0.1:1:",
            "a.toml: [store] mirror_url: redis://127.0.0.1:1/1: redis 127.0.0.1:1:",
            "a.toml: [[upstream]] app: servers: nowhere.invalid:1: the name does not resolve",
            "a.toml: [gateway] access_log: no/such/log: the folder no/such is not there",
            "a.toml: [gateway] admin: run/admin.sock: the folder run is not there",
        ):
            assert f"fastticket: {said}" in error
        assert "hush" not in error
        text = (tmp_path / "a.toml").read_text()
        (tmp_path / "a.toml").write_text(text.replace("access_log", "workers = 0\naccess_log"))
        code, _, both = cli("check-config", "--live", "--config", "a.toml")
        assert code == 2  # and one run finds all of it
        assert "[gateway] workers: must be from 1 to 64" in both
        assert set(error.splitlines()) - {line for line in error.splitlines() if "warning" in line} < set(
            both.splitlines()
        )
        assert cli("check-config", "--live", "--config", "b.toml")[::2] == (0, "")  # the first start makes the store
        assert server.admin("DBSIZE") == 0
        assert cli("issue", "alice", "--config", "b.toml")[0] == 0
        assert cli("check-config", "--live", "--config", "b.toml")[::2] == (0, "")
        # The first stage of a move: gateways make the mirror, and whoever only reads needs none.
        (tmp_path / "c.toml").write_text(f'{GOOD}[store]\nurl = "{url}"\nmirror_url = "{url.replace("/0?", "/1?")}"\n')
        for command in (
            ("check-config", "--live"),
            ("sessions", "--all", "--count"),
            ("events",),
            ("export", tmp_path / "x.jsonl"),
        ):
            code, _, error = cli(*command, "--config", "c.toml")
            assert (code, error.count("mirror")) == (0, 0), command
        (tmp_path / "c.toml").write_text(f'{GOOD}[store]\nurl = "sqlite:///a.db"\nmirror_url = "{url}&shards=8"\n')
        code, _, error = cli("issue", "alice", "--config", "c.toml")  # it does not fit, and says so once
        assert (code, error.count("made with shards")) == (2, 1), error
        assert "how-to/move-store" in error
    finally:
        server.kill()


def test_a_live_check_looks_at_a_file_of_sessions(cli, keyfile, tmp_path):
    (tmp_path / "a.toml").write_text(GOOD)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert cli("check-config", "--live", "--config", "a.toml")[::2] == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert cli("issue", "alice", "--config", "a.toml")[0] == 0
    assert cli("check-config", "--live", "--config", "a.toml")[::2] == (0, "")
    (tmp_path / "fastticket.db").chmod(0o644)
    code, _, error = cli("check-config", "--live", "--config", "a.toml")
    assert code == 1
    assert "fastticket.db: everybody on this machine can read the sessions" in error


@pytest.mark.parametrize("where", ["did you mean listen?", "none.toml: No such file", "[store] url", "not TOML"])
def test_serve_says_it_in_the_same_words(cli, in_process, keyfile, tmp_path, where):
    old, new, _ = next(bad for bad in BAD if where in bad[2])
    (tmp_path / "a.toml").write_text(GOOD.replace(old, new, 1))
    error = refused(cli("serve", "--config", "a.toml"))
    assert where in error
    assert error == refused(in_process("check-config", "--config", "a.toml"))


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["serve"], "serve needs --config FILE, or --upstream"),
        (["serve", "--config", "none.toml"], "none.toml: No such file"),
        (["serve", "--config", "a.toml", "--keys", "k"], "--keys does not go with --config, whose file sets it"),
        (["serve", "--config", "a.toml", "--threads", "2"], "--threads does not go with --config, whose file sets it"),
        (["serve", "--config", "a.toml", "--workers", "2"], "--workers does not go with --config, whose file sets it"),
        (["serve", "--upstream", "127.0.0.1:1"], "FASTTICKET_KEYS is not set"),
        (
            ["serve", "--upstream", "nowhere..invalid:1", "--keys", "keys.toml", "--listen", "127.0.0.1:0"],
            "does not resolve",
        ),
        (
            ["serve", "--upstream", "127.0.0.1:1", "--keys", "keys.toml", "--listen", "192.0.2.1:80"],
            "listen 192.0.2.1:80",
        ),
        (["check-config"], "check-config needs --config"),
        (["keys", "add", "none.toml"], "none.toml: No such file"),
        (["issue", "alice", "--keys", "keys.toml", "--store", "sqlite:///no/such/folder/s.db"], "does not exist"),
    ],
)
def test_bad_usage_is_one_line(cli, keyfile, arguments, where):
    assert where in refused(cli(*arguments))


def test_unknown_arguments(cli):
    for arguments in ([], ["nothing"], ["serve", "--nothing"], ["serve", "--threads", "0"], ["demo", "--port", "x"]):
        assert cli(*arguments)[0] == 2


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hu@sh@h",
        'redis://:hu"sh@h',
        "redis://u:hu sh@h/0",
        "redis+sentinel://a/m?sentinel%5Fpassword=hush",
        "redis://h?x=1&sentinel_password=hush",
    ],
)
def test_no_part_of_a_password_is_shown(url):
    table = {
        "store": {"url": "sqlite:///s.db"},
        "upstream": [{"name": "app", "servers": ["127.0.0.1:1"]}],
        "route": [{"path": "/", "request_headers": {"X-Token": "hush"}}],
    }
    config = read_config(table, "test", Path())
    config = dataclasses.replace(config, store=dataclasses.replace(config.store, url=url))
    shown = to_toml(without_secrets(config))
    assert not re.search(r"hu.{0,2}sh|@sh", shown)
    assert tomllib.loads(shown)["store"]["url"].endswith(("@h", "@h/0", "***"))


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        ({"listen": ["127.0.0.1:8080"], "admin": "127.0.0.1:8080"}, "admin: must have a port of its own"),
        ({"listen": ["0.0.0.0:8080"], "admin": "[::1]:8080"}, "admin: must have a port of its own"),
    ],
)
def test_an_admin_listener_is_not_for_clients(gateway, said):
    table = {
        "gateway": gateway,
        "upstream": [{"name": "app", "servers": ["127.0.0.1:1"]}],
        "route": [{"path": "/"}],
    }
    with pytest.raises(ConfigError, match=said):
        read_config(table, "test", Path())


def test_a_route_to_which_no_browser_sends_the_ticket_is_a_warning(cli, keyfile, tmp_path):
    routes = "".join(f'\n[[route]]\npath = "{path}"\n' for path in ("/app/x", "/ap", "/application"))
    text = GOOD.replace("[ticket]", '[ticket]\ncookie_path = "/app"') + routes
    (tmp_path / "a.toml").write_text(text)
    code, output, error = cli("check-config", "--config", "a.toml")
    assert code == 0
    assert re.findall(r"cookie_path: /app: no browser sends the ticket to \[\[route\]\] (\S+),", error) == [
        "/ap",
        "/application",
    ]
    assert 'cookie_secure = "auto"' in output

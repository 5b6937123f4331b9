"""`fastticket migrate`: counts in, counts out, and the sessions that it made are used."""

import asyncio
import base64
import json
import subprocess
import sys

import flask
import jsonschema
import pytest
from lab.killed import done_by, killed_when
from lab.old_systems import flask_logins, now_ms, put_spring_session, star_logins
from lab.store_contract import all_of
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import fastticket
from fastticket.asgi import SessionMiddleware
from fastticket.commands.cli import main
from fastticket.commands.schemas import schema_of
from fastticket.flask import TicketSessions
from fastticket.keyfile import create_key_file
from fastticket.moving.formats.linkis_ticket import LinkisTickets
from fastticket.moving.record import to_restored
from fastticket.moving.sources.flask_session import FlaskSessions
from fastticket.moving.sources.linkis import HASH, LinkisSessions
from fastticket.moving.sources.spring import SpringSessions
from fastticket.moving.sources.starsessions import StarSessions
from fastticket.stores.redis.foreign import ForeignRedis
from fastticket.sync import TicketCache

STORE = "sqlite:///sessions.db"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTTICKET_STORE", raising=False)
    create_key_file(tmp_path / "keys.toml")
    return tmp_path


@pytest.fixture
def migrate(folder, capsys):
    """Run the command: its report, which fits its schema."""

    def run(*arguments):
        capsys.readouterr()
        assert main(["migrate", *arguments, "--store", STORE, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        jsonschema.validate(report, schema_of(f"migrate {arguments[0]}"))
        return report

    return run


def counts(report):
    """All that is not zero."""
    names = ("read", "created", "exists", "ended", "expired", "done_before")
    return {name: report[name] for name in names if report[name]} | report["skipped"]


def everything_in(there):
    """What the source has, with types and times to live aside."""
    return {key: there.dump(key) for key in there.scan_iter()}


def ticket_of(make, cookie):
    """The ticket of the session that a cookie's was moved to; `make`: the source."""

    async def found():
        source = make()
        try:
            return await source.read_one(cookie)
        finally:
            await source.aclose()

    record = asyncio.run(found())
    with TicketCache(STORE, "keys.toml") as cache:
        before = len(cache.sessions(record.principal))
        ticket = cache.take_up(to_restored(record, 0))
        assert len(cache.sessions(record.principal)) == before  # it was moved already
        assert cache.authenticate(ticket).principal == record.principal
    return ticket


def test_spring(there, url, migrate):
    for user in ("alice", "bob"):
        put_spring_session(there, f"id-{user}", user=user, cart=b'{"tea":2}', context=b"\xac\xed\x00\x05sr\x00")
    put_spring_session(there, "old", used_ms=now_ms() - 2_000_000, user="eve")
    put_spring_session(there, "nobody")
    before = everything_in(there)
    expected = {"read": 4, "created": 2, "anonymous": 1, "expired": 1}
    for options in (["--dry-run"], []):
        report = migrate("spring", "--from", url, *options)
        assert counts(report) == expected
        assert report["attributes_left"] == [{"name": "context", "why": "java_serialized", "count": 2}]
    assert everything_in(there) == before
    put_spring_session(there, "id-carol", user="carol")
    assert counts(migrate("spring", "--from", url)) == {**expected, "read": 5, "created": 1, "done_before": 2}
    ticket = ticket_of(lambda: SpringSessions(ForeignRedis(url)), base64.b64encode(b"id-alice").decode())
    with TicketCache(STORE, "keys.toml") as cache:
        assert dict(cache.attributes(cache.authenticate(ticket))) == {"cart": {"tea": 2}}


def test_one_that_was_killed_ends_as_one_that_was_left_alone(folder, there, url, migrate):
    with there.pipeline() as pipeline:
        for number in range(700):
            user = f"user{number % 97}" if number % 10 else ""
            put_spring_session(pipeline, f"{number:036}", user=user, cart=b"[%d]" % number, note=b"not JSON")
        pipeline.execute()
    progress = folder / "migrate-spring.progress"
    for count in (150, 300):
        with killed_when(lambda count=count: done_by(progress) >= count) as run:
            run("migrate", "spring", "--from", url, "--store", STORE, "--rate", "20")
    before = asyncio.run(all_of(STORE))
    assert 300 <= len(before) < 630
    report = migrate("spring", "--from", url)
    assert counts(report) == {
        "read": 700,
        "anonymous": 70,
        "done_before": report["done_before"],
        "created": 630 - report["done_before"] - report["exists"],
        **({"exists": report["exists"]} if report["exists"] else {}),
    }
    assert (report["done_before"] >= 300, report["in_doubt"]) == (True, 0)
    assert main(["migrate", "spring", "--from", url, "--store", "sqlite:///alone.db", "--progress", "alone"]) == 0
    assert asyncio.run(all_of(STORE)) == asyncio.run(all_of("sqlite:///alone.db"))


def test_springs_database(folder, migrate):
    rows = "".join(f"{name},1,{now_ms()},1800,{name}\n" for name in ("alice", "bob", ""))
    (folder / "rows.csv").write_text(
        f"SESSION_ID,CREATION_TIME,LAST_ACCESS_TIME,MAX_INACTIVE_INTERVAL,PRINCIPAL_NAME\n{rows}"
    )
    assert counts(migrate("spring", "--csv", "rows.csv")) == {"read": 3, "created": 2, "malformed": 1}


def test_flask_session_and_its_application_afterwards(redis_server, url, migrate):
    cookies = flask_logins(redis_server.port, ["alice", "bob", "nobody"])
    assert counts(migrate("flask-session", "--from", url)) == {"read": 3, "created": 2, "anonymous": 1}
    ticket = ticket_of(lambda: FlaskSessions(ForeignRedis(url)), cookies[0])
    application = flask.Flask("shop")
    application.get("/")(lambda: {"user": flask.session["_user_id"], "cart": flask.session["cart"]})
    with TicketCache(STORE, "keys.toml") as cache:
        application.session_interface = TicketSessions(cache, principal_key="_user_id")
        browser = application.test_client()
        browser.set_cookie("ticket", ticket)
        assert browser.get("/").json == {"user": "alice", "cart": {"tea": 2}}


def test_starsessions_and_its_application_afterwards(redis_server, url, migrate):
    cookies = star_logins(redis_server.port, ["alice", "nobody"], lifetime=3600)
    names = ["--principal-attribute", "user.name"]
    assert counts(migrate("starsessions", "--from", url, *names)) == {"read": 2, "created": 1, "anonymous": 1}
    ticket = ticket_of(lambda: StarSessions(ForeignRedis(url), principals=["user.name"]), cookies[0])

    async def show(request):
        await request.session.load()
        return JSONResponse({"user": request.session.principal, "cart": request.session["cart"]})

    application = Starlette(routes=[Route("/", show)])
    application.add_middleware(SessionMiddleware, cache=fastticket.TicketCache(STORE, "keys.toml"))
    with TestClient(application, cookies={"ticket": ticket}) as browser:
        assert browser.get("/").json() == {"user": "alice", "cart": [1]}


def test_linkis(folder, there, url, migrate):
    (folder / "key").write_text("our own\n")
    tickets = LinkisTickets("our own", header="t_", user_suffix="@shop")
    made = [tickets.seal(user, now_ms(), kind) for user in ("alice", "bob") for kind in ("des", "aes-gcm")]
    for ticket in made:
        there.hset(HASH, ticket, now_ms())
    there.hset(HASH, LinkisTickets().seal("eve", now_ms(), "des"), now_ms())
    names = ("--ticket-header", "t_", "--user-suffix", "@shop")
    report = migrate("linkis", "--from", url, "--crypt-key-file", "key", *names)
    assert counts(report) == {"read": 5, "created": 4, "forged": 1}
    assert not any(ticket[:20] in json.dumps(report) for ticket in made)
    with TicketCache(STORE, "keys.toml") as cache:
        assert len(cache.sessions("alice")) == 2
    for ticket in made:
        ticket_of(lambda: LinkisSessions(ForeignRedis(url), tickets), ticket.replace("\r\n", ""))


def test_a_session_that_has_ended_here_does_not_come_back(there, url, migrate):
    put_spring_session(there, "1", user="alice")
    migrate("spring", "--from", url)
    with TicketCache(STORE, "keys.toml") as cache:
        cache.logout_everywhere("alice")
    assert counts(migrate("spring", "--from", url)) == {"read": 1, "done_before": 1}
    assert counts(migrate("spring", "--from", url, "--progress", "another")) == {"read": 1, "ended": 1}
    with TicketCache(STORE, "keys.toml") as cache:
        assert cache.sessions("alice") == []


def test_what_is_wrong_is_said(folder, url, redis_server, capsys):
    def run(*arguments):
        code = main(["migrate", *arguments, "--store", STORE])
        return code, capsys.readouterr().err

    (folder / "empty").write_text("")
    code, error = run("linkis", "--from", url, "--crypt-key-file", "empty")
    assert (code, "first line is empty" in error) == (2, True)
    code, error = run("flask-session", "--from", "redis+cluster://127.0.0.1:1")
    assert (code, "each primary" in error) == (2, True)
    redis_server.kill()
    code, error = run("spring", "--from", url.replace("://", "://user:hush@"))
    assert code == 1
    assert "hush" not in error


def test_a_report_for_people_has_reasons_in_words(there, url, folder, capsys):
    put_spring_session(there, "1", user="alice", photo=b"\xac\xed\x00\x05sr\x00")
    put_spring_session(there, "longer than six")
    assert main(["migrate", "spring", "--from", url, "--store", STORE, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "2 sessions read: a dry run, nothing is written" in shown.out
    assert "1  to be made here" in shown.out
    assert "skipped, anonymous: nobody is logged in" in shown.out
    assert "attributes left behind, 'photo': it is serialized by Java" in shown.out
    assert "longer…: anonymous" in shown.err
    assert not list(folder.glob("*.progress"))


def test_oauth2_proxys_configuration(folder, capsys):
    (folder / "oauth2-proxy.cfg").write_text('http_address = ":4180"\nclient_secret = "hush"\n')
    assert main(["migrate", "oauth2-proxy", "oauth2-proxy.cfg", "--out", "ours.toml"]) == 0
    shown = capsys.readouterr().err
    assert "oauth2-proxy.cfg:2: client_secret: no counterpart" in shown
    assert main(["check-config", "--config", "ours.toml"]) == 0
    assert main(["migrate", "oauth2-proxy", "oauth2-proxy.cfg", "--out", "ours.toml"]) == 2
    capsys.readouterr()
    assert main(["migrate", "oauth2-proxy", "oauth2-proxy.cfg", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, schema_of("migrate oauth2-proxy"))
    assert [(line["file"], line["number"]) for line in report["lines"]] == [("oauth2-proxy.cfg", n) for n in (1, 2)]
    (folder / "alpha.yaml").write_text("metricsServer: {bindAddress: ':9100'}\nproviders: [{clientSecret: hush}]\n")
    alpha = ["migrate", "oauth2-proxy", "--alpha-config", "alpha.yaml"]
    assert main([*alpha, "--out", "alone.toml"]) == 0
    shown = capsys.readouterr().err
    assert "alpha.yaml:1: metricsServer.bindAddress: [gateway] admin" in shown
    assert "hush" not in shown
    assert main(["check-config", "--config", "alone.toml"]) == 0
    for wrong in (["none.cfg"], []):
        assert main(["migrate", "oauth2-proxy", *wrong]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["linkis", "--from", "redis://127.0.0.1:1", "--store", "x"],
        ["oauth2-proxy", "--alpha-config", __file__],
    ],
    ids=lambda arguments: arguments[0],
)
def test_other_commands_need_no_library_of_migrations(arguments):
    forbid = "import sys; sys.modules['cryptography'] = sys.modules['msgpack'] = sys.modules['yaml'] = None; "
    run = f"from fastticket.commands.cli import main; main({['migrate', *arguments]!r})"
    done = subprocess.run([sys.executable, "-c", forbid + run], capture_output=True, text=True, timeout=60, check=False)
    assert "fastticket[migration]" in done.stderr

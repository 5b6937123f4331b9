"""Other systems' sessions in Redis, made by their own libraries where there are such, and read."""

import asyncio
import base64
import json
import pickle

import pytest
from lab.old_systems import HOUR_MS, KEYS, flask_logins, java_long, java_text, now_ms, put_spring_session, star_logins
from lab.redis_fakes import Scripted, bulk

from fastticket.errors import ConfigError, OldStoreUnavailable, StoreUnavailable
from fastticket.moving.formats.linkis_ticket import LinkisTickets
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import id_here
from fastticket.moving.sources.flask_session import FlaskSessions
from fastticket.moving.sources.linkis import HASH, LinkisSessions
from fastticket.moving.sources.spring import INDEX, SpringSessions
from fastticket.moving.sources.spring_jdbc import SpringExport
from fastticket.moving.sources.starsessions import StarSessions
from fastticket.stores.redis.foreign import ForeignRedis

ID = "d37d1c0a-5c4a-4c60-906b-7657be1e6bc7"
SECURITY = "SPRING_SECURITY_CONTEXT"


def read(source, *cookies):
    """All that there is, or what there is of these cookies."""

    async def reading():
        try:
            if cookies:
                return [await source.read_one(cookie) for cookie in cookies]
            return [record async for record in source.records()]
        finally:
            await source.aclose()

    return asyncio.run(reading())


def moved(records):
    """By principal."""
    return {record.principal: record for record in records if isinstance(record, MovedSession)}


def skipped(records):
    """The reasons, in order."""
    return sorted(record.why for record in records if isinstance(record, Skipped))


# ------------------------------------------------------------------------------- Spring


def test_spring_sessions_move_with_what_json_says_of_them(there, url):
    used_ms = now_ms()
    put_spring_session(
        there,
        ID,
        used_ms=used_ms,
        user="alice",
        cart=b'{"tea":2}',
        note=java_text("hi"),
        secret=b"\xac\xed\x00\x05sr\x00",
    )
    source = SpringSessions(ForeignRedis(url))
    (record,) = read(source)
    assert record == MovedSession(
        *("alice", id_here("spring", ID), used_ms - HOUR_MS, used_ms, 1800, 0),
        attributes={"cart": b'{"tea":2}', "note": b'"hi"'},
    )
    assert source.left == {("secret", "java_serialized"): 1}
    cookie = base64.b64encode(ID.encode()).decode()
    assert read(SpringSessions(ForeignRedis(url)), cookie) == [record]
    assert skipped(read(SpringSessions(ForeignRedis(url)), base64.b64encode(b"other").decode(), "!")) == [
        *("malformed", "not_found")
    ]


def test_who_is_logged_in_at_spring(there, url):
    context = {"authentication": {"authenticated": True, "principal": {"username": "dora"}}}
    put_spring_session(there, "1", user="index")
    put_spring_session(there, "2", **{INDEX: java_text("attribute")})
    put_spring_session(there, "3", **{SECURITY: json.dumps(context).encode()})
    put_spring_session(there, "4", **{SECURITY: json.dumps({"authentication": {"authenticated": False}}).encode()})
    put_spring_session(there, "5", user="one")
    put_spring_session(there, "5", user="two")
    put_spring_session(there, "6", user=" bad")
    records = read(SpringSessions(ForeignRedis(url)))
    assert set(moved(records)) == {"index", "attribute", "dora"}
    assert skipped(records) == ["anonymous"] * 3
    put_spring_session(there, "7", login=b'"eve"')
    assert set(moved(read(SpringSessions(ForeignRedis(url), principals=["login"])))) == {"index", "dora", "eve"}


def test_p4_a_session_of_spring_that_began_after_the_index_was_read_is_found(there, url):
    """At once; and the index is not read for each who asks."""
    cookies = {name: base64.b64encode(name.encode()).decode() for name in map(str, range(100))}

    def readings():
        return there.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"]

    async def reading():
        source = SpringSessions(ForeignRedis(url))
        for name in ("1", "2", "3"):
            put_spring_session(there, name, user=f"user{name}")
            assert (await source.read_one(cookies[name])).principal == f"user{name}"
        for name in list(cookies)[10:]:
            put_spring_session(there, name)
        before = readings()
        for _ in range(2):
            found = await asyncio.gather(*(source.read_one(cookies[name]) for name in list(cookies)[10:]))
            assert {each.why for each in found} == {"anonymous"}
        assert 0 < readings() - before < 20
        await source.aclose()

    asyncio.run(reading())


def test_what_is_no_session_of_spring_is_skipped_with_its_reason(there, url):
    put_spring_session(there, "old", used_ms=now_ms() - 2_000_000, user="a")
    put_spring_session(there, "for ever", used_ms=now_ms() - 10 * HOUR_MS, idle_s=-1, user="eternal")
    put_spring_session(there, "never", idle_s=0, user="a")
    there.hset(KEYS + "half", "lastAccessedTime", java_long(now_ms()))  # a request that came after the logout
    there.set(KEYS + "text", "x")
    there.hset(KEYS + "huge", mapping={f"sessionAttr:{number}": b"1" for number in range(1001)})
    records = read(SpringSessions(ForeignRedis(url)))
    assert moved(records)["eternal"].idle_timeout_s == 0
    assert skipped(records) == ["bad_times", "expired", "expired", "too_many_attributes", "wrong_type"]


def test_thousands_of_sessions_of_spring_are_read_some_at_a_time(there, url):
    with there.pipeline() as pipeline:
        for number in range(1000):
            put_spring_session(pipeline, f"{number:036}", user=f"user{number % 7}")
        pipeline.execute()
    assert len({record.session_id for record in read(SpringSessions(ForeignRedis(url)))}) == 1000


EXPORT = f"""primary_id,session_id,creation_time,last_access_time,max_inactive_interval,expiry_time,principal_name
p1,{ID}   ,1,{now_ms()},1800,0,alice
p2,2,1,1,1800,0,bob
p3,3,1,{now_ms()},1800,0,
p4,4,x,{now_ms()},1800,0,carol
p5,5
p6,"6 ""quoted"", too",1,{now_ms()},-1,0,"Dora, D."
"""


def test_springs_table_is_read_from_its_export(tmp_path):
    path = tmp_path / "sessions.csv"
    path.write_text(EXPORT)
    records = read(SpringExport(path))
    assert set(moved(records)) == {"alice", "Dora, D."}
    assert moved(records)["alice"].session_id == id_here("spring", ID)
    assert skipped(records) == ["anonymous", "bad_times", "bad_times", "expired"]
    cookies = [base64.b64encode(name.encode()).decode() for name in (ID, "none")]
    assert read(SpringExport(path), *cookies)[0] == moved(records)["alice"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", 'session_id,"', "\xff"])
def test_a_file_that_is_no_such_export_is_said(tmp_path, text):
    path = tmp_path / "sessions.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"sessions\.csv"):
        read(SpringExport(path))


# ------------------------------------------------------------------------------- Flask-Session


@pytest.mark.parametrize("kind", ["msgpack", "json"])
def test_flask_sessions_move_in_both_formats(redis_server, there, url, kind):
    cookies = flask_logins(redis_server.port, ["alice", "bob", "nobody"], SESSION_SERIALIZATION_FORMAT=kind)
    there.set("session:pickled", pickle.dumps({"_user_id": "eve"}))
    there.set("session:broken", b"\xc1")
    there.lpush("session:list", b"x")
    source = FlaskSessions(ForeignRedis(url))
    records = read(source)
    assert set(moved(records)) == {"alice", "bob"}
    assert skipped(records) == ["anonymous", "not_msgpack", "pickled", "wrong_type"]
    alice = moved(records)["alice"]
    assert alice.session_id == id_here("flask-session", cookies[0])
    attributes = {"_user_id": b'"alice"', "cart": b'{"tea":2}'}
    assert alice.attributes == (attributes if kind == "msgpack" else attributes | {"seen": b'"AA=="'})
    assert source.left == ({("seen", "not_in_json"): 2} if kind == "msgpack" else {})
    assert abs(alice.last_access_ms - now_ms()) < 600_000
    found = read(FlaskSessions(ForeignRedis(url)), cookies[0], "unknown", "x" * 600)
    assert found[0].session_id == alice.session_id
    assert skipped(found) == ["malformed", "not_found"]


def test_a_signed_cookie_of_flask_session_is_checked(redis_server, url):
    with pytest.warns(DeprecationWarning, match="use_signer"):
        (cookie,) = flask_logins(redis_server.port, ["alice"], SESSION_USE_SIGNER=True, SECRET_KEY="between us")
    source = FlaskSessions(ForeignRedis(url), secret_key="between us")
    records = read(source, cookie, cookie + "x", cookie.partition(".")[0], "é.é")
    assert records[0].principal == "alice"
    assert records[0].session_id == id_here("flask-session", cookie.rpartition(".")[0])
    assert skipped(records) == ["forged"] * 3


def test_the_last_use_at_flask_is_told_by_the_keys_end(there, url):
    there.set("session:1", json.dumps({"_user_id": "alice"}), px=HOUR_MS)
    there.set("session:2", json.dumps({"_user_id": "bob"}))
    records = moved(read(FlaskSessions(ForeignRedis(url), idle_timeout_s=2 * 3600)))
    assert abs(now_ms() - records["alice"].last_access_ms - HOUR_MS) < 600_000
    assert abs(now_ms() - records["bob"].last_access_ms) < 600_000


# ------------------------------------------------------------------------------- starsessions


@pytest.mark.parametrize(
    ("settings", "rolling", "lifetimes"),
    [
        ({"lifetime": 3600}, False, (0, 3600)),
        ({"lifetime": 3600, "rolling": True}, True, (3600, 0)),
        ({}, False, (7200, 86_400)),
    ],
    ids=["from the login", "rolling", "as the browser"],
)
def test_starsessions_move(redis_server, there, url, settings, rolling, lifetimes):
    cookies = star_logins(redis_server.port, ["alice", "bob", "nobody"], **settings)
    there.set("starsessions.x", b"{}")
    there.set("starsessions.y", b'{"user":{"name":"a"},"__metadata__":{"created":"now"}}')
    there.set("starsessions.z", b"[]")
    old = {"user": {"name": "a"}, "__metadata__": {"created": 1, "last_access": 1, "lifetime": 60}}
    there.set("starsessions.o", json.dumps(old))
    options = {
        "principals": ["user.name"],
        "is_rolling": rolling,
        "idle_timeout_s": 7200,
        "absolute_lifetime_s": 86_400,
    }
    records = read(StarSessions(ForeignRedis(url), **options))
    assert set(moved(records)) == {"alice", "bob"}
    assert skipped(records) == ["anonymous", "anonymous", "bad_times", "expired", "malformed"]
    alice = moved(records)["alice"]
    assert (alice.idle_timeout_s, alice.absolute_lifetime_s) == lifetimes
    assert alice.attributes == {"user": b'{"name":"alice"}', "cart": b"[1]"}
    assert read(StarSessions(ForeignRedis(url), **options), cookies[0]) == [alice]


# ------------------------------------------------------------------------------- Linkis


def test_tickets_of_linkis_move_in_each_format(there, url):
    tickets = LinkisTickets()
    login_ms = now_ms() - HOUR_MS
    kinds = {"des": "alice", "des-raw": "bob", "aes-gcm": "carol-" + "x" * 60}
    cookies = {}
    for kind, user in kinds.items():
        cookies[user] = tickets.seal(user, login_ms, kind)
        there.hset(HASH, cookies[user], now_ms())
    there.hset(HASH, tickets.seal("old", login_ms, "des"), now_ms() - 7_200_001)
    there.hset(HASH, LinkisTickets("other-key").seal("eve", login_ms, "aes-gcm"), now_ms())
    there.hset(HASH, tickets.seal("x", login_ms, "des"), "soon")
    there.hset(HASH, b"\xff\xfe", now_ms())
    records = read(LinkisSessions(ForeignRedis(url), tickets))
    assert set(moved(records)) == set(kinds.values())
    assert {each.created_ms for each in moved(records).values()} == {login_ms}
    assert skipped(records) == ["bad_times", "expired", "forged", "malformed"]
    for user, ticket in cookies.items():
        cookie = ticket.replace("\r\n", "")
        (record,) = read(LinkisSessions(ForeignRedis(url), tickets), cookie)
        assert record == moved(records)[user]
        assert record.session_id == id_here("linkis", cookie)
    assert skipped(read(LinkisSessions(ForeignRedis(url), tickets), tickets.seal("mallory", login_ms, "des"))) == [
        "not_found"
    ]


# ------------------------------------------------------------------------------- the Redis there


def test_a_redis_that_does_not_answer_is_said_and_asked_again(redis_server, there, url):
    there.set("session:1", json.dumps({"_user_id": "alice"}))

    async def reading():
        source = FlaskSessions(ForeignRedis(url))
        assert (await source.read_one("1")).principal == "alice"
        redis_server.kill()
        with pytest.raises(StoreUnavailable, match=redis_server.address):
            await source.read_one("1")
        redis_server.start()
        assert (await source.read_one("1")).why == "not_found"
        await source.aclose()

    asyncio.run(reading())


def test_a_cluster_is_refused_with_advice():
    with pytest.raises(ConfigError, match="each primary"):
        ForeignRedis("redis+cluster://127.0.0.1:1")


BOUND_S = 20.0


class Slow:
    """A server that greets when a test lets it."""

    def __init__(self):
        self.came, self.goes = asyncio.Event(), asyncio.Event()

    async def answer(self, words):
        if words[0] == b"INFO":
            self.came.set()
            await self.goes.wait()
            return bulk(b"redis_version:7.2.0\r\n")
        return b"+OK\r\n"


@pytest.mark.parametrize("waits", [True, False], ids=["awaited", "given-up"])
async def test_a_connection_that_is_being_made_is_closed_too(waits):
    slow = Slow()
    fake = Scripted(slow.answer)
    fake.greets = False
    async with fake.running():
        redis = ForeignRedis(f"redis://{fake.address}/0?timeout_ms=60000")
        asking = asyncio.create_task(redis.ask([("PING",)]))
        await slow.came.wait()
        if not waits:
            asking.cancel()
            await asyncio.wait([asking])
        await redis.aclose()
        slow.goes.set()
        await asyncio.wait(list(fake.tasks), timeout=BOUND_S)
        assert not fake.tasks  # no connection is left
        await asyncio.wait([asking], timeout=BOUND_S)
        assert asking.cancelled() if not waits else isinstance(asking.exception(), OldStoreUnavailable)


async def test_who_waits_on_a_connection_that_another_gives_up_hears_of_it():
    """A round of the watch would wait for ever."""

    def answer(words):
        return b"-LOADING Redis is loading the dataset in memory\r\n" if words[0] == b"FIRST" else None

    async with Scripted(answer).running() as fake:
        redis = ForeignRedis(f"redis://{fake.address}/0?timeout_ms=60000")
        asking = [asyncio.create_task(redis.ask([(name,)])) for name in ("FIRST", "SECOND")]
        done, _ = await asyncio.wait(asking, timeout=BOUND_S)
        await redis.aclose()
        assert [type(each.exception()) for each in asking if each in done] == [OldStoreUnavailable] * 2

"""The Redis store against real servers: the store contract over every topology and engine, and what
is Redis' own.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

import pytest
from lab.redis_servers import ClusterSetup, SentinelSetup, Server, free_port, make_certificates
from lab.store_contract import (
    StoreContract,
    add_session,
    ask,
    everybodys_rises,
    history_of,
    new_session,
    new_session_id,
    write,
)
from lab.touch import Touch

import fastticket
from fastticket.stores.contract import BARS_MAX, shard_of
from fastticket.stores.redis import scripts
from fastticket.stores.redis.address import parse_url, slot_of
from fastticket.stores.redis.layout import DOORBELL, REGISTER_SHARD
from fastticket.stores.redis.store import RedisStore

PATIENCE_MS = 10_000  # what is tested here is not how fast a busy machine is
DOCS = (Path(__file__).parents[2] / "docs/how-to/redis.md").read_text()


def with_user(url: str) -> str:
    return url.replace("://", "://gateway:sec%3Aret%2F1@")


def log_key(shard: int) -> str:
    return f"{{ft:{shard:03}}}:log"


def key(store: RedisStore, principal: str, name: str) -> str:
    """A key of the principal's shard."""
    return f"{{ft:{shard_of(principal, store.shards):03}}}:{name}"


class RedisContract(StoreContract):
    """A subclass has the class fixture `url`, and says who has a shard."""

    def owner_of(self, shard: int) -> Server:
        raise NotImplementedError

    @pytest.fixture
    async def open_handle(self, url):
        await self.empty()
        self.address = url
        handles = []

        async def open_one() -> RedisStore:
            store = fastticket.open_store(f"{url}{'&' if '?' in url else '?'}timeout_ms={PATIENCE_MS}")
            handles.append(store)
            await store.open()
            return store

        yield open_one
        for store in handles:
            await store.aclose()

    async def empty(self) -> None:
        raise NotImplementedError

    async def lose_log(self, store, principal):
        shard = shard_of(principal, store.shards)
        self.owner_of(shard).admin("DEL", log_key(shard))

    def stop_clock(self, store, patch, now_ms):
        """In every script, whichever handle sends it."""
        stopped = f"{{{now_ms // 1000}, {now_ms % 1000 * 1000}}}".encode()
        for script in (thing for thing in vars(scripts).values() if isinstance(thing, scripts.Script)):
            source = script._source.replace(b"redis.call('TIME')", stopped)
            patch.setattr(script, "_source", source)
            patch.setattr(script, "_sha", hashlib.sha1(source, usedforsecurity=False).hexdigest())

    async def until_it_listens(self, other, rung):
        """It rings for every shard, up to the last, when it has subscribed; what is rung for one of
        them alone comes after that.
        """
        nobodys = (shard_of("alice", other.shards) + 1) % (other.shards - 1)
        while rung[-1:] != [nobodys]:
            self.owner_of(nobodys).admin("PUBLISH", DOORBELL, f"{nobodys} 0-0")
            await ask(other)

    async def break_shard(self, store, shard):
        live = f"{{ft:{shard:03}}}:live"
        self.owner_of(shard).admin("DEL", live)
        self.owner_of(shard).admin("SET", live, "not a sorted set")

    def look(self, store, principal: str, *command):
        """The answer to a command by the server that has the principal's shard, past the store."""
        server = self.owner_of(shard_of(principal, store.shards))
        with contextlib.closing(server.client(db=parse_url(self.address, Path()).db)) as client:
            return client.execute_command(*command)

    def keys_of(self, store, principal: str) -> set[str]:
        """The keys of the principal's shard, without the prefix that they share."""
        tag = key(store, principal, "")
        return {found.removeprefix(tag) for found in self.look(store, principal, "KEYS", f"{tag}*")}

    def expiry_of(self, store, session) -> int:
        """When the server itself throws the session's attributes away."""
        return self.look(store, session.principal, "PEXPIRETIME", key(store, session.principal, f"attr:{session.id}"))

    async def test_touches_reach_a_server_that_has_forgotten_the_script(self, store):
        """It is sent in full then, with the same packed touches."""
        sessions = [await add_session(store) for _ in range(3)]
        touches = tuple(Touch(session.id, "alice", session.idle_deadline_ms + 1) for session in sessions)
        self.owner_of(shard_of("alice", store.shards)).admin("SCRIPT", "FLUSH")
        reply = await ask(store, touches=touches, wanted=tuple((session.id, "alice") for session in sessions))
        assert list(reply.deadlines_ms) == [touch.idle_deadline_ms for touch in touches]

    async def test_where_there_are_too_many_bars_everybodys_rises(self, store, monkeypatch):
        source = scripts.AGAIN._source
        assert f"LASTING_MAX = {BARS_MAX}\n".encode() in source
        few = source.replace(f"LASTING_MAX = {BARS_MAX}".encode(), b"LASTING_MAX = 2")
        monkeypatch.setattr(scripts.AGAIN, "_source", few)
        monkeypatch.setattr(scripts.AGAIN, "_sha", hashlib.sha1(few, usedforsecurity=False).hexdigest())
        await everybodys_rises(store)

    async def test_a_bar_is_nothing_that_a_full_server_may_throw_away(self, store):
        await store.revoke_all("alice")
        assert self.look(store, "alice", "PTTL", key(store, "alice", "bars")) == -1

    async def test_nothing_but_the_log_remains_of_sessions_that_ended(self, store):
        revoked, evicted, rotated, last = [
            await new_session(store, age_ms=age_ms) for age_ms in (3000, 4000, 2000, 1000)
        ]
        dead = await new_session(store, idle_ms=-1)
        for session in (revoked, evicted, rotated, last, dead):
            await store.create(session)
            await write(store, session, {"cart": b"tea"})
        await store.revoke(revoked.id, "alice")
        await store.sweep(await store.time_ms(), 10)
        assert list(await store.create(await new_session(store), sessions_max=3)) == [evicted.id]
        await store.rotate(rotated.id, rotated._replace(id=new_session_id()))
        assert self.look(store, "alice", "HLEN", key(store, "alice", "user:alice")) == 3
        await store.revoke_all("alice")
        assert self.keys_of(store, "alice") == {"log", "ended", "bars"}
        assert 0 < self.look(store, "alice", "PTTL", key(store, "alice", "ended")) <= 190_000

    async def test_a_register_that_nobody_renews_leaves_nothing_behind(self, store):
        await store.announce("a", b"1", 60_000)
        await store.announce("b", b"2", 1000)
        server = self.owner_of(REGISTER_SHARD)
        with contextlib.closing(server.client(db=parse_url(self.address, Path()).db)) as client:
            left_ms = [client.pttl(f"{{ft:{REGISTER_SHARD:03}}}:{name}") for name in ("gateways", "cards")]
        assert all(0 < each <= 86_400_000 for each in left_ms)

    async def test_nothing_remains_under_the_old_id_after_a_rotation(self, store):
        old = await add_session(store)
        await write(store, old, {"cart": b"tea"})
        new = old._replace(id=new_session_id())
        await store.rotate(old.id, new)
        assert self.keys_of(store, "alice") == {"live", "log", "ended", "user:alice", f"attr:{new.id}"}
        assert self.look(store, "alice", "ZRANGE", key(store, "alice", "live"), 0, -1) == [f"{new.id}.alice"]
        assert self.look(store, "alice", "HLEN", key(store, "alice", "user:alice")) == 1

    async def test_attributes_are_thrown_away_at_the_sessions_end_even_if_nobody_sweeps(self, store):
        session = await add_session(store)
        await write(store, session, {"cart": b"tea"})
        assert self.expiry_of(store, session) == session.absolute_deadline_ms
        for lifetime_s in (90_000, 10_000):
            successor = session._replace(id=new_session_id(), absolute_lifetime_s=lifetime_s)
            await store.rotate(session.id, successor)
            assert self.expiry_of(store, successor) == successor.absolute_deadline_ms
            session = successor

    async def test_rotated_twice_is_rotated_once(self, store):
        """The first answer may have been lost."""
        old = await add_session(store)
        new = old._replace(id=new_session_id())
        since = (await ask(store)).position
        assert [await store.rotate(old.id, new) for _ in range(2)] == [True, True]
        assert await history_of(store, "alice", since) == [("rotated", old.id, "alice")]
        assert list(await store.sessions("alice")) == [new]

    async def test_created_twice_is_created_once(self, store):
        """The first answer may have been lost."""
        session = await add_session(store)
        since = (await ask(store)).position
        await store.create(session)
        assert await history_of(store, "alice", since) == []
        assert list(await store.sessions("alice")) == [session]

    async def test_who_is_far_behind_gets_a_gap_instead_of_a_long_log(self, store):
        since = (await ask(store)).position
        shard = shard_of("alice", store.shards)
        server = self.owner_of(shard)
        member = "A" * 22 + ".alice"
        with contextlib.closing(server.client(db=parse_url(self.address, Path()).db)) as client:
            pipeline = client.pipeline(transaction=False)
            for _ in range(5000):
                pipeline.xadd(log_key(shard), {"created": member})
            pipeline.execute()
        reply = await ask(store, since=since)
        assert (reply.gap, reply.replaced, len(reply.events)) == (True, False, 128)
        assert reply.events[-1].position == reply.position
        assert not (await ask(store, since=reply.position)).gap


class OneServerContract(RedisContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory):
        server = cls.start(tmp_path_factory.mktemp("redis"))
        cls.running = server
        yield server
        server.kill()

    @staticmethod
    def start(folder: Path) -> Server:
        return Server(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, server):
        return f"redis://{server.address}/0"

    def owner_of(self, shard):
        return self.running

    async def empty(self):
        self.running.admin("FLUSHALL")


class TestRedis(OneServerContract):
    """Debian's Redis 7.0."""

    async def test_a_scan_that_another_server_goes_on_with_begins_the_shard_again(self, store):
        """Its hash table has another order; so has this one's after a restart."""
        sessions = {session.id for session in [await add_session(store) for _ in range(400)]}
        cursor = f"{shard_of('alice', store.shards)}-0-"
        for _ in range(20):
            cursor, found = await store.scan(cursor, 10)
        assert len(cursor.rpartition("-")[2]) == 8
        cursor, found = await store.scan(cursor[:-8] + "0badcafe", 1000)
        ids = {session.id for session in found}
        while cursor:
            cursor, found = await store.scan(cursor, 1000)
            ids |= {session.id for session in found}
        assert ids == sessions


class TestRedis8(OneServerContract):
    @staticmethod
    def start(folder):
        return Server(folder, program="redis8")


class TestValkey(OneServerContract):
    @staticmethod
    def start(folder):
        return Server(folder, program="valkey")


class TestUnixSocketAndDatabase(OneServerContract):
    @staticmethod
    def start(folder):
        return Server(folder, {"unixsocket": folder / "redis.sock"})

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, server):
        return f"unix://{server.options['unixsocket']}?db=3"

    async def lose_log(self, store, principal):
        with contextlib.closing(self.running.client(db=3)) as client:
            client.delete(log_key(shard_of(principal, store.shards)))

    async def break_shard(self, store, shard):
        with contextlib.closing(self.running.client(db=3)) as client:
            client.delete(f"{{ft:{shard:03}}}:live")
            client.set(f"{{ft:{shard:03}}}:live", "not a sorted set")


def acl_rules(*more: str) -> str:
    """Those of docs/how-to/redis.md, and the additional ones that it names for a case."""
    (rules,) = re.findall(r"ACL SETUSER gateway (.*)", DOCS)
    assert not more or f"`{' '.join(more)}`" in DOCS
    return " ".join([rules.replace("PASSWORD", "sec:ret/1"), *more])


class TestTLSAndTheNarrowestUser(OneServerContract):
    """Client certificate, an ACL user with the rules that docs/how-to/redis.md lists, another
    number of shards.
    """

    @staticmethod
    def start(folder):
        files = make_certificates(folder)
        tls = {
            "tls-cert-file": files["server"],
            "tls-key-file": files["server_key"],
            "tls-ca-cert-file": files["ca"],
            "tls-auth-clients": "yes",
            "user gateway": acl_rules("+select"),
        }
        server = Server(folder, tls)
        server.files = files
        server.tls_port = free_port()
        server.admin("CONFIG", "SET", "tls-port", server.tls_port)
        return server

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, server):
        files = server.files
        return (
            with_user(f"rediss://127.0.0.1:{server.tls_port}/2?ssl_ca_certs={files['ca']}")
            + f"&ssl_certfile={files['client']}&ssl_keyfile={files['client_key']}&shards=5"
        )

    async def lose_log(self, store, principal):
        with contextlib.closing(self.running.client(db=2)) as client:
            client.delete(log_key(shard_of(principal, store.shards)))

    async def break_shard(self, store, shard):
        with contextlib.closing(self.running.client(db=2)) as client:
            client.delete(f"{{ft:{shard:03}}}:live")
            client.set(f"{{ft:{shard:03}}}:live", "not a sorted set")


class TestSentinel(RedisContract):
    """With a password of the sentinels' own, and writes that wait for the replica."""

    @pytest.fixture(scope="class")
    @classmethod
    def setup(cls, tmp_path_factory):
        options = {"user gateway": acl_rules("+wait")}
        setup = SentinelSetup(tmp_path_factory.mktemp("sentinel"), sentinel_password="watch", options=options)
        cls.running = setup
        yield setup
        setup.close()

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, setup):
        return with_user(setup.url) + "?sentinel_password=watch&durability=replicated"

    def owner_of(self, shard):
        return self.running.master

    async def empty(self):
        self.running.master.admin("FLUSHALL")


class TestCluster(RedisContract):
    """Three primaries."""

    @pytest.fixture(scope="class")
    @classmethod
    def setup(cls, tmp_path_factory):
        options = {"user gateway": acl_rules("+cluster|slots", "+asking")}
        setup = ClusterSetup(tmp_path_factory.mktemp("cluster"), options=options)
        cls.running = setup
        yield setup
        setup.close()

    @pytest.fixture(scope="class")
    @classmethod
    def url(cls, setup):
        return with_user(setup.url)

    def owner_of(self, shard):
        return self.running.owner_of(slot_of(log_key(shard)))

    async def empty(self):
        for server in self.running.primaries:
            server.admin("FLUSHALL")

    @pytest.mark.parametrize("number", range(ClusterSetup.PRIMARIES))
    async def test_one_of_its_servers_is_taken_for_one_by_itself(self, setup, number):
        """Whichever it is: `ft:meta` is on one of them. What the server says is not cut, and what
        to write is said.
        """
        store = fastticket.open_store(f"redis://{setup.primaries[number].address}?timeout_ms={PATIENCE_MS}")
        with pytest.raises(fastticket.errors.ConfigError) as refused:
            await store.open()
        assert re.search(r"MOVED \d+ \S+:\d+; it is a Cluster's: write redis\+cluster:// in", str(refused.value))

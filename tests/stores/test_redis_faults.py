"""Faults of real Redis servers under load: no wrong admission, no wrong refusal, nothing lost,
recovery without a restart.

Two caches, as in two gateways, share a store, while a crowd of users is checked through both all
the time. What may not happen is judged at every single check (`Crowd._judge`).
"""

# ruff: noqa: ASYNC110 -- what another process does is looked for, at every turn
# ruff: noqa: SIM117 -- a crowd, and within it a fault

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from lab.redis_servers import ClusterSetup, SentinelSetup, Server, closing_all, free_port, make_certificates, wait_until
from lab.store_contract import add_session, attributes_of, new_session_id, write

import fastticket
from fastticket.errors import ConfigError, StoreUnavailable, TicketRefused
from fastticket.sessions.ticketcache import Consistency
from fastticket.stores.contract import Store, StoredSession, shard_of
from fastticket.stores.redis import takeover
from fastticket.stores.redis.address import slot_of

FLUSH_MS = 100
LEASE_MS = 1000
TIMEOUT_MS = 400  # where a server is silent
PATIENCE_MS = 10_000  # where none is meant to be: on a busy machine it may be, for a while
TLS_TIMEOUT_MS = 1000  # of a server that hangs; a busy machine's handshakes, which may take longer, are tried again
SETTINGS = {"flush_interval_ms": FLUSH_MS, "lease_ms": LEASE_MS, "idle_timeout_s": 600}
STALL_S = 0.5  # how long this process may be held up by the machine between two of its steps
HELD_UP_S = LEASE_MS / 1000 / 8  # it counts as that from here on: a cache looks as often whether it was
BOUND_S = 40.0
USERS = 24


@dataclass
class User:
    ticket: str
    admitted_ms: int = 0  # when it was asked for, by the store's clock, the last time that it was admitted
    revoked_at_s: float | None = None
    revoking: bool = False


@dataclass
class Crowd:
    """Users that are checked through all caches, in turns, until it is closed."""

    caches: list[fastticket.TicketCache]
    users: list[User] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    #: while a fault lasts, and until every cache has heard of the store again, a revocation may be
    #: unknown (P8)
    fault_until_s: float = 0.0
    may_refuse: bool = False
    #: This process stood still: it cannot tell a silent store from an answer that it did not read,
    #: and so admits nobody on credit (P2 comes before P8).
    was_held_up: bool = False

    async def join(self, number: int) -> None:
        for n in range(number):
            cache, name = self.caches[n % len(self.caches)], f"user{len(self.users)}"
            self.users.append(User(await answered(lambda cache=cache, name=name: cache.login(name))))
        for user in self.users:
            for cache in self.caches:
                await answered(lambda cache=cache, user=user: cache.authenticate(user.ticket))

    async def run(self) -> None:
        while True:
            for user in list(self.users):
                cache = random.choice(self.caches)
                await self._ask(cache, user)
            await asyncio.sleep(0.001)

    async def beat(self) -> None:
        """Notice that this process was held up."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.01)
            self.was_held_up |= time.monotonic() - began_s > HELD_UP_S

    async def _ask(self, cache: fastticket.TicketCache, user: User) -> None:
        began_s, began_ms = time.monotonic(), cache.now_ms()
        try:
            await cache.authenticate(user.ticket)
            outcome, user.admitted_ms = "admitted", began_ms
        except TicketRefused as refused:
            outcome = refused.reason
        except StoreUnavailable:
            outcome = "unavailable"
        self.outcomes[outcome] += 1
        self._judge(user, outcome, began_s)

    def _judge(self, user: User, outcome: str, began_s: float) -> None:
        if outcome == "admitted" and user.revoked_at_s is not None:
            until_s = max(user.revoked_at_s, self.fault_until_s) + LEASE_MS / 1000 + STALL_S
            # The machine may have held up the server for so long that the store counts as away.
            if began_s > until_s and not any(cache.stats["shards_away"] for cache in self.caches):
                self.wrong.append(f"admitted {began_s - user.revoked_at_s:.3f} s after its revocation")
        if outcome not in ("admitted", "unavailable") and not user.revoking and not self.may_refuse:
            self.wrong.append(f"a live session was refused: {outcome}")

    async def revoke(self, user: User, cache: fastticket.TicketCache) -> None:
        user.revoking = True
        async with asyncio.timeout(BOUND_S):
            while user.revoked_at_s is None:
                with contextlib.suppress(StoreUnavailable):  # a user would press the button again
                    await cache.logout(user.ticket)
                    user.revoked_at_s = time.monotonic()

    @contextlib.asynccontextmanager
    async def fault(self):
        """Lasts as long as a fault; then waits until every cache works with the store again."""
        self.fault_until_s = float("inf")
        yield
        async with asyncio.timeout(BOUND_S):
            await self.refreshed()
            await self.works()
        self.fault_until_s = time.monotonic()

    async def refreshed(self) -> None:
        """Until no cache misses the store."""
        async with asyncio.timeout(BOUND_S):
            while any(cache.stats["shards_away"] for cache in self.caches):
                await asyncio.sleep(0.001)

    async def works(self) -> None:
        """Logging in, being known elsewhere, being refused after logging out: whatever it takes, it
        is so in the end.
        """
        while True:
            try:
                ticket = await self.caches[0].login("recovered")
                for cache in self.caches:
                    await cache.authenticate(ticket)
                await self.caches[-1].logout(ticket)
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)
        assert "closed" in self.caches[0].store_servers.values()
        while self.caches[0].check(ticket):
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def crowd_on(url: str, *, users: int = USERS, cold: bool = False, timeout_ms: int = PATIENCE_MS, **settings):
    """`cold`: a third cache that holds next to nothing, and so needs the store for nearly every
    check.
    """
    keys = fastticket.Keyring.generate()
    url += ("&" if "?" in url else "?") + f"timeout_ms={timeout_ms}"
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for capacity in (1000, 1000, 2)[: 2 + cold]:
            cache = fastticket.TicketCache(fastticket.open_store(url), keys, capacity=capacity, **SETTINGS | settings)
            await answered(cache.open)
            stack.push_async_callback(cache.aclose)
            made.append(cache)
        crowd = Crowd(made)
        await crowd.join(users)
        running, beating = asyncio.create_task(crowd.run()), asyncio.create_task(crowd.beat())
        try:
            yield crowd
            await settled(crowd)
        finally:
            running.cancel()
            beating.cancel()
            await asyncio.wait([running, beating])
        assert not running.done() or running.cancelled(), running.exception()
        assert crowd.wrong == []
        assert crowd.outcomes["admitted"] > 0


async def settled(crowd: Crowd) -> None:
    """Revocations work, and bounded as promised, when all is over."""
    for user in crowd.users[:4]:
        await crowd.revoke(user, random.choice(crowd.caches))
    seen = sum(crowd.outcomes.values())
    while sum(crowd.outcomes.values()) < seen + 40 * len(crowd.users):
        await asyncio.sleep(0.001)


async def passes(crowd: Crowd, checks: int) -> None:
    """Until so many more checks are through."""
    until = sum(crowd.outcomes.values()) + checks
    async with asyncio.timeout(BOUND_S):
        while sum(crowd.outcomes.values()) < until:
            await asyncio.sleep(0.001)


async def until(holds) -> None:
    async with asyncio.timeout(BOUND_S):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.fixture
def server(tmp_path):
    # What was written survives a kill without fsync, too, which can take longer than a timeout.
    server = Server(tmp_path, {"appendonly": "yes", "appendfsync": "no", "enable-debug-command": "yes"})
    yield server
    server.kill()


def url_of(server: Server) -> str:
    return f"redis://{server.address}/0"


async def away(crowd: Crowd) -> None:
    """Every cache has noticed, unknown tickets get 503, known sessions go on."""
    await until(lambda: all(cache.stats["shards_away"] for cache in crowd.caches))
    keys_ticket = crowd.users[0].ticket
    fresh = crowd.caches[0]._keys.mint("stranger", crowd.caches[0].now_ms(), 600, 6000)
    for cache in crowd.caches:
        with pytest.raises(StoreUnavailable):
            await cache.authenticate(fresh)
        with contextlib.suppress(StoreUnavailable) if crowd.was_held_up else contextlib.nullcontext():
            await cache.authenticate(keys_ticket)


# --- the server goes, and comes back


async def test_sigkill_and_restart(server):
    async with crowd_on(url_of(server)) as crowd:
        async with crowd.fault():
            server.kill()
            await away(crowd)
            await until(lambda: all("closed" not in cache.store_servers.values() for cache in crowd.caches))
            with pytest.raises(StoreUnavailable):
                await crowd.caches[0].login("nobody")
            server.start()
        assert crowd.outcomes["unavailable"] == 0 or crowd.was_held_up


async def test_sigstop_for_longer_than_the_timeout(server):
    async with crowd_on(url_of(server), timeout_ms=TIMEOUT_MS) as crowd:
        async with crowd.fault():
            server.pause()
            await away(crowd)
            await passes(crowd, 2000)
            server.resume()


async def test_client_pause(server):
    """Of what writes, for the other one could not be ended."""
    async with crowd_on(url_of(server), timeout_ms=TIMEOUT_MS) as crowd:
        async with crowd.fault():
            server.admin("CLIENT", "PAUSE", round(BOUND_S * 1000), "WRITE")
            await away(crowd)
            server.admin("CLIENT", "UNPAUSE")


async def test_a_busy_server(server):
    """A script of somebody else that does not end: BUSY."""
    async with crowd_on(url_of(server), timeout_ms=TIMEOUT_MS) as crowd:
        async with crowd.fault():
            server.admin("CONFIG", "SET", "busy-reply-threshold", 1)
            spinning = asyncio.create_task(asyncio.to_thread(_spin, server))
            await away(crowd)
            wait_until(lambda: server.admin("SCRIPT", "KILL"), "the script was killed")
            await spinning


def _spin(server: Server) -> None:
    with contextlib.suppress(Exception):
        server.admin("EVAL", "while true do end", 0)


async def test_slow_replies(server):
    """As slow as a server can be without being away: it works, with more patience."""
    async with crowd_on(url_of(server), users=6, timeout_ms=TIMEOUT_MS) as crowd:
        async with crowd.fault():
            for _ in range(5):
                await asyncio.to_thread(server.admin, "DEBUG", "SLEEP", 0.5 * TIMEOUT_MS / 1000)
                await passes(crowd, 200)


# --- the server forgets


async def test_flushall_and_restart_empty_refuse_and_go_on(tmp_path):
    """Sessions that the store has lost are lost: no cache admits one by itself, and the next login
    works at once.

    But for the logins of the last minute, which the gateways that acknowledged them make again: so
    these were made by one that is gone.
    """
    server = Server(tmp_path)
    try:
        async with crowd_on(url_of(server), users=0) as crowd:
            for lose in (lambda: server.admin("FLUSHALL"), server.restart):
                store = fastticket.open_store(f"{url_of(server)}?timeout_ms={PATIENCE_MS}")
                async with fastticket.TicketCache(store, crowd.caches[0]._keys, **SETTINGS) as gone:
                    lost = [User(await gone.login(f"lost{number}")) for number in range(USERS)]
                crowd.users += lost
                kept = await crowd.caches[0].login("kept")
                await passes(crowd, 40 * len(lost))
                crowd.may_refuse = True
                async with crowd.fault():
                    await asyncio.to_thread(lose)
                for user in lost:
                    user.revoking, user.revoked_at_s = True, crowd.fault_until_s
                for cache in crowd.caches:
                    assert (await answered(lambda cache=cache, kept=kept: cache.authenticate(kept))).principal == "kept"
                    for user in lost:
                        await until_refused_by(cache, user.ticket)
                await passes(crowd, 40 * len(lost))
                crowd.may_refuse = False
                crowd.users[:] = [User(kept)]
            assert crowd.outcomes["unknown_session"] > 0
    finally:
        server.kill()


async def test_script_flush_is_not_even_noticed(server):
    async with crowd_on(url_of(server)) as crowd:
        for _ in range(5):
            server.admin("SCRIPT", "FLUSH")
            await passes(crowd, 300)
            await crowd.works()
        assert crowd.outcomes["unavailable"] == 0
        assert all(cache.stats["store_errors"] == 0 for cache in crowd.caches)


async def test_a_trimmed_log_is_a_gap_and_everyone_is_loaded_again(server):
    async with crowd_on(url_of(server)) as crowd:
        for shard in range(16):
            server.admin("XTRIM", f"{{ft:{shard:03}}}:log", "MAXLEN", 0)
            server.admin("XADD", f"{{ft:{shard:03}}}:log", "*", "opened", "")
        await until(lambda: all(cache.stats["gaps"] for cache in crowd.caches))
        await passes(crowd, 500)
        assert crowd.outcomes["unavailable"] == 0


# --- the server refuses


async def test_a_primary_that_became_a_replica_does_not_answer(server):
    """Its data may be old: neither loads nor leases come from it."""
    async with crowd_on(url_of(server)) as crowd:
        async with crowd.fault():
            server.admin("REPLICAOF", "127.0.0.1", "1")
            await away(crowd)
            server.admin("REPLICAOF", "NO", "ONE")


async def test_a_primary_without_its_replicas_does_not_answer_if_told_so(server):
    async with crowd_on(url_of(server)) as crowd:
        async with crowd.fault():
            server.admin("CONFIG", "SET", "min-replicas-to-write", 1)
            await away(crowd)
            server.admin("CONFIG", "SET", "min-replicas-to-write", 0)


async def test_out_of_memory_stops_logins_alone(server):
    """Sessions live on, are touched, and can be revoked."""
    async with crowd_on(url_of(server)) as crowd:
        server.admin("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await crowd.caches[0].login("one too many")
        await crowd.revoke(crowd.users[-1], crowd.caches[0])
        before = {session.id: session.idle_deadline_ms for session in await crowd.caches[0].sessions("user0")}
        await passes(crowd, 500)
        for cache in crowd.caches:
            await cache.flush()
        after = {session.id: session.idle_deadline_ms for session in await crowd.caches[0].sessions("user0")}
        assert [after[session_id] > deadline_ms for session_id, deadline_ms in before.items()] == [True]
        assert crowd.outcomes["unavailable"] == 0
        server.admin("CONFIG", "SET", "maxmemory", 0)
        await crowd.works()


async def test_too_many_clients(server):
    async with crowd_on(url_of(server)) as crowd:
        async with crowd.fault():
            with contextlib.closing(server.client()) as only:
                only.config_set("maxclients", 1)
                for kind in ("normal", "pubsub"):
                    only.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                await away(crowd)
                only.config_set("maxclients", 1000)


async def test_a_password_that_changed(server):
    async with crowd_on(url_of(server)) as crowd:
        async with crowd.fault():
            with contextlib.closing(server.client()) as admin:
                admin.config_set("requirepass", "other")
                admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await away(crowd)
                admin.config_set("requirepass", "")


async def test_a_killed_doorbell_disturbs_nothing_and_comes_back(server):
    async with crowd_on(url_of(server)) as crowd:
        for _ in range(5):
            await until(lambda: server.admin("PUBSUB", "NUMSUB", "ft:doorbell")[-1] == len(crowd.caches))
            assert server.admin("CLIENT", "KILL", "TYPE", "pubsub") >= 1
            await crowd.works()
        await until(lambda: server.admin("PUBSUB", "NUMSUB", "ft:doorbell")[-1] == len(crowd.caches))
        assert crowd.outcomes["unavailable"] == 0


async def test_deny_admits_nobody_while_the_store_is_away(server):
    async with crowd_on(url_of(server), outage_policy="deny") as crowd:
        async with crowd.fault():
            server.kill()
            await until(lambda: all(not cache.check(user.ticket) for cache in crowd.caches for user in crowd.users))
            before = crowd.outcomes["admitted"]
            await passes(crowd, 200)
            assert crowd.outcomes["admitted"] == before
            server.start()


async def test_touches_of_an_outage_are_written_when_it_is_over(server):
    """P5, P8: nothing that was buffered is dropped."""
    async with crowd_on(url_of(server)) as crowd:
        async with crowd.fault():
            server.kill()
            await away(crowd)
            await passes(crowd, 500)
            used_ms = [user.admitted_ms for user in crowd.users]
            server.start()
        for cache in crowd.caches:
            await cache.flush()
        for number in range(USERS):
            (session,) = await crowd.caches[0].sessions(f"user{number}")
            assert session.idle_deadline_ms >= used_ms[number] + 600_000


# --- start-up


@pytest.mark.parametrize(
    ("options", "says"),
    [({"maxmemory-policy": "allkeys-lru"}, "allkeys-lru"), ({"requirepass": "secret"}, "Authentication|AUTH")],
)
async def test_a_server_that_can_not_be_used_is_refused_with_one_line(tmp_path, options, says):
    server = Server(tmp_path, options)
    try:
        with pytest.raises(ConfigError, match=says) as refused:
            await fastticket.open_store(url_of(server)).open()
        assert "\n" not in str(refused.value)
        assert server.address in str(refused.value)
    finally:
        server.kill()


async def test_an_old_server_is_refused_with_one_line(tmp_path):
    server = Server(tmp_path, program="redis6")
    try:
        with pytest.raises(ConfigError, match=r"version 6\.2.*needs Redis 7\.0 or newer, or Valkey"):
            await fastticket.open_store(url_of(server)).open()
    finally:
        server.kill()


async def test_another_number_of_shards_is_refused(server):
    store = fastticket.open_store(url_of(server))
    await store.open()
    await store.aclose()
    with pytest.raises(ConfigError, match="shards=16"):
        await fastticket.open_store(url_of(server) + "?shards=32").open()


# --- fail-over


async def test_a_sentinel_failover(tmp_path):
    """The master dies; no session is lost, and none is refused."""
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, replicas=2, down_after_ms=1500)
    try:
        async with crowd_on(setup.url + "?durability=replicated", cold=True) as crowd:
            async with crowd.fault():
                old = setup.master
                old.kill()
                await until_in_thread(lambda: setup.current_master() is not old)
            assert all(cache.stats["gaps"] for cache in crowd.caches), (
                "the connection to another master was not noticed"
            )
            print(f"\nSentinel failover: {dict(crowd.outcomes)}")
    finally:
        setup.close()


async def test_a_process_does_not_end_with_the_only_record_of_its_last_login(tmp_path, monkeypatch):
    """The old master took it when another server was promoted already; that is heard of later."""
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, sentinels=1)
    try:
        store = fastticket.open_store(f"{setup.url}?timeout_ms={PATIENCE_MS}")
        await store.open()
        with monkeypatch.context() as patch:
            patch.setattr(takeover, "PROMOTION_S", 10 * BOUND_S)
            async with asyncio.timeout(BOUND_S):
                await store.settle()  # nothing was changed
        await add_session(store)
        began_s = time.monotonic()
        await store.settle()
        assert time.monotonic() - began_s >= takeover.PROMOTION_S
        await store.aclose()
    finally:
        setup.close()


async def test_replicated_means_that_a_replica_has_it(tmp_path):
    """Without one that answers, a login and a logout fail, instead of being acknowledged."""
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, sentinels=1)
    try:
        keys = fastticket.Keyring.generate()
        store = fastticket.open_store(f"{setup.url}?durability=replicated&timeout_ms=2000")
        async with fastticket.TicketCache(store, keys, **SETTINGS) as cache:
            ticket = await answered(lambda: cache.login("alice"))
            setup.replicas[0].pause()
            with pytest.raises(StoreUnavailable, match="no replica confirmed"):
                await cache.login("bob")
            with pytest.raises(StoreUnavailable, match="no replica confirmed"):
                await cache.logout(ticket)
            fresh = fastticket.open_store(f"{setup.url}?durability=replicated&timeout_ms=2000")
            await fresh.open()
            with pytest.raises(StoreUnavailable, match="no replica confirmed"):  # where nothing is left to be removed
                await fresh.revoke(keys.verify(ticket, 0).session_id, "alice")
            await fresh.aclose()
            setup.replicas[0].resume()
            await until_in_thread(lambda: setup.replicas[0].is_in_sync())
            await answered(lambda: cache.login("carol"))
    finally:
        setup.close()


#: Whatever is durable when it returns, done to a session of alice.
CHANGES: dict[str, Callable[[Store, StoredSession], Awaitable[object]]] = {
    "create": lambda store, session: store.create(session._replace(id=new_session_id())),
    "rotate": lambda store, session: store.rotate(session.id, session._replace(id=new_session_id())),
    "revoke": lambda store, session: store.revoke(session.id, "alice"),
    "revoke_all": lambda store, _: store.revoke_all("alice"),
    "revoke_nothing": lambda store, _: store.revoke(new_session_id(), "alice"),
    "write": lambda store, session: write(store, session, {"cart": b"tea"}),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_no_change_is_acknowledged_that_no_replica_has(server, change):
    """There is none. What only reads is answered."""
    url = f"{url_of(server)}?timeout_ms="  # WAIT takes half of it
    async with opened(f"{url}{PATIENCE_MS}") as lax, opened(f"{url}2000&durability=replicated") as strict:
        session = await add_session(lax)
        assert list(await strict.sessions("alice")) == [session]
        assert await attributes_of(strict, session) == {}
        with pytest.raises(StoreUnavailable, match="no replica confirmed"):
            await CHANGES[change](strict, session)


@pytest.mark.parametrize("program", ["redis", "redis8", "valkey"])
async def test_a_revocation_that_no_replica_has_heard_of_fails_however_often_it_is_tried(tmp_path, program):
    """Also by another process, for which nothing is left to be removed. Engines differ in what WAIT
    means then.
    """
    primary = Server(tmp_path, {"repl-diskless-sync-delay": 0}, program=program)
    replica = Server(tmp_path, {"replicaof": f"127.0.0.1 {primary.port}"}, program=program)
    with closing_all(primary, replica):
        await asyncio.to_thread(wait_until, replica.is_in_sync, "replica in sync")
        url = f"{url_of(primary)}?timeout_ms="
        strict = f"{url}2000&durability=replicated"  # WAIT takes half of it
        async with opened(f"{url}{PATIENCE_MS}") as lax, opened(strict) as store, opened(strict) as fresh:
            session = await add_session(lax)
            await asyncio.to_thread(wait_until, lambda: primary.admin("WAIT", 1, 100) == 1, "the replica confirms")
            replica.pause()
            for handle in (store, store, fresh):
                with pytest.raises(StoreUnavailable, match="no replica confirmed"):
                    await handle.revoke(session.id, "alice")
            assert await fresh.sessions("alice") == []


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = fastticket.open_store(url)
    try:
        await store.open()
        yield store
    finally:
        await store.aclose()


async def test_revocations_that_a_failover_lost_are_made_again(tmp_path):
    """The replica hears nothing of a revocation that was acknowledged, and becomes the master."""
    setup = await asyncio.to_thread(SentinelSetup, tmp_path, down_after_ms=1500)
    try:
        async with crowd_on(setup.url, users=6) as crowd:
            user = crowd.users[0]
            async with crowd.fault():
                setup.replicas[0].pause()
                setup.master.admin("CLIENT", "KILL", "TYPE", "replica")  # or the news would wait in its socket
                await crowd.revoke(user, crowd.caches[0])
                setup.master.kill()
                setup.replicas[0].resume()
                await until_in_thread(lambda: setup.current_master() is setup.replicas[0])
            await until_refused(crowd, user)
    finally:
        setup.close()


async def until_in_thread(holds) -> None:
    await asyncio.to_thread(wait_until, holds, "failover", BOUND_S)


async def until_refused(crowd: Crowd, user: User) -> None:
    async with asyncio.timeout(BOUND_S):
        for cache in crowd.caches:
            await until_refused_by(cache, user.ticket)


async def until_refused_by(cache: fastticket.TicketCache, ticket: str, consistency: Consistency = "near") -> float:
    """Ask until it is refused. The caller sets a bound. When it was asked for the last time that it
    was admitted, in s.
    """
    admitted_s = 0.0
    while True:
        try:
            asked_s = time.monotonic()
            await cache.authenticate(ticket, consistency=consistency)
            admitted_s = asked_s
        except TicketRefused:
            return admitted_s
        except StoreUnavailable:
            pass
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["logout", "logout_everywhere", "rotate", "evict"])
async def test_what_ended_is_over_for_a_server_that_had_not_heard_of_it(tmp_path, end):
    """It answers with what was saved before, as a replica would that lacks the last writes."""
    server = Server(tmp_path)
    ends = {
        "logout": lambda cache, ticket: cache.logout(ticket),
        "logout_everywhere": lambda cache, _: cache.logout_everywhere("alice"),
        "rotate": lambda cache, ticket: cache.rotate(ticket),
        "evict": lambda cache, _: cache.login("alice"),
    }
    try:
        async with two_caches(url_of(server), sessions_max=1) as (cache, other):
            ticket = await cache.login("alice")
            await other.authenticate(ticket)
            server.admin("SAVE")
            await ends[end](cache, ticket)
            await asyncio.to_thread(server.restart)
            async with asyncio.timeout(BOUND_S):
                await until_refused_by(other, ticket, "strong")
    finally:
        server.kill()


async def test_a_clusters_primary_dies(tmp_path):
    setup = await asyncio.to_thread(ClusterSetup, tmp_path, replicas=1)
    try:
        async with crowd_on(setup.url, cold=True) as crowd:
            async with crowd.fault():
                await asyncio.to_thread(_replicated, setup)
                setup.primaries[0].kill()
                await until(lambda: all(cache.stats["shards_away"] for cache in crowd.caches))
            print(f"\nCluster primary died: {dict(crowd.outcomes)}")
    finally:
        setup.close()


def _replicated(setup: ClusterSetup) -> None:
    for primary in setup.primaries:
        primary.admin("WAIT", 1, 1000)


async def test_a_whole_cluster_hangs(tmp_path):
    """P8: everything is asked in vain, and the sessions that are held go on all the same."""
    setup = await asyncio.to_thread(ClusterSetup, tmp_path)
    try:
        async with crowd_on(setup.url, timeout_ms=TIMEOUT_MS) as crowd:
            async with crowd.fault():
                for server in setup.servers:
                    server.pause()
                await away(crowd)
                before = crowd.outcomes["unavailable"]
                await passes(crowd, 4000)
                assert crowd.outcomes["unavailable"] == before or crowd.was_held_up
                for server in setup.servers:
                    server.resume()
    finally:
        setup.close()


async def test_a_cluster_that_does_not_tell_its_slots_for_a_while(tmp_path):
    """An operator's slip in the ACL, put right: the doorbell comes back, too."""
    setup = await asyncio.to_thread(ClusterSetup, tmp_path)
    try:
        async with crowd_on(setup.url) as crowd:
            async with crowd.fault():
                for server in setup.servers:
                    server.admin("ACL", "SETUSER", "default", "-cluster|slots")
                    server.admin("CLIENT", "KILL", "TYPE", "pubsub")
                    server.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await passes(crowd, 500)
                for server in setup.servers:
                    server.admin("ACL", "SETUSER", "default", "+cluster|slots")
            await until(lambda: _listeners(setup) == len(crowd.caches))
    finally:
        setup.close()


def _listeners(setup: ClusterSetup) -> int:
    return sum(server.admin("PUBSUB", "NUMSUB", "ft:doorbell")[-1] for server in setup.servers)


async def test_a_tls_server_that_hangs_leaves_nobody_waiting(tmp_path):
    """It does not say goodbye either, when its connections are closed. How long all that takes is
    not judged here.
    """
    files = make_certificates(tmp_path)
    options = {"tls-cert-file": files["server"], "tls-key-file": files["server_key"], "tls-ca-cert-file": files["ca"]}
    server = Server(tmp_path, {**options, "tls-auth-clients": "no"})
    try:
        server.admin("CONFIG", "SET", "tls-port", port := free_port())
        keys = fastticket.Keyring.generate()
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={files['ca']}&timeout_ms={TLS_TIMEOUT_MS}"
        cache = fastticket.TicketCache(fastticket.open_store(url), keys, **SETTINGS)
        await answered(cache.open)
        ticket, other = await answered(lambda: cache.login("alice")), await answered(lambda: cache.login("carol"))
        await answered(lambda: asyncio.gather(*(cache.sessions(f"user{n}") for n in range(8))))  # as many connections

        for _ in range(2):  # what it left of the first time does not spoil the second
            server.pause()
            strangers = [keys.mint(f"stranger{n}", cache.now_ms(), 600, 6000) for n in range(8)]
            async with asyncio.timeout(BOUND_S):
                asked = await asyncio.gather(*map(cache.authenticate, strangers), return_exceptions=True)
                told = await asyncio.gather(cache.login("bob"), cache.logout(other), return_exceptions=True)
            assert {type(answer) for answer in (*asked, *told)} == {StoreUnavailable}
            server.resume()
            assert await answered(lambda: cache.authenticate(ticket, consistency="strong"))

        server.pause()
        async with asyncio.timeout(BOUND_S):
            waiting = [asyncio.create_task(cache.authenticate(stranger)) for stranger in strangers]
            await asyncio.sleep(0)
            await cache.aclose()
            assert {type(answer) for answer in await asyncio.gather(*waiting, return_exceptions=True)} == {
                StoreUnavailable
            }
    finally:
        server.kill()


async def answered(ask):
    """The answer of a store that may have to be asked again: the machine is busy, or the store was
    away a moment ago.
    """
    async with asyncio.timeout(BOUND_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await ask()
            await asyncio.sleep(0.01)


async def test_slots_that_move_between_primaries(tmp_path):
    """Resharding under load, key by key as redis-cli does it: nobody is refused, and where all keys
    are in one place, all is well.
    """
    setup = await asyncio.to_thread(ClusterSetup, tmp_path)
    try:
        async with crowd_on(setup.url, cold=True) as crowd:
            async with crowd.fault():
                for shard in sorted({shard_of(f"user{n}", 16) for n in range(USERS)}):
                    await _move(setup, slot_of(f"{{ft:{shard:03}}}:log"), crowd)
    finally:
        setup.close()


async def _move(setup: ClusterSetup, slot: int, crowd: Crowd) -> None:
    move = Move(setup, slot)
    while keys := move.left():
        move.carry(keys[0])
        await passes(crowd, 3)  # TRYAGAIN: some keys are here, some are there
    await crowd.refreshed()
    before = crowd.outcomes["unavailable"]
    await passes(crowd, 3 * len(crowd.users))  # ASK: all are there, but the slot is still here
    assert crowd.outcomes["unavailable"] == before
    move.finish()
    await passes(crowd, len(crowd.users))


class Move:
    """A slot on its way from one primary to the next, as redis-cli moves it."""

    def __init__(self, setup: ClusterSetup, slot: int) -> None:
        self._primaries, self._slot = setup.primaries, slot
        self._source = setup.owner_of(slot)
        self._target = self._primaries[(self._primaries.index(self._source) + 1) % len(self._primaries)]
        self._target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", self._source.admin("CLUSTER MYID"))
        self._source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", self._target.admin("CLUSTER MYID"))

    def left(self) -> list[str]:
        """Keys that have not moved yet."""
        return self._source.admin("CLUSTER", "GETKEYSINSLOT", self._slot, 1000)

    def carry(self, key: str) -> None:
        self._source.admin("MIGRATE", "127.0.0.1", self._target.port, key, 0, 1000)

    def finish(self) -> None:
        for key in self.left():
            self.carry(key)
        for server in (self._target, self._source, *self._primaries):
            server.admin("CLUSTER", "SETSLOT", self._slot, "NODE", self._target.admin("CLUSTER MYID"))


#: How far a slot has moved: which of its keys.
STAGES: dict[str, Callable[[str], bool]] = {
    "no key": lambda key: False,
    "all but live and log": lambda key: not key.endswith((":live", ":log")),
    "live": lambda key: key.endswith(":live"),
    "live and log": lambda key: key.endswith((":live", ":log")),
    "attributes": lambda key: ":attr:" in key,
    "all keys": lambda key: True,
}


@dataclass
class Person:
    """Somebody with two sessions: one has attributes, the other has none."""

    name: str
    full: str = ""  # the tickets
    bare: str = ""

    async def join(self, *caches: fastticket.TicketCache) -> None:
        self.full, self.bare = [await caches[0].login(self.name) for _ in range(2)]
        async with caches[0].attributes(await caches[0].authenticate(self.full)) as attributes:
            attributes["cart"] = "tea"
        for cache in caches:
            for ticket in (self.full, self.bare):
                await cache.authenticate(ticket)

    async def first_write(self, cache: fastticket.TicketCache) -> None:
        attributes = cache.attributes(await cache.authenticate(self.bare))
        attributes["cart"] = "coffee"
        await attributes.save()

    async def read(self, cache: fastticket.TicketCache) -> None:
        attributes = await cache.attributes(await cache.authenticate(self.full)).load()
        assert dict(attributes) == {"cart": "tea"}

    async def state(self, store: Store) -> State:
        """Bounded: whoever asks does not yet know where the slot is."""
        async with asyncio.timeout(BOUND_S):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    return await self._state(store)
                await asyncio.sleep(0.01)

    async def _state(self, store: Store) -> State:
        found = [await store.read_attributes(session.id, self.name) for session in await store.sessions(self.name)]
        log = await store.history(shard_of(self.name, store.shards), 1000)
        carts = sorted(attributes.values.get("cart", b"").decode() for attributes in found)
        return State(carts, [event.kind for event in log if event.principal == self.name])


class State(NamedTuple):
    """The cart of each of a user's sessions, and the kinds of the log's entries of them."""

    carts: list[str]
    log: list[str]


class Deed(NamedTuple):
    """Something done to a person; which carts there are then, and what it logs. `ends`: the tickets
    that it ends.
    """

    do: Callable[[Person, fastticket.TicketCache], Awaitable[object]]
    carts: list[str]
    logs: list[str]
    ends: Sequence[str] = ()


TEA, COFFEE = '"tea"', '"coffee"'
DEEDS = {
    "logout": Deed(lambda person, cache: cache.logout(person.full), [""], ["revoked"], ["full"]),
    "logout everywhere": Deed(
        lambda person, cache: cache.logout_everywhere(person.name), [], ["revoked", "revoked"], ["full", "bare"]
    ),
    "rotation": Deed(lambda person, cache: cache.rotate(person.full), ["", TEA], ["rotated"], ["full"]),
    "login": Deed(lambda person, cache: cache.login(person.name), ["", "", TEA], ["created"]),
    "first login": Deed(lambda person, cache: cache.login(person.name), [""], ["created"]),
    "first write": Deed(Person.first_write, [COFFEE, TEA], ["changed"]),
    "read": Deed(Person.read, ["", TEA], []),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    setup = ClusterSetup(tmp_path_factory.mktemp("cluster"))
    yield setup
    setup.close()


@pytest.mark.parametrize("stage", STAGES)
async def test_while_a_slot_moves_a_deed_is_done_or_nothing_has_happened(cluster, stage):
    """Never half of it; and what could not be done is done when it is tried again. Each stage has a
    shard of its own.
    """
    shard = list(STAGES).index(stage)
    people = {deed: Person(name) for deed, name in zip(DEEDS, _names_in(shard), strict=False)}
    async with two_caches(cluster.url) as (cache, other):
        store = cache._store
        for deed, person in people.items():
            if deed != "first login":
                await person.join(cache, other)
        before = {deed: await person.state(store) for deed, person in people.items()}
        with moving(cluster, slot_of(f"{{ft:{shard:03}}}:log"), STAGES[stage]):
            trying = [is_done(DEEDS[deed], person, cache) for deed, person in people.items()]
            done = set(itertools.compress(people, await asyncio.gather(*trying)))
            await are_refused(other, people, done)
        failed = people.keys() - done
        assert {deed: await people[deed].state(store) for deed in failed} == {deed: before[deed] for deed in failed}
        await asyncio.gather(*(until_done(DEEDS[deed], people[deed], cache) for deed in failed))
        await are_refused(other, people, failed)
        for name, deed in DEEDS.items():
            assert await people[name].state(store) == State(deed.carts, before[name].log + deed.logs), name
        assert [bar.principal for bar in await store.bars(shard, 0, 10)] == [people["logout everywhere"].name]


def _names_in(shard: int) -> Iterator[str]:
    return (name for number in itertools.count() if shard_of(name := f"user{number}", 16) == shard)


@contextlib.asynccontextmanager
async def two_caches(url: str, **settings):
    keys, url = fastticket.Keyring.generate(), f"{url}?timeout_ms={PATIENCE_MS}"
    made = [fastticket.TicketCache(fastticket.open_store(url), keys, **SETTINGS | settings) for _ in range(2)]
    async with made[0], made[1]:
        yield made


@contextlib.contextmanager
def moving(setup: ClusterSetup, slot: int, has_moved: Callable[[str], bool]) -> Iterator[None]:
    """A slot that has moved so far; in the end, it has moved."""
    move = Move(setup, slot)
    try:
        for key in filter(has_moved, move.left()):
            move.carry(key)
        yield
    finally:
        move.finish()


async def is_done(deed: Deed, person: Person, cache: fastticket.TicketCache) -> bool:
    try:
        await deed.do(person, cache)
    except StoreUnavailable:
        return False
    return True


async def until_done(deed: Deed, person: Person, cache: fastticket.TicketCache) -> None:
    """A user would press the button again."""
    async with asyncio.timeout(BOUND_S):
        while not await is_done(deed, person, cache):
            await asyncio.sleep(0.01)


async def are_refused(cache: fastticket.TicketCache, people: dict[str, Person], deeds: Iterable[str]) -> None:
    """The tickets that these deeds ended, by another gateway, within the lease."""
    ended_s = time.monotonic()
    async with asyncio.timeout(BOUND_S):
        for deed in deeds:
            for ticket in DEEDS[deed].ends:
                admitted_s = await until_refused_by(cache, getattr(people[deed], ticket))
                assert admitted_s < ended_s + LEASE_MS / 1000 + STALL_S

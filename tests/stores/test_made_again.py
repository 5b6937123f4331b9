"""What gateways make again on a server that has taken over with older data, and what they must not:
real Redis, back from a snapshot.

The stores here are those of two gateways. Each hears of what the other does from the log, as its
flush would (`hear`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from lab.redis_servers import Server
from lab.store_contract import new_session, new_session_id

import fastticket
from fastticket.errors import ConfigError, IssuedTooEarly, StoreUnavailable, TicketRefused
from fastticket.stores.contract import ENDED_MS, Fleet, Request, RestoredSession, shard_of
from fastticket.stores.redis.again import HEARD_MAX, HEARD_S, Ledger, sessions_in

MINUTES_MS = 180_000
PATIENCE_MS = 10_000  # a server on a busy machine may be silent for longer than the default


def url_of(server, options=""):
    return f"redis://{server.address}/0?timeout_ms={PATIENCE_MS}{options}"


class Gateway:
    """A store, and where it has read the logs to."""

    def __init__(self, server, options=""):
        self.store = fastticket.open_store(url_of(server, options))
        self.positions = {}

    async def open(self):
        await self.store.open()
        replies = await self.store.exchange({shard: Request(None) for shard in range(self.store.shards)})
        self.positions = {shard: reply.position for shard, reply in replies.items()}
        return self

    async def hear(self):
        """A flush: whatever it takes, until the store answers for every shard."""
        async with asyncio.timeout(20):
            while True:
                requests = {shard: Request(position) for shard, position in self.positions.items()}
                replies = await self.store.exchange(requests)
                if not any(isinstance(reply, StoreUnavailable) for reply in replies.values()):
                    break
                await asyncio.sleep(0.01)
        self.positions = {shard: reply.position for shard, reply in replies.items()}
        return replies

    async def lives(self, session):
        reply = (await self.hear())[shard_of(session.principal, self.store.shards)]
        wanted = Request(reply.position, (), [(session.id, session.principal)])
        [reply] = (await self.store.exchange({shard_of(session.principal, self.store.shards): wanted})).values()
        return reply.deadlines_ms[0] not in (None, ENDED_MS)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def gateways(server):
    made = [await Gateway(server).open() for _ in range(2)]
    yield made
    for gateway in made:
        await gateway.store.aclose()


async def back_from_snapshot(server):
    """Restart it; what came after the last SAVE is lost."""
    await asyncio.to_thread(server.restart)


def successor_of(session):
    return session._replace(id=new_session_id())


ENDS = {
    "logout": lambda gateway, b, _: gateway.store.revoke(b.id, b.principal),
    "everywhere": lambda gateway, b, _: gateway.store.revoke_all(b.principal),
    "rotate": lambda gateway, b, c: gateway.store.rotate(b.id, c),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("heard", ["all heard", "nothing heard"])
async def test_p6_a_rotation_made_again_late_brings_nothing_back_that_was_ended_since(server, gateways, end, heard):
    """The snapshot has A; one gateway rotates A to B, another one ends B, and reconnects first."""
    first, last = gateways
    a = await new_session(first.store)
    b, c = successor_of(a), successor_of(a)
    await last.store.create(a)
    server.admin("SAVE")
    assert await last.store.rotate(a.id, b)
    await ENDS[end](first, b, c)
    if heard == "all heard":
        await first.hear()
        await last.hear()
    await back_from_snapshot(server)
    for gateway in (first, last, first):
        await gateway.hear()
        assert not await gateway.lives(b)
        assert await gateway.lives(c) == (end == "rotate")
    assert not await last.lives(a)


async def test_p6_a_login_made_again_late_brings_nothing_back(server, gateways):
    first, last = gateways
    one, two = await new_session(first.store), await new_session(first.store, "bob")
    server.admin("SAVE")
    await last.store.create(one)
    await last.store.create(two)
    await first.store.revoke(one.id, one.principal)
    await first.store.revoke_all("bob")
    later = (await new_session(first.store, "bob"))._replace(created_ms=await first.store.time_ms() + 5)
    await first.store.create(later)
    await back_from_snapshot(server)
    assert [await first.lives(session) for session in (one, two, later)] == [False, False, True]
    assert [await last.lives(session) for session in (one, two, later)] == [False, False, True]


async def test_p6_a_login_that_is_sent_twice_and_arrives_late_brings_nothing_back(server, gateways):
    """The first copy was stuck in the network until after a logout everywhere."""
    store = gateways[0].store
    session = await new_session(store)
    await store.create(session)
    await store.revoke_all("alice")
    await store.create(session)
    assert not await gateways[1].lives(session)
    with pytest.raises(IssuedTooEarly) as early:
        await store.create((await new_session(store))._replace(created_ms=session.created_ms))
    later = (await new_session(store))._replace(created_ms=early.value.after_ms + 1)
    await store.create(later)
    assert await gateways[1].lives(later)


async def test_p6_who_had_to_make_room_does_not_come_back_by_being_sent_twice(gateways):
    """As above: evicted in between."""
    store = gateways[0].store
    one, two = await new_session(store), await new_session(store)
    await store.create(one, sessions_max=1)
    assert await store.create(two, sessions_max=1) == [one.id]
    await store.create(one, sessions_max=1)
    assert [await gateways[1].lives(session) for session in (one, two)] == [False, True]


@pytest.mark.parametrize("is_heard", [True, False])
async def test_what_was_kept_of_a_logout_everywhere_is_kept_again(server, gateways, is_heard):
    first, last = gateways
    kept, other = await new_session(first.store), await new_session(first.store)
    server.admin("SAVE")
    for session in (kept, other):
        await last.store.create(session)
    await first.store.revoke_all("alice", keep=kept.id)
    if is_heard:
        await last.hear()
    await back_from_snapshot(server)
    await first.hear()
    for gateway in (last, first):
        assert [await gateway.lives(session) for session in (kept, other)] == [True, False]


async def test_p6_a_bar_that_another_server_lacks_is_left_again(server, gateways):
    """Of an end of all, by whoever heard of it; where one was kept, by who did it."""
    first, last = gateways
    kept = await new_session(first.store, "bob")
    await first.store.create(kept)
    server.admin("SAVE")
    await first.store.revoke_all("alice")
    await first.store.create(await new_session(first.store, "carol"))
    await first.store.revoke_all("carol")
    await last.store.revoke_all("bob", keep=kept.id)
    await back_from_snapshot(server)
    await first.hear()
    barred = {name for shard in range(first.store.shards) for name, _ in await last.store.bars(shard, 0, 10)}
    assert barred >= {"alice", "carol"}
    await last.hear()
    for name in ("alice", "bob", "carol"):
        old = await new_session(first.store, name, age_ms=60_000)
        assert await first.store.restore([RestoredSession(old, {}, old.created_ms)]) == ["ended"]


async def test_a_session_that_was_kept_and_then_rotated_is_not_ended_by_making_the_logout_of_the_others_again(
    server, gateways
):
    """A change of password: log out all others, and go on under another id."""
    first, last = gateways
    kept, other = await new_session(first.store), await new_session(first.store)
    for session in (kept, other):
        await first.store.create(session)
    successor = successor_of(kept)
    await last.store.revoke_all("alice", keep=kept.id)
    assert await first.store.rotate(kept.id, successor)
    server.admin("SAVE")
    await back_from_snapshot(server)
    for gateway in (last, first):
        assert [await gateway.lives(session) for session in (kept, other, successor)] == [False, False, True]


async def test_a_login_right_after_a_logout_everywhere_is_told_apart_from_those_that_ended(server, gateways):
    """Gateways' clocks are a little behind the server's. Nothing is lost here: another server
    answers, and all is made again.
    """
    first, last = gateways
    store = fastticket.open_store(url_of(server))
    async with fastticket.TicketCache(store, fastticket.Keyring.generate(), idle_timeout_s=600) as cache:
        tickets = {}
        for number in range(50):
            await cache.login(f"user{number}")
            await cache.logout_everywhere(f"user{number}")
            tickets[f"user{number}"] = await cache.login(f"user{number}")
        await last.hear()
        server.admin("SAVE")
        await back_from_snapshot(server)
        for gateway in (first, last):
            await gateway.hear()
        assert all([len(await last.store.sessions(user)) == 1 for user in tickets])
        assert all([len(await last.store.sessions(user)) == 1 for user in tickets])


async def test_p4_whatever_is_asked_first_of_a_server_that_has_taken_over_logs_nobody_out(server):
    """Reading or writing attributes, rotating, listing: what it lacks is made again before its word
    counts.
    """
    store = fastticket.open_store(url_of(server))
    async with fastticket.TicketCache(store, fastticket.Keyring.generate(), idle_timeout_s=600) as cache:
        server.admin("SAVE")
        for number, ask in enumerate(
            [
                lambda session, _: cache._attributes.read(session),
                lambda session, _: set_attribute(cache, session),
                lambda _, ticket: cache.rotate(ticket),
                lambda session, _: cache.sessions(session.principal),
            ]
        ):
            ticket = await cache.login(f"user{number}")
            session = await cache.authenticate(ticket)
            await back_from_snapshot(server)
            answer = await until_available(lambda ask=ask, known=(session, ticket): ask(*known))
            assert answer is None or len(answer) > 0


async def set_attribute(cache, session):
    attributes = cache.attributes(session)
    attributes["x"] = 1
    await attributes.save()


async def until_available(ask):
    async with asyncio.timeout(20):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(0.01)


async def test_what_a_gateway_did_that_is_gone_the_others_make_again(server, gateways):
    """Its successor after a reload reads the log's last minute; one that was there all the time has
    heard it.
    """
    here, gone = gateways
    logged_out, rotated = await new_session(here.store), await new_session(here.store, "bob")
    for session in (logged_out, rotated):
        await gone.store.create(session)
    server.admin("SAVE")
    successor = successor_of(rotated)
    await gone.store.revoke(logged_out.id, "alice")
    await gone.store.rotate(rotated.id, successor)
    await gone.store.aclose()
    reloaded = await Gateway(server).open()
    await here.hear()
    await here.store.aclose()
    await back_from_snapshot(server)
    assert [await reloaded.lives(session) for session in (logged_out, rotated, successor)] == [False, False, True]
    await reloaded.store.aclose()


@pytest.mark.alone
async def test_a_logout_everywhere_of_many_sessions_is_one_record_and_all_of_them_end_again(server, gateways):
    first, last = gateways
    sessions = [await new_session(first.store) for _ in range(12_000)]
    await asyncio.gather(*map(first.store.create, sessions))
    server.admin("SAVE")
    assert len(await first.store.revoke_all("alice")) == 12_000
    await last.hear()  # too far behind to hear of each
    await first.store.aclose()
    await back_from_snapshot(server)
    await last.hear()
    assert list(await last.store.sessions("alice")) == []


async def test_who_comes_second_writes_nothing(server, gateways):
    first, last = gateways
    sessions = [await new_session(first.store, f"user{number}") for number in range(50)]
    for session in sessions:
        await first.store.create(session)
    server.admin("SAVE")
    for session in sessions:
        await first.store.revoke(session.id, session.principal)
    await last.hear()
    await back_from_snapshot(server)
    await first.hear()
    written = server.admin("INFO", "persistence")["rdb_changes_since_last_save"]
    await last.hear()
    assert server.admin("INFO", "persistence")["rdb_changes_since_last_save"] == written


async def test_who_has_ended_is_told_from_who_may_come_yet(server):
    """Just after a takeover the one is refused, and the other told to try again."""
    store = fastticket.open_store(url_of(server))
    keys = fastticket.Keyring.generate()
    async with fastticket.TicketCache(store, keys, idle_timeout_s=600) as cache:
        ended, lives = await cache.login("alice"), await cache.login("bob")
        unknown = keys.mint("carol", cache.now_ms(), 600, 6000)
        await cache.logout(ended)
        await cache.authenticate(lives)
        server.admin("SAVE")
        known = cache._shards.fleet
        cache._shards.fleet = known._replace(lease_ms=3_600_000)  # "just after" is over when this says so
        await back_from_snapshot(server)
        assert (await until_available(lambda: cache.authenticate(lives))).principal == "bob"
        cache._near.forget_refusals()
        with pytest.raises(TicketRefused, match="revoked"):
            await until_available(lambda: cache.authenticate(ended))
        with pytest.raises(StoreUnavailable, match="taken over"):
            await cache.authenticate(unknown)
        cache._shards.fleet = known
        for shard in cache._shards:
            shard.uncertain_until_ms = 0
        with pytest.raises(TicketRefused, match="unknown_session"):
            await until_available(lambda: cache.authenticate(unknown))


async def test_marks_are_bounded_in_number_and_time_and_leave_nothing_behind(server, gateways):
    store = gateways[0].store
    for _ in range(3):
        sessions = [await new_session(store) for _ in range(6000)]
        await asyncio.gather(*(store.revoke(session.id, "alice") for session in sessions))
    ended = f"{{ft:{shard_of('alice', store.shards):03}}}:ended"
    assert server.admin("ZCARD", ended) == 10_000
    assert 0 < server.admin("PTTL", ended) <= MINUTES_MS + 10_000
    server.admin("ZADD", ended, "XX", 1, next(iter(server.admin("ZRANGE", ended, 0, 0))))
    await store.revoke(new_session_id(), "alice")
    assert server.admin("ZCOUNT", ended, "-inf", 1000) == 0


async def test_a_store_that_was_emptied_keeps_its_layout_and_a_gateway_with_another_one_is_refused(server, gateways):
    here, _ = gateways
    await here.store.join(Fleet(500, 2000))
    server.admin("FLUSHALL")
    await here.hear()
    with pytest.raises(ConfigError, match="shards 16, not 32"):
        await Gateway(server, "&shards=32").open()
    assert server.admin("HGET", "ft:meta", "shards") == "16"


async def test_a_gateway_whose_store_was_made_anew_for_another_layout_says_so(server, gateways):
    here, _ = gateways
    server.admin("FLUSHALL")
    server.admin("HSET", "ft:meta", "format", 2, "shards", 32)
    [reply, *_] = (await here.store.exchange({0: Request(here.positions[0])})).values()
    assert "made with shards 32, not 16" in str(reply)
    with pytest.raises(ConfigError, match="shards"):
        await here.store.join(Fleet(500, 2000))
    with pytest.raises(StoreUnavailable, match="shards"):
        await here.store.sessions("alice")
    server.admin("HSET", "ft:meta", "shards", 16)
    await here.store.join(Fleet(500, 2000))
    await here.hear()


async def test_the_fleet_knows_its_longest_settings(server, gateways):
    one, other = (gateway.store for gateway in gateways)
    assert await one.join(Fleet(500, 4000)) is None
    assert await other.join(Fleet(2000, 2000)) == (500, 4000)
    assert await one.join(Fleet(500, 4000)) == (2000, 4000)


# --- the ledger


def words_of(ledger, shard=0):
    return [words for piece in ledger.words(shard) for words in piece]


def new_ledger():
    now = [0.0]
    return Ledger(2, lambda: now[0]), now


def test_a_ledger_forgets_after_a_minute_and_holds_no_more_than_the_log():
    ledger, now = new_ledger()
    ledger.ended(0, "a" * 22, "alice")
    now[0] = HEARD_S
    assert len(words_of(ledger)) == 1
    now[0] += 0.1
    assert words_of(ledger) == []
    for number in range(2 * HEARD_MAX):
        ledger.ended(0, f"{number:022}", "alice")
    assert len(words_of(ledger)) == HEARD_MAX
    assert words_of(ledger)[-1][1] == f"{2 * HEARD_MAX - 1:022}"
    assert words_of(ledger, 1) == []


def test_what_has_ended_is_not_made_again_even_for_a_moment():
    ledger, _ = new_ledger()
    record = bytes(14)
    ledger.created(0, "a" * 22, "alice", 1, record)
    ledger.rotated(0, "a" * 22, "alice", "b" * 22, 1, record)
    ledger.ended(0, "b" * 22, "alice")
    assert [words[:2] for words in words_of(ledger)] == [("end", "b" * 22), ("end", "a" * 22)]
    ledger.created(0, "c" * 22, "bob", 1, record)
    ledger.rotated(0, "c" * 22, "bob", "d" * 22, 1, record)
    ledger.created(0, "e" * 22, "bob", 1, record)
    ledger.ended_everywhere(0, "bob", 0, "")
    assert [words[0] for words in words_of(ledger) if "bob" in words] == ["everywhere"]


def test_a_session_that_was_rotated_very_often_ends_as_any_other():
    ledger, _ = new_ledger()
    for number in range(3000):
        ledger.rotated(0, f"{number:022}", "alice", f"{number + 1:022}", 1, bytes(14))
    ledger.ended(0, f"{3000:022}", "alice")
    assert {words[0] for words in words_of(ledger)} == {"end"}


def test_a_ledger_leaves_nothing_behind_and_takes_its_time_for_nobody_else():
    ledger, now = new_ledger()
    for number in range(20_000):
        ledger.created(0, f"a{number:021}", f"user{number}", 1, bytes(14))
        ledger.rotated(0, f"a{number:021}", f"user{number}", f"b{number:021}", 1, bytes(14))
        ledger.ended_everywhere(0, f"user{number}", 0, "")
    assert HEARD_MAX - 2 <= len(words_of(ledger)) <= HEARD_MAX
    now[0] = 2 * HEARD_S
    assert words_of(ledger) == []
    [shard, _] = ledger._shards
    assert (shard._origins, shard._beginnings) == ({}, {})


def test_a_script_is_told_the_keys_that_it_may_write_to():
    words = [
        ("end", "a", "alice"),
        ("everywhere", "bob", 1, ""),
        ("rotate", "c", "carol", "d", 1, b""),
        ("create", "e", "eve", 1, b""),
    ]
    assert list(sessions_in(words)) == [("", "bob"), ("c", "carol"), ("d", "carol"), ("e", "eve")]


def test_ends_do_not_grow_old_while_the_store_is_silent_and_logins_do():
    """They bar sessions that are given back to a store that lost its data (sessions/restoring)."""
    ledger, now = new_ledger()
    ledger.created(0, "a" * 22, "alice", 0, b"")
    ledger.ended(0, "b" * 22, "bob")
    ledger.ended_everywhere(0, "carol", 0, "")
    ledger.miss(0)
    now[0] = 100 * HEARD_S
    ledger.miss(0)
    assert [words[0] for words in words_of(ledger)] == ["end", "everywhere"]
    ledger.answered(0)
    assert words_of(ledger) == []


async def test_p6_nobody_hears_that_all_is_in_order_before_somebody_heard_of_the_loss(server):
    """Exchanges that run at the same time, from before the loss: the first that ends for a shard
    says that its data was replaced, even if another one was told before and still waits for other
    shards.
    """
    gateway = await Gateway(server).open()
    store, shards = gateway.store, range(gateway.store.shards)
    some = random.Random(1)
    for _ in range(25):
        said, before = {}, {shard: Request(position) for shard, position in gateway.positions.items()}
        server.admin("FLUSHALL")

        async def ask(numbers, said=said, before=before):
            for shard, reply in (await store.exchange({number: before[number] for number in numbers})).items():
                if not isinstance(reply, StoreUnavailable):
                    said.setdefault(shard, []).append(reply.replaced)

        async def ask_later(number, ask=ask):
            await asyncio.sleep(some.uniform(0, 0.03))
            await ask([number % len(shards)])

        async def end_later(number, ask=ask):
            await asyncio.sleep(some.uniform(0, 0.03))
            with contextlib.suppress(StoreUnavailable):  # what is changed meanwhile is to be made again, too
                await store.revoke_all(f"nobody{number}")
            await ask([number % len(shards)])

        await asyncio.gather(ask(shards), *map(ask_later, range(48)), *map(end_later, range(24)))
        assert [shard for shard, replaced in said.items() if not replaced[0]] == []
        await gateway.hear()
    await store.aclose()

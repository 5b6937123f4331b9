"""A store that has lost its data logs nobody out who was active, and brings nobody back: real
Redis, emptied or back from a snapshot, under caches of several processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.redis_servers import Server
from whole.link import Links

import fastticket
from fastticket import Keyring, TicketCache
from fastticket.errors import StoreUnavailable, TicketRefused
from fastticket.sessions.administration import Administration
from fastticket.sessions.coherence import CURRENT_MS, GIVE_BACK_WITHIN_MS, may_give_back
from fastticket.sessions.ticketcache import finish_giving_back, hand_to, handed_by
from fastticket.stores.contract import Loss, Request, RestoredSession, StoredSession, shard_of
from fastticket.stores.redis.again import HEARD_S, Ledger

KEYS = [(1, b"k" * 32)]
BOUND_S = 60
SHARDS = 16
QUICK = {"restore_from_cache": True, "flush_interval_ms": 200, "lease_ms": 800}


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def door(server):
    """Another way to the server, which can be cut."""
    links = Links()
    yield links.door(("127.0.0.1", server.port))
    links.close()


def url_at(address):
    """A server on a busy machine may be silent for longer than the default timeout."""
    return f"redis://{address}/0?timeout_ms=10000"


def gateway(server, **settings):
    store = fastticket.open_store(url_at(server.address))
    return TicketCache(store, Keyring(KEYS), **{**QUICK, **settings})


async def user_of(cache, ticket):
    """Who is admitted, after as many 503s as it takes; or why nobody is."""
    while True:
        try:
            return (await cache.authenticate(ticket)).principal
        except TicketRefused as refused:
            return refused.verdict
        except StoreUnavailable:
            await asyncio.sleep(0.01)


async def is_admitted(cache, ticket):
    """Now. A session that nobody gives back is 503 for some seconds first."""
    try:
        return bool(await cache.authenticate(ticket))
    except (TicketRefused, StoreUnavailable):
        return False


async def given_back(*caches):
    """Return when each knows of the loss, and has given back what it may."""
    for cache in caches:
        while not cache.stats["gaps"]:  # noqa: ASYNC110 -- it has no event for that
            await asyncio.sleep(0.01)
        if task := cache._keeper.restorer.task:
            await task


async def hold(caches, tickets):
    for cache in caches:
        for ticket in tickets:
            await cache.authenticate(ticket)


async def empty(server):
    server.admin("FLUSHALL")


async def bring_back(server):
    """From a snapshot that has nothing of it."""
    await asyncio.to_thread(server.restart)


LOSSES = [empty, bring_back]


@pytest.mark.parametrize("lose", LOSSES)
async def test_p8_what_a_process_holds_is_there_again_for_all(server, lose):
    async with gateway(server) as one, gateway(server) as other, asyncio.timeout(BOUND_S):
        server.admin("SAVE")
        async with gateway(server) as gone:
            tickets = [await gone.login(f"user{n}") for n in range(40)]
        await hold([one], tickets[:30])
        await hold([other], tickets[20:])
        await lose(server)
        for n, ticket in enumerate(tickets):
            for cache in (one, other):
                assert await user_of(cache, ticket) == f"user{n}"
        (session,) = await one.sessions("user0")
        before = await one.authenticate(tickets[0])
        assert (session.id, session.created_ms) == (before.id, before.issued_at_ms)
        assert session.absolute_deadline_ms == before.absolute_deadline_ms
        assert one.stats["sessions_given_back"] + other.stats["sessions_given_back"] >= len(tickets)


@pytest.mark.parametrize("lose", LOSSES)
async def test_p6_what_ended_before_does_not_come_back(server, door, lose):
    """Long before, and in the last moment: then the one that holds it has not heard of it."""
    ends = {
        "logout": lambda cache, ticket, name: cache.logout(ticket),
        "everywhere": lambda cache, ticket, name: cache.logout_everywhere(name),
        "rotation": lambda cache, ticket, name: cache.rotate(ticket),
    }
    slow = {"restore_from_cache": True, "flush_interval_ms": 1000, "lease_ms": 2000}
    async with (
        TicketCache(url_at(door.url_address), Keyring(KEYS), **slow) as ending,
        TicketCache(url_at(door.url_address), Keyring(KEYS), **QUICK) as holding,
        asyncio.timeout(BOUND_S),
    ):
        server.admin("SAVE")
        tickets = {name: await ending.login(name) for name in [*ends, "kept"]}
        await hold([ending, holding], tickets.values())
        ids = [holding._keys.verify(ticket, holding.now_ms()).session_id for ticket in tickets.values()]
        door.mute()
        for name, end in ends.items():
            await end(ending, tickets[name], name)
        for ticket in tickets.values():
            holding.check(ticket)  # in use
        heard = [holding._shards.known_end(session_id) for session_id in ids]
        await lose(server)
        assert heard == [None] * len(ids), "nothing was tried"
        done = asyncio.create_task(given_back(holding))
        while not holding.stats["gaps"]:  # noqa: ASYNC110 -- until then all is in order (P2)
            await asyncio.sleep(0.01)
        while not done.done():
            assert not any([await is_admitted(holding, tickets[name]) for name in ends])
            await asyncio.sleep(0.01)
        assert await user_of(holding, tickets["kept"]) == "kept"
        for cache in (holding, ending):
            assert not any([await is_admitted(cache, tickets[name]) for name in ends])


async def test_p6_who_has_ended_a_session_and_holds_no_other_notices_the_loss(server):
    """Of every shard: it has to make its ends again before others give sessions back."""
    async with gateway(server) as cache, asyncio.timeout(BOUND_S / 2):
        await cache.logout(await cache.login("alice"))
        await empty(server)
        while cache.stats["gaps"] < SHARDS:  # noqa: ASYNC110 -- it has no event for that
            await asyncio.sleep(0.01)


async def test_p6_who_logs_out_while_all_is_given_back_stays_out(server):
    async with gateway(server) as one, gateway(server) as other, asyncio.timeout(BOUND_S):
        tickets = {name: await one.login(name) for name in ("alice", "bob")}
        await hold([one, other], tickets.values())
        await empty(server)
        await one.logout(tickets["alice"])
        await given_back(one, other)
        for cache in (other, one):
            assert await user_of(cache, tickets["bob"]) == "bob"
            assert not await is_admitted(cache, tickets["alice"])


async def test_p6_all_but_this_one_waits_until_the_others_are_there_again(server):
    async with gateway(server) as one, gateway(server) as other, asyncio.timeout(BOUND_S):
        stolen, own = [await one.login("alice") for _ in range(2)]
        await hold([other], [stolen])
        await hold([one], [own])
        await empty(server)
        while True:
            try:
                await one.logout_everywhere("alice", keep=await one.authenticate(own))
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)
        await given_back(one, other)
        assert await user_of(other, own) == "alice"
        assert not await is_admitted(one, stolen)
        assert not await is_admitted(other, stolen)


async def test_p6_an_operator_is_told_what_may_come_back(server):
    """Right after a loss nothing is there, and all of it comes back: no session is said not to
    live, and not to be one of all.
    """
    async with gateway(server) as one, gateway(server) as other, asyncio.timeout(BOUND_S):
        operator = Administration(one)
        tickets = [await one.login(f"user{n // 2}") for n in range(40)]
        ids = [(await other.authenticate(ticket)).id for ticket in tickets]
        for ask in (
            lambda: operator.find(ids[0], "user0"),
            lambda: operator.owner_of(ids[2]),
            lambda: operator.rotate(ids[4], "user2"),
            lambda: operator.end(ids[6], "user3"),
            lambda: operator.end_of("user4", but=ids[8]),
        ):
            await empty(server)
            with contextlib.suppress(StoreUnavailable):
                assert await ask()
        # All of one principal: nothing comes back, although nothing was there.
        await empty(server)
        await operator.end_of("user5")
        await given_back(one, other)
        assert [await is_admitted(each, ticket) for each in (one, other) for ticket in tickets[10:12]] == [False] * 4
        await empty(server)
        while not (await operator.end_all(5.0))[1]:  # noqa: ASYNC110 -- as an operator does
            await asyncio.sleep(0.01)
        await given_back(one, other)
        for ticket in tickets:
            assert not await is_admitted(one, ticket)
            assert not await is_admitted(other, ticket)


async def test_p6_a_process_that_was_cut_off_gives_nothing_back(server, door):
    """Whatever it holds may have ended since, and be forgotten by all."""
    passed_ms = 0

    def clock():
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 + passed_ms

    async with gateway(server) as others, asyncio.timeout(BOUND_S):
        async with gateway(server) as gone:
            ticket = await gone.login("alice")
        cut_off = TicketCache(url_at(door.url_address), Keyring(KEYS), clock=clock, **QUICK)
        async with cut_off:
            await hold([cut_off], [ticket])
            door.refuse()
            passed_ms = CURRENT_MS + 1000
            await empty(server)
            await given_back(others)
            door.open()
            await given_back(cut_off)
            assert not await is_admitted(cut_off, ticket)


def test_p6_a_former_id_stays_over_after_a_long_outage():
    """Rotated at one process, held by another that had not heard of it; then an outage that is
    longer than rotations are made again.
    """
    passed_s = 0.0
    ledger = Ledger(16, lambda: passed_s)
    ledger.rotated(0, "former", "alice", "successor", 1, bytes(14))
    ledger.miss(0)
    passed_s = HEARD_S + 1
    assert list(ledger.words(0)) == [[("end", "former", "alice")]]


async def test_p6_a_logout_everywhere_stays_one_after_a_long_outage(server):
    """Its mark would be over when the store comes back."""
    store, other = [fastticket.open_store(url_at(server.address)) for _ in range(2)]
    async with contextlib.AsyncExitStack() as opened:
        for each in (store, other):
            await each.open()
            opened.push_async_callback(each.aclose)
        await _end_all_again(server, store, other)


async def _end_all_again(server, store, other):
    ended_ms = await store.time_ms() - 200_000
    before, after = [
        StoredSession(ids, "alice", ended_ms + 7_200_000, ended_ms + since_ms, 7200, 0)
        for ids, since_ms in (("b" * 21 + "A", -1000), ("a" * 21 + "A", 1000))
    ]
    shard = shard_of("alice", store.shards)
    position = (await store.exchange({shard: Request(None)}))[shard].position
    store._takeover.ledger.ended_everywhere(shard, "alice", ended_ms, "")
    await empty(server)
    while not (await store.exchange({shard: Request(position)}))[shard].replaced:
        door.mute()
    await store.exchange({shard: Request(position)})
    offered = [RestoredSession(before), RestoredSession(after)]
    assert await other.restore(offered) == ["ended", "created"]


@pytest.mark.parametrize("ask", ["rotate", "read", "write"])
async def test_nobody_is_told_to_log_in_again_before_the_loss_is_noticed(server, ask):
    settings = {"restore_from_cache": True, "flush_interval_ms": 5000, "lease_ms": 20_000}
    async with TicketCache(url_at(server.address), Keyring(KEYS), **settings) as cache:
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        await empty(server)
        attributes = cache.attributes(session)
        attributes["cart"] = 1
        asks = {"rotate": lambda: cache.rotate(ticket), "read": attributes.load, "write": attributes.save}
        with pytest.raises(StoreUnavailable):
            await asks[ask]()


async def test_a_store_that_is_closed_while_it_asks_logs_no_fault(server, door, caplog):
    """A worker that a reload has replaced, while the store lacks data."""
    store = fastticket.open_store(url_at(door.url_address))
    await store.open()
    door.hold()
    asking = asyncio.create_task(store.exchange({0: Request(None)}))
    await asyncio.sleep(0)  # it is on its way
    await store.aclose()
    async with asyncio.timeout(BOUND_S):
        replies = await asking
    assert isinstance(replies[0], StoreUnavailable)
    assert "unexpected" not in caplog.text


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_p8_a_process_hands_over_while_the_store_lacks_data(server, is_noticed):
    """A reload or an upgrade, in the worst moment. The heir gives back what it was handed, or was
    handed what is there again.
    """
    async with asyncio.timeout(BOUND_S), gateway(server) as old:
        async with gateway(server) as gone:  # else the login would be made again
            ticket = await gone.login("alice")
        await hold([old], [ticket])
        await empty(server)
        while is_noticed and not old.stats["gaps"]:  # noqa: ASYNC110 -- it has no event for that
            await asyncio.sleep(0.01)
        await finish_giving_back(old)
        heir = gateway(server)
        assert hand_to(heir, list(handed_by(old))) == 1
        await old.aclose()
        async with heir:
            assert await user_of(heir, ticket) == "alice"


async def test_p8_a_process_that_starts_while_others_give_back_waits_for_them(server):
    async with asyncio.timeout(BOUND_S), gateway(server) as holding:
        async with gateway(server) as gone:
            ticket = await gone.login("alice")
        await hold([holding], [ticket])
        await empty(server)
        while holding.stats["gaps"] < SHARDS:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.01)
        async with gateway(server) as fresh:
            assert await user_of(fresh, ticket) == "alice"


async def test_without_the_setting_everybody_logs_in_again(server):
    async with gateway(server, restore_from_cache=False) as cache, asyncio.timeout(BOUND_S):
        ticket = await cache.login("alice")
        async with gateway(server, restore_from_cache=False) as other:
            await hold([cache, other], [ticket])
            await empty(server)
        assert cache.stats["sessions_given_back"] == 0


SPANS_MS = st.integers(0, 2 * GIVE_BACK_WITHIN_MS)


@given(missed_ms=SPANS_MS, noticed_ms=SPANS_MS, others_missed_ms=SPANS_MS)
def test_who_may_give_back(missed_ms, noticed_ms, others_missed_ms):
    """Times before the first that noticed: who had heard nothing for long while others had, may
    not.
    """
    loss = Loss(noticed_ms, noticed_ms + min(missed_ms, others_missed_ms))
    allowed = noticed_ms <= GIVE_BACK_WITHIN_MS and (
        missed_ms <= CURRENT_MS or missed_ms - others_missed_ms <= CURRENT_MS
    )
    assert may_give_back(noticed_ms + missed_ms, loss) == allowed

"""The contract of every store: each sentence of fastticket/stores/contract.py, as tests.

A store is put to them by a subclass of `StoreContract` that says how to make a handle on one and
the same store, as another process would have, and how to break it:

    class TestRedis(StoreContract):
        @pytest.fixture
        async def open_handle(self): ...

No test here sleeps: deadlines lie in the past or the future, and what must happen is waited for
with a bound.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Awaitable, Callable

import pytest

from fastticket.core.ticket import encode_session_id
from fastticket.core.touches import Touches
from fastticket.errors import AttributesTooLarge, StoreUnavailable, TooManySessions
from fastticket.stores import open_store
from fastticket.stores.contract import (
    BAR_LASTS_MS,
    CARD_BYTES_MAX,
    ENDED_MS,
    EVERYBODY,
    GATEWAYS_MAX,
    Bar,
    Changed,
    Event,
    Position,
    Reply,
    Request,
    RestoredSession,
    Store,
    StoredSession,
    Tail,
    Written,
    shard_of,
)
from lab.touch import Touch

HOUR_MS = 3_600_000
ROOMY_BYTES = 1_000_000
SETTLE_BOUND_S = 20.0
SCAN_PAGES_MAX = 1000
DOORBELL_BOUND_S = 5.0  # generous: a loaded machine; what is measured is that it rings at all
YEAR_2020_MS = 1_577_836_800_000
ODD_PRINCIPALS = [
    "a",
    "A",
    "a.b",
    "a.b.c",
    "ünïcödé",
    "\u00e9",  # é in one character ...
    "e\u0301",  # ... and in two: different principals
    "山田太郎",
    "👩‍👩‍👧‍👦",
    "o'neill\"; --",
    "%",
    "_",
    "*",
    "{tag}",
    "{",
    "a:b/c\\d",
    "two words",
    "created",
    "1",
    "-inf",
    "nan",
    "\u0085\u2028",  # line ends, for those who split at them
    "x" * 190,
    "é" * 95,
    "👩" * 47,
]

OpenHandle = Callable[[], Awaitable[Store]]


def new_session_id() -> str:
    return encode_session_id(os.urandom(16))


def principal_in(shard: int, shards: int) -> str:
    return next(name for number in range(100_000) if shard_of(name := f"user{number}", shards) == shard)


async def new_session(
    store: Store, principal: str = "alice", *, idle_ms: int = HOUR_MS, age_ms: int = 0
) -> StoredSession:
    """Not created yet. Its idle deadline is `idle_ms` from now (negative: it is dead already), its
    login was `age_ms` ago.
    """
    now_ms = await store.time_ms()
    return StoredSession(new_session_id(), principal, now_ms + idle_ms, now_ms - age_ms, 7200, 86400)


async def add_session(store: Store, principal: str = "alice", *, idle_ms: int = HOUR_MS) -> StoredSession:
    """Create a session."""
    session = await new_session(store, principal, idle_ms=idle_ms)
    await store.create(session)
    return session


async def attributes_of(store: Store, session: StoredSession) -> dict[str, bytes] | None:
    found = await store.read_attributes(session.id, session.principal)
    return None if found is None else dict(found.values)


async def bars_of(store: Store, since_ms: int = 0) -> list[Bar]:
    return [bar for shard in range(store.shards) for bar in await store.bars(shard, since_ms, 1000)]


async def everybodys_rises(store: Store) -> None:
    """Two bars have room in a shard: what the others barred stays barred."""
    shard, now_ms = shard_of("alice", store.shards), await store.time_ms()
    names = itertools.islice((f"u{n}" for n in itertools.count() if shard_of(f"u{n}", store.shards) == shard), 5)
    bars = [Bar(name, now_ms + number) for number, name in enumerate(names)]
    await store.bar(bars)
    assert list(await store.bars(shard, 0, 10)) == [Bar(EVERYBODY, now_ms + 2), *bars[3:]]
    sessions = [await new_session(store, bars[0].principal) for _ in range(2)]
    restored = [RestoredSession(each, {}, now_ms + began) for each, began in zip(sessions, (2, 3), strict=True)]
    assert list(await store.restore(restored)) == ["ended", "created"]


async def write(
    store: Store, session: StoredSession, values: dict[str, bytes] | None = None, removed: tuple[str, ...] = ()
) -> Written | None:
    return await store.write_attributes(session.id, session.principal, values or {}, removed, bytes_max=ROOMY_BYTES)


async def ask(
    store: Store,
    principal: str = "alice",
    since: Position | None = None,
    touches: tuple[Touch, ...] = (),
    wanted: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """One shard's answer: the principal's."""
    shard = shard_of(principal, store.shards)
    reply = (await store.exchange({shard: Request(since, Touches.of(shard, touches), wanted)}))[shard]
    if isinstance(reply, StoreUnavailable):
        raise reply
    return reply


async def deadline_of(store: Store, session: StoredSession) -> int | None:
    [deadline_ms] = (await ask(store, session.principal, wanted=((session.id, session.principal),))).deadlines_ms
    return None if deadline_ms == ENDED_MS else deadline_ms


async def is_there(store: Store, session: StoredSession) -> bool:
    return await deadline_of(store, session) is not None


async def events_of(store: Store, principal: str, since: Position) -> list[Event]:
    return list((await ask(store, principal, since)).events)


async def tail_of(store: Store, principal: str, since: Position | None, entries_max: int = 100) -> Tail:
    shard = shard_of(principal, store.shards)
    tail = (await store.tails({shard: since}, entries_max))[shard]
    if isinstance(tail, StoreUnavailable):
        raise tail
    return tail


async def history_of(store: Store, principal: str, since: Position) -> list[tuple[str, str, str]]:
    """(kind, session id, principal) of what the shard's log says."""
    return [event[1:4] for event in (await ask(store, principal, since)).events]


async def evict(store: Store, session: StoredSession) -> None:
    """Another login takes the session's place."""
    assert list(await store.create(await new_session(store), sessions_max=1)) == [session.id]


async def restore_another(store: Store, session: StoredSession) -> None:
    """A session that a gateway may have been asked for before."""
    assert list(await store.restore([RestoredSession(session._replace(id=new_session_id()))])) == ["created"]


async def scan_all(
    store: Store, count: int = 50, change: Callable[[], Awaitable[None]] | None = None
) -> dict[str, StoredSession]:
    """What a whole scan finds, by id; `change` is called between two pieces of it."""
    found: dict[str, StoredSession] = {}
    cursor, pages = "", 0
    while cursor or not pages:
        cursor, sessions = await store.scan(cursor, count)
        found |= {session.id: session for session in sessions}
        pages += 1
        assert pages < SCAN_PAGES_MAX
        if change:
            await change()
    return found


async def all_of(url: str) -> dict[str, tuple[StoredSession, dict[str, bytes] | None]]:
    """All sessions of a store, by their ids, and the attributes of each."""
    store = open_store(url)
    await store.open()
    try:
        return {
            session.id: (session, await attributes_of(store, session)) for session in (await scan_all(store)).values()
        }
    finally:
        await store.aclose()


#: What other handles must hear of at once: each is an end, or another id, or a session that was
#: refused before.
NEWS: dict[str, Callable[[Store, StoredSession], Awaitable[object]]] = {
    "revoke": lambda store, session: store.revoke(session.id, "alice"),
    "revoke_all": lambda store, _: store.revoke_all("alice"),
    "evict": evict,
    "rotate": lambda store, session: store.rotate(session.id, session._replace(id=new_session_id())),
    "sweep": lambda store, session: store.sweep(session.idle_deadline_ms, 10),
    "restore": lambda store, session: restore_another(store, session),
}


class StoreContract:
    """Subclass, and give `open_handle`. `is_shared = False`: a store that no second process can
    open.
    """

    is_shared = True
    tells_changes = True  # the doorbell says whose attributes were written
    bars_apart_ms = 1  # how much later than the bar that it tells of another one of the store may be

    @pytest.fixture
    async def open_handle(self) -> OpenHandle:
        """A function that opens a handle on the test's store; all handles are on the same one.
        Closes them in the end.
        """
        raise NotImplementedError

    async def lose_log(self, store: Store, principal: str) -> None:
        """Make the store lose all that it has logged in the principal's shard."""
        raise NotImplementedError

    async def break_shard(self, store: Store, shard: int) -> None:
        """Make one shard fail; only for stores of several."""
        raise NotImplementedError

    def stop_clock(self, store: Store, patch: pytest.MonkeyPatch, now_ms: int) -> None:
        """For whatever the store does from now on, it is `now_ms`."""
        raise NotImplementedError

    async def until_it_listens(self, other: Store, rung: list[int]) -> None:
        """Until the doorbell has rung, into `rung`, for all that it rings for when a handle is
        opened.
        """

    @pytest.fixture
    async def store(self, open_handle: OpenHandle) -> Store:
        return await open_handle()

    @pytest.fixture
    async def other(self, store: Store, open_handle: OpenHandle) -> Store:
        """A second handle on the same store, as another process would have; the very same where
        that is impossible.
        """
        return await open_handle() if self.is_shared else store

    # --- the clock

    async def test_time_is_ms_since_the_epoch_never_goes_back_and_is_the_same_for_all(self, store, other):
        times_ms = [await handle.time_ms() for handle in (store, other) * 20]
        assert times_ms[0] > YEAR_2020_MS
        assert all(isinstance(time_ms, int) for time_ms in times_ms)
        assert times_ms == sorted(times_ms)

    # --- the register of gateways

    async def test_a_gateway_is_in_the_register_for_its_lease_and_renews_it(self, store, other):
        """One that was abandoned goes by its lease, whoever looks or announces itself then."""
        now_ms = await store.time_ms()
        with pytest.MonkeyPatch.context() as patch:
            for handle in (store, other):
                self.stop_clock(handle, patch, now_ms)
            assert await store.announce("a", b'{"n": 1}', 5000)
            assert await other.announce("b", bytes(range(256)), 9000)
            assert await store.announce("a", b'{"n": 2}', 5000)
            assert dict(await other.gateways()) == {"a": b'{"n": 2}', "b": bytes(range(256))}
        with pytest.MonkeyPatch.context() as patch:
            for handle in (store, other):
                self.stop_clock(handle, patch, now_ms + 5000)
            assert set(await other.gateways()) == {"b"}
            assert await other.announce("c", b"", 9000)
            assert set(await store.gateways()) == {"b", "c"}

    async def test_a_gateway_leaves_the_register(self, store, other):
        assert await store.announce("a", b"1", HOUR_MS)
        assert await other.announce("b", b"2", HOUR_MS)
        assert await store.announce("a", b"", 0)
        assert await store.announce("a", b"", 0)
        assert dict(await other.gateways()) == {"b": b"2"}

    async def test_the_register_has_limits(self, store, other):
        """Of bytes and of gateways; who is in stays in, and a place that is free again is given."""
        with pytest.raises(ValueError, match="room for 4096"):
            await store.announce("0", b"x" * (CARD_BYTES_MAX + 1), HOUR_MS)
        card = b"x" * CARD_BYTES_MAX
        for number in range(GATEWAYS_MAX):
            assert await store.announce(str(number), card, HOUR_MS)
        assert not await other.announce("late", card, HOUR_MS)
        assert await other.announce("0", b"again", HOUR_MS)
        found = await other.gateways()
        assert (len(found), found["0"], found["1"]) == (GATEWAYS_MAX, b"again", card)
        assert await store.announce("1", b"", 0)
        assert await other.announce("late", card, HOUR_MS)

    async def test_who_was_killed_leaves_its_place_in_the_register(self, store, other):
        now_ms = await store.time_ms()
        for number in range(GATEWAYS_MAX):
            assert await store.announce(str(number), b"", 5000)
        with pytest.MonkeyPatch.context() as patch:
            self.stop_clock(other, patch, now_ms + HOUR_MS)
            for number in range(GATEWAYS_MAX):
                assert await other.announce(f"later {number}", b"", 5000)
            assert len(await other.gateways()) == GATEWAYS_MAX

    # --- create

    async def test_a_created_session_is_seen_by_every_handle(self, store, other):
        session = await add_session(store)
        assert await deadline_of(other, session) == session.idle_deadline_ms
        assert list(await other.sessions("alice")) == [session]

    async def test_what_was_changed_settles(self, store):
        await add_session(store)
        async with asyncio.timeout(SETTLE_BOUND_S):
            await store.settle()

    async def test_create_is_logged(self, store, other):
        since = (await ask(other)).position
        session = await add_session(store)
        assert await history_of(other, "alice", since) == [("created", session.id, "alice")]

    async def test_a_session_that_never_ends_keeps_its_deadlines_exactly(self, store, other):
        never_ms = (1 << 53) - 1
        session = StoredSession(new_session_id(), "alice", never_ms, (1 << 48) - 1, 0, 0)
        assert session.absolute_deadline_ms == never_ms
        await store.create(session)
        assert list(await other.sessions("alice")) == [session]
        assert await deadline_of(other, session) == never_ms

    # --- exchange: touches

    async def test_a_touch_moves_the_deadline_on(self, store, other):
        session = await add_session(store)
        later_ms = session.idle_deadline_ms + 1
        await ask(store, touches=(Touch(session.id, "alice", later_ms),))
        assert await deadline_of(other, session) == later_ms
        assert [s.idle_deadline_ms for s in await other.sessions("alice")] == [later_ms]

    async def test_a_late_or_duplicated_touch_never_moves_the_deadline_back(self, store):
        session = await add_session(store)
        early, late = (Touch(session.id, "alice", session.idle_deadline_ms + by_ms) for by_ms in (10, 20))
        for touches in ((late,), (early,), (late,), (early, late), (late, early), (early, early)):
            await ask(store, touches=touches)
            assert await deadline_of(store, session) == late.idle_deadline_ms

    async def test_many_touches_go_in_one_request(self, store):
        sessions = [await add_session(store) for _ in range(20)]
        touches = tuple(Touch(s.id, "alice", s.idle_deadline_ms + number) for number, s in enumerate(sessions))
        reply = await ask(store, touches=touches, wanted=tuple((s.id, "alice") for s in sessions))
        assert list(reply.deadlines_ms) == [touch.idle_deadline_ms for touch in touches]

    async def test_a_touch_of_no_session_makes_none(self, store):
        session_id = new_session_id()
        now_ms = await store.time_ms()
        reply = await ask(
            store, touches=(Touch(session_id, "alice", now_ms + HOUR_MS),), wanted=((session_id, "alice"),)
        )
        assert list(reply.deadlines_ms) == [None]
        assert list(await store.sessions("alice")) == []

    @pytest.mark.parametrize("end", ["revoke", "revoke_all", "sweep"])
    async def test_a_touch_never_revives(self, store, other, end):
        session = await add_session(store, idle_ms=-1)
        if end == "revoke":
            await store.revoke(session.id, "alice")
        elif end == "revoke_all":
            await store.revoke_all("alice")
        else:
            await store.sweep(session.idle_deadline_ms, 100)
        await ask(other, touches=(Touch(session.id, "alice", session.absolute_deadline_ms),))
        assert not await is_there(store, session)
        assert list(await store.sessions("alice")) == []

    async def test_a_late_touch_still_counts_for_a_session_that_nobody_has_removed(self, store):
        """The use was in time, only the news of it was not: a gateway had been cut off."""
        session = await add_session(store, idle_ms=-1)
        later_ms = session.idle_deadline_ms + HOUR_MS
        await ask(store, touches=(Touch(session.id, "alice", later_ms),))
        assert [s.idle_deadline_ms for s in await store.sessions("alice")] == [later_ms]

    async def test_a_touch_of_the_wrong_principal_touches_nothing(self, store):
        session = await add_session(store, "alice")
        later_ms = session.idle_deadline_ms + 1
        for wrong in ("bob", "alic", "alice.", "Alice"):
            shard = shard_of("alice", store.shards)  # even if it is sent to the right place
            await store.exchange({shard: Request(None, Touches.of(shard, [Touch(session.id, wrong, later_ms)]))})
        assert await deadline_of(store, session) == session.idle_deadline_ms

    async def test_touches_are_not_logged(self, store):
        session = await add_session(store)
        before = (await ask(store)).position
        reply = await ask(store, since=before, touches=(Touch(session.id, "alice", session.idle_deadline_ms + 1),))
        assert reply == Reply(before, reply.events, False, reply.deadlines_ms)
        assert list(reply.events) == []

    # --- exchange: order and lookup

    async def test_touches_come_before_the_lookup(self, store):
        session = await add_session(store)
        later_ms = session.idle_deadline_ms + 5
        reply = await ask(store, touches=(Touch(session.id, "alice", later_ms),), wanted=((session.id, "alice"),))
        assert list(reply.deadlines_ms) == [later_ms]

    async def test_deadlines_come_in_the_order_they_were_asked_for(self, store):
        sessions = [await add_session(store, idle_ms=HOUR_MS + number) for number in (3, 1, 2)]
        wanted = [(s.id, "alice") for s in sessions]
        reply = await ask(store, wanted=(wanted[1], ("A" * 22, "alice"), wanted[0], wanted[2], wanted[0]))
        a, b, c = (s.idle_deadline_ms for s in sessions)
        assert list(reply.deadlines_ms) == [b, None, a, c, a]

    async def test_a_session_is_not_found_under_another_principal(self, store):
        session = await add_session(store, "alice")
        shard = shard_of("alice", store.shards)
        replies = await store.exchange({shard: Request(None, (), ((session.id, "bob"), (session.id, "alic")))})
        assert list(replies[shard].deadlines_ms) == [None, None]

    async def test_a_deadline_that_has_passed_is_told_for_as_long_as_the_session_is_there(self, store):
        """The caller may know of a use that the store has not heard of yet."""
        session = await add_session(store, idle_ms=-1000)
        assert await deadline_of(store, session) == session.idle_deadline_ms

    async def test_a_revocation_in_the_log_always_shows_in_the_deadlines(self, store, other):
        """The log is read before the sessions: never does `events` know of an end that
        `deadlines_ms` does not.
        """
        sessions = [await add_session(store) for _ in range(30)]
        wanted = tuple((session.id, "alice") for session in sessions)
        since = (await ask(store)).position

        async def revoke_all_one_by_one() -> None:
            for session in sessions:
                await other.revoke(session.id, "alice")

        revoking = asyncio.create_task(revoke_all_one_by_one())
        ended: set[str] = set()
        while len(ended) < len(sessions):
            reply = await ask(store, since=since, wanted=wanted)
            ended = {event.session_id for event in reply.events}
            gone = {
                s.id
                for s, deadline_ms in zip(sessions, reply.deadlines_ms, strict=True)
                if deadline_ms in (None, ENDED_MS)
            }
            assert ended <= gone
        await revoking

    async def test_an_exchange_of_nothing_is_nothing(self, store):
        assert dict(await store.exchange({})) == {}

    async def test_every_shard_answers_for_itself(self, store):
        names = [principal_in(shard, store.shards) for shard in range(store.shards)]
        sessions = [await add_session(store, name, idle_ms=HOUR_MS + number) for number, name in enumerate(names)]
        requests = {shard: Request(None, (), ((sessions[shard].id, name),)) for shard, name in enumerate(names)}
        replies = await store.exchange(requests)
        assert {shard: list(reply.deadlines_ms) for shard, reply in replies.items()} == {
            shard: [session.idle_deadline_ms] for shard, session in enumerate(sessions)
        }

    async def test_one_shards_error_does_not_hide_the_others(self, store):
        if store.shards == 1:
            pytest.skip("a store of one shard")
        names = [principal_in(shard, store.shards) for shard in range(store.shards)]
        sessions = [await add_session(store, name) for name in names]
        await self.break_shard(store, 0)
        replies = await store.exchange(
            {shard: Request(None, (), ((sessions[shard].id, name),)) for shard, name in enumerate(names)}
        )
        assert isinstance(replies[0], StoreUnavailable)
        for shard in range(1, store.shards):
            assert list(replies[shard].deadlines_ms) == [sessions[shard].idle_deadline_ms]

    # --- exchange: the log

    async def test_without_a_position_the_log_is_read_from_now_on(self, store):
        await add_session(store)
        reply = await ask(store, since=None)
        assert (list(reply.events), reply.gap) == ([], False)
        after = await ask(store, since=reply.position)
        assert (list(after.events), after.gap, after.position) == ([], False, reply.position)

    async def test_the_tail_begins_after_the_known_entry(self, store):
        since = (await ask(store)).position
        first, second = [await add_session(store) for _ in range(2)]
        events = (await ask(store, since=since)).events
        assert [event.session_id for event in events] == [first.id, second.id]
        rest = (await ask(store, since=events[0].position)).events
        assert [event.session_id for event in rest] == [second.id]

    async def test_positions_increase_and_the_reply_ends_at_the_last_event(self, store, other):
        since = (await ask(store)).position
        for handle in (store, other) * 5:
            session = await add_session(handle)
            await handle.revoke(session.id, "alice")
        reply = await ask(store, since=since)
        positions = [event.position for event in reply.events]
        assert len(positions) == 20
        assert all(before < after for before, after in zip([since, *positions], positions, strict=False))
        assert reply.position == positions[-1]

    async def test_positions_mean_the_same_to_every_handle(self, store, other):
        since = (await ask(store)).position
        session = await add_session(store)
        await other.revoke(session.id, "alice")
        seen_here, seen_there = await ask(store, since=since), await ask(other, since=since)
        assert (seen_here.position, list(seen_here.events)) == (seen_there.position, list(seen_there.events))

    async def test_entries_lost_since_the_known_one_are_a_gap(self, store, other):
        """And the position that comes with it is good to go on from."""
        since = (await ask(store)).position
        session = await add_session(store)
        await other.revoke(session.id, "alice")
        await self.lose_log(other, "alice")
        reply = await ask(store, since=since)
        assert reply.gap
        session = await add_session(other)
        after = await ask(store, since=reply.position)
        assert not after.gap
        assert ("created", session.id, "alice") in [event[1:4] for event in after.events]

    async def test_the_known_entry_lost_and_newer_ones_there_is_a_gap(self, store, other):
        since = (await ask(store)).position
        await add_session(store)
        await self.lose_log(other, "alice")
        for _ in range(3):
            await add_session(other)
        assert (await ask(store, since=since)).gap

    async def test_a_position_from_the_future_is_a_gap(self, store):
        """The store was emptied, or failed over to a replica that had not heard of the last
        entries.
        """
        await add_session(store)
        last = (await ask(store)).position
        reply = await ask(store, since=(last[0] + 1_000_000, 0))
        assert (reply.gap, reply.position) == (True, last)

    async def test_a_gap_does_not_hide_the_deadlines(self, store):
        session = await add_session(store)
        reply = await ask(store, since=(1 << 60, 0), wanted=((session.id, "alice"),))
        assert (reply.gap, list(reply.deadlines_ms)) == (True, [session.idle_deadline_ms])

    # --- revoke

    async def test_a_revoked_session_is_gone_for_every_handle_and_logged(self, store, other):
        session, bystander = [await add_session(store) for _ in range(2)]
        since = (await ask(store)).position
        assert await other.revoke(session.id, "alice") is True
        assert not await is_there(store, session)
        assert list(await store.sessions("alice")) == [bystander]
        assert await history_of(store, "alice", since) == [("revoked", session.id, "alice")]

    async def test_revoking_what_is_not_there_says_so_and_logs_nothing(self, store):
        session = await add_session(store)
        await store.revoke(session.id, "alice")
        since = (await ask(store)).position
        assert await store.revoke(session.id, "alice") is False
        assert await store.revoke(new_session_id(), "alice") is False
        assert await history_of(store, "alice", since) == []

    async def test_revoking_under_the_wrong_principal_ends_nothing(self, store):
        session = await add_session(store, "alice")
        since = (await ask(store)).position
        for wrong in ("bob", "alic", "Alice"):
            assert await store.revoke(session.id, wrong) is False
        assert await is_there(store, session)
        assert await history_of(store, "alice", since) == []

    async def test_revoking_under_a_wrong_principal_of_the_same_shard_takes_nothing_and_bars_nothing(self, store):
        shard = shard_of("alice", store.shards)
        wrong = next(name for n in range(100_000) if shard_of(name := f"eve{n}", store.shards) == shard)
        session = await add_session(store, "alice")
        await write(store, session, {"cart": b"tea"})
        assert await store.revoke(session.id, wrong) is False
        stored = await store.read_attributes(session.id, "alice")
        assert stored is not None
        assert dict(stored.values) == {"cart": b"tea"}
        unborn = await new_session(store, "alice")
        assert await store.revoke(unborn.id, wrong) is False
        [deadline_ms] = (await ask(store, wanted=((unborn.id, "alice"),))).deadlines_ms
        assert deadline_ms is None
        await store.create(unborn)
        assert await is_there(store, unborn)

    async def test_revoke_all_ends_every_session_of_the_principal_and_no_other(self, store, other):
        sessions = [await add_session(store, "alice") for _ in range(5)]
        bystander = await add_session(store, "alice.b")
        since = (await ask(store)).position
        assert sorted(await other.revoke_all("alice")) == sorted(session.id for session in sessions)
        assert list(await store.sessions("alice")) == []
        assert not any([await is_there(store, session) for session in sessions])
        assert await is_there(store, bystander)
        logged = await history_of(store, "alice", since)
        assert sorted(logged) == sorted(("revoked", session.id, "alice") for session in sessions)

    async def test_revoke_all_of_nobody_is_nobody(self, store):
        since = (await ask(store)).position
        assert list(await store.revoke_all("alice")) == []
        assert await history_of(store, "alice", since) == []

    # --- what a session is

    async def test_details_and_lifetimes_are_kept(self, store, other):
        details = {"address": "192.0.2.7", "user_agent": 'Bücher/1.0 👩 "quoted"', "": ""}
        bare = await new_session(store, age_ms=1000)
        full = (await new_session(store))._replace(idle_timeout_s=0, absolute_lifetime_s=(1 << 32) - 1, details=details)
        for session in (bare, full):
            await store.create(session)
        found = {session.id: session for session in await other.sessions("alice")}
        assert found == {bare.id: bare, full.id: full}
        assert dict(found[full.id].details) == details

    # --- create, with a limit

    async def test_more_sessions_than_the_limit_evict_the_oldest_logins(self, store, other):
        made = [await new_session(store, age_ms=age_ms) for age_ms in (2000, 4000, 1000, 3000)]
        for session in made:
            await store.create(session)
        await write(store, made[1], {"cart": b"tea"})
        since = (await ask(store)).position
        newest = await new_session(store)
        assert list(await other.create(newest, sessions_max=3)) == [made[1].id, made[3].id]
        assert {s.id for s in await store.sessions("alice")} == {made[0].id, made[2].id, newest.id}
        assert await attributes_of(store, made[1]) is None
        events = await events_of(store, "alice", since)
        assert [(event.kind, event.session_id, event.reason) for event in events] == [
            ("revoked", made[1].id, "evicted"),
            ("revoked", made[3].id, "evicted"),
            ("created", newest.id, ""),
        ]

    async def test_more_sessions_than_the_limit_are_refused_if_nobody_is_evicted(self, store, other):
        kept = [await add_session(store) for _ in range(2)]
        since = (await ask(store)).position
        refused = await new_session(store)
        with pytest.raises(TooManySessions) as failure:
            await other.create(refused, sessions_max=2, evicts=False)
        assert failure.value.sessions_max == 2
        assert {s.id for s in await store.sessions("alice")} == {s.id for s in kept}
        assert not await is_there(store, refused)
        assert await events_of(store, "alice", since) == []
        await store.revoke(kept[0].id, "alice")
        assert list(await other.create(refused, sessions_max=2, evicts=False)) == []

    async def test_the_dead_do_not_count_and_are_over_then(self, store):
        """Else a touch that is on its way could make them too many."""
        dead = await add_session(store, idle_ms=-1)
        since = (await ask(store)).position
        alive = await new_session(store)
        assert list(await store.create(alive, sessions_max=1, evicts=False)) == []
        await ask(store, touches=(Touch(dead.id, "alice", dead.idle_deadline_ms + HOUR_MS),))
        assert [s.id for s in await store.sessions("alice")] == [alive.id]
        assert [event[1:5] for event in await events_of(store, "alice", since)] == [
            ("expired", dead.id, "alice", "idle"),
            ("created", alive.id, "alice", ""),
        ]

    async def test_the_dead_who_are_in_nobodys_way_stay(self, store):
        """A touch that is on its way may bring them back. Those that must go are those longest
        dead.
        """
        longest, shortest = [await add_session(store, idle_ms=ms) for ms in (-2000, -1)]
        await store.create(await new_session(store), sessions_max=3, evicts=False)
        assert [await is_there(store, session) for session in (longest, shortest)] == [True, True]
        await store.create(await new_session(store), sessions_max=3, evicts=False)
        assert [await is_there(store, session) for session in (longest, shortest)] == [False, True]

    @pytest.mark.parametrize(("lifetime_s", "reason"), [(86_400, "idle"), (10, "absolute"), (0, "idle")])
    async def test_who_makes_room_by_being_dead_ends_for_the_deadline_that_had_passed(self, store, lifetime_s, reason):
        """An idle deadline is never later than the absolute one: it is the same where that has come
        first.
        """
        now_ms = await store.time_ms()
        dead = StoredSession(new_session_id(), "alice", now_ms - 1, now_ms - 10_001, 10, lifetime_s)
        await store.create(dead)
        since = (await ask(store)).position
        await store.create(await new_session(store), sessions_max=1, evicts=False)
        ended = (await events_of(store, "alice", since))[0]
        assert (ended.kind, ended.session_id, ended.reason) == ("expired", dead.id, reason)

    async def test_a_session_is_dead_from_the_very_ms_of_its_deadline(self, store, monkeypatch):
        dead, alive = [await add_session(store) for _ in range(2)]
        await ask(store, touches=(Touch(alive.id, "alice", dead.idle_deadline_ms + 1),))
        self.stop_clock(store, monkeypatch, dead.idle_deadline_ms)
        assert [session.id for session in await store.sessions("alice")] == [alive.id]
        newest = (await new_session(store))._replace(idle_deadline_ms=dead.idle_deadline_ms + HOUR_MS)
        assert list(await store.create(newest, sessions_max=2, evicts=False)) == []
        assert [session.id for session in await store.sessions("alice")] == [alive.id, newest.id]
        assert not await is_there(store, dead)

    async def test_the_limit_is_each_principals_own(self, store):
        bobs = [await add_session(store, "bob") for _ in range(3)]
        assert list(await store.create(await new_session(store), sessions_max=1)) == []
        assert len(await store.sessions("bob")) == len(bobs)

    @pytest.mark.parametrize("evicts", [True, False])
    async def test_the_limit_holds_when_many_log_in_at_once(self, store, other, evicts):
        async def log_in(number: int) -> bool:
            session = await new_session(store)
            try:
                await (store, other)[number % 2].create(session, sessions_max=3, evicts=evicts)
            except TooManySessions:
                return False
            assert len(await store.sessions("alice")) <= 3
            return True

        outcomes = await asyncio.gather(*(log_in(number) for number in range(40)))
        assert len(await store.sessions("alice")) == 3
        assert outcomes.count(True) == (40 if evicts else 3)

    # --- rotate

    async def test_a_rotated_session_goes_on_under_its_new_id(self, store, other):
        old = (await new_session(store))._replace(details={"address": "192.0.2.7"})
        await store.create(old)
        await write(store, old, {"cart": b"tea"})
        since = (await ask(store)).position
        new = old._replace(
            id=new_session_id(),
            idle_deadline_ms=old.idle_deadline_ms + 5,
            idle_timeout_s=60,
            absolute_lifetime_s=90_000,
            details={},
        )
        assert await other.rotate(old.id, new)
        assert not await is_there(store, old)
        assert list(await store.sessions("alice")) == [new._replace(details=old.details)]
        assert await attributes_of(store, new) == {"cart": b"tea"}
        assert await attributes_of(store, old) is None
        (event,) = await events_of(store, "alice", since)
        assert (event.kind, event.session_id, event.successor_id) == ("rotated", old.id, new.id)

    async def test_who_has_no_session_can_not_rotate_it(self, store):
        gone = await add_session(store)
        await store.revoke(gone.id, "alice")
        since = (await ask(store)).position
        for session_id in (gone.id, new_session_id()):
            assert not await store.rotate(session_id, await new_session(store))
        mallory = await new_session(store, "mallory")
        alices = await add_session(store)
        assert not await store.rotate(alices.id, mallory)
        assert [s.id for s in await store.sessions("alice")] == [alices.id]
        assert [event.kind for event in await events_of(store, "alice", since)] == ["created"]

    async def test_a_touch_of_the_old_id_brings_nobody_back(self, store):
        old = await add_session(store)
        await store.rotate(old.id, old._replace(id=new_session_id()))
        await ask(store, touches=(Touch(old.id, "alice", old.idle_deadline_ms + 1),))
        assert not await is_there(store, old)

    async def test_a_session_is_rotated_once_however_many_try(self, store, other):
        old = await add_session(store)
        successors = [old._replace(id=new_session_id()) for _ in range(10)]
        handles = [store, other] * 5
        answers = await asyncio.gather(*(h.rotate(old.id, new) for h, new in zip(handles, successors, strict=True)))
        assert answers.count(True) == 1
        assert [s.id for s in await store.sessions("alice")] == [successors[answers.index(True)].id]

    # --- reasons, and all but one

    async def test_the_log_says_why_a_session_ended(self, store):
        since = (await ask(store)).position
        sessions = [await add_session(store) for _ in range(3)]
        await store.revoke(sessions[0].id, "alice")
        await store.revoke(sessions[1].id, "alice", "stolen")
        await store.revoke_all("alice", reason="police")
        revoked = [event for event in await events_of(store, "alice", since) if event.kind == "revoked"]
        assert [event.reason for event in revoked] == ["logout", "stolen", "police"]

    async def test_the_log_says_which_deadline_had_passed(self, store):
        since = (await ask(store)).position
        now_ms = await store.time_ms()
        idle = StoredSession(new_session_id(), "alice", now_ms - 1, now_ms - 7_000_000, 7200, 86400)
        at_its_end = StoredSession(new_session_id(), "alice", now_ms - 2, now_ms - 10_002, 7200, 10)
        endless = StoredSession(new_session_id(), "alice", now_ms - 3, now_ms - 1000, 1, 0)
        for session in (idle, at_its_end, endless):
            await store.create(session)
        assert await store.sweep(now_ms, 10) == 3
        expired = [event for event in await events_of(store, "alice", since) if event.kind == "expired"]
        assert {event.session_id: event.reason for event in expired} == {
            idle.id: "idle",
            at_its_end.id: "absolute",
            endless.id: "idle",
        }

    async def test_all_but_one_can_be_revoked(self, store, other):
        kept, *others = [await add_session(store) for _ in range(4)]
        assert set(await other.revoke_all("alice", keep=kept.id)) == {session.id for session in others}
        assert [s.id for s in await store.sessions("alice")] == [kept.id]

    # --- attributes

    async def test_a_session_has_no_attributes_at_first(self, store, other):
        found = await other.read_attributes(*(await add_session(store))[:2])
        assert (found.version, dict(found.values)) == ((0, 0), {})

    async def test_attributes_are_written_by_difference(self, store, other):
        session = await add_session(store)
        await write(store, session, {"a": b"1", "b": b"2", "c": b"3"})
        await write(other, session, {"a": b"one", "d": b"4"}, ("b", "nobody knows"))
        assert await attributes_of(store, session) == {"a": b"one", "c": b"3", "d": b"4"}
        await write(other, session, removed=("a", "c", "d"))
        assert await attributes_of(store, session) == {}

    async def test_any_name_and_any_bytes(self, store, other):
        session = await add_session(store)
        values = {name: name.encode() + bytes(range(256)) for name in ODD_PRINCIPALS} | {"empty": b"", "-": b"-"}
        await write(store, session, values)
        assert await attributes_of(other, session) == values
        await write(other, session, removed=tuple(ODD_PRINCIPALS))
        assert await attributes_of(store, session) == {"empty": b"", "-": b"-"}

    async def test_each_write_has_a_version_and_names_the_one_before(self, store, other):
        session = await add_session(store)
        since = (await ask(store)).position
        first = await write(store, session, {"a": b"1"})
        second = await write(other, session, {"a": b"1"})
        assert first.replaced == (0, 0)
        assert second.replaced == first.version < second.version
        assert (await store.read_attributes(session.id, "alice")).version == second.version
        events = await events_of(store, "alice", since)
        assert [(e.kind, e.session_id, e.position) for e in events] == [
            ("changed", session.id, first.version),
            ("changed", session.id, second.version),
        ]

    async def test_attributes_have_a_limit_and_what_is_too_large_changes_nothing(self, store):
        session = await add_session(store)

        async def put(removed: tuple[str, ...] = (), **values: bytes) -> Written | None:
            return await store.write_attributes(session.id, "alice", values, removed, bytes_max=100)

        await put(a=b"x" * 49, b=b"x" * 49)  # with the names exactly 100
        since = (await ask(store)).position
        for removed, values in (((), {"c": b""}), ((), {"a": b"x" * 50}), (("b",), {"ü": b"x" * 49})):
            with pytest.raises(AttributesTooLarge) as failure:
                await put(removed, **values)
            assert (failure.value.size_bytes, failure.value.bytes_max) == (101, 100)
        assert await attributes_of(store, session) == {"a": b"x" * 49, "b": b"x" * 49}
        assert await events_of(store, "alice", since) == []
        await put(("b",), c=b"x" * 49)

    async def test_a_lowered_limit_does_not_forbid_to_take_something_away(self, store):
        session = await add_session(store)
        await write(store, session, {"a": b"x" * 100, "b": b"x" * 100})
        key = session.id, "alice"
        with pytest.raises(AttributesTooLarge):
            await store.write_attributes(*key, {"c": b"x"}, (), bytes_max=50)
        await store.write_attributes(*key, {"b": b"x" * 50}, (), bytes_max=50)
        await store.write_attributes(*key, {}, ("a",), bytes_max=50)
        assert await attributes_of(store, session) == {"b": b"x" * 50}

    async def test_a_write_of_nothing_changes_nothing(self, store):
        session = await add_session(store)
        assert await write(store, session)
        assert await attributes_of(store, session) == {}

    async def test_attributes_end_with_their_session(self, store, other):
        one, two, dead = [await add_session(store, idle_ms=ms) for ms in (HOUR_MS, HOUR_MS, -1)]
        for session in (one, two, dead):
            assert await write(store, session, {"cart": b"tea"})
        await other.revoke(one.id, "alice")
        await other.sweep(await store.time_ms(), 10)
        for session in (one, dead):
            assert await attributes_of(store, session) is None
            assert await write(store, session, {"cart": b"coffee"}) is None
        assert await attributes_of(store, two) == {"cart": b"tea"}
        await other.revoke_all("alice")
        assert await attributes_of(store, two) is None

    async def test_attributes_are_their_principals(self, store):
        session = await add_session(store)
        await write(store, session, {"cart": b"tea"})
        mallorys = session._replace(principal="mallory")
        assert await attributes_of(store, mallorys) is None
        assert await write(store, mallorys, {"cart": b"poison"}) is None
        assert await attributes_of(store, session) == {"cart": b"tea"}

    async def test_no_update_is_lost_when_two_handles_write_different_attributes_at_once(self, store, other):
        session = await add_session(store)
        names = [f"name{number}" for number in range(60)]
        writes = [write((store, other)[n % 2], session, {name: name.encode()}) for n, name in enumerate(names)]
        versions = [written.version for written in await asyncio.gather(*writes)]
        assert len(set(versions)) == len(names)
        assert await attributes_of(store, session) == {name: name.encode() for name in names}

    # --- tails

    async def test_a_tail_goes_on_page_by_page(self, store, other):
        start = await tail_of(other, "alice", None)
        assert (list(start.events), start.gap) == ([], False)
        sessions = [await add_session(store) for _ in range(5)]
        pages, since = [], start.position
        for _ in range(4):
            page = await tail_of(other, "alice", since, 2)
            pages.append([event.session_id for event in page.events])
            assert not page.gap
            assert page.position == (page.events[-1].position if page.events else since)
            since = page.position
        ids = [session.id for session in sessions]
        assert pages == [ids[:2], ids[2:4], ids[4:], []]

    async def test_a_tail_with_a_gap_goes_on_with_what_is_left(self, store, other):
        await add_session(store)
        since = (await tail_of(store, "alice", None)).position
        await add_session(store)
        await self.lose_log(other, "alice")
        sessions = [await add_session(other) for _ in range(3)]
        page = await tail_of(store, "alice", since, 2)
        assert (page.gap, len(page.events)) == (True, 2)
        rest = await tail_of(store, "alice", page.position)
        assert not rest.gap
        assert [*page.events, *rest.events][-1].session_id == sessions[-1].id

    # --- sessions

    async def test_sessions_come_oldest_deadline_first(self, store):
        made = [await add_session(store, idle_ms=HOUR_MS + by_ms) for by_ms in (200_000, 0, 100_000)]
        await ask(store, touches=(Touch(made[1].id, "alice", made[0].idle_deadline_ms + 1),))
        assert [session.id for session in await store.sessions("alice")] == [made[2].id, made[0].id, made[1].id]

    async def test_sessions_hides_the_dead_even_before_they_are_swept(self, store):
        await add_session(store, idle_ms=-1)
        await add_session(store, idle_ms=0)
        alive = await add_session(store)
        assert list(await store.sessions("alice")) == [alive]

    async def test_sessions_of_nobody_are_none(self, store):
        await add_session(store, "bob")
        assert list(await store.sessions("alice")) == []

    # --- sweep

    async def test_sweep_removes_the_dead_only_and_logs_them_as_expired(self, store, other):
        before, at, after = [await add_session(store, idle_ms=ms) for ms in (-2000, -1000, HOUR_MS)]
        at = at._replace(idle_deadline_ms=await deadline_of(store, at))
        just_alive = at._replace(id=new_session_id(), idle_deadline_ms=at.idle_deadline_ms + 1)
        await store.create(just_alive)
        since = (await ask(store)).position
        assert await other.sweep(at.idle_deadline_ms, 100) == 2
        assert [await is_there(store, s) for s in (before, at, just_alive, after)] == [False, False, True, True]
        logged = await history_of(store, "alice", since)
        assert sorted(logged) == sorted(("expired", session.id, "alice") for session in (before, at))

    async def test_sweep_of_a_shard_is_bounded_and_ends(self, store):
        dead = [await add_session(store, idle_ms=-1) for _ in range(12)]
        alive = await add_session(store)
        now_ms = await store.time_ms()
        removed = []
        while not removed or removed[-1]:
            removed.append(await store.sweep(now_ms, 5))
        assert sum(removed) == len(dead)
        assert max(removed) <= 5
        assert await is_there(store, alive)

    async def test_a_session_that_was_touched_in_time_is_not_swept(self, store):
        session = await add_session(store, idle_ms=-1000)
        later_ms = session.idle_deadline_ms + HOUR_MS
        await ask(store, touches=(Touch(session.id, "alice", later_ms),))
        assert await store.sweep(await store.time_ms(), 100) == 0
        assert await deadline_of(store, session) == later_ms

    async def test_sweep_removes_nobody_who_is_alive_whatever_the_caller_thinks_the_time_is(self, store):
        session = await add_session(store)
        assert await store.sweep(session.idle_deadline_ms + HOUR_MS, 100) == 0
        assert await is_there(store, session)

    async def test_what_was_swept_is_no_longer_the_principals(self, store):
        await add_session(store, idle_ms=-1)
        await store.sweep(await store.time_ms(), 100)
        assert list(await store.revoke_all("alice")) == []

    # --- history

    async def test_history_is_the_end_of_the_log_oldest_first(self, store, other):
        shard = shard_of("alice", store.shards)
        assert list(await store.history(shard, 10)) == []
        sessions = [await add_session(store) for _ in range(3)]
        await other.revoke(sessions[0].id, "alice")
        events = list(await other.history(shard, 10))
        assert [(event.kind, event.session_id) for event in events] == [
            *(("created", session.id) for session in sessions),
            ("revoked", sessions[0].id),
        ]
        assert list(await other.history(shard, 2)) == events[-2:]
        assert list((await ask(store, since=events[1].position)).events) == events[2:]

    # --- all sessions: scan, count

    async def test_a_scan_has_every_session_that_lives_all_the_while_at_least_once(self, store, other):
        """Whatever begins, is used, gets another id or ends meanwhile, in whichever shard."""
        assert await store.count() == 0
        assert await scan_all(store) == {}
        kept = {s.id: s for s in [await add_session(store, f"user{number % 70}") for number in range(300)]}
        dead = [await add_session(store, f"user{number}", idle_ms=-1) for number in range(10)]
        assert await other.count() == 300
        number = 0

        async def change() -> None:
            nonlocal number
            number += 1
            come = await add_session(store, f"user{number}")
            await store.rotate(come.id, come._replace(id=new_session_id()))
            used = list(kept.values())[number]
            kept[used.id] = used = used._replace(idle_deadline_ms=used.idle_deadline_ms + 1)
            await ask(store, used.principal, touches=(Touch(*used[:3]),))
            gone = await add_session(store, f"user{number}")
            await store.revoke(gone.id, gone.principal)

        found = await scan_all(other, 7, change)
        assert number >= 5
        assert kept.keys() <= found.keys()
        assert not found.keys() & {session.id for session in dead}
        for session in kept.values():  # met before or after its use
            assert found[session.id][:2] == session[:2]
            assert found[session.id][3:] == session[3:]
            assert found[session.id].idle_deadline_ms in (session.idle_deadline_ms, session.idle_deadline_ms - 1)

    async def test_a_scan_shows_a_session_as_it_is(self, store):
        session = (await new_session(store))._replace(details={"address": "2001:db8::1", "agent": "ü"})
        never = StoredSession(new_session_id(), "a.b", (1 << 53) - 1, (1 << 48) - 1, 0, 0)
        for each in (session, never):
            await store.create(each)
        assert await scan_all(store) == {session.id: session, never.id: never}

    async def test_what_is_no_cursor_is_refused(self, store):
        for wrong in ("x", "1-2", "-1-0-", "99999-0-", "0-0-0-0"):
            with pytest.raises(ValueError, match="cursor"):
                await store.scan(wrong, 10)

    # --- restore

    async def test_a_restored_session_is_as_it_was(self, store, other):
        since = (await ask(other)).position
        session = (await new_session(store, age_ms=5000))._replace(details={"agent": "x"})
        values = {"a": b"1", "ü": bytes(range(256)), "empty": b""}
        assert list(await store.restore([RestoredSession(session, values)])) == ["created"]
        assert list(await other.sessions("alice")) == [session]
        assert await attributes_of(other, session) == values
        assert await history_of(other, "alice", since) == [("created", session.id, "alice")]
        written = await write(other, session, {"b": b"2"}, ("a",))
        assert await attributes_of(store, session) == {"b": b"2"} | {n: v for n, v in values.items() if n != "a"}
        assert written.replaced != written.version
        assert await store.revoke(session.id, "alice")
        assert await attributes_of(store, session) is None

    async def test_restoring_again_changes_nothing_but_a_deadline_that_is_later(self, store):
        session = await new_session(store)
        first = RestoredSession(session, {"a": b"1"})
        later_ms = session.idle_deadline_ms + 1000
        assert list(await store.restore([first, first])) == ["created", "exists"]
        await write(store, session, {"a": b"2"})
        since = (await ask(store)).position
        for deadline_ms in (later_ms, session.idle_deadline_ms):
            again = RestoredSession(session._replace(idle_deadline_ms=deadline_ms), {"a": b"1", "b": b"3"})
            assert list(await store.restore([again])) == ["exists"]
            assert await deadline_of(store, session) == later_ms
        assert await attributes_of(store, session) == {"a": b"2"}
        assert await history_of(store, "alice", since) == []

    async def test_what_was_ended_is_not_restored(self, store, other):
        """Ended by id, whether it was there or not; rotated, evicted, swept; with all of the
        principal's.
        """
        revoked, rotated, evicted = [await add_session(store, name) for name in ("alice", "bob", "carol")]
        swept = await new_session(store, "dave", idle_ms=-1, age_ms=120_000)
        await store.create(swept)
        strange, erin = await new_session(store, "frank"), await add_session(store, "erin")
        erins_other = await new_session(store, "erin", age_ms=60_000)
        await other.revoke(revoked.id, "alice")
        await other.rotate(rotated.id, rotated._replace(id=new_session_id()))
        await other.create(await new_session(store, "carol"), sessions_max=1)
        await other.sweep(swept.idle_deadline_ms, 10)
        assert not await other.revoke(strange.id, "frank")
        await other.revoke_all("erin")
        ended = [revoked, rotated, evicted, swept._replace(idle_deadline_ms=revoked.idle_deadline_ms)]
        ended += [strange, erin, erins_other]
        assert list(await store.restore([RestoredSession(session) for session in ended])) == ["ended"] * 7
        assert not any([await is_there(store, session) for session in ended])
        began_later = await new_session(store, "erin", age_ms=-1)
        assert list(await store.restore([RestoredSession(began_later)])) == ["created"]

    async def test_an_end_is_known_from_the_log_when_its_mark_has_gone(self, store, monkeypatch):
        session = await add_session(store)
        await store.revoke(session.id, "alice")
        now_ms = await store.time_ms() + 10 * 60_000
        self.stop_clock(store, monkeypatch, now_ms)
        assert list(await store.restore([RestoredSession(session)])) == ["ended"]

    async def test_what_began_elsewhere_before_an_end_of_all_is_barred_when_nothing_else_says_so(self, store, other):
        """Neither mark nor log; and for as long as a bar lasts."""
        kept = await add_session(store, "bob")
        await add_session(store, "bob")
        since_ms = await store.time_ms()
        await other.revoke_all("alice")
        await other.revoke_all("bob", keep=kept.id)
        for name in ("alice", "bob", "carol"):
            await self.lose_log(store, name)
        at_ms = {bar.principal: bar.at_ms for bar in await bars_of(store)}
        assert {name for name, each_ms in at_ms.items() if each_ms >= since_ms} == {"alice", "bob"}

        async def outcomes(now_ms, *sessions):
            """Of (principal, when it began elsewhere)."""
            restored = [
                RestoredSession(
                    StoredSession(new_session_id(), name, now_ms + HOUR_MS, now_ms - 1, 7200, 86400), {}, began_ms
                )
                for name, began_ms in sessions
            ]
            with pytest.MonkeyPatch.context() as patch:
                self.stop_clock(store, patch, now_ms)
                return list(await store.restore(restored))

        soon_ms = at_ms["bob"] + HOUR_MS
        by_then = [("alice", at_ms["alice"]), ("alice", 0), ("bob", at_ms["bob"])]
        assert await outcomes(soon_ms, *by_then) == ["ended"] * 3
        since_then = [("alice", at_ms["alice"] + self.bars_apart_ms), ("bob", None), ("carol", 0)]
        assert await outcomes(soon_ms, *since_then) == ["created"] * 3
        assert await outcomes(at_ms["alice"] + BAR_LASTS_MS - 1, by_then[0]) == ["ended"]
        gone_ms = at_ms["bob"] + BAR_LASTS_MS + self.bars_apart_ms - 1
        assert await outcomes(gone_ms, *by_then) == ["created"] * 3

    async def test_everybodys_bar_takes_the_place_of_the_older_ones(self, store, other):
        now_ms = await store.time_ms()
        names = [f"user{number}" for number in range(20)]
        bars = [Bar(name, now_ms + number) for number, name in enumerate(names)]
        await other.bar([*bars, Bar(names[0], now_ms - 1)])
        assert set(await bars_of(store)) == set(bars)
        assert set(await bars_of(store, now_ms + 15)) == set(bars[15:])
        (shard,) = {shard_of(names[0], store.shards)}
        mine = [bar for bar in bars if shard_of(bar.principal, store.shards) == shard]
        assert list(await store.bars(shard, 0, 1)) == mine[:1]
        everybodys = Bar(EVERYBODY, now_ms + 10)
        await other.bar([everybodys])
        assert set(await bars_of(store)) == {everybodys, *bars[11:]}
        sessions = [await new_session(store, name, age_ms=1000) for name in ("zoe", names[0])]
        restored = [RestoredSession(each, {}, now_ms) for each in sessions]
        assert list(await store.restore(restored)) == ["ended"] * 2

    async def test_what_is_past_a_deadline_is_not_restored(self, store):
        idle = await new_session(store, idle_ms=-1)
        absolute = await new_session(store, age_ms=86_400_001)
        assert list(await store.restore([RestoredSession(idle), RestoredSession(absolute)])) == ["expired"] * 2
        assert await store.count() == 0

    async def test_many_are_restored_in_one_call_each_with_its_own_outcome(self, store):
        sessions = [await new_session(store, f"user{number % 50}") for number in range(700)]
        ended = {session.id for session in sessions[::7]}
        for session in sessions[::7]:
            await store.revoke(session.id, session.principal)
        large = {"large": b"x" * 100_000}
        restored = [RestoredSession(s, large if number % 50 == 1 else {}) for number, s in enumerate(sessions)]
        outcomes = await store.restore(restored)
        assert list(outcomes) == ["ended" if session.id in ended else "created" for session in sessions]
        assert await store.count() == 600
        assert await attributes_of(store, sessions[1]) == large
        assert list(await store.restore([])) == []

    # --- the doorbell

    @pytest.mark.parametrize("news", NEWS)
    async def test_the_doorbell_rings_in_another_handle(self, store, other, news):
        """In its event loop, with the number of the shard, which then has the news."""
        if not self.is_shared:
            pytest.skip("nobody else to ring for")
        session = await add_session(store, idle_ms=-1 if news == "sweep" else HOUR_MS)
        heard, threads = asyncio.Event(), set()
        rung: list[int] = []

        def ring(shard: int, _: Changed | None) -> None:
            threads.add(threading.get_ident())
            rung.append(shard)
            heard.set()

        other.on_doorbell(ring)
        async with asyncio.timeout(DOORBELL_BOUND_S):
            await self.until_it_listens(other, rung)
        rung.clear()
        since = (await ask(other)).position
        await NEWS[news](store, session)
        async with asyncio.timeout(DOORBELL_BOUND_S):
            while not (await ask(other, since=since)).events or shard_of("alice", store.shards) not in rung:
                await heard.wait()
                heard.clear()
        assert threads == {threading.get_ident()}

    async def test_the_doorbell_rings_in_another_handle_for_attributes(self, store, other):
        """It says whose, and which version they have now; where the store cannot tell, it rings as
        for any news.
        """
        if not self.is_shared:
            pytest.skip("nobody else to ring for")
        session = await add_session(store)
        heard = asyncio.Event()
        rung: list[int] = []
        changes: list[Changed | None] = []

        def ring(shard: int, changed: Changed | None) -> None:
            rung.append(shard)
            changes.append(changed)
            heard.set()

        other.on_doorbell(ring)
        async with asyncio.timeout(DOORBELL_BOUND_S):
            await self.until_it_listens(other, rung)
        rung.clear()
        changes.clear()
        written = await write(store, session, {"a": b"1"})
        expected = Changed(session.id, written.version) if self.tells_changes else None
        async with asyncio.timeout(DOORBELL_BOUND_S):
            while (shard_of("alice", store.shards), expected) not in zip(rung, changes, strict=True):
                await heard.wait()
                heard.clear()

    async def test_the_doorbell_rings_each_time(self, store, other):
        """Not for the first revocation alone; who listens is never told why, so he may be told once
        too often.
        """
        if not self.is_shared:
            pytest.skip("nobody else to ring for")
        rings, rung = asyncio.Event(), []

        def ring(shard: int, _: Changed | None) -> None:
            rung.append(shard)
            if shard == shard_of("alice", store.shards):
                rings.set()

        other.on_doorbell(ring)
        async with asyncio.timeout(DOORBELL_BOUND_S):
            await self.until_it_listens(other, rung)
            for _ in range(4):
                session = await add_session(store)
                await ask(other)  # whatever rang for the login has rung
                rings.clear()
                assert await store.revoke(session.id, "alice")
                await rings.wait()

    # --- the end

    async def test_after_aclose_nothing_answers(self, store):
        session = await add_session(store)
        await store.aclose()
        with pytest.raises(StoreUnavailable):
            await store.time_ms()
        with pytest.raises(StoreUnavailable):
            await store.create(session._replace(id=new_session_id()))
        with pytest.raises(StoreUnavailable):
            await ask(store, wanted=((session.id, "alice"),))
        with pytest.raises(StoreUnavailable):
            await store.revoke(session.id, "alice")
        with pytest.raises(StoreUnavailable):
            await store.revoke_all("alice")
        with pytest.raises(StoreUnavailable):
            await store.sessions("alice")
        with pytest.raises(StoreUnavailable):
            await store.sweep(0, 1)

    async def test_aclose_is_idempotent_even_at_once(self, store):
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()

    async def test_aclose_of_one_handle_leaves_the_other_alone(self, store, other):
        if not self.is_shared:
            pytest.skip("one handle is all there is")
        session = await add_session(store)
        await store.aclose()
        assert await is_there(other, session)

    async def test_a_call_under_way_ends_when_the_store_is_closed(self, store):
        """With an answer or StoreUnavailable; it does not hang, and nothing else comes out."""
        session = await add_session(store)
        calls = [asyncio.create_task(ask(store, wanted=((session.id, "alice"),))) for _ in range(20)]
        await asyncio.sleep(0)
        await store.aclose()
        async with asyncio.timeout(DOORBELL_BOUND_S):
            ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, Reply | StoreUnavailable) for end in ends)

    # --- all at once

    async def test_nothing_is_lost_when_two_handles_change_things_at_once(self, store, other):
        """Sessions of three principals come and go through both handles; every third is revoked
        through the other one.
        """
        names = ["alice", "bob", "carol"]
        since = {name: (await ask(store, name)).position for name in names}

        async def come_and_go(number: int) -> tuple[StoredSession, bool]:
            here, there = (store, other) if number % 2 else (other, store)
            session = await add_session(here, names[number % 3])
            await ask(here, session.principal, touches=(Touch(*session[:2], session.idle_deadline_ms + number),))
            ends = number % 3 == 0 or number % 5 == 0
            if ends:
                assert await there.revoke(session.id, session.principal)
            return session._replace(idle_deadline_ms=session.idle_deadline_ms + number), ends

        outcomes = await asyncio.gather(*(come_and_go(number) for number in range(60)))
        for name in names:
            of_name = [(session, ended) for session, ended in outcomes if session.principal == name]
            alive = sorted(session[:3] for session, ended in of_name if not ended)
            assert sorted(session[:3] for session in await store.sessions(name)) == alive
            assert sorted(session[:3] for session in await other.sessions(name)) == alive
            logged = [event for event in await history_of(store, name, since[name]) if event[2] == name]
            assert len(logged) == len(set(logged))
            assert {event for event in logged if event[0] == "created"} == {("created", s.id, name) for s, _ in of_name}
            assert {event[1] for event in logged if event[0] == "revoked"} == {s.id for s, ended in of_name if ended}
            for session, ended in of_name:
                if ended:
                    assert logged.index(("created", session.id, name)) < logged.index(("revoked", session.id, name))

    async def test_a_session_is_revoked_once_however_many_try(self, store, other):
        session = await add_session(store)
        since = (await ask(store)).position
        answers = await asyncio.gather(*(handle.revoke(session.id, "alice") for handle in (store, other) * 5))
        assert answers.count(True) == 1
        assert await history_of(store, "alice", since) == [("revoked", session.id, "alice")]

    # --- principals

    @pytest.mark.parametrize("principal", ODD_PRINCIPALS, ids=lambda name: ascii(name[:20]))
    async def test_a_principal_may_be_any_text(self, store, other, principal):
        assert len(principal.encode()) <= 190
        since = (await ask(other, principal)).position
        kept, ended = [await add_session(store, principal) for _ in range(2)]
        later_ms = kept.idle_deadline_ms + 1
        await ask(store, principal, touches=(Touch(kept.id, principal, later_ms),))
        assert await other.revoke(ended.id, principal)
        assert list(await other.sessions(principal)) == [kept._replace(idle_deadline_ms=later_ms)]
        assert await history_of(other, principal, since) == [
            ("created", kept.id, principal),
            ("created", ended.id, principal),
            ("revoked", ended.id, principal),
        ]
        assert list(await store.revoke_all(principal)) == [kept.id]

    async def test_odd_principals_are_kept_apart(self, store):
        sessions = {name: await add_session(store, name) for name in ODD_PRINCIPALS}
        for name in ODD_PRINCIPALS:
            assert list(await store.sessions(name)) == [sessions[name]]
        assert list(await store.revoke_all("a")) == [sessions["a"].id]
        assert list(await store.revoke_all("%")) == [sessions["%"].id]
        for name in ODD_PRINCIPALS:
            assert await is_there(store, sessions[name]) == (name not in ("a", "%"))

"""Two stores as one: the contract, and what must hold whichever of them fails, and whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3

import pytest
from lab.redis_servers import START_BOUND_S
from lab.store_contract import (
    StoreContract,
    add_session,
    attributes_of,
    bars_of,
    deadline_of,
    is_there,
    new_session,
    new_session_id,
    scan_all,
    write,
)
from lab.touch import Touch

from fastticket import open_store
from fastticket.core.touches import Touches
from fastticket.errors import ConfigError, FastticketError, IssuedTooEarly, StoreUnavailable
from fastticket.moving import copying, importing
from fastticket.moving.copying import copy_store
from fastticket.stores.contract import Bar, Fleet, Request, RestoredSession
from fastticket.stores.mirrored import MirroredStore
from fastticket.testing import MemoryStore


class TestMirrored(StoreContract):
    """The truth and the mirror are of different kinds."""

    tells_changes = False
    bars_apart_ms = 60_000  # the mirror's is left by its own clock, after the truth's

    @pytest.fixture
    async def open_handle(self, tmp_path):
        mirrors = [MemoryStore()]
        handles = []

        async def open_one():
            mirrors.append(mirrors[0].another())
            handles.append(MirroredStore(open_store(f"sqlite:///{tmp_path}/truth.db"), mirrors[-1]))
            await handles[-1].open()
            return handles[-1]

        yield open_one
        for handle in handles:
            await handle.aclose()

    def stop_clock(self, store, patch, now_ms):
        patch.setattr(store._truth, "_now_ms", lambda: now_ms)
        mirror = store._mirror._server
        patch.setattr(mirror, "clock", lambda: now_ms - mirror.shift_ms)

    async def lose_log(self, store, principal):
        with contextlib.closing(sqlite3.connect(store._truth._path, isolation_level=None)) as db:
            db.execute("DELETE FROM log WHERE id < (SELECT max(id) FROM log)")


class Pair:
    """Two stores, and handles on them as processes have: some with the one as their truth, some
    with the other. Each call of a handle may fail, or its process may die there.
    """

    def __init__(self):
        self.a, self.b = MemoryStore(), MemoryStore()
        self.chance = random.Random(0)
        self.failures = self.deaths = 0.0
        self.dies_after = None  # so many calls of the stores; None: by chance
        self.handles = []

    def dies_now(self):
        if self.dies_after is None:
            return self.chance.random() < self.deaths
        self.dies_after -= 1
        return self.dies_after < 0

    async def open(self, is_switched=False):
        truth, mirror = self._process(self.a), self._process(self.b)
        handle = MirroredStore(mirror, truth) if is_switched else MirroredStore(truth, mirror)
        await handle.open()
        self.handles.append(handle)
        return handle

    def _process(self, store):
        pair = self

        class Failing(MemoryStore):
            async def _call(self, do):
                await asyncio.sleep(0)
                if pair.dies_now():
                    raise Death
                if pair.chance.random() < pair.failures:
                    raise StoreUnavailable("away")
                done = await super()._call(do)
                if pair.chance.random() < pair.failures:
                    raise StoreUnavailable("the answer was lost")
                return done

        made = Failing.__new__(Failing)
        made._begin(store._shared)
        return made

    async def close(self):
        for handle in self.handles:
            await handle.aclose()


class Death(BaseException):
    """The process ends here."""


@pytest.fixture
async def pair():
    made = Pair()
    await made.a.open()
    await made.b.open()
    yield made
    made.failures = made.deaths = 0.0
    await made.close()


async def settled(pair):
    """Until no touch waits."""
    async with asyncio.timeout(START_BOUND_S):
        while any(handle.touches_waiting for handle in pair.handles):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def content(store):
    """{session id: (session, attributes)}"""
    found = await scan_all(store)
    return {session.id: (session, await attributes_of(store, session)) for session in found.values()}


async def test_every_change_is_in_both_stores_whichever_is_the_truth(pair):
    left, right = await pair.open(), await pair.open(is_switched=True)
    for one, other in ((left, right), (right, left)):
        kept, rotated, ended, everywhere = [await add_session(one, name) for name in ("a", "b", "c", "d")]
        await write(one, rotated, {"a": b"1", "b": b"2"})
        now = rotated._replace(id=new_session_id())
        assert await one.rotate(rotated.id, now)
        assert (await write(other, now, {"b": b"3"}, ("a",))) is not None
        assert await other.revoke(ended.id, "c")
        assert list(await other.revoke_all("d")) == [everywhere.id]
        later_ms = kept.idle_deadline_ms + 1000
        await one.exchange({0: Request(None, Touches.of(0, [Touch(kept.id, "a", later_ms)]))})
        await settled(pair)
        assert await content(pair.a) == await content(pair.b)
        assert {(s.id, s.idle_deadline_ms) for s, _ in (await content(one)).values()} >= {(kept.id, later_ms)}
        assert await attributes_of(one, now) == {"b": b"3"}


async def test_what_is_not_in_the_mirror_yet_is_copied_and_its_successor_with_the_change(pair):
    old = pair.a
    first, second = [await add_session(old, name) for name in ("a", "b")]
    await write(old, second, {"a": b"1"})
    gateway = await pair.open()
    now = second._replace(id=new_session_id())
    assert await gateway.rotate(second.id, now)
    assert await gateway.revoke(first.id, "a")
    third = await add_session(old, "c")
    assert set(await content(pair.b)) == {now.id}
    restored = await pair.b.restore([RestoredSession(session) for session in (first, second)])
    assert list(restored) == ["ended"] * 2  # by who had read them before
    copied = await copy_store(pair.a, pair.b)
    assert (copied.sessions, copied.written, copied.strays) == (2, 1, 0)
    assert await content(pair.a) == await content(pair.b)
    assert third.id in await content(pair.b)


async def test_attributes_and_deadlines_that_the_mirror_missed_are_mended_by_copying_again(pair):
    gateway = await pair.open()
    session = await add_session(gateway)
    await write(gateway, session, {"a": b"1", "b": b"2"})
    await write(pair.a, session, {"a": b"3"}, ("b",))  # by a gateway that has no mirror yet
    later_ms = session.idle_deadline_ms + 1
    await pair.a.exchange({0: Request(None, Touches.of(0, [Touch(session.id, "alice", later_ms)]))})
    assert (await copy_store(pair.a, pair.b)).written == 1
    assert await content(pair.a) == await content(pair.b)
    assert (await copy_store(pair.a, pair.b)).written == 0


async def test_p6_bars_of_before_the_mirror_are_copied(pair, monkeypatch):
    monkeypatch.setattr(importing, "BARS_AT_ONCE", 4)
    monkeypatch.setattr(copying, "BARS_AT_ONCE", 2)
    for name in "abc":
        await pair.a.revoke_all(name)
    await pair.a.bar([Bar("d", 1), Bar("e", 2)])
    gateway = await pair.open()
    await copy_store(pair.a, pair.b)
    await gateway.revoke_all("f")
    for each in (pair.a, pair.b, gateway):
        assert {bar.principal for bar in await bars_of(each)} == set("abcdef")
    old = await new_session(gateway, "c", age_ms=60_000)
    assert list(await gateway.restore([RestoredSession(old, {}, old.created_ms)])) == ["ended"]


async def test_what_changes_while_a_session_is_copied_is_seen(pair, monkeypatch):
    """By a gateway that has no mirror yet, between the copy's question and its answer."""
    written, ended = [await add_session(pair.a, name) for name in ("a", "b")]
    await write(pair.a, written, {"a": b"1"})
    restore = pair.b.restore

    async def meanwhile(sessions):
        outcomes = await restore(sessions)
        if sessions[0].attributes.get("a") == b"1":
            await write(pair.a, written, {"a": b"2"})
            await pair.a.revoke(ended.id, "b")
        return outcomes

    monkeypatch.setattr(pair.b, "restore", meanwhile)
    await copying._copy_page(pair.a, pair.b, [ended, written], copying.Copied())
    assert {each: values for each, (_, values) in (await content(pair.b)).items()} == {written.id: {"a": b"2"}}


async def test_what_only_the_mirror_has_ends_unless_gateways_are_switched(pair):
    stray = await add_session(pair.b)
    assert (await copy_store(pair.a, pair.b)).strays == 1
    assert not await is_there(pair.b, stray)
    stray = await add_session(pair.b)
    await (await pair.open(is_switched=True)).join(Fleet(500, 2000))
    copied = await copy_store(pair.a, pair.b)
    assert (copied.strays, copied.strays_ended) == (1, False)
    assert await is_there(pair.b, stray)


@pytest.mark.parametrize("calls", range(4))
async def test_p6_a_process_that_dies_in_the_middle_of_an_end_leaves_nothing_to_come_back(pair, calls):
    """Whatever is over in the truth is over in the mirror."""
    gateway = await pair.open()
    ends = {"a": lambda session: gateway.revoke(session.id, "a"), "b": lambda _: gateway.revoke_all("b")}
    for principal, end in ends.items():
        session = await add_session(gateway, principal)
        pair.dies_after = calls
        with contextlib.suppress(Death):
            await end(session)
        pair.dies_after = None
        if session.id not in await content(pair.a):
            assert session.id not in await content(pair.b)


async def test_p6_a_login_that_an_end_of_all_has_overtaken_in_the_mirror_begins_later(pair):
    gateway = await pair.open()
    session = await new_session(gateway)
    await pair.b.revoke_all("alice")
    with pytest.raises(IssuedTooEarly) as raised:
        await gateway.create(session)
    assert raised.value.after_ms >= session.created_ms
    assert not await content(pair.a)


async def test_with_the_mirror_away_changes_wait_and_reads_and_touches_go_on(pair):
    gateway = await pair.open()
    session = await add_session(gateway)
    pair.b.is_away = True
    for change in (
        gateway.create(await new_session(gateway)),
        gateway.rotate(session.id, session._replace(id=new_session_id())),
        gateway.revoke(session.id, "alice"),
        gateway.revoke_all("alice"),
    ):
        with pytest.raises(StoreUnavailable):
            await change
    later_ms = session.idle_deadline_ms + 1000
    await gateway.exchange({0: Request(None, Touches.of(0, [Touch(session.id, "alice", later_ms)]))})
    assert list(await content(pair.a)) == [session.id]
    assert await deadline_of(gateway, session) == later_ms
    async with asyncio.timeout(START_BOUND_S):
        while not gateway.mirroring["trouble"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert gateway.mirroring["touches_waiting"] == 1
    pair.b.is_away = False
    await settled(pair)
    assert gateway.mirroring == {"touches_waiting": 0, "changes_waiting": 0, "trouble": "", "servers": {}}
    assert await deadline_of(pair.b, session) == later_ms
    assert await gateway.revoke(session.id, "alice")


async def test_a_mirror_that_is_away_at_the_start_is_opened_when_it_comes(pair, monkeypatch):
    monkeypatch.setattr("fastticket.stores.mirrored.OPEN_PATIENCE_S", 0.05)
    monkeypatch.setattr("fastticket.stores.mirrored.OPEN_PAUSE_S", 0.01)
    pair.b.is_away = True
    gateway = await pair.open()
    with pytest.raises(StoreUnavailable, match="the mirror"):
        await gateway.create(await new_session(gateway))
    pair.b.is_away = False
    async with asyncio.timeout(START_BOUND_S):
        while gateway._absence:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await add_session(gateway)
    assert await pair.b.count() == 1


async def test_a_mirror_that_does_not_fit_is_a_configuration_error(tmp_path, redis_server):
    for shards in (16, 8):
        store = open_store(
            f"sqlite:///{tmp_path}/a.db", mirror_url=f"redis://{redis_server.address}?shards={shards}&timeout_ms=9000"
        )
        try:
            if shards == 8:
                with pytest.raises(ConfigError, match=r"^mirror_url: .*shards"):
                    await store.open()
            else:
                await store.open()
        finally:
            await store.aclose()
    with pytest.raises(ConfigError, match="own URL"):
        open_store("sqlite:///a.db", mirror_url="sqlite:///a.db")


@pytest.mark.parametrize("seed", range(40))
async def test_p6_whatever_fails_and_whoever_dies_no_acknowledged_end_is_undone_by_the_switch(pair, seed, monkeypatch):
    """Gateways with either truth, one without a mirror before the copy, copies in between; and all
    that was acknowledged and did not end is in both in the end.
    """
    pair.chance = chance = random.Random(seed)
    monkeypatch.setattr("fastticket.moving.importing.PAUSES_S", (0.001,))
    history = History(pair, chance)
    for _ in range(6):
        await add_session(pair.a, chance.choice("xyz"))
    history.lives |= {s.id: s for s, _ in (await content(pair.a)).values()}
    gateways = [await pair.open() for _ in range(3)]
    pair.failures, pair.deaths = chance.choice(((0, 0), (0.05, 0), (0, 0.02), (0.03, 0.02)))
    await asyncio.gather(*map(history.live, gateways), history.copy())
    pair.failures = pair.deaths = 0.0
    await settled(pair)
    await copy_store(pair.a, pair.b)
    await history.check(pair.a, pair.b)
    gateways = [await pair.open(is_switched=number % 2 == 0) for number in range(4)]
    await asyncio.gather(*map(history.live, gateways))
    await settled(pair)
    await history.check(pair.b)


class History:
    """What was acknowledged."""

    def __init__(self, pair, chance):
        self.pair, self.chance = pair, chance
        self.lives, self.ended, self.doubtful = {}, set(), set()

    async def live(self, gateway):
        """One process's calls, until it dies."""
        for _ in range(25):
            try:
                await self._act(gateway)
            except FastticketError:
                continue
            except Death:
                return

    async def copy(self):
        for _ in range(3):
            await copy_store(self.pair.a, self.pair.b)

    async def _act(self, gateway):
        chance, name = self.chance, self.chance.choice("xyz")
        own = [session for session in self.lives.values() if session.principal == name]
        act = chance.choice(("login", "login", "login", "end", "rotate", "write", "everywhere"))
        if act == "login":
            session = await new_session(gateway, name)
            self.doubtful.add(session.id)
            await gateway.create(session)
            self._begin(session)
        elif act == "everywhere" and chance.random() < 0.3:
            self.doubtful |= {session.id for session in own}
            await gateway.revoke_all(name)
            self._end(*own)
        elif own and act != "everywhere":
            session = chance.choice(own)
            if act == "end":
                self.doubtful.add(session.id)
                await gateway.revoke(session.id, name)
                self._end(session)
            elif act == "rotate":
                successor = session._replace(id=new_session_id())
                self.doubtful |= {session.id, successor.id}
                if await gateway.rotate(session.id, successor):
                    self._end(session)
                    self._begin(successor)
            else:
                await write(gateway, session, {"a": str(chance.random()).encode()})

    def _begin(self, session):
        if session.id not in self.ended:
            self.lives[session.id] = session

    def _end(self, *sessions):
        for session in sessions:
            self.ended.add(session.id)
            self.lives.pop(session.id, None)

    async def check(self, *stores):
        for store in stores:
            there = await content(store)
            assert not self.ended & there.keys()
            assert self.lives.keys() - self.doubtful <= there.keys()
            assert not {s.id for s in self.lives.values()} - there.keys() - self.doubtful
        if len(stores) == 2 and not self.pair.deaths:
            left, right = [await content(store) for store in stores]
            assert {each: found for each, (_, found) in left.items() if each in right} == {
                each: found for each, (_, found) in right.items() if each in left
            }

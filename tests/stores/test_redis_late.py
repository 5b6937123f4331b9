"""Replies that come late from a Redis server whose place another one has taken meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from lab.redis_servers import Server, wait_until
from lab.store_contract import add_session, new_session_id

import fastticket
from fastticket.errors import StoreUnavailable
from fastticket.stores.contract import Reply, Request, Store, StoredSession, shard_of

BOUND_S = 40.0
PATIENCE_MS = 20_000  # no timeout of the store's is to be met here


class Way:
    """One connection through a relay."""

    def __init__(self, server: Server, ends: tuple[asyncio.StreamWriter, ...]) -> None:
        self.server = server
        self.listens = False  # to the doorbell
        self._ends = ends

    def cut(self) -> None:
        for end in self._ends:
            end.close()


class Relay:
    """A port in front of one server, and later of another: who connects is relayed to `target` as
    it is then.

    Replies of a server that is no longer the target wait for `lets_late_replies`.
    """

    def __init__(self, target: Server) -> None:
        self.target = target
        self.ways: list[Way] = []
        self.lets_late_replies = asyncio.Event()
        self.holds_reply = asyncio.Event()  # one waits
        self.is_listened_to = asyncio.Event()
        self.new_target_is_listened_to = asyncio.Event()
        self._first = target
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The URL of a store behind it."""
        listener = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0?timeout_ms={PATIENCE_MS}"
        finally:
            listener.close()
            self.lets_late_replies.set()
            for way in self.ways:
                way.cut()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _meet(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        replies, to_server = await asyncio.open_connection("127.0.0.1", self.target.port)
        way = Way(self.target, (to_client, to_server))
        self.ways.append(way)
        for direction in (self._ask(way, client, to_server), self._answer(way, replies, to_client)):
            task = asyncio.create_task(direction)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, way: Way, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(65536):
                to_server.write(data)
                if b"SUBSCRIBE" in data:  # by now it has been seen who answers there
                    way.listens = True
                    self.is_listened_to.set()
                    if way.server is not self._first:
                        self.new_target_is_listened_to.set()
        to_server.close()

    async def _answer(self, way: Way, replies: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await replies.read(65536):
                if way.server is not self.target:
                    self.holds_reply.set()
                    await self.lets_late_replies.wait()
                to_client.write(data)
                await to_client.drain()
                if way.server is not self.target:
                    break
        to_client.close()


@pytest.fixture
def twins(tmp_path):
    """Two servers with the same in them, the same log among it, each on its own now."""
    one = Server(tmp_path, {"repl-diskless-sync-delay": 0})
    two = Server(tmp_path, {"replicaof": f"127.0.0.1 {one.port}"})
    yield one, two
    one.kill(), two.kill()


def part(one: Server, two: Server) -> None:
    wait_until(lambda: two.is_in_sync() and _offset(one) == _offset(two), "in sync")
    two.admin("REPLICAOF", "NO", "ONE")


def _offset(server: Server) -> int:
    return server.admin("INFO", "replication")["master_repl_offset"]


async def ask(store: Store, shard: int, since) -> Reply:
    async with asyncio.timeout(BOUND_S):
        reply = (await store.exchange({shard: Request(since)}))[shard]
    assert isinstance(reply, Reply)
    return reply


async def test_p2_a_reply_that_was_under_way_does_not_hide_that_another_server_answers_now(twins):
    """The question is put again to the new one; the old one's answer, which comes late, is
    nobody's.
    """
    one, two = twins
    shard = shard_of("alice", 16)
    relay = Relay(one)
    async with relay.open() as url:
        store = fastticket.open_store(url)
        await store.open()
        try:
            await add_session(store, "alice")
            position = (await ask(store, shard, None)).position
            assert not (await ask(store, shard, position)).gap
            await asyncio.to_thread(part, one, two)
            relay.target = two
            late = asyncio.create_task(ask(store, shard, position))
            async with asyncio.timeout(BOUND_S):
                await relay.holds_reply.wait()
                for way in relay.ways:
                    if way.listens:
                        way.cut()
                await relay.new_target_is_listened_to.wait()
            relay.lets_late_replies.set()
            assert (await late).gap
            assert not (await ask(store, shard, position)).gap, "it is told once"
        finally:
            await store.aclose()


@contextlib.asynccontextmanager
async def taken_over(one: Server, two: Server, there: Callable[[Store], Awaitable[StoredSession]]):
    """A store that speaks to `one`, with a session that `there` has made with it; what is asked
    next, `two` answers that lacks it.

    The doorbell does not tell: its connection stays.
    """
    relay = Relay(one)
    await asyncio.to_thread(part, one, two)
    async with relay.open() as url:
        store = fastticket.open_store(url)
        await store.open()
        try:
            session = await there(store)
            async with asyncio.timeout(BOUND_S):
                await relay.is_listened_to.wait()
            relay.target = two
            for way in relay.ways:
                if not way.listens:
                    way.cut()
            yield store, session
        finally:
            await store.aclose()


def successor_of(session: StoredSession) -> StoredSession:
    return session._replace(id=new_session_id())


ASKED = {
    "list": lambda store, session: store.sessions(session.principal),
    "read": lambda store, session: store.read_attributes(session.id, session.principal),
    "write": lambda store, session: store.write_attributes(
        session.id, session.principal, {"x": b"1"}, (), bytes_max=99
    ),
    "rotate": lambda store, session: store.rotate(session.id, successor_of(session)),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_p4_what_another_server_lacks_is_made_again_before_it_is_asked(twins, asked):
    async with taken_over(*twins, lambda store: add_session(store, "alice")) as (store, session):
        assert await ASKED[asked](store, session)


@pytest.mark.parametrize("asked", ["read", "write", "rotate"])
async def test_p4_what_another_server_lacks_another_gateway_may_be_about_to_make_again(twins, asked):
    """This one knows nothing of the login, so it cannot say that there is no such session."""

    async def elsewhere(_: Store) -> StoredSession:
        other = fastticket.open_store(f"redis://{twins[0].address}/0")
        await other.open()
        session = await add_session(other, "alice")
        await other.aclose()
        return session

    async with taken_over(*twins, elsewhere) as (store, session):
        with pytest.raises(StoreUnavailable, match="taking over"):
            await ASKED[asked](store, session)

"""Sessions in Redis or Valkey, shared by any number of gateways: standalone, Sentinel or Cluster.

layout     what stands in Redis: keys, records, log entries
scripts    the Lua scripts: all that is done in a shard is one of them, atomic, on whichever server
sending    commands to the servers that have their slots, and again where a slot has moved
takeover   another server than before: what it may lack is made again there
doorbell   the subscription that makes a gateway look at the log sooner
meta       `ft:meta`: the layout, and the fleet's longest intervals
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, MovedError

from fastticket.errors import (
    AttributesTooLarge,
    ConfigError,
    IssuedTooEarly,
    NoStore,
    NotConfirmed,
    StoreUnavailable,
    TooManySessions,
)
from fastticket.stores.contract import (
    EVERYBODY,
    GATEWAYS_MAX,
    NO_DETAILS,
    Bar,
    Event,
    Fleet,
    Loss,
    Position,
    Reply,
    Request,
    Restored,
    RestoredSession,
    Ring,
    StoredAttributes,
    StoredSession,
    Tail,
    Written,
    check_card,
    shard_of,
)
from fastticket.stores.redis.address import Address, slot_of
from fastticket.stores.redis.again import LISTED_MAX
from fastticket.stores.redis.connecting import info_of
from fastticket.stores.redis.doorbell import Doorbell
from fastticket.stores.redis.ends import LoggedEnds
from fastticket.stores.redis.layout import (
    META,
    REGISTER_SHARD,
    attributes_key,
    key,
    pack_record,
    position_text,
    read_cursor,
    read_events,
    read_position,
    read_session,
    split_member,
    user_key,
)
from fastticket.stores.redis.link import Packed
from fastticket.stores.redis.meta import Meta
from fastticket.stores.redis.scripts import (
    AGAIN,
    ANNOUNCE,
    COUNT,
    CREATE,
    EXCHANGE,
    GATEWAYS,
    LOSS,
    READ,
    RESTORE,
    REVOKE,
    ROTATE,
    SCAN,
    SESSIONS,
    SWEEP,
    TAIL,
    WRITE,
    Script,
    ScriptCall,
    call_of,
)
from fastticket.stores.redis.sending import Sender
from fastticket.stores.redis.takeover import BELIEF_ATTEMPTS, TAKING_OVER, Takeover
from fastticket.stores.usage import Traffic
from fastticket.tasks import end

RESTORED_AT_ONCE = 200  # sessions in one script, which holds up all other commands
BARS_AT_ONCE = 500
RESTORED_BYTES = 1_000_000  # their attributes, if they are more than one session's
ONLY_LOOKS = "-"  # exchange.lua, in the place of the last known entry
DATA_LOST = 2  # exchange.lua: the log is too short to have been trimmed, so the server has lost data


class RedisStore:
    """See `fastticket.stores.contract.Store`. `creates`: where there is no store, make one."""

    touches_per_exchange = 400

    def __init__(self, address: Address, *, creates: bool = True) -> None:
        self.shards = address.shards
        self._address = address
        self._creates = creates
        self._sender = Sender(address, self._on_change)
        self._meta = Meta(self._sender, self.shards)
        self._takeover = Takeover(self._sender, self._meta.join, _time_s)
        self._doorbell = Doorbell(self._sender)
        self._logged_ends = LoggedEnds(self._sender)
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, check version, eviction and layout, and listen to the doorbell."""
        self._sender.open()
        try:
            server = await self._sender.topology.server_of(slot_of(META))
            await server.check_configuration()
            if not self._creates and not await self._meta.read():
                where = f"redis {server.name}, database {self._address.db}"
                raise NoStore(f"{where}: there is no store of fastticket; is it another one?")
            await self.join(Fleet(0, 0))
            await self._takeover.catch_up(range(self.shards), await self.time_ms(), is_start=True)
        except BaseException as error:
            await self.aclose()
            if isinstance(error.__cause__, AuthenticationError | MovedError):
                raise ConfigError(str(error)) from error
            raise
        self._listening = asyncio.create_task(self._doorbell.listen(), name="fastticket-doorbell")

    @property
    def is_replaced(self) -> bool:
        """Never: a server without its data has other logs, which say so."""
        return False

    async def settle(self) -> None:
        """Nothing to wait for where there is one server only."""
        if self.doubt_ms:
            await self._takeover.settle(self.doubt_ms / 1000)

    async def aclose(self) -> None:
        """Close every connection, also if it is cancelled. Idempotent."""
        topology = self._sender.detach()
        try:
            await end(self._listening, *self._takeover.chores)
        finally:
            if topology:
                await topology.aclose()

    @property
    def doubt_ms(self) -> int:
        """0 where there is one server only."""
        return round(self._sender.topology.doubt_s * 1000) if self._sender.is_open else 0

    @property
    def servers(self) -> Mapping[str, str]:
        """The known servers, and the states of their breakers: closed, open or half-open."""
        servers = self._sender.topology.servers if self._sender.is_open else {}
        return {name: server.breaker.state for name, server in servers.items()}

    @property
    def traffic(self) -> Traffic:
        """Of all links to its servers."""
        return self._sender.traffic

    async def join(self, fleet: Fleet) -> Fleet | None:
        """`HGETALL`, `HSETNX` for what is missing, and a script for what is longer."""
        return await self._meta.join(fleet)

    async def time_ms(self) -> int:
        """`TIME` of the server that has shard 0: the same one for every gateway."""
        reply = await self._sender.ask(self._sender.slots[0], ("TIME",))
        return int(reply[0]) * 1000 + int(reply[1]) // 1000

    async def uptime_ms(self) -> int:
        """`INFO` of the one server. 0 where servers take over from each other: none says when it
        did.
        """
        if self.doubt_ms:
            return 0
        info = info_of(await self._sender.ask(self._sender.slots[0], ("INFO", "server")))
        return int(info.get("uptime_in_seconds", 0)) * 1000

    # --- the register of gateways

    async def announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        """One script. After a failover the register may be older, or empty: gateways come back with
        their next call.
        """
        check_card(card)
        return bool(await self._ask_register(ANNOUNCE, (gateway_id, lease_ms, card, GATEWAYS_MAX)))

    async def gateways(self) -> Mapping[str, bytes]:
        """One script."""
        found = await self._ask_register(GATEWAYS, ())
        return {gateway_id.decode(): card for gateway_id, card in zip(found[::2], found[1::2], strict=True)}

    async def _ask_register(self, script: Script, arguments: Sequence[str | int | bytes]) -> Any:
        keys = [key(REGISTER_SHARD, name) for name in ("gateways", "cards")]
        return await self._sender.run_script(REGISTER_SHARD, script, keys, arguments, confirm=False)

    # --- sessions

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """One script: live, user, log; doorbell for evicted sessions."""
        shard, record = shard_of(session.principal, self.shards), pack_record(session)
        changes, ledger = self._takeover.changes(shard), self._takeover.ledger
        arguments = (shard, *session[:3], record, sessions_max, int(evicts))
        gone = await self._takeover.run(
            shard, CREATE, (user_key(shard, session.principal),), arguments, believes=lambda _: True
        )
        if gone is None:
            raise TooManySessions(sessions_max)
        if isinstance(gone, bytes):
            raise IssuedTooEarly(int(gone))
        ids = [session_id.decode() for session_id in gone]
        for session_id in ids:
            ledger.ended(shard, session_id, session.principal)
        ledger.created(shard, *session[:3], record)
        self._takeover.note_late(shard, changes)
        return ids

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """One script: live, user, attributes, ended, log, doorbell."""
        shard, principal = shard_of(successor.principal, self.shards), successor.principal
        changes = self._takeover.changes(shard)
        bare = pack_record(successor._replace(details=NO_DETAILS))
        arguments = (shard, principal, session_id, successor.id, successor.idle_deadline_ms, bare)
        keys = (user_key(shard, principal), attributes_key(shard, session_id), attributes_key(shard, successor.id))
        try:
            is_done = bool(await self._takeover.run(shard, ROTATE, keys, arguments))
        except NotConfirmed:
            self._remember_rotation(shard, session_id, successor, bare, changes)
            raise
        if is_done:
            self._remember_rotation(shard, session_id, successor, bare, changes)
        else:
            self._refuse_if_changed(shard)
        return is_done

    def _remember_rotation(
        self, shard: int, session_id: str, successor: StoredSession, record: bytes, changes: int
    ) -> None:
        words = (session_id, successor.principal, successor.id, successor.idle_deadline_ms, record)
        self._takeover.ledger.rotated(shard, *words)
        self._takeover.note_late(shard, changes)

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """One script: live, user, attributes, ended, log, doorbell."""
        ended, _, shard, changes = await self._revoke(principal, (session_id,), reason)
        self._takeover.ledger.ended(shard, session_id, principal)
        self._takeover.note_late(shard, changes)
        return bool(ended)

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """One script for all of them."""
        ended, before_ms, shard, changes = await self._revoke(principal, (), reason, keep)
        ids, ledger = [session_id.decode() for session_id in ended], self._takeover.ledger
        if keep:
            for session_id in ids:
                ledger.ended(shard, session_id, principal)
        if not keep or len(ids) > LISTED_MAX:
            ledger.ended_everywhere(shard, principal, int(before_ms), keep)
        else:
            ledger.barred(shard, principal, int(before_ms))
        self._takeover.note_late(shard, changes)
        return ids

    async def _revoke(
        self, principal: str, session_ids: Sequence[str], reason: str, keep: str = ""
    ) -> tuple[Sequence[bytes], Any, int, int]:
        """The script's two answers, the shard, and how often its server had changed before."""
        shard = shard_of(principal, self.shards)
        changes = self._takeover.changes(shard)
        arguments = (shard, principal, reason, keep, *session_ids)
        keys = (user_key(shard, principal), *(() if session_ids else (key(shard, "bars"),)))
        ended, before_ms = await self._takeover.run(
            shard, REVOKE, keys, arguments, believes=lambda answer: bool(answer[0])
        )
        return ended, before_ms, shard, changes

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """By the user's index."""
        shard = shard_of(principal, self.shards)
        keys = (user_key(shard, principal),)
        found = await self._takeover.run(shard, SESSIONS, keys, (principal,), confirm=False, believes=lambda _: False)
        sessions = [read_session(principal, *row) for row in zip(found[::3], found[1::3], found[2::3], strict=True)]
        return sorted(sessions, key=lambda session: session.idle_deadline_ms)

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """One script a shard, one pipeline a server."""
        arguments = {shard: (shard, dead_before_ms, sessions_max) for shard in range(self.shards)}
        calls = {shard: call_of(shard, SWEEP, (), words) for shard, words in arguments.items()}
        swept = 0
        error: StoreUnavailable | None = None
        for answer in (await self._sender.run(calls)).values():
            if isinstance(answer, StoreUnavailable):
                error = answer
            else:
                swept += answer
        if error:
            raise error
        return swept

    # --- all of them

    async def count(self) -> int:
        """One script a shard, one pipeline a server."""
        calls = {shard: call_of(shard, COUNT, (), ()) for shard in range(self.shards)}
        counts = list((await self._sender.run(calls)).values())
        for answer in counts:
            if isinstance(answer, StoreUnavailable):
                raise answer
        return sum(counts)

    async def scan(self, cursor: str, count: int) -> tuple[str, Sequence[StoredSession]]:
        """`ZSCAN` of one shard after another. A cursor is "<shard>-<ZSCAN's>-<server>"."""
        shard, place, server = read_cursor(cursor, self.shards)
        place, server, members, deadlines, records = await self._takeover.run(
            shard, SCAN, (), (place, server, count), confirm=False
        )
        sessions = [
            read_session(principal, session_id.encode(), deadline_ms, record)
            for (session_id, principal), deadline_ms, record in zip(
                map(split_member, members), deadlines, records, strict=True
            )
        ]
        if place != b"0":
            return f"{shard}-{place.decode()}-{server.decode()}", sessions
        return f"{shard + 1}-0-" if shard + 1 < self.shards else "", sessions

    async def restore(self, sessions: Sequence[RestoredSession]) -> Sequence[Restored]:
        """Scripts of some sessions each, one after the other in a shard; before, its log is read
        for what ended long ago.
        """
        by_shard: dict[int, list[int]] = {}
        for number, (session, *_) in enumerate(sessions):
            by_shard.setdefault(shard_of(session.principal, self.shards), []).append(number)
        outcomes: list[Restored] = ["exists"] * len(sessions)

        async def restore(shard: int, numbers: Sequence[int]) -> None:
            are_ended = await self._logged_ends.are_ended(shard, [sessions[number] for number in numbers])
            for number, is_ended in zip(numbers, are_ended, strict=True):
                outcomes[number] = "ended" if is_ended else "exists"
            for piece in _pieces([number for number in numbers if outcomes[number] != "ended"], sessions):
                keys, words = _restore_call(shard, [sessions[number] for number in piece])
                answer = await self._takeover.run(shard, RESTORE, keys, words)
                for number, outcome in zip(piece, answer, strict=True):
                    outcomes[number] = outcome.decode()

        results = await asyncio.gather(*(restore(*each) for each in by_shard.items()), return_exceptions=True)
        for result in results:
            if result:
                raise result
        return outcomes

    async def bar(self, bars: Sequence[Bar]) -> None:
        """Records of again.lua, BARS_AT_ONCE in one script."""
        by_shard: dict[int, list[Bar]] = {}
        for bar in bars:
            shards = range(self.shards) if bar.principal == EVERYBODY else [shard_of(bar.principal, self.shards)]
            for shard in shards:
                by_shard.setdefault(shard, []).append(bar)
        for shard, mine in by_shard.items():
            changes = self._takeover.changes(shard)
            for first in range(0, len(mine), BARS_AT_ONCE):
                words = [word for each in mine[first : first + BARS_AT_ONCE] for word in ("bar", *each)]
                await self._takeover.run(shard, AGAIN, (key(shard, "bars"),), (shard, *words))
            for each in mine:
                self._takeover.ledger.barred(shard, *each)
            self._takeover.note_late(shard, changes)

    async def bars(self, shard: int, since_ms: int, bars_max: int) -> Sequence[Bar]:
        """`ZRANGE`, by score."""
        command = ("ZRANGE", key(shard, "bars"), since_ms, "+inf", "BYSCORE", "LIMIT", 0, bars_max, "WITHSCORES")
        found = await self._sender.ask(self._sender.slots[shard], command)
        return [Bar(name.decode(), int(at_ms)) for name, at_ms in zip(found[::2], found[1::2], strict=True)]

    # --- attributes

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """`HGETALL`."""
        shard = shard_of(principal, self.shards)
        keys = (attributes_key(shard, session_id),)
        found = await self._takeover.run(shard, READ, keys, (session_id, principal), confirm=False)
        if found is None:
            self._refuse_if_changed(shard)
            return None
        values = {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=True)}
        version, _, _ = values.pop("", b"0-0").partition(b" ")
        return StoredAttributes(read_position(version), values)

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """One script: attributes, log, doorbell."""
        shard = shard_of(principal, self.shards)
        pairs = [part for pair in values.items() for part in pair]
        arguments = (shard, session_id, principal, bytes_max, len(removed), *removed, *pairs)
        keys = (user_key(shard, principal), attributes_key(shard, session_id))
        answer = await self._takeover.run(shard, WRITE, keys, arguments)
        if answer is None:
            self._refuse_if_changed(shard)
        if isinstance(answer, int):
            raise AttributesTooLarge(answer, bytes_max)
        return answer and Written(*map(read_position, answer))

    # --- exchange

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """One script a shard, one pipeline a server."""
        takeover = self._takeover
        replies: dict[int, Reply | StoreUnavailable] = {}
        told: dict[int, int] = {}
        left = dict(requests)
        for _ in range(BELIEF_ATTEMPTS):
            failed = await takeover.make_again(takeover.behind & left.keys())
            replies |= failed
            left = {shard: request for shard, request in left.items() if shard not in failed}
            heard = await self._exchange(left, told)
            # Another server may have taken over with this very call: it is not believed before all
            # is made again there.
            replies |= {shard: reply for shard, reply in heard.items() if shard not in takeover.behind}
            left = {shard: request for shard, request in left.items() if shard not in replies}
            if not left:
                break
        # Only now: the replies of some shards may have waited here for others, and until the caller
        # has them, nobody else may be told that all is in order.
        takeover.changed -= {shard for shard, changes in told.items() if changes == takeover.changes(shard)}
        return replies | dict.fromkeys(left, StoreUnavailable(TAKING_OVER))

    async def _exchange(
        self, requests: Mapping[int, Request], told: dict[int, int]
    ) -> dict[int, Reply | StoreUnavailable]:
        """One attempt to exchange; the replies may be those of a server that has just taken over.
        Adds to `told` the shards whose replies say so, and how often each had changed before.
        """
        takeover = self._takeover
        changed_before = {shard: takeover.changes(shard) for shard in takeover.changed & requests.keys()}
        calls = {shard: _exchange_call(shard, request) for shard, request in requests.items()}
        replies = {
            shard: self._read_exchange(shard, answer, shard in changed_before)
            for shard, answer in (await self._sender.run(calls)).items()
        }
        # Only what had changed before this was sent: an answer that was under way may still be the
        # old server's.
        told |= {
            shard: changed_before[shard]
            for shard in changed_before.keys() - takeover.behind
            if isinstance(replies[shard], Reply)
        }
        return replies

    def _read_exchange(self, shard: int, answer: Any, was_changed: bool) -> Reply | StoreUnavailable:
        """`was_changed`: when it was asked. Then lost data is no news: other exchanges ask from the
        same position, and hear the same.
        """
        takeover = self._takeover
        if isinstance(answer, StoreUnavailable):
            takeover.ledger.miss(shard)
            return answer
        last, lost, entries, deadlines = answer
        position = read_position(last)
        if lost == DATA_LOST and not was_changed and shard not in takeover.changed:
            takeover.note([shard])  # the same server, with older data or none
        elif lost:
            takeover.catch_up_soon(shard, position[0])
        if shard not in takeover.behind:
            takeover.ledger.answered(shard)
        takeover.ledger.hear(shard, entries)
        deadlines_ms = [score if score is None else int(score) for score in deadlines]
        is_replaced = shard in takeover.changed
        return Reply(position, read_events(entries), bool(lost) or is_replaced, deadlines_ms, is_replaced)

    async def note_loss(self, heard_ms: Mapping[int, int]) -> Mapping[int, Loss | StoreUnavailable]:
        """One script a shard, one pipeline a server."""
        calls = {shard: call_of(shard, LOSS, (), (span_ms,)) for shard, span_ms in heard_ms.items()}
        return {
            shard: answer if isinstance(answer, StoreUnavailable) else Loss(*answer)
            for shard, answer in (await self._sender.run(calls)).items()
        }

    # --- the log

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """`XREVRANGE`."""
        command = ("XREVRANGE", key(shard, "log"), "+", "-", "COUNT", entries_max)
        return read_events(reversed(await self._sender.ask(self._sender.slots[shard], command)))

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """One script a shard, one pipeline a server."""
        arguments = {shard: (position_text(position), entries_max) for shard, position in since.items()}
        calls = {shard: call_of(shard, TAIL, (), words) for shard, words in arguments.items()}
        return {
            shard: answer
            if isinstance(answer, StoreUnavailable)
            else Tail(read_position(answer[0]), read_events(answer[2]), bool(answer[1]))
            for shard, answer in (await self._sender.run(calls)).items()
        }

    def on_doorbell(self, ring: Ring) -> None:
        """Called from a task of this store's own, for revocations and for changed attributes."""
        self._doorbell.ring = ring

    # --- another server than before

    def _on_change(self, shards: Collection[int]) -> None:
        self._takeover.note(shards)

    def _refuse_if_changed(self, shard: int) -> None:
        """StoreUnavailable: another server than before lacks the session, and another gateway may
        be about to make it again there.
        """
        if shard in self._takeover.changed:
            self._doorbell.ring_for([shard])  # an exchange hears of the change, and may have no other reason to be made
            raise StoreUnavailable(TAKING_OVER)


def _exchange_call(shard: int, request: Request) -> ScriptCall:
    touches = request.touches
    since = ONLY_LOOKS if request.only_looks else position_text(request.since)
    arguments: list[str | int | Packed] = [since, len(request.wanted)]
    arguments += [f"{session_id}.{principal}" for session_id, principal in request.wanted]
    if touches:
        arguments.append(Packed(2 * len(touches), touches.packed))
    return call_of(shard, EXCHANGE, (), arguments)


def _pieces(numbers: Sequence[int], sessions: Sequence[RestoredSession]) -> Iterator[list[int]]:
    """What one script restores each."""
    piece: list[int] = []
    size = 0
    for number in numbers:
        bytes_ = _size_of(sessions[number].attributes)
        if piece and (len(piece) == RESTORED_AT_ONCE or size + bytes_ > RESTORED_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(number)
        size += bytes_
    if piece:
        yield piece


def _restore_call(shard: int, sessions: Sequence[RestoredSession]) -> tuple[list[str], list[str | bytes | int]]:
    """Keys and arguments of restore.lua."""
    keys = dict.fromkeys([key(shard, "ended"), key(shard, "bars")])
    words: list[str | bytes | int] = [shard]
    for session, attributes, began_ms in sessions:
        keys[user_key(shard, session.principal)] = keys[attributes_key(shard, session.id)] = None
        began = "" if began_ms is None else began_ms
        words += [*session[:3], pack_record(session), began, _size_of(attributes), len(attributes)]
        words += [part for pair in attributes.items() for part in pair]
    return list(keys), words


def _size_of(attributes: Mapping[str, bytes]) -> int:
    return sum(len(name.encode()) + len(value) for name, value in attributes.items())


def _time_s() -> float:
    """It goes on while the machine is suspended: the marks in the store do not wait for that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

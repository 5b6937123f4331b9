"""Sessions in Redis or Valkey, shared by any number of gateways: standalone, Sentinel or Cluster.

    ft:meta                    HASH    format, shards; flush_interval_ms and lease_ms, the longest of all gateways
    {ft:NNN}:live              ZSET    "<session id>.<principal>" -> idle deadline, ms
    {ft:NNN}:user:<principal>  HASH    session id -> record: created, idle timeout, absolute lifetime, details
    {ft:NNN}:attr:<session id> HASH    attribute -> value, and "" -> version, bytes; only if there ever were any
    {ft:NNN}:ended             ZSET    "s<session id>", "p<principal>" -> until when it bars what is made again; minutes
    {ft:NNN}:log               STREAM  opened | created | rotated | changed | revoked | everywhere | expired -> "<id>.<principal>"
    ft:doorbell                CHANNEL "<shard> <log id>": a session of that shard was revoked, has expired, or has another id now;
                                       "<shard> <log id> <session id>": that session's attributes were written

Rules of this file
- All of a shard is in one hash slot, and whatever is done in it is one script: atomic, whichever
  server runs it. Each begins with shard.lua, but exchange.lua, which is run too often to define
  what it does not use.
- Every script may be sent again: doing it twice is doing it once. So a redirection or a lost
  connection is answered by sending again.
- The log is the truth. The doorbell may be lost: it makes a gateway look at the log sooner.
- A server that answers in another's place may lack the last writes. So before anything is believed
  of a shard that it serves, what this process has heard in the last minute is made again there
  (redis/again.py), and the shard's next reply is a gap.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import re
import struct
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from fastticket.errors import (
    AttributesTooLarge,
    ConfigError,
    IssuedTooEarly,
    NoStore,
    NotConfirmed,
    StoreBusy,
    StoreUnavailable,
    TooManySessions,
)
from fastticket.stores.contract import (
    NO_DETAILS,
    Changed,
    Event,
    Fleet,
    Position,
    Reply,
    Request,
    Ring,
    StoredAttributes,
    StoredSession,
    Tail,
    Written,
    shard_of,
)
from fastticket.stores.redis.address import Address, Command, slot_of
from fastticket.stores.redis.again import HEARD_S, LISTED_MAX, Ledger, sessions_in
from fastticket.stores.redis.cluster import Cluster
from fastticket.stores.redis.errors import told
from fastticket.stores.redis.link import info_of
from fastticket.stores.redis.servers import Listener, Server
from fastticket.stores.redis.topology import Topology, make_topology
from fastticket.tasks import end

log = logging.getLogger("fastticket.redis")

T = TypeVar("T")

FORMAT = 2
META = "ft:meta"
DOORBELL = "ft:doorbell"
ATTEMPTS = 6  # while a Cluster moves slots or elects a primary
ATTEMPT_PAUSE_S = 0.01  # doubled each time
EXCHANGE_ATTEMPTS = 3  # while servers take over from each other
TAKING_OVER = "redis: another server is taking over, and may not have everything yet; try again"
CONFIRMED_PART = 0.25  # of a lease: so often it is asked who the primary is
AGAIN_PAUSE_S = 0.1
AGAIN_GIVE_UP_S = 60.0
DATA_LOST = 2  # what exchange.lua says of a log that cannot have been trimmed so far
CATCH_UP_ENTRIES = 8192  # of a shard's log: all that it holds
DOORBELL_MESSAGE = re.compile(rb"(\d{1,9}) (\d{1,20})-(\d{1,20})(?: ([A-Za-z0-9_-]{22}))?")
DOORBELL_PING_S = 5.0
DOORBELL_PAUSE_MAX_S = 2.0
DOORBELL_HELD_S = 5.0  # until it is said that it works again: something may cut it off each time
#: Answers that mean: the same, again, in a moment or elsewhere.
REDIRECTIONS = (MovedError, AskError, TryAgainError, ClusterDownError)


#: What a record begins with: created, ms, in 6 bytes (48 bits of 64); idle timeout and absolute
#: lifetime, s. Details follow, as JSON.
RECORD = struct.Struct(">HIII")


class _Script:
    """A script of this folder. `EVALSHA` runs it where it is known, `EVAL` anywhere."""

    def __init__(self, name: str, *, begins_with: str = "") -> None:
        folder = files("fastticket.stores.redis")
        flags, newline, body = folder.joinpath(f"{name}.lua").read_bytes().partition(b"\n")
        prelude = folder.joinpath(f"{begins_with}.lua").read_bytes() if begins_with else b""
        self._source = flags + newline + prelude + body
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    def by_sha(self, keys: Sequence[str], arguments: Sequence[str | int]) -> Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def by_source(self, command: Command) -> Command:
        return ("EVAL", self._source, *command[2:])


EXCHANGE, JOIN = _Script("exchange"), _Script("join")
CREATE, ROTATE, REVOKE, AGAIN, SESSIONS, SWEEP, READ, WRITE, TAIL = (
    _Script(name, begins_with="shard")
    for name in ("create", "rotate", "revoke", "again", "sessions", "sweep", "read", "write", "tail")
)

_Call = tuple[_Script, Command]


class RedisStore:
    """See `fastticket.stores.contract.Store`. `url` as `fastticket.open_store` takes it; files in
    it are relative to `base`.
    """

    touches_per_exchange = 400

    def __init__(self, address: Address, *, creates: bool = True) -> None:
        """`creates`: where there is none, make one."""
        self._address = address
        self._creates = creates
        self.shards = self._address.shards
        self._slots = [slot_of(_key(shard, "live")) for shard in range(self.shards)]
        self._topology: Topology | None = None
        self._serving: list[Server | None] = [None] * self.shards
        self._changed: set[int] = set()  # shards whose next reply is a gap
        self._changes = [0] * self.shards  # how often each had another server
        self._ledger = Ledger(self.shards, _time_s)
        self._behind: set[int] = set()  # shards on whose server the ledger must be made again
        self._reasons = [0] * self.shards  # how often there was one to make it again
        self._making: dict[int, asyncio.Task[dict[int, StoreUnavailable]]] = {}  # again, just now
        self._persisting: asyncio.Task[None] | None = None
        self._persists_until_s = 0.0
        self._mismatch = ""  # why this store is none for us any more
        self._ring: Ring | None = None
        self._doorbell: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Connect, check version, eviction and layout, and listen to the doorbell."""
        self._topology = make_topology(self._address, self._on_change)
        try:
            server = await self._topology.server_of(slot_of(META))
            await server.check()
            if not self._creates and not await self._meta():
                where = f"redis {server.name}, database {self._address.db}"
                raise NoStore(f"{where}: there is no store of fastticket; is it another one?")
            await self.join(Fleet(0, 0))
            await self._catch_up(range(self.shards), await self.time_ms())
        except BaseException as error:
            await self.aclose()
            if isinstance(error.__cause__, AuthenticationError | MovedError):
                raise ConfigError(str(error)) from error
            raise
        self._doorbell = asyncio.create_task(self._listen(), name="fastticket-doorbell")

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        topology, self._topology = self._topology, None
        await end(self._doorbell, *self._chores)
        if topology:
            await topology.aclose()

    @property
    def doubt_ms(self) -> int:
        """0 where there is one server only."""
        return round(self._topology.doubt_s * 1000) if self._topology else 0

    @property
    def servers(self) -> Mapping[str, str]:
        """The servers that are known, and the state of their breakers: closed, open or half-open."""
        return {name: server.breaker.state for name, server in self._topology.servers.items()} if self._topology else {}

    async def join(self, fleet: Fleet) -> Fleet | None:
        """`HGETALL`, `HSETNX` for what is missing, and a script for what is longer."""
        if fleet.lease_ms:
            topology = self._open_topology()
            topology.confirm_s = min(topology.confirm_s, CONFIRMED_PART * fleet.lease_ms / 1000)
        told = await self._meta()
        before = {name: int(told[name]) for name in fleet._fields if name in told}
        for name, mine in (("format", FORMAT), ("shards", self.shards)):
            if name not in told:  # empty, or emptied: whoever comes first says what it is
                await self._ask(slot_of(META), ("HSETNX", META, name, mine))
                told = await self._meta()
            self._mismatch = self._mismatch_of(name, int(told[name]), mine)
            if self._mismatch:
                raise ConfigError(self._mismatch)
        if any(mine > before.get(name, 0) for name, mine in zip(fleet._fields, fleet, strict=True)):
            # In one step: of those who join at the same time each but the first hears of the
            # others.
            pairs = [part for pair in zip(fleet._fields, fleet, strict=True) for part in pair]
            known = await self._ask(slot_of(META), JOIN.by_source(JOIN.by_sha((META,), pairs)))
            before = {name: int(value) for name, value in zip(fleet._fields, known, strict=True) if value is not None}
        return Fleet(**before) if len(before) == len(fleet) else None

    async def _meta(self) -> dict[str, str]:
        told = await self._ask(slot_of(META), ("HGETALL", META))
        return {name.decode(): value.decode() for name, value in zip(told[::2], told[1::2], strict=True)}

    @staticmethod
    def _mismatch_of(name: str, theirs: int, mine: int) -> str:
        """Empty: none."""
        hint = f"say ?shards={theirs} in the URL" if name == "shards" else "use another database"
        return "" if theirs == mine else f"redis: made with {name} {theirs}, not {mine}; {hint}"

    async def time_ms(self) -> int:
        """`TIME` of the server that has shard 0: the same one for every gateway."""
        reply = await self._ask(self._slots[0], ("TIME",))
        return int(reply[0]) * 1000 + int(reply[1]) // 1000

    async def uptime_ms(self) -> int:
        """`INFO` of the one server. 0 where servers take over from each other: when one did, it
        does not say.
        """
        if self.doubt_ms:
            return 0
        return int(info_of(await self._ask(self._slots[0], ("INFO", "server"))).get("uptime_in_seconds", 0)) * 1000

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """One script: live, user, log; doorbell for who is evicted."""
        shard, record = shard_of(session.principal, self.shards), _record(session)
        changes = self._changes[shard]
        arguments = (shard, *session[:3], record, sessions_max, int(evicts))
        gone = await self._run_one(shard, CREATE, (_user(shard, session.principal),), arguments, believes=_always)
        if gone is None:
            raise TooManySessions(sessions_max)
        if isinstance(gone, bytes):
            raise IssuedTooEarly(int(gone))
        ids = [session_id.decode() for session_id in gone]
        for session_id in ids:
            self._ledger.ended(shard, session_id, session.principal)
        self._ledger.created(shard, *session[:3], record)
        self._again_if_changed(shard, changes)
        return ids

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """One script: live, user, attributes, ended, log, doorbell."""
        shard, principal = shard_of(successor.principal, self.shards), successor.principal
        changes = self._changes[shard]
        bare = _record(successor._replace(details=NO_DETAILS))
        arguments = (shard, principal, session_id, successor.id, successor.idle_deadline_ms, bare)
        keys = (_user(shard, principal), _attributes(shard, session_id), _attributes(shard, successor.id))
        try:
            is_done = bool(await self._run_one(shard, ROTATE, keys, arguments))
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
        self._ledger.rotated(shard, session_id, successor.principal, successor.id, successor.idle_deadline_ms, record)
        self._again_if_changed(shard, changes)

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """One script a shard, one pipeline a server."""
        replies: dict[int, Reply | StoreUnavailable] = {}
        left = dict(requests)
        for _ in range(EXCHANGE_ATTEMPTS):
            failed = await self._make_again(self._behind & left.keys())
            replies |= failed
            left = {shard: request for shard, request in left.items() if shard not in failed}
            heard = await self._exchange(left)
            # Another server may have taken over with this very call: it is not believed before all
            # is made again there.
            replies |= {shard: reply for shard, reply in heard.items() if shard not in self._behind}
            left = {shard: request for shard, request in left.items() if shard not in replies}
            if not left:
                return replies
        return replies | dict.fromkeys(left, StoreUnavailable(TAKING_OVER))

    async def _exchange(self, requests: Mapping[int, Request]) -> dict[int, Reply | StoreUnavailable]:
        """Once."""
        changed_before = self._changed & requests.keys()
        answers = await self._run({shard: self._exchange_call(shard, request) for shard, request in requests.items()})
        replies = {
            shard: self._read_exchange(shard, requests[shard], answer, shard in changed_before)
            for shard, answer in answers.items()
        }
        # Only what had changed before this was sent: an answer that was under way may still be the
        # old server's.
        self._changed -= {shard for shard in changed_before - self._behind if isinstance(replies[shard], Reply)}
        return replies

    def _read_exchange(self, shard: int, request: Request, answer: Any, was_changed: bool) -> Reply | StoreUnavailable:
        """`was_changed`: when it was asked. Then that data is lost is no news: others ask from the
        same place, and hear the same.
        """
        if isinstance(answer, StoreUnavailable):
            return answer
        last, lost, entries, deadlines = answer
        position = _position(last)
        if lost == DATA_LOST and not was_changed and shard not in self._changed:
            self._on_change_of([shard])  # the same server, with older data or none
        elif lost:
            self._start(self._catch_up([shard], position[0]), "catch-up")
        self._ledger.hear(shard, entries)
        deadlines_ms = [score if score is None else int(score) for score in deadlines]
        is_replaced = shard in self._changed
        return Reply(position, _read_events(entries), bool(lost) or is_replaced, deadlines_ms, is_replaced)

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """One script: live, user, attributes, ended, log, doorbell."""
        ended, _, shard, changes = await self._revoke(principal, (session_id,), reason)
        self._ledger.ended(shard, session_id, principal)
        self._again_if_changed(shard, changes)
        return bool(ended)

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """One script for all of them."""
        ended, before_ms, shard, changes = await self._revoke(principal, (), reason, keep)
        ids = [session_id.decode() for session_id in ended]
        if keep:
            for session_id in ids:
                self._ledger.ended(shard, session_id, principal)
        if not keep or len(ids) > LISTED_MAX:
            self._ledger.ended_everywhere(shard, principal, int(before_ms), keep)
        self._again_if_changed(shard, changes)
        return ids

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """By the user's index."""
        shard = shard_of(principal, self.shards)
        found = await self._run_one(
            shard, SESSIONS, (_user(shard, principal),), (principal,), lasts=False, believes=_never
        )
        sessions = [_session(principal, *row) for row in zip(found[::3], found[1::3], found[2::3], strict=True)]
        return sorted(sessions, key=lambda session: session.idle_deadline_ms)

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """`HGETALL`."""
        shard = shard_of(principal, self.shards)
        keys = (_attributes(shard, session_id),)
        found = await self._run_one(shard, READ, keys, (session_id, principal), lasts=False)
        if found is None:
            self._refuse_if_changed(shard)
            return None
        values = {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=True)}
        version, _, _ = values.pop("", b"0-0").partition(b" ")
        return StoredAttributes(_position(version), values)

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """One script: attributes, log, doorbell."""
        shard = shard_of(principal, self.shards)
        pairs = [part for pair in values.items() for part in pair]
        arguments = (shard, session_id, principal, bytes_max, len(removed), *removed, *pairs)
        keys = (_user(shard, principal), _attributes(shard, session_id))
        answer = await self._run_one(shard, WRITE, keys, arguments)
        if answer is None:
            self._refuse_if_changed(shard)
        if isinstance(answer, int):
            raise AttributesTooLarge(answer, bytes_max)
        return answer and Written(*map(_position, answer))

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """One script a shard, one pipeline a server."""
        arguments = {shard: (shard, dead_before_ms, sessions_max) for shard in range(self.shards)}
        calls = {shard: self._call(shard, SWEEP, (), words) for shard, words in arguments.items()}
        swept = 0
        error: StoreUnavailable | None = None
        for answer in (await self._run(calls)).values():
            if isinstance(answer, StoreUnavailable):
                error = answer
            else:
                swept += answer
        if error:
            raise error
        return swept

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """`XREVRANGE`."""
        entries = await self._ask(self._slots[shard], ("XREVRANGE", _key(shard, "log"), "+", "-", "COUNT", entries_max))
        return _read_events(reversed(entries))

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """One script a shard, one pipeline a server."""
        arguments = {shard: (_text(position), entries_max) for shard, position in since.items()}
        answers = await self._run({shard: self._call(shard, TAIL, (), words) for shard, words in arguments.items()})
        return {
            shard: answer
            if isinstance(answer, StoreUnavailable)
            else Tail(_position(answer[0]), _read_events(answer[2]), bool(answer[1]))
            for shard, answer in answers.items()
        }

    def on_doorbell(self, ring: Ring) -> None:
        """Called from a task of this store's own, for revocations and for changed attributes."""
        self._ring = ring

    # --- what a shard is asked

    @staticmethod
    def _call(shard: int, script: _Script, keys: Sequence[str], arguments: Sequence[Any]) -> _Call:
        return script, script.by_sha((_key(shard, "live"), _key(shard, "log"), *keys), arguments)

    def _exchange_call(self, shard: int, request: Request) -> _Call:
        arguments: list[str | int] = [_text(request.since), len(request.wanted)]
        arguments += [f"{session_id}.{principal}" for session_id, principal in request.wanted]
        for session_id, principal, deadline_ms in request.touches:
            arguments.append(deadline_ms)
            arguments.append(f"{session_id}.{principal}")
        return self._call(shard, EXCHANGE, (), arguments)

    async def _revoke(
        self, principal: str, session_ids: Sequence[str], reason: str, keep: str = ""
    ) -> tuple[Sequence[bytes], Any, int, int]:
        """What the script says, the shard, and how often servers had changed before."""
        shard = shard_of(principal, self.shards)
        changes = self._changes[shard]
        arguments = (shard, principal, reason, keep, *session_ids)
        keys = (_user(shard, principal),)
        ended, before_ms = await self._run_one(shard, REVOKE, keys, arguments, believes=lambda answer: bool(answer[0]))
        return ended, before_ms, shard, changes

    # --- sending, and sending again

    async def _run_one(
        self,
        shard: int,
        script: _Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        *,
        lasts: bool = True,
        believes: Callable[[Any], bool] = bool,
    ) -> Any:
        """`believes`: whether an answer is true even of a server that has just taken over: what it
        has, it has; it may lack much.
        """
        for _ in range(EXCHANGE_ATTEMPTS):
            failed = await self._make_again(self._behind & {shard})
            if failed:
                raise failed[shard]
            answer = await self._run_script(shard, script, keys, arguments, lasts=lasts)
            if shard not in self._behind or believes(answer):
                return answer
        raise StoreUnavailable(TAKING_OVER)

    def _refuse_if_changed(self, shard: int) -> None:
        """What another server than before does not have, some other gateway may be about to make
        again. StoreUnavailable.
        """
        if shard in self._changed:
            self._ring_for([shard])  # who exchanges hears of the change, and nobody else may have a reason to
            raise StoreUnavailable(TAKING_OVER)

    async def _run_script(
        self, shard: int, script: _Script, keys: Sequence[str], arguments: Sequence[Any], *, lasts: bool = True
    ) -> Any:
        """`keys`: beside live and log."""
        answers = await self._run({shard: self._call(shard, script, keys, arguments)}, lasts=lasts)
        if isinstance(answers[shard], StoreUnavailable):
            raise answers[shard]
        return answers[shard]

    async def _run(self, calls: Mapping[int, _Call], *, lasts: bool = False) -> dict[int, Any]:
        """A script in each of some shards; what it returned, or StoreUnavailable. `lasts`: wait for
        a replica if so configured.
        """
        if self._mismatch:
            return dict.fromkeys(calls, StoreUnavailable(self._mismatch))
        answers: dict[int, Any] = {}
        left = dict(calls)
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(ATTEMPT_PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
            answers |= await self._send(left, answers, lasts)
            left = {shard: call for shard, call in left.items() if isinstance(answers[shard], REDIRECTIONS)}
            if not left:
                return answers
            if any(isinstance(answers[shard], MovedError) for shard in left):
                if self._address.kind != "cluster":
                    break  # nobody is to be asked who has them
                await self._open_topology().moved()
        for shard in left:
            answers[shard] = self._refusal(f"redis: shard {shard} is moving", answers[shard])
        return answers

    async def _send(self, calls: Mapping[int, _Call], before: Mapping[int, Any], lasts: bool) -> dict[int, Any]:
        """Once. `before`: what they were answered the last time, if at all."""
        groups: dict[tuple[Server, bool], dict[int, _Call]] = {}
        answers: dict[int, Any] = {}
        for shard, call in calls.items():
            try:
                where = await self._server_for(shard, before.get(shard))
            except StoreUnavailable as error:
                answers[shard] = error
            else:
                groups.setdefault(where, {})[shard] = call
        sending = [self._send_group(where, group, lasts) for where, group in groups.items()]
        # Most calls concern one server: they need no task of their own.
        for sent in [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending):
            answers |= sent
        return answers

    async def _send_group(self, where: tuple[Server, bool], calls: Mapping[int, _Call], lasts: bool) -> dict[int, Any]:
        """What goes wrong is one server's affair, not that of the others."""
        try:
            return await self._send_to(*where, calls, lasts)
        except Exception as error:
            log.exception("redis: unexpected")
            return dict.fromkeys(calls, StoreUnavailable(f"redis: unexpected: {type(error).__name__}"))

    async def _server_for(self, shard: int, before: Any) -> tuple[Server, bool]:
        """And whether it must be told that it is asked for a slot that it is about to get."""
        topology = self._open_topology()
        if isinstance(before, AskError) and isinstance(topology, Cluster):
            asked = self._serving[shard]
            host = before.host or (asked.name.rpartition(":")[0] if asked else "")
            return topology.server_at(host, before.port), True
        server = await topology.server_of(self._slots[shard])
        if self._serving[shard] not in (None, server):
            self._on_change(server, [shard])
        self._serving[shard] = server
        return server, False

    async def _send_to(self, server: Server, asking: bool, calls: Mapping[int, _Call], lasts: bool) -> dict[int, Any]:
        """One pipeline, by EVALSHA, and another one by EVAL for those whose script the server does
        not know.
        """
        try:
            answers = await self._pipeline(
                server, asking, {shard: command for shard, (_, command) in calls.items()}, lasts
            )
            unknown = [shard for shard, answer in answers.items() if isinstance(answer, NoScriptError)]
            if unknown:
                sources = {shard: calls[shard][0].by_source(calls[shard][1]) for shard in unknown}
                answers |= await self._pipeline(server, asking, sources, lasts)
        except StoreBusy as error:
            return dict.fromkeys(calls, error)
        except StoreUnavailable as error:
            await self._open_topology().moved()
            return dict.fromkeys(calls, error)
        return {
            shard: StoreUnavailable(f"redis {server.name}: {str(answer)[:200]}")
            if isinstance(answer, ResponseError) and not isinstance(answer, REDIRECTIONS)
            else answer
            for shard, answer in answers.items()
        }

    async def _pipeline(
        self, server: Server, asking: bool, commands: Mapping[int, Command], lasts: bool
    ) -> dict[int, Any]:
        lines: list[Command] = []
        for command in commands.values():
            lines += [("ASKING",)] * asking
            lines.append(command)
        waits = lasts and self._address.is_replicated
        replies = await server.call(lines, lasts=waits)
        if (
            waits
            and not _is_confirmed(replies.pop())
            and not any(isinstance(reply, ResponseError) for reply in replies)
        ):
            raise NotConfirmed(f"redis {server.name}: written, but no replica confirmed it in time")
        return dict(zip(commands, replies[asking :: 1 + asking], strict=True))

    async def _ask(self, slot: int, command: Command) -> Any:
        """One command about one slot, for what is not a script."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(ATTEMPT_PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
            server = await self._open_topology().server_of(slot)
            try:
                (reply,) = await server.call([command])
            except StoreBusy:
                raise
            except StoreUnavailable:
                await self._open_topology().moved()
                raise
            if isinstance(reply, MovedError):
                if self._address.kind != "cluster":
                    break  # nobody is to be asked who has it
                await self._open_topology().moved()
            elif not isinstance(reply, REDIRECTIONS):
                break
        if isinstance(reply, ResponseError):
            raise self._refusal(f"redis {server.name}", reply)
        return reply

    def _refusal(self, who: str, reply: RedisError) -> StoreUnavailable:
        """What an error reply comes to; its cause is a MovedError where a Cluster is asked that the
        URL takes for one server.
        """
        error = StoreUnavailable(f"{who}: {told(reply)[:200]}")
        if isinstance(reply, MovedError) and self._address.kind != "cluster":
            error = StoreUnavailable(f"{error}; it is a Cluster's: write redis+cluster:// in the store's URL")
            error.__cause__ = reply
        return error

    def _open_topology(self) -> Topology:
        if self._topology is None:
            raise StoreUnavailable("the redis store is not open")
        return self._topology

    # --- another server than before

    def _on_change(self, server: Server, shards: Collection[int] | None = None) -> None:
        """The shards of a server, or those named, are served by another one now."""
        if shards is None:
            shards = [shard for shard, serving in enumerate(self._serving) if serving is server]
        self._on_change_of(shards)

    def _on_change_of(self, shards: Collection[int]) -> None:
        """Their data may be older than what was said of it before."""
        self._changed |= set(shards)
        for shard in shards:
            self._changes[shard] += 1
        self._is_behind(shards)

    def _again_if_changed(self, shard: int, changes: int) -> None:
        """Another server came while the old one's answer was under way, and may have been told
        without this.
        """
        if changes != self._changes[shard]:
            self._is_behind([shard])

    def _is_behind(self, shards: Iterable[int]) -> None:
        """The ledger must be made again there. If that is being done just now, once more."""
        for shard in shards:
            self._behind.add(shard)
            self._reasons[shard] += 1
        self._persists_until_s = time.monotonic() + AGAIN_GIVE_UP_S
        if self._persisting is None or self._persisting.done():
            self._persisting = self._start(self._persist(), "again")

    def _start(self, chore: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T] | None:
        """None: the store is closed."""
        if self._topology is None:
            chore.close()
            return None
        task = asyncio.create_task(chore, name=f"fastticket-{name}")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def _persist(self) -> None:
        """Nobody may ask for these shards for long; what they lack must not wait for that. Servers
        change roles more than once.
        """
        while self._behind and time.monotonic() < self._persists_until_s:
            if await self._make_again(set(self._behind)):
                await asyncio.sleep(AGAIN_PAUSE_S)

    async def _make_again(self, shards: Collection[int]) -> dict[int, StoreUnavailable]:
        """Those that failed. Of a shard it is done once at a time, and all wait for that: nobody's
        cancellation ends it.
        """
        if not shards:
            return {}
        if left := [shard for shard in shards if shard not in self._making]:
            making = self._start(self._make_shards_again(left), "make-again")
            if making is None:
                return dict.fromkeys(shards, StoreUnavailable("the redis store is not open"))
            self._making |= dict.fromkeys(left, making)
        tasks = {shard: self._making[shard] for shard in shards}
        await asyncio.wait(set(tasks.values()))
        failed: dict[int, StoreUnavailable] = {}
        for shard, task in tasks.items():
            if task.cancelled():
                failed[shard] = StoreUnavailable("the redis store is closed")
            elif error := task.result().get(shard):
                failed[shard] = error
        return failed

    async def _make_shards_again(self, shards: Sequence[int]) -> dict[int, StoreUnavailable]:
        try:
            await self.join(Fleet(0, 0))
            results = await asyncio.gather(*(self._make_shard_again(shard) for shard in shards))
            return {shard: error for shard, error in zip(shards, results, strict=True) if error}
        except StoreUnavailable as error:
            return dict.fromkeys(shards, error)
        except ConfigError as error:
            return dict.fromkeys(shards, StoreUnavailable(str(error)))
        finally:
            for shard in shards:
                del self._making[shard]

    async def _make_shard_again(self, shard: int) -> StoreUnavailable | None:
        reasons, mended = self._reasons[shard], 0
        for piece in self._ledger.words(shard):
            named = list(sessions_in(piece))
            keys = {_user(shard, principal): None for _, principal in named}
            keys |= {_attributes(shard, session_id): None for session_id, _ in named if session_id}
            words = [word for each in piece for word in each]
            try:
                mended += await self._run_script(shard, AGAIN, list(keys), (shard, *words))
            except StoreUnavailable as error:
                return error
        if reasons == self._reasons[shard]:  # else there was another one in the midst of it
            self._behind.discard(shard)
        if mended:
            log.warning("redis: shard %d: %d ends, rotations and logins were lost, and are made again", shard, mended)
        return None

    async def _catch_up(self, shards: Iterable[int], now_ms: int) -> None:
        """Hear the log's last minute: what others did in it is for this process, too, to make
        again. What cannot be heard is not.
        """
        since = f"{now_ms - round(HEARD_S * 1000)}"

        async def catch_up(shard: int) -> None:
            command = ("XREVRANGE", _key(shard, "log"), "+", since, "COUNT", CATCH_UP_ENTRIES)
            try:
                self._ledger.hear(shard, (await self._ask(self._slots[shard], command))[::-1])
            except StoreUnavailable as error:
                if isinstance(error.__cause__, MovedError) and self._doorbell is None:  # at the start that is a mistake
                    raise

        await asyncio.gather(*map(catch_up, shards))

    # --- the doorbell

    async def _listen(self) -> None:
        """Subscribe, for as long as the store is open. Each time, whatever rang meanwhile was not
        heard: so ring for all.
        """
        failures = 0
        is_told = False  # that it does not work
        while True:
            try:
                server = await self._open_topology().server_of(self._slots[random.randrange(self.shards)])  # noqa: S311
                listener = await server.subscribe(DOORBELL)
                try:
                    failures, since_s = 0, time.monotonic()
                    self._ring_for(range(self.shards))
                    await self._hear(listener, f"redis {server.name}: the doorbell works again" if is_told else "")
                finally:
                    listener.close()
                    is_told = is_told and time.monotonic() < since_s + DOORBELL_HELD_S
            except (RedisError, OSError, StoreUnavailable):
                pass
            except Exception:
                log.exception("redis: the doorbell goes on after an unexpected error")
            failures += 1
            if not is_told:
                is_told = True
                log.warning("redis: the doorbell's connection is lost; revocations elsewhere are seen within the lease")
            await asyncio.sleep(min(0.05 * 2 ** min(failures, 10), DOORBELL_PAUSE_MAX_S) * random.uniform(0.5, 1))  # noqa: S311

    async def _hear(self, listener: Listener, news: str) -> None:
        """Ends when two pings in a row were not answered. `news` is for the log, if this lasts;
        empty: none.
        """
        saying = asyncio.get_running_loop().call_later(DOORBELL_HELD_S, log.warning, news) if news else None
        try:
            await self._hear_on(listener)
        finally:
            if saying:
                saying.cancel()

    async def _hear_on(self, listener: Listener) -> None:
        async for message in listener.published(DOORBELL_PING_S):
            said = DOORBELL_MESSAGE.fullmatch(message)
            if said and int(said[1]) < self.shards:
                self._ring_for((int(said[1]),), _changed(said))

    def _ring_for(self, shards: Iterable[int], changed: Changed | None = None) -> None:
        if self._ring:
            for shard in shards:
                self._ring(shard, changed)


def _time_s() -> float:
    """Goes on while the machine is suspended: the marks in the store do not wait for it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _key(shard: int, name: str) -> str:
    return f"{{ft:{shard:03}}}:{name}"


def _user(shard: int, principal: str) -> str:
    return _key(shard, f"user:{principal}")


def _attributes(shard: int, session_id: str) -> str:
    return _key(shard, f"attr:{session_id}")


def _always(_: Any) -> bool:
    return True


def _never(_: Any) -> bool:
    return False


def _is_confirmed(reply: Any) -> bool:
    return isinstance(reply, int) and reply >= 1


def _read_events(entries: Iterable[Any]) -> list[Event]:
    """`opened` is of no session; what else may be in there, nobody of ours has written."""
    events = []
    for entry, fields in entries:
        if fields[0] in (b"created", b"rotated", b"changed", b"revoked", b"expired"):
            more = dict(zip(fields[2::2], fields[3::2], strict=False))
            reason, successor_id = more.get(b"reason", b"").decode(), more.get(b"to", b"").decode()
            events.append(Event(_position(entry), fields[0].decode(), *_session_of(fields[1]), reason, successor_id))
    return events


def _record(session: StoredSession) -> bytes:
    details = json.dumps(dict(session.details), ensure_ascii=False).encode() if session.details else b""
    created_ms = divmod(session.created_ms, 1 << 32)
    return RECORD.pack(*created_ms, session.idle_timeout_s, session.absolute_lifetime_s) + details


def _session(principal: str, session_id: bytes, idle_deadline_ms: bytes, record: bytes) -> StoredSession:
    high, low, idle_timeout_s, absolute_lifetime_s = RECORD.unpack_from(record)
    details = json.loads(record[RECORD.size :]) if len(record) > RECORD.size else NO_DETAILS
    created_ms = high << 32 | low
    return StoredSession(
        session_id.decode(), principal, int(idle_deadline_ms), created_ms, idle_timeout_s, absolute_lifetime_s, details
    )


def _session_of(member: bytes) -> tuple[str, str]:
    """A session id has 22 characters."""
    text = member.decode(errors="replace")
    return text[:22], text[23:]


def _position(entry: bytes) -> Position:
    milliseconds, _, sequence = entry.partition(b"-")
    return int(milliseconds), int(sequence)


def _changed(said: re.Match[bytes]) -> Changed | None:
    return Changed(said[4].decode(), (int(said[2]), int(said[3]))) if said[4] else None


def _text(position: Position | None) -> str:
    return "" if position is None else f"{position[0]}-{position[1]}"

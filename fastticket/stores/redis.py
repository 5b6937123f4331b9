"""Sessions in Redis or Valkey, shared by any number of gateways: standalone, Sentinel or Cluster.

    ft:meta                    HASH    format, shards
    {ft:NNN}:live              ZSET    "<session id>.<principal>" -> idle deadline, ms
    {ft:NNN}:user:<principal>  HASH    session id -> record: created, idle timeout, absolute lifetime, details
    {ft:NNN}:attr:<session id> HASH    attribute -> value, and "" -> version, bytes; only if there ever were any
    {ft:NNN}:log               STREAM  opened | created | rotated | changed | revoked | expired -> "<session id>.<principal>"
    ft:doorbell                CHANNEL "<shard> <log id>": a session of that shard was revoked, has expired, or has another id now;
                                       "<shard> <log id> <session id>": that session's attributes were written

Rules of this file
- All of a shard is in one hash slot, and whatever is done in it is one script: atomic, whichever server runs it. Each begins with
  shard.lua, but exchange.lua, which is run too often to define what it does not use.
- Every script may be sent again: doing it twice is doing it once. So a redirection or a lost connection is answered by sending again.
- The log is the truth. The doorbell may be lost: it makes a gateway look at the log sooner.
- A server that answers in another's place may lack the last writes: its shards' next reply is a gap, and what this process revoked
  or rotated in the last minute is revoked or rotated again.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
import random
import re
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

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

from fastticket.errors import AttributesTooLarge, ConfigError, NotConfirmed, StoreUnavailable, TooManySessions
from fastticket.stores.base import (
    NO_DETAILS,
    Changed,
    Event,
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
from fastticket.stores.redis_topology import (
    Cluster,
    Command,
    OneServer,
    Server,
    close_all,
    make_topology,
    parse_url,
    slot_of,
)

log = logging.getLogger("fastticket.redis")

FORMAT = 2
META = "ft:meta"
DOORBELL = "ft:doorbell"
ATTEMPTS = 6  # while a Cluster moves slots or elects a primary
ATTEMPT_PAUSE_S = 0.01  # doubled each time
REISSUE_S = 60.0
REISSUE_MAX = 10_000
REISSUE_PAUSE_S = 0.1
REISSUED = "reissued"  # the reason in the log
DOORBELL_MESSAGE = re.compile(rb"(\d{1,9}) (\d{1,20})-(\d{1,20})(?: ([A-Za-z0-9_-]{22}))?")
DOORBELL_PING_S = 5.0
DOORBELL_PAUSE_MAX_S = 2.0
#: Answers that mean: the same, again, in a moment or elsewhere.
REDIRECTIONS = (MovedError, AskError, TryAgainError, ClusterDownError)


#: What a record begins with: created, ms, in 6 bytes (48 bits of 64); idle timeout and absolute lifetime, s. Details follow, as JSON.
RECORD = struct.Struct(">HIII")


class _Script:
    """A script of this folder. `EVALSHA` runs it where it is known, `EVAL` anywhere."""

    def __init__(self, name: str, *, begins_with: str = "") -> None:
        folder = files("fastticket.stores")
        flags, newline, body = folder.joinpath(f"{name}.lua").read_bytes().partition(b"\n")
        prelude = folder.joinpath(f"{begins_with}.lua").read_bytes() if begins_with else b""
        self._source = flags + newline + prelude + body
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    def by_sha(self, keys: Sequence[str], arguments: Sequence[str | int]) -> Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def by_source(self, command: Command) -> Command:
        return ("EVAL", self._source, *command[2:])


EXCHANGE = _Script("exchange")
CREATE, ROTATE, REVOKE, SESSIONS, SWEEP, READ, WRITE, TAIL = (
    _Script(name, begins_with="shard")
    for name in ("create", "rotate", "revoke", "sessions", "sweep", "read", "write", "tail")
)

_Call = tuple[_Script, Command]


class RedisStore:
    """See `fastticket.stores.base.Store`. `url` as `fastticket.open_store` takes it; files in it are relative to `base`."""

    touches_per_exchange = 400

    def __init__(self, url: str, base: Path) -> None:
        self._address = parse_url(url, base)
        self.shards = self._address.shards
        self._slots = [slot_of(_key(shard, "live")) for shard in range(self.shards)]
        self._topology: OneServer | Cluster | None = None
        self._serving: list[Server | None] = [None] * self.shards
        self._changed: set[int] = set()
        self._changes = 0
        self._revoked: deque[tuple[float, str, str]] = deque(maxlen=REISSUE_MAX)
        self._rotated: deque[tuple[float, str, StoredSession]] = deque(maxlen=REISSUE_MAX)
        self._ring: Ring | None = None
        self._doorbell: asyncio.Task[None] | None = None
        self._reissues: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect, check version, eviction and layout, and listen to the doorbell."""
        self._topology = make_topology(self._address, self._on_change)
        try:
            await (await self._topology.server_of(slot_of(META))).check()
            await self._check_meta()
        except BaseException as error:
            await self.aclose()
            if isinstance(error.__cause__, AuthenticationError):
                raise ConfigError(str(error)) from error
            raise
        self._doorbell = asyncio.create_task(self._listen(), name="fastticket-doorbell")

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        topology, self._topology = self._topology, None
        tasks = [task for task in (self._doorbell, *self._reissues) if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if topology:
            await close_all(topology.servers.values())
        await asyncio.sleep(0)  # a connection that was cut off closes its socket in the loop's next turn

    @property
    def servers(self) -> Mapping[str, str]:
        """The servers that are known, and the state of their breakers: closed, open or half-open."""
        return {name: server.breaker.state for name, server in self._topology.servers.items()} if self._topology else {}

    async def time_ms(self) -> int:
        """`TIME` of the server that has shard 0: the same one for every gateway."""
        reply = await self._ask(self._slots[0], ("TIME",))
        return int(reply[0]) * 1000 + int(reply[1]) // 1000

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """One script: live, user, log; doorbell for who is evicted."""
        shard = shard_of(session.principal, self.shards)
        arguments = (shard, *session[:3], _record(session), sessions_max, int(evicts))
        changes = self._changes
        gone = await self._run_one(shard, CREATE, (_user(shard, session.principal),), arguments)
        if gone is None:
            raise TooManySessions(sessions_max)
        ids = [session_id.decode() for session_id in gone]
        self._remember_revoked(session.principal, ids, changes)
        return ids

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """One script: live, user, attributes, log, doorbell."""
        changes = self._changes
        try:
            is_done = await self._run_rotate(session_id, successor)
        except NotConfirmed:
            self._remember_rotated(session_id, successor, changes)
            raise
        if is_done:
            self._remember_rotated(session_id, successor, changes)
        return is_done

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """One script a shard, one pipeline a server."""
        changed_before = self._changed & requests.keys()
        answers = await self._run({shard: self._exchange_call(shard, request) for shard, request in requests.items()})
        replies: dict[int, Reply | StoreUnavailable] = {}
        for shard, answer in answers.items():
            if isinstance(answer, StoreUnavailable):
                replies[shard] = answer
                continue
            reply = _read_exchange(answer)
            if shard in self._changed:
                reply = reply._replace(gap=True)
            replies[shard] = reply
        # Only what had changed before this was sent: an answer that was under way may still be the old server's.
        self._changed -= {shard for shard in changed_before if isinstance(replies[shard], Reply)}
        return replies

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """One script: live, user, attributes, log, doorbell."""
        return bool(await self._revoke(principal, (session_id,), reason))

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """One script for all of them."""
        return await self._revoke(principal, (), reason, keep)

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """By the user's index."""
        shard = shard_of(principal, self.shards)
        found = await self._run_one(shard, SESSIONS, (_user(shard, principal),), (principal,), lasts=False)
        sessions = [_session(principal, *row) for row in zip(found[::3], found[1::3], found[2::3], strict=True)]
        return sorted(sessions, key=lambda session: session.idle_deadline_ms)

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """`HGETALL`."""
        shard = shard_of(principal, self.shards)
        keys = (_attributes(shard, session_id),)
        found = await self._run_one(shard, READ, keys, (session_id, principal), lasts=False)
        if found is None:
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

    async def _revoke(self, principal: str, session_ids: Sequence[str], reason: str, keep: str = "") -> list[str]:
        changes = self._changes
        ended = await self._run_revoke(principal, session_ids, reason, keep)
        self._remember_revoked(principal, ended or session_ids, changes)
        return ended

    async def _run_revoke(
        self, principal: str, session_ids: Sequence[str], reason: str = REISSUED, keep: str = ""
    ) -> list[str]:
        shard = shard_of(principal, self.shards)
        arguments = (shard, principal, reason, keep, *session_ids)
        answer = await self._run_one(shard, REVOKE, (_user(shard, principal),), arguments)
        return [session_id.decode() for session_id in answer]

    async def _run_rotate(self, session_id: str, successor: StoredSession) -> bool:
        shard, principal = shard_of(successor.principal, self.shards), successor.principal
        bare = _record(successor._replace(details=NO_DETAILS))
        arguments = (shard, principal, session_id, successor.id, successor.idle_deadline_ms, bare)
        keys = (_user(shard, principal), _attributes(shard, session_id), _attributes(shard, successor.id))
        return bool(await self._run_one(shard, ROTATE, keys, arguments))

    def _remember_revoked(self, principal: str, session_ids: Iterable[str], changes: int) -> None:
        now_s = asyncio.get_running_loop().time()
        self._revoked.extend((now_s, session_id, principal) for session_id in session_ids)
        self._reissue_if_changed(principal, changes)

    def _remember_rotated(self, session_id: str, successor: StoredSession, changes: int) -> None:
        self._rotated.append((asyncio.get_running_loop().time(), session_id, successor))
        self._reissue_if_changed(successor.principal, changes)

    def _reissue_if_changed(self, principal: str, changes: int) -> None:
        """Another server came while the old one's answer was under way, and did not see this in the list."""
        if changes != self._changes:
            self._start_reissue({shard_of(principal, self.shards)})

    # --- sending, and sending again

    async def _run_one(
        self, shard: int, script: _Script, keys: Sequence[str], arguments: Sequence[Any], *, lasts: bool = True
    ) -> Any:
        """`keys`: beside live and log."""
        answers = await self._run({shard: self._call(shard, script, keys, arguments)}, lasts=lasts)
        if isinstance(answers[shard], StoreUnavailable):
            raise answers[shard]
        return answers[shard]

    async def _run(self, calls: Mapping[int, _Call], *, lasts: bool = False) -> dict[int, Any]:
        """A script in each of some shards; what it returned, or StoreUnavailable. `lasts`: wait for a replica if so configured."""
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
                await self._open_topology().moved()
        for shard in left:
            answers[shard] = StoreUnavailable(f"redis: shard {shard} is moving: {answers[shard]}")
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
        """One pipeline, by EVALSHA, and another one by EVAL for those whose script the server does not know."""
        try:
            answers = await self._pipeline(
                server, asking, {shard: command for shard, (_, command) in calls.items()}, lasts
            )
            unknown = [shard for shard, answer in answers.items() if isinstance(answer, NoScriptError)]
            if unknown:
                sources = {shard: calls[shard][0].by_source(calls[shard][1]) for shard in unknown}
                answers |= await self._pipeline(server, asking, sources, lasts)
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
        if waits:
            lines.append(("WAIT", 1, int(self._address.timeout_s * 500)))
        replies = await server.call(lines)
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
            except StoreUnavailable:
                await self._open_topology().moved()
                raise
            if isinstance(reply, MovedError):
                await self._open_topology().moved()
            elif not isinstance(reply, REDIRECTIONS):
                break
        if isinstance(reply, ResponseError):
            raise StoreUnavailable(f"redis {server.name}: {str(reply)[:200]}")
        return reply

    def _open_topology(self) -> OneServer | Cluster:
        if self._topology is None:
            raise StoreUnavailable("the redis store is not open")
        return self._topology

    async def _check_meta(self) -> None:
        for name, mine in (("format", FORMAT), ("shards", self.shards)):
            await self._ask(slot_of(META), ("HSETNX", META, name, mine))
            theirs = int(await self._ask(slot_of(META), ("HGET", META, name)))
            if theirs != mine:
                hint = f"say ?shards={theirs} in the URL" if name == "shards" else "use another database"
                raise ConfigError(f"redis: made with {name} {theirs}, not {mine}; {hint}")

    # --- another server than before

    def _on_change(self, server: Server, shards: Iterable[int] | None = None) -> None:
        """The shards of a server, or those named, are served by another one now."""
        if shards is None:
            shards = [shard for shard, serving in enumerate(self._serving) if serving is server]
        self._changed |= set(shards)
        self._changes += 1
        self._start_reissue(set(shards))

    def _start_reissue(self, shards: set[int]) -> None:
        if self._topology is None:
            return
        task = asyncio.create_task(self._reissue(shards), name="fastticket-reissue")
        self._reissues.add(task)
        task.add_done_callback(self._reissues.discard)

    async def _reissue(self, shards: set[int]) -> None:
        """Do again what ended a ticket in the last minute: the new server may not have heard of it.

        Rotations first: who had one goes on under the new id, even if the old one comes back with this server.
        """
        now_s = asyncio.get_running_loop().time()
        since_s, give_up_at_s = now_s - REISSUE_S, now_s + REISSUE_S
        rotations = [
            (session_id, successor)
            for at_s, session_id, successor in self._rotated
            if at_s >= since_s and shard_of(successor.principal, self.shards) in shards
        ]
        recent: dict[str, list[str]] = {}
        for at_s, session_id, principal in self._revoked:
            if at_s >= since_s and shard_of(principal, self.shards) in shards:
                recent.setdefault(principal, []).append(session_id)
        try:
            for session_id, successor in rotations:
                await self._persist(functools.partial(self._run_rotate, session_id, successor), give_up_at_s)
            for principal, session_ids in recent.items():
                await self._persist(functools.partial(self._run_revoke, principal, session_ids), give_up_at_s)
        except StoreUnavailable:
            log.error("revocations of the last minute could not be sent again: a failover may have lost some")
            return
        if rotations or recent:
            log.warning(
                "sent again, of the last minute: revocations of %d users, %d rotations", len(recent), len(rotations)
            )

    @staticmethod
    async def _persist(send: Callable[[], Awaitable[Any]], give_up_at_s: float) -> None:
        """Servers that change roles do so more than once."""
        while True:
            try:
                await send()
                return
            except StoreUnavailable:
                if asyncio.get_running_loop().time() > give_up_at_s:
                    raise
                await asyncio.sleep(REISSUE_PAUSE_S)

    # --- the doorbell

    async def _listen(self) -> None:
        """Subscribe, for as long as the store is open. Each time, whatever rang meanwhile was not heard: so ring for all."""
        failures = 0
        while True:
            try:
                server = await self._open_topology().server_of(self._slots[random.randrange(self.shards)])  # noqa: S311
                connection = await server.subscribe(DOORBELL)
                try:
                    if failures:
                        log.warning("redis %s: the doorbell works again", server.name)
                    failures = 0
                    self._ring_for(range(self.shards))
                    await self._hear(connection)
                finally:
                    await server.release(connection)
            except (RedisError, OSError, TimeoutError, StoreUnavailable):
                pass
            except Exception:
                log.exception("redis: the doorbell goes on after an unexpected error")
            failures += 1
            if failures == 1:
                log.warning("redis: the doorbell's connection is lost; revocations elsewhere are seen within the lease")
            await asyncio.sleep(min(0.05 * 2 ** min(failures, 10), DOORBELL_PAUSE_MAX_S) * random.uniform(0.5, 1))  # noqa: S311

    async def _hear(self, connection: Any) -> None:
        """Ends when two pings in a row were not answered."""
        unanswered = 0
        while unanswered < 2:
            message = await connection.read_response(timeout=DOORBELL_PING_S)
            if message is None:
                unanswered += 1
                await connection.send_command("PING")
                continue
            unanswered = 0
            if message[0] == b"message":
                said = DOORBELL_MESSAGE.fullmatch(message[2])
                if said and int(said[1]) < self.shards:
                    self._ring_for((int(said[1]),), _changed(said))

    def _ring_for(self, shards: Iterable[int], changed: Changed | None = None) -> None:
        if self._ring:
            for shard in shards:
                self._ring(shard, changed)


def _key(shard: int, name: str) -> str:
    return f"{{ft:{shard:03}}}:{name}"


def _user(shard: int, principal: str) -> str:
    return _key(shard, f"user:{principal}")


def _attributes(shard: int, session_id: str) -> str:
    return _key(shard, f"attr:{session_id}")


def _is_confirmed(reply: Any) -> bool:
    return isinstance(reply, int) and reply >= 1


def _read_exchange(answer: Sequence[Any]) -> Reply:
    last, lost, entries, deadlines = answer
    deadlines_ms = [score if score is None else int(score) for score in deadlines]
    return Reply(_position(last), _read_events(entries), bool(lost), deadlines_ms)


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

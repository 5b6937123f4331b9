"""Two stores as one, while a fleet moves from one to the other: every change goes to both.

    the truth    what is read, and what says whether a session lives: of this process
    the mirror   has the same sessions, as far as they were copied; it is the truth of the processes
                 that have been switched already, or not yet

Rules of this file
- A change is acknowledged when both stores have it. With one of them away, changes are
  StoreUnavailable; what is read goes on.
- An end is made in the mirror first. If this process dies in between, the session lives on in the
  truth, as if nothing had been asked for. The other way round it would come back to life with the
  switch. (It leaves a mark there, too: what was read of the session before is not restored.)
- A beginning is made in the truth first, for the same reason: what the mirror has and the truth has
  not was ended.
- A change that has begun is finished, whoever stops waiting for it.
- Touches of the mirror are on their way for a moment longer: they wait here, one a session, until
  the mirror has taken them. They never hold up the truth.

docs/decisions/0053-moving-stores.md says why, and what the bounds are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from fastticket.errors import ConfigError, IssuedTooEarly, NotConfirmed, StoreUnavailable
from fastticket.stores.contract import (
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
    Store,
    StoredAttributes,
    StoredSession,
    Tail,
    Touch,
    Written,
    shard_of,
)
from fastticket.tasks import end

log = logging.getLogger("fastticket.mirror")

T = TypeVar("T")

OPEN_PAUSE_S = 0.5
OPEN_PATIENCE_S = 1.0  # at the start, for a mirror that fits or does not
TOUCH_PAUSE_S = 0.5  # after a failure
TOUCHES_MAX = 200_000  # sessions whose touches wait; the oldest go first
CLOSE_PATIENCE_S = 2.0  # for the touches that are left
COPY_ATTEMPTS = 5  # of one session's attributes, while others write them
ANY_SIZE = 1 << 40  # of attributes: the truth has judged them


class MirroredStore:
    """See `fastticket.stores.contract.Store`. Neither store is open yet; this one's `open` and
    `aclose` are theirs, too.
    """

    def __init__(self, truth: Store, mirror: Store) -> None:
        self.shards = truth.shards
        self.touches_per_exchange = truth.touches_per_exchange
        self._truth = truth
        self._mirror = mirror
        self._absence = "it was not opened yet"  # why the mirror cannot be written; "": it can
        self._misfit: ConfigError | None = None  # it can never be written
        self._is_open = False  # `open` has returned, or raised
        self._trouble = ""  # of the last touches
        self._touches: dict[tuple[str, str], int] = {}
        self._has_touches = asyncio.Event()
        self._writing = 0  # touches that are on their way
        self._turn = asyncio.Lock()
        self._positions: dict[int, Position] = {}  # in the mirror's logs
        self._keeper: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[Any]] = set()

    @property
    def doubt_ms(self) -> int:
        """The truth's, as all that is read."""
        return self._truth.doubt_ms

    @property
    def servers(self) -> Mapping[str, str]:
        """The truth's: it says whether the store is away."""
        return self._truth.servers

    @property
    def is_replaced(self) -> bool:
        """The truth."""
        return self._truth.is_replaced

    @property
    def mirroring(self) -> Mapping[str, Any]:
        """How the mirror is: `touches_waiting`; `changes_waiting`, which have begun and are not in
        both stores; `trouble`: why it could not be written last, "" if it could; its `servers`.
        """
        return {
            "touches_waiting": self.touches_waiting,
            "changes_waiting": len(self._changes),
            "trouble": self._absence or self._trouble,
            "servers": dict(self._mirror.servers),
        }

    @property
    def touches_waiting(self) -> int:
        """Sessions whose last use the mirror may not have yet."""
        return len(self._touches) + self._writing

    async def open(self) -> None:
        """Open the truth. A mirror that is away is opened as soon as it comes; ConfigError: it does
        not fit.
        """
        await self._truth.open()
        self._keeper = asyncio.create_task(self._keep_mirror(), name="fastticket-mirror")
        give_up_s = asyncio.get_running_loop().time() + OPEN_PATIENCE_S
        while self._absence and not self._keeper.done() and asyncio.get_running_loop().time() < give_up_s:
            await asyncio.wait([self._keeper], timeout=0.01)
        self._is_open = True
        if self._misfit:
            raise self._misfit
        if self._absence:
            log.error("the mirror is away: %s; logins and logouts have to wait for it", self._absence)

    async def settle(self) -> None:
        """Both."""
        await asyncio.gather(self._truth.settle(), *([] if self._absence else [self._mirror.settle()]))

    async def aclose(self) -> None:
        """Write the touches that are left, for CLOSE_PATIENCE_S; then close both. Idempotent."""
        if self._changes:
            await asyncio.wait(self._changes)
        if self.touches_waiting and not self._absence:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(CLOSE_PATIENCE_S):
                    while self.touches_waiting:
                        await self._write_touches()
        await end(self._keeper)
        self._absence = "it is closed"
        await self._mirror.aclose()
        await self._truth.aclose()

    async def join(self, fleet: Fleet) -> Fleet | None:
        """The truth's. The mirror hears of this fleet when that has it as its truth."""
        return await self._truth.join(fleet)

    async def time_ms(self) -> int:
        """The truth's."""
        return await self._truth.time_ms()

    async def uptime_ms(self) -> int:
        """The truth's."""
        return await self._truth.uptime_ms()

    # --- changes

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """In the truth, then in the mirror, which restores it: an end that it knows bars it."""
        return await self._whole(self._create(session, sessions_max, evicts))

    async def _create(self, session: StoredSession, sessions_max: int, evicts: bool) -> Sequence[str]:
        gone = await self._truth.create(session, sessions_max=sessions_max, evicts=evicts)
        try:
            (outcome,) = await self._mirror.restore([RestoredSession(session)])
            for session_id in gone:
                await self._mirror.revoke(session_id, session.principal, "evicted")
        except StoreUnavailable:
            with contextlib.suppress(StoreUnavailable):  # nobody has its ticket
                await self._truth.revoke(session.id, session.principal)
            raise
        if outcome == "ended":  # with all of the principal's, by the mirror's clock
            await self._truth.revoke(session.id, session.principal)
            raise IssuedTooEarly(max(session.created_ms, await self._mirror.time_ms()))
        return gone

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """In the truth, then in the mirror; where that has no such session, its successor is
        copied.
        """
        return await self._whole(self._rotate(session_id, successor))

    async def _rotate(self, session_id: str, successor: StoredSession) -> bool:
        await self._mirror.time_ms()  # it answers: else the user's ticket would be over, and he has no other
        unconfirmed: NotConfirmed | None = None
        try:
            if not await self._truth.rotate(session_id, successor):
                return False
        except NotConfirmed as error:
            unconfirmed = error
        if not await self._mirror.rotate(session_id, successor):
            await self._mirror.revoke(session_id, successor.principal, "revoked")  # a mark: it is being copied, perhaps
            for session in await self._truth.sessions(successor.principal):
                if session.id == successor.id:
                    await copy_session(self._truth, self._mirror, session)
        if unconfirmed:
            raise unconfirmed
        return True

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """In the mirror, then in the truth."""
        return await self._whole(self._revoke(session_id, principal, reason))

    async def _revoke(self, session_id: str, principal: str, reason: str) -> bool:
        await self._mirror.revoke(session_id, principal, reason)
        return await self._truth.revoke(session_id, principal, reason)

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """In the mirror, then in the truth."""
        return await self._whole(self._revoke_all(principal, keep, reason))

    async def _revoke_all(self, principal: str, keep: str, reason: str) -> Sequence[str]:
        mirrored = await self._mirror.revoke_all(principal, keep=keep, reason=reason)
        ended = await self._truth.revoke_all(principal, keep=keep, reason=reason)
        if keep:  # each has a mark of its own: one that is being copied needs it
            for session_id in set(ended) - set(mirrored):
                await self._mirror.revoke(session_id, principal, reason)
        return ended

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """In the truth, then in the mirror, if that has the session."""
        return await self._whole(self._write_attributes(session_id, principal, values, removed, bytes_max))

    async def _write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], bytes_max: int
    ) -> Written | None:
        written = await self._truth.write_attributes(session_id, principal, values, removed, bytes_max=bytes_max)
        if written:
            await self._mirror.write_attributes(session_id, principal, values, removed, bytes_max=ANY_SIZE)
        return written

    async def restore(self, sessions: Sequence[RestoredSession]) -> Sequence[Restored]:
        """In the truth, then in the mirror; what one of them says has ended lives in neither."""
        return await self._whole(self._restore(sessions))

    async def _restore(self, sessions: Sequence[RestoredSession]) -> Sequence[Restored]:
        outcomes = list(await self._truth.restore(sessions))
        living = [number for number, outcome in enumerate(outcomes) if outcome in ("created", "exists")]
        mirrored = await self._mirror.restore([sessions[number] for number in living])
        for number, outcome in zip(living, mirrored, strict=True):
            if outcome == "ended" and outcomes[number] == "created":
                await self._truth.revoke(*sessions[number].session[:2], "revoked")
                outcomes[number] = "ended"
        return outcomes

    async def bar(self, bars: Sequence[Bar]) -> None:
        """In the mirror, then in the truth."""
        await self._whole(self._bar(bars))

    async def _bar(self, bars: Sequence[Bar]) -> None:
        await self._mirror.bar(bars)
        await self._truth.bar(bars)

    async def _whole(self, change: Coroutine[Any, Any, T]) -> T:
        """Finish it, even if nobody waits any more."""
        if self._absence:
            change.close()
            raise StoreUnavailable(f"the mirror: {self._absence}; changes need both stores")
        task = asyncio.create_task(change, name="fastticket-change")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    # --- what is read

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """Of the truth. The mirror gets the touches a moment later."""
        for request in requests.values():
            for touch in request.touches:
                self._note_touch(touch)
        return await self._truth.exchange(requests)

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """The truth's."""
        return await self._truth.sessions(principal)

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """The truth's."""
        return await self._truth.read_attributes(session_id, principal)

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """Of the truth. A touch may be on its way to the mirror: whose truth that is sweeps it."""
        return await self._truth.sweep(dead_before_ms, sessions_max)

    async def count(self) -> int:
        """The truth's."""
        return await self._truth.count()

    async def scan(self, cursor: str, count: int) -> tuple[str, Sequence[StoredSession]]:
        """The truth's."""
        return await self._truth.scan(cursor, count)

    async def announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        """Into the truth's register."""
        return await self._truth.announce(gateway_id, card, lease_ms)

    async def gateways(self) -> Mapping[str, bytes]:
        """The truth's."""
        return await self._truth.gateways()

    async def note_loss(self, heard_ms: Mapping[int, int]) -> Mapping[int, Loss | StoreUnavailable]:
        """The truth's. What is given back to it goes to both, as every change does."""
        return await self._truth.note_loss(heard_ms)

    async def bars(self, shard: int, since_ms: int, bars_max: int) -> Sequence[Bar]:
        """The truth's."""
        return await self._truth.bars(shard, since_ms, bars_max)

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """The truth's."""
        return await self._truth.history(shard, entries_max)

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """The truth's."""
        return await self._truth.tails(since, entries_max)

    def on_doorbell(self, ring: Ring) -> None:
        """The truth's."""
        self._truth.on_doorbell(ring)

    # --- the mirror, in the background

    async def _keep_mirror(self) -> None:
        """Open it, then write its touches. One that does not fit is left alone: `open` raises that,
        or the log has it if it comes later.
        """
        while self._absence:
            try:
                await self._mirror.open()
                self._absence = ""
            except StoreUnavailable as error:
                self._absence = str(error)
                await self._mirror.aclose()
                await asyncio.sleep(OPEN_PAUSE_S)
            except ConfigError as error:
                self._absence = str(error)
                self._misfit = ConfigError(*(f"mirror_url: {problem}" for problem in error.problems))
                await self._mirror.aclose()
                if self._is_open:
                    log.error("%s", self._misfit)
                return
        while True:
            await self._has_touches.wait()
            try:
                await self._write_touches()
                self._trouble = ""
            except StoreUnavailable as error:
                self._trouble = str(error)
                log.warning("%s; %d touches wait for the mirror", error, len(self._touches))
                await asyncio.sleep(TOUCH_PAUSE_S)

    def _note_touch(self, touch: Touch) -> None:
        session_id, principal, deadline_ms = touch
        key = (session_id, principal)
        self._touches[key] = max(deadline_ms, self._touches.pop(key, 0))
        if len(self._touches) > TOUCHES_MAX:
            del self._touches[next(iter(self._touches))]
        self._has_touches.set()

    async def _write_touches(self) -> None:
        """Some of those that wait. StoreUnavailable: what failed waits again."""
        async with self._turn:
            try:
                await self._write_some()
            finally:
                self._writing = 0

    async def _write_some(self) -> None:
        taken: dict[int, list[Touch]] = {}
        for (session_id, principal), deadline_ms in list(self._touches.items())[: self._mirror.touches_per_exchange]:
            del self._touches[session_id, principal]
            taken.setdefault(shard_of(principal, self._mirror.shards), []).append((session_id, principal, deadline_ms))
        if not self._touches:
            self._has_touches.clear()
        self._writing = sum(map(len, taken.values()))
        requests = {shard: Request(self._positions.get(shard), _Touches(touches)) for shard, touches in taken.items()}
        failed: StoreUnavailable | None = None
        for shard, reply in (await self._mirror.exchange(requests)).items():
            if isinstance(reply, StoreUnavailable):
                failed = reply
                for touch in taken[shard]:
                    self._note_touch(touch)
            else:
                self._positions[shard] = reply.position
        if failed:
            raise failed


class _Touches:
    """As `fastticket.stores.contract.Touches`."""

    def __init__(self, touches: Sequence[Touch]) -> None:
        self._touches = touches

    @property
    def packed(self) -> bytes:
        words = (
            word
            for session_id, principal, deadline_ms in self._touches
            for word in (b"%d" % deadline_ms, f"{session_id}.{principal}".encode())
        )
        return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    def __len__(self) -> int:
        return len(self._touches)

    def __iter__(self) -> Iterator[Touch]:
        return iter(self._touches)


async def copy_session(truth: Store, mirror: Store, session: StoredSession) -> Restored:
    """Bring one session of the truth into the mirror, with its attributes as they are now; `exists`
    if both were the same already, `created` if something had to be written. StoreUnavailable.

    Others may write the attributes meanwhile, in the truth first: until the version stays.
    """
    outcome: Restored = "exists"
    for _ in range(COPY_ATTEMPTS):
        found = await truth.read_attributes(*session[:2])
        if found is None:
            return "ended"
        (made,) = await mirror.restore([RestoredSession(session, found.values)])
        if made not in ("created", "exists"):
            return made
        written = made == "exists" and await _make_equal(mirror, session, found)
        outcome = "created" if made == "created" or written else outcome
        now = await truth.read_attributes(*session[:2])
        if now is None or now.version == found.version:
            return outcome
    raise StoreUnavailable("the attributes of a session change faster than they can be copied")


async def _make_equal(mirror: Store, session: StoredSession, wanted: StoredAttributes) -> bool:
    """Whether the mirror had other attributes."""
    held = await mirror.read_attributes(*session[:2])
    if held is None or dict(held.values) == dict(wanted.values):
        return False
    changed = {name: value for name, value in wanted.values.items() if held.values.get(name) != value}
    removed = [name for name in held.values if name not in wanted.values]
    await mirror.write_attributes(*session[:2], changed, removed, bytes_max=ANY_SIZE)
    return True

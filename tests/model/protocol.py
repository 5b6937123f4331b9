"""The protocol as states and moves: every gateway, message, server and clock in one hashable value,
and what may happen next.

The decisions are the product's own (`fastticket.sessions.coherence`), the store's are those of
`model.store`; both hang in `Rules`, where `model.faults` exchanges them.

Rules of this file
- Time is coarse: NOW is the present in every state, and a tick moves everything else into the past.
  So states that differ only in the date are one state. A tick stands for TICK_MS where the product
  wants ms.
- A gateway that runs does what is due before time goes on. One that is stalled does nothing; what
  arrives for it waits.
- Whether a message is lost is settled when it is sent. One that is not lost is answered before it
  times out: a store that answers.
- What clients ask for through a gateway (logins, logouts, rotations) is one move, from the request
  to its acknowledgement. A request can leave a copy in the network that is done again at any time,
  or be done without an acknowledgement and asked for again.
- Fields under "judged by" are no part of the protocol: `model.promises` judges by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fastticket.errors import Verdict
from fastticket.sessions import coherence
from model import ledger, promises, store
from model.scopes import NEVER, NOW, PAST, TICK_MS, Scope
from model.store import Answer, Entry, Operation, Record, Shard

STRIDE = 8  # positions in the log that one script may use
NOWHERE = -9  # a position that is in no log: the next answer is a gap
NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Rules:
    """The rules that gateways and store decide by; the right ones unless a fault is put back."""

    granted_until_ms: Callable[..., int] = coherence.granted_until_ms
    credited_until_ms: Callable[..., int] = coherence.credited_until_ms
    read_tail: Callable[..., coherence.TailEffect] = coherence.read_tail
    landing: Callable[..., coherence.Landing] = coherence.landing
    clock_step: Callable[..., coherence.ClockStep] = coherence.clock_step
    create: Callable[..., tuple[Shard, bool]] = store.create
    rotate: Callable[..., tuple[Shard, bool]] = store.rotate
    revoke: Callable[..., tuple[Shard, bool]] = store.revoke
    revoke_all: Callable[..., tuple[Shard, tuple[int, ...]]] = store.revoke_all
    again: Callable[..., Shard] = store.again
    touch: Callable[..., Shard] = store.touch
    watches: bool = True  # the log of a shard with entries held is read, used or not
    repairs: bool = True  # what is held is looked up again at once after a gap
    repair_checks_epoch: bool = True  # ... and is confirmed only if nothing was forgotten meanwhile
    reads_log: bool = True  # at start, into the ledger
    confirms: bool = True  # asks who the primary is
    counts_confirmation: bool = True  # the lease is no longer than one from when that was asked
    makes_again_first: bool = True  # before any answer of another primary is believed
    uncached_needs_lease: bool = True
    asks_again_if_idle: bool = True  # a load whose deadline passed while it was under way
    believes_old_failures: bool = False  # of questions older than one that was answered
    loads_expired: bool = True  # what is past its deadline here may have been used elsewhere
    holds_what_it_makes: bool = True  # a login or rotation, in the near cache of its gateway
    holds_beside_others: bool = True  # ... if it holds others, whose lease is therefore renewed
    login_grants_lease: bool = False  # ... as if its answer had said what else became of the shard's sessions
    everywhere_max: int | None = None  # a logout everywhere is remembered as a list of so many ends


class Message(NamedTuple):
    """An exchange under way, seen from its gateway, which has at most one of a kind with the same
    `wanted`.
    """

    kind: str  #: flush, load or repair
    wanted: tuple[int, ...]
    to: int
    sent_at: int
    since: int | None
    touches: tuple[tuple[int, int], ...]
    is_lost: bool
    answer: Answer | None = None  #: once the server has done it
    is_old: bool = False  #: what is held was forgotten since
    is_poisoned: bool = False
    ended: frozenset[int] = NOBODY  #: what ended since


class Held(NamedTuple):
    """An entry of a near cache."""

    deadline: int
    confirmed: bool = True  #: its epoch is the present one
    dirty: int = 0  #: the deadline to write; 0: none


class Gateway(NamedTuple):
    held: tuple[Held | None, ...]
    at: int = 0  #: the server that it speaks to
    position: int | None = 0
    lease: int = NOW
    answered_at: int = PAST  #: when the latest question was sent that renewed the lease
    confirmed_at: int = NOW
    flushed_at: int = PAST
    outage: int | None = None
    runs: bool = True
    stalled_at: int = PAST
    beat_at: int = NOW
    trusts: bool = True  #: it has made again what it must on this server
    repair_due: bool = False
    offset: int = 0  #: to the store's clock, in ticks
    ledger: tuple[Operation, ...] = ()
    pending: tuple | None = None  #: a request without an acknowledgement, to be asked for again
    out: tuple[Message, ...] = ()
    # judged by:
    heard: frozenset[int] = NOBODY  #: sessions that it knows to be over
    births: frozenset[int] = NOBODY  #: sessions that it must make again if they are lost
    dark_since: int = PAST  #: since when messages were lost, one after the other
    dark_last: int = PAST  #: when the latest of them was sent
    is_dark: bool = False
    calm: bool | None = (
        True  #: heard since it last had to forget; None: not, and something was lost since, so only a repair will do
    )
    awake: bool = True  #: heard since it last stalled
    owed: frozenset[int] = NOBODY  #: what it must admit while this outage lasts


class State(NamedTuple):
    shards: tuple[Shard, ...]
    alive: tuple[bool, ...]
    primary: int
    snapshot: Shard | None
    gateways: tuple[Gateway, ...]
    strays: tuple[tuple, ...]  #: (server, name of a script, arguments): done at any time
    at: int  #: the next position in a log
    clock: int  #: how far the store's clock was moved, in ticks
    left: tuple[int, ...]  #: of each of `BUDGETS`, how often it may still happen
    # judged by:
    born: tuple[Record | None, ...]
    over: tuple[int | None, ...]  #: since when the end of a session is known to the primary, if it was acknowledged
    doomed: frozenset[int]  #: whose end somebody asked for
    used: tuple[int, ...]  #: when, of each session, with the deadline that this gives it


class Step(NamedTuple):
    """A move: what it is called, where it leads, and a promise that it broke."""

    label: tuple
    state: State
    broken: str = ""


BUDGETS = (
    "logins",
    "logouts",
    "everywheres",
    "rotations",
    "loads",
    "losses",
    "stalls",
    "restarts",
    "failovers",
    "trims",
    "steps",
    "jumps",
    "strays",
    "retries",
    "uses",
)
INDEX = {name: index for index, name in enumerate(BUDGETS)}


def initial(scope: Scope) -> State:
    """Sessions `scope.sessions` are there, and held by each gateway that has a cache; leases are
    fresh.
    """
    deadline = NOW + scope.idle + 1 if scope.idle else NEVER
    shard, at = Shard(), STRIDE
    born: list[Record | None] = [None] * len(scope.principals)
    for sid in range(scope.sessions):
        born[sid] = Record(scope.principals[sid], at, deadline)
        shard, _ = store.create(shard, at, sid, born[sid])
        at += STRIDE
    shard = store.trim(shard)
    entry = Held(deadline)
    held = tuple(entry if sid < min(scope.sessions, scope.holds) else None for sid in range(len(scope.principals)))
    if scope.is_behind:
        shard = shard._replace(log=(*shard.log, Entry(at, "opened")))
        at += STRIDE
    gateway = Gateway(held, position=shard.log[0].position, lease=NOW + scope.lease, answered_at=NOW, flushed_at=NOW)
    plain = Gateway((None,) * len(held), position=shard.log[-1].position, lease=NOW + scope.lease, answered_at=NOW)
    gateways = tuple(gateway if index < scope.caches else plain for index in range(scope.gateways))
    return State(
        shards=(shard,),
        alive=(True,),
        primary=0,
        snapshot=None if scope.has("snapshots") else shard,
        gateways=gateways,
        strays=(),
        at=at,
        clock=0,
        left=tuple(scope.allowed(name) for name in BUDGETS),
        born=tuple(born),
        over=(None,) * len(held),
        doomed=NOBODY,
        used=(NOW,) * len(held) if scope.idle else (),
    )


class Protocol:
    """The steps that may happen next, in a scope and by rules."""

    def __init__(self, scope: Scope, rules: Rules | None = None) -> None:
        self.scope = scope
        self.rules = rules or Rules()

    def steps(self, state: State) -> Iterator[Step]:
        """Every move from a state."""
        for g, gateway in enumerate(state.gateways):
            if not gateway.runs:
                yield Step(("wake", g), _put(state, g, self._woken(gateway)))
            elif _is_repair_due(gateway):  # at once: nothing else comes first
                yield from self._ask(state, g, "repair", tuple(sid for sid, entry in enumerate(gateway.held) if entry))
            else:
                yield from self._gateway_steps(state, g, gateway)
            yield from self._servers_steps(state, g, gateway)
        yield from self._stray_steps(state)
        yield from self._fault_steps(state)
        yield from self._tick(state)

    def key(self, state: State) -> int:
        """One value for all states that differ only in the order of like gateways."""
        if self.scope.caches:
            return hash(state)
        return hash(state._replace(gateways=tuple(sorted(map(hash, state.gateways)))))

    # --- a gateway that runs

    def _gateway_steps(self, state: State, g: int, gateway: Gateway) -> Iterator[Step]:
        for message in gateway.out:
            yield from self._message_steps(state, g, message)
        if gateway.flushed_at < NOW and self._flushes(state, g):
            yield from self._flush(state, g)
        if gateway.trusts:
            yield from self._loads(state, g, gateway)
            yield from self._requests(state, g, gateway)
        if self.scope.idle:
            yield from self._uses(state, g, gateway)
        if gateway.offset != state.clock and not gateway.is_dark:
            yield self._read_clock(state, g)
        if state.left[INDEX["stalls"]] and g < self.scope.caches:
            stalled = gateway._replace(runs=False, awake=False)
            yield Step(("stall", g), _put(_spend(state, "stalls"), g, stalled))
        if state.left[INDEX["restarts"]]:
            yield Step(("restart", g), _put(_spend(state, "restarts"), g, self._restarted(state, gateway)))

    def _flushes(self, state: State, g: int) -> bool:
        gateway = state.gateways[g]
        if g >= self.scope.caches:  # it holds nothing: it only hears what others did, sooner or later
            return gateway.at != state.primary or gateway.position != state.shards[gateway.at].log[-1].position
        if any(message.kind == "flush" for message in gateway.out):
            return False
        if (
            gateway.outage is not None
            or gateway.position is None
            or any(entry and entry.dirty for entry in gateway.held)
        ):
            return True
        return self._asks_primary(g) or (self.rules.watches and any(gateway.held))

    def _asks_primary(self, g: int) -> bool:
        return (self.rules.confirms or g >= self.scope.caches) and self.scope.has("failovers")

    def _flush(self, state: State, g: int) -> Iterator[Step]:
        """Ask which is the primary, then send what is dirty. A new primary is sent the ledger
        first.
        """
        if self.scope.ticks and g < self.scope.caches:
            state = _put(state, g, state.gateways[g]._replace(flushed_at=NOW))
        if not self._asks_primary(g):
            yield from self._ask(state, g, "flush", ())
            return
        if state.left[INDEX["losses"]] and g < self.scope.caches:
            for step in self._ask(_spend(state, "losses"), g, "flush", ()):
                yield step._replace(label=("unconfirmed", *step.label))
        gateway = state.gateways[g]
        if gateway.at != state.primary:
            yield from self._switch(state, g)
            return
        state = _put(state, g, self._leased(gateway._replace(confirmed_at=NOW)))
        yield from self._ask(state, g, "flush", ())

    def _leased(self, gateway: Gateway) -> Gateway:
        """A lease counts from the last answer or from the confirmed primary, the earlier one."""
        since = gateway.answered_at
        if self.rules.counts_confirmation and self.scope.has("failovers"):
            since = min(since, gateway.confirmed_at)
        return gateway._replace(lease=self.rules.granted_until_ms(gateway.lease, since, self.scope.lease))

    def _ask(self, state: State, g: int, kind: str, wanted: tuple[int, ...]) -> Iterator[Step]:
        gateway = state.gateways[g]
        if kind == "repair":
            gateway = gateway._replace(repair_due=False)
            if not wanted:
                yield Step(("nothing to repair", g), _put(state, g, gateway))
                return
        touches = ()
        if kind == "flush":
            touches = tuple((sid, entry.dirty) for sid, entry in enumerate(gateway.held) if entry and entry.dirty)
        message = Message(kind, wanted, gateway.at, NOW, gateway.position, touches, is_lost=False)
        if state.alive[gateway.at]:
            asked = _put(state, g, _sent(gateway, message))
            if g >= self.scope.caches:
                yield from self._deliver(asked, g, message)
                return
            yield Step(("ask", g, kind, wanted), asked)
            if touches and state.left[INDEX["strays"]]:
                copied = _spend(asked, "strays")
                copied = copied._replace(strays=_with(copied.strays, (gateway.at, "touches", touches)))
                yield Step(("ask, with a copy", g, kind, wanted), copied)
            if not state.left[INDEX["losses"]]:
                return
            state = _spend(state, "losses")
        message = message._replace(is_lost=True)
        lost = _put(state, g, _sent(_darkened(gateway, self.scope), message))
        yield Step(("ask in vain", g, kind, wanted), lost)
        if touches and state.alive[gateway.at]:
            yield Step(("ask, and the answer is lost", g, kind, wanted), self._done(lost, g, message)[0])

    def _message_steps(self, state: State, g: int, message: Message) -> Iterator[Step]:
        is_due = NOW - message.sent_at >= self.scope.timeout
        if not message.is_lost:
            yield from self._deliver(state, g, message)
        if is_due:
            yield Step(("time out", g, message.kind, message.wanted), self._fail(state, g, message))

    # --- what comes back

    def _deliver(self, state: State, g: int, message: Message) -> Iterator[Step]:
        if message.answer is None:
            state, message = self._done(state, g, message)
        gateway = _without(state.gateways[g], message)
        gateway = self._take_in(gateway, message)
        label = ("hear", g, message.kind, message.wanted)
        broken = ""
        if message.kind == "load":
            gateway, admits, said = self._land(gateway, message)
            label = (*label, said)
            state = _put(state, g, gateway)
            if admits is not None:
                broken = promises.admitted(self, state, g, admits)
            broken = broken or promises.refused(self, state, g, message.wanted[0], said)
        elif message.kind == "repair":
            gateway = self._repaired(gateway, message)
        else:
            gateway = _written(gateway, message.touches)
        yield Step(label, _put(state, g, gateway), broken)

    def _take_in(self, gateway: Gateway, message: Message) -> Gateway:
        answer = message.answer
        assert answer is not None
        effect = self.rules.read_tail(gateway.position, message.since, answer.position, answer.gap)
        gateway = gateway._replace(position=effect.position, outage=None)
        if answer.gap:
            gateway = gateway._replace(calm=False)
        elif not message.is_old and (gateway.calm is not None or message.kind == "repair"):
            gateway = gateway._replace(calm=True)
        if message.sent_at > gateway.dark_last:
            gateway = gateway._replace(is_dark=False, owed=NOBODY)
        gateway = gateway._replace(awake=gateway.awake or message.sent_at >= gateway.stalled_at, owed=NOBODY)
        if effect.forgets:
            gateway = self._forgotten(gateway, poisons=effect.poisons)
        for event in answer.events:
            gateway = self._hear(gateway, event)
        if effect.renews:
            gateway = self._leased(gateway._replace(answered_at=max(gateway.answered_at, message.sent_at)))
        return gateway

    def _forgotten(self, gateway: Gateway, *, poisons: bool) -> Gateway:
        """The shard's epoch goes on."""
        held = tuple(entry and entry._replace(confirmed=False) for entry in gateway.held)
        out = tuple(
            m._replace(is_old=True, is_poisoned=m.is_poisoned or (poisons and m.kind == "load")) for m in gateway.out
        )
        return gateway._replace(held=held, out=out, repair_due=self.rules.repairs and any(held))

    def _hear(self, gateway: Gateway, event: Entry) -> Gateway:
        match event.kind:
            case "revoked":
                return _heard(gateway, (event.sid,), Operation("end", event.sid))
            case "rotated":
                operation = Operation("rotate", event.sid, event.successor, event.record)
                gateway = _heard(gateway, (event.sid,), operation)
                return gateway._replace(births=gateway.births | {event.successor})
            case "everywhere":
                if self.rules.everywhere_max is not None:
                    return gateway
                return _heard(gateway, (), _everywhere(event))
        return gateway

    def _land(self, gateway: Gateway, message: Message) -> tuple[Gateway, int | None, str]:
        """The gateway then, the session that it admits right here although it found no room for it,
        and what was said.
        """
        (sid,) = message.wanted
        (stored,) = message.answer.deadlines
        entry = gateway.held[sid]
        # The log that came with the answer may have ended it, too.
        ended = Verdict.REVOKED if sid in message.ended or (sid in gateway.heard and self._said(message, sid)) else None
        deadline = None if stored is None else max(stored, entry.deadline if entry else 0)
        landing = self.rules.landing(
            ended=ended,
            has_failed=False,
            is_poisoned=message.is_poisoned,
            is_keyless=False,
            deadline_ms=deadline,
            asked_ms=message.sent_at + gateway.offset if self.rules.asks_again_if_idle else NEVER,
            now_ms=NOW + gateway.offset,
        )
        said = landing.value
        if landing is coherence.Landing.LIVES:
            is_leased = gateway.lease > NOW or not self.rules.uncached_needs_lease
            if self.scope.is_full:  # a use of it is admitted right here, or not at all
                return gateway, sid if is_leased else None, said
            entry = Held(deadline, True, entry.dirty if entry else 0)
            return _hold(gateway, sid, entry), None, said
        if landing is coherence.Landing.AGAIN:
            again = Message("load", message.wanted, gateway.at, NOW, gateway.position, (), is_lost=False)
            return _sent(gateway, again), None, said
        return _hold(gateway, sid, None), None, said

    @staticmethod
    def _said(message: Message, sid: int) -> bool:
        return any(event.sid == sid and event.kind in ("revoked", "rotated") for event in message.answer.events)

    def _repaired(self, gateway: Gateway, message: Message) -> Gateway:
        if message.is_old and self.rules.repair_checks_epoch:
            return gateway
        for sid, deadline in zip(message.wanted, message.answer.deadlines, strict=True):
            entry = gateway.held[sid]
            if entry is None or sid in message.ended:
                continue
            latest = None if deadline is None else max(deadline, entry.deadline)
            gateway = _hold(gateway, sid, None if latest is None else entry._replace(deadline=latest, confirmed=True))
        return gateway

    def _fail(self, state: State, g: int, message: Message) -> State:
        gateway = _without(state.gateways[g], message)
        if gateway.answered_at <= message.sent_at or self.rules.believes_old_failures:
            since = NOW if gateway.outage is None else gateway.outage
            failure = coherence.Failure(message.sent_at, NOW, gateway.stalled_at, gateway.answered_at, since)
            lease = self.rules.credited_until_ms(gateway.lease, failure, self.scope.lease, self.scope.grace)
            gateway = gateway._replace(outage=since, lease=lease)
        if message.kind == "repair":  # with the next flush
            gateway = gateway._replace(repair_due=self.rules.repairs)
        return _put(state, g, gateway)

    def _done(self, state: State, g: int, message: Message) -> tuple[State, Message]:
        """The server does what a message asks."""
        shard, answer = store.exchange(
            state.shards[message.to], message.since, message.touches, message.wanted, how=self.rules.touch
        )
        return _store(state, message.to, shard), message._replace(answer=answer)

    def _servers_steps(self, state: State, g: int, gateway: Gateway) -> Iterator[Step]:
        """The answer may be on its way for a while, and know nothing of what happens meanwhile."""
        for message in gateway.out:
            if message.answer is None and not message.is_lost and state.alive[message.to]:
                done, answered = self._done(state, g, message)
                waiting = _sent(_without(gateway, message), answered)
                yield Step(("serve", g, message.kind, message.wanted), _put(done, g, waiting))

    # --- loads, clients' requests and uses

    def _loads(self, state: State, g: int, gateway: Gateway) -> Iterator[Step]:
        if not state.left[INDEX["loads"]] or gateway.position is None or g >= self.scope.caches:
            return
        for sid, record in enumerate(state.born):
            is_flying = any(message.kind == "load" and message.wanted == (sid,) for message in gateway.out)
            if record and not is_flying and (self.scope.is_strong or not self.admits(gateway, sid)):
                yield from self._ask(_spend(state, "loads"), g, "load", (sid,))

    def admits(self, gateway: Gateway, sid: int) -> bool:
        """A hit of the near cache."""
        entry = gateway.held[sid]
        if entry is None or not entry.confirmed or not gateway.runs:
            return False
        return gateway.lease > NOW and entry.deadline > NOW + gateway.offset

    def _requests(self, state: State, g: int, gateway: Gateway) -> Iterator[Step]:
        if not state.alive[gateway.at]:
            return
        if gateway.pending:
            name, arguments = gateway.pending
            yield from self._request(_put(state, g, gateway._replace(pending=None)), g, name, arguments, is_retry=True)
            return
        left, born = state.left, state.born
        fresh = next((sid for sid, record in enumerate(born) if record is None), None)
        if left[INDEX["logins"]] and fresh is not None:
            record = Record(
                self.scope.principals[fresh], state.at, NOW + self.scope.idle + 1 if self.scope.idle else NEVER
            )
            yield from self._request(_spend(state, "logins"), g, "create", (fresh, record))
        for sid, record in enumerate(born):
            if record is None or state.over[sid] is not None:
                continue
            if left[INDEX["logouts"]]:
                yield from self._request(_spend(state, "logouts"), g, "revoke", (sid,))
            if left[INDEX["rotations"]] and fresh is not None and self.scope.principals[fresh] == record.principal:
                successor = record._replace(deadline=NOW + self.scope.idle + 1 if self.scope.idle else NEVER)
                yield from self._request(_spend(state, "rotations"), g, "rotate", (sid, fresh, successor))
        if left[INDEX["everywheres"]]:
            for principal in sorted(set(self.scope.principals)):
                keeps = [sid for sid, record in enumerate(born) if record and record.principal == principal]
                for kept in (None, *(keeps if self.scope.keeps else ())):
                    yield from self._request(_spend(state, "everywheres"), g, "revoke_all", (principal, kept))

    def _request(self, state: State, g: int, name: str, arguments: tuple, *, is_retry: bool = False) -> Iterator[Step]:
        at = state.gateways[g].at
        done, outcome = self._script(state, at, name, arguments)
        acked = self._acknowledged(done, g, name, arguments, outcome, state.at)
        yield Step(("request", g, name, arguments), acked)
        if state.left[INDEX["strays"]]:
            copy = (at, name, arguments)
            yield Step(
                ("request, with a copy", g, name, arguments),
                _spend(acked, "strays")._replace(strays=_with(acked.strays, copy)),
            )
        if state.left[INDEX["retries"]] and not is_retry:
            waiting = state.gateways[g]._replace(pending=(name, arguments))
            unacked = _put(_spend(_doom(done, name, arguments), "retries"), g, waiting)
            yield Step(("request, its answer is lost", g, name, arguments), unacked)

    def _script(self, state: State, at: int, name: str, arguments: tuple) -> tuple[State, object]:
        shard, outcome = getattr(self.rules, name)(state.shards[at], state.at, *arguments)
        return _store(state, at, shard, writes=True), outcome

    def _acknowledged(self, state: State, g: int, name: str, arguments: tuple, outcome: object, at: int) -> State:
        """The gateway remembers what it did; the client may rely on it."""
        gateway = state.gateways[g]
        match name:
            case "create":
                sid, record = arguments
                if not outcome:
                    return state
                gateway = self._made(_heard(gateway, (), Operation("create", sid, record=record)), g, sid, record)
                return _put(_bear(state, sid, record), g, gateway._replace(births=gateway.births | {sid}))
            case "revoke":
                (sid,) = arguments
                return _put(_end(state, (sid,)), g, _heard(gateway, (sid,), Operation("end", sid)))
            case "rotate":
                sid, successor, record = arguments
                if not outcome:
                    return _bear(state, successor, record)._replace(doomed=state.doomed | {successor})
                gateway = _heard(gateway, (sid,), Operation("rotate", sid, successor, record))
                gateway = self._made(gateway, g, successor, record)
                gateway = gateway._replace(births=gateway.births | {successor})
                return _put(_end(_bear(state, successor, record), (sid,)), g, gateway)
            case _:
                return self._all_ended(state, g, *arguments, ended=outcome, at=at)

    def _made(self, gateway: Gateway, g: int, sid: int, record: Record) -> Gateway:
        """It holds what it has made beside what it holds already, unless it has heard of its end:
        the answer was repeated.
        """
        if self.rules.login_grants_lease:
            gateway = gateway._replace(lease=max(gateway.lease, NOW + self.scope.lease))
        is_held = self.rules.holds_what_it_makes and g < self.scope.caches and not self.scope.is_full
        if self.rules.holds_beside_others:
            is_held = is_held and any(gateway.held) and gateway.lease > NOW
        if not is_held or gateway.position is None or sid in gateway.heard:
            return gateway
        return _hold(gateway, sid, Held(record.deadline))

    def _all_ended(
        self, state: State, g: int, principal: str, kept: int | None, *, ended: tuple[int, ...], at: int
    ) -> State:
        """One record for the ledger; where a session was kept, a list."""
        gateway = state.gateways[g]
        if kept is None:
            born = enumerate(state.born)
            ended = tuple(
                sid for sid, record in born if record and record.principal == principal and record.created <= at
            )
        state = _end(state, ended)
        listed = self.rules.everywhere_max
        if kept is None and listed is None:
            return _put(state, g, _heard(gateway, ended, _everywhere(state.shards[gateway.at].log[-1])))
        for sid in ended[:listed]:
            gateway = _heard(gateway, (), Operation("end", sid))
        return _put(state, g, _heard(gateway, ended, None))

    def _uses(self, state: State, g: int, gateway: Gateway) -> Iterator[Step]:
        """A hit: the entry's deadline moves on, and is to be written."""
        for sid in range(len(gateway.held)):
            deadline = NOW + gateway.offset + self.scope.idle + 1
            entry = gateway.held[sid]
            if entry and not self.rules.loads_expired and entry.deadline <= NOW + gateway.offset:
                yield Step(("refuse", g, sid), state, promises.refused(self, state, g, sid, "idle"))
            if not state.left[INDEX["uses"]]:
                continue
            is_regular = state.used[sid] + self.scope.idle - self.scope.timeout >= NOW
            if is_regular and self.admits(gateway, sid) and gateway.held[sid].deadline < deadline:
                touched = _hold(gateway, sid, gateway.held[sid]._replace(deadline=deadline, dirty=deadline))
                used = (*state.used[:sid], NOW, *state.used[sid + 1 :])
                yield Step(("use", g, sid), _put(_spend(state, "uses"), g, touched)._replace(used=used))

    # --- another primary

    def _switch(self, state: State, g: int) -> Iterator[Step]:
        """Connections to the old one are dropped. The ledger is done there before anything is
        asked; then all is looked up again.
        """
        gateway = state.gateways[g]
        gateway = self._forgotten(gateway, poisons=True)
        gateway = gateway._replace(
            at=state.primary,
            position=NOWHERE,
            answered_at=PAST,
            confirmed_at=NOW,
            out=(),
            calm=False,
            trusts=False,
            is_dark=False,
            owed=NOBODY,
        )
        if not self.rules.makes_again_first:
            yield Step(("switch", g), _put(state, g, gateway._replace(trusts=True)))
            return
        yield self._make_again(_put(state, g, gateway), g)

    def _make_again(self, state: State, g: int) -> Step:
        gateway = state.gateways[g]
        before = state.shards[gateway.at]
        shard = self.rules.again(before, state.at, gateway.ledger)
        after = _store(state, gateway.at, shard, writes=True)
        after = _put(after, g, gateway._replace(trusts=True))
        return Step(("make again", g, gateway.ledger), after, promises.made_again(after, g, before, shard))

    def _woken(self, gateway: Gateway) -> Gateway:
        """The pulse beats before anything else."""
        pulse = coherence.Pulse(0)
        pulse.beat(gateway.beat_at)
        pulse.stalled_at_ms = gateway.stalled_at
        pulse.beat(NOW)
        return gateway._replace(runs=True, stalled_at=pulse.stalled_at_ms, beat_at=NOW)

    def _restarted(self, state: State, gateway: Gateway) -> Gateway:
        """The near cache is empty. The last minute of the log says what to make again."""
        shard = state.shards[state.primary]
        fresh = Gateway(
            (None,) * len(gateway.held),
            at=state.primary,
            position=shard.log[-1].position,
            offset=state.clock,
            births=frozenset(entry.successor for entry in shard.log if entry.kind == "rotated"),
            heard=frozenset(entry.sid for entry in shard.log if entry.kind in ("revoked", "rotated")),
        )
        if not self.rules.reads_log:
            return fresh
        births = fresh.births
        for entry in shard.log:
            fresh = self._hear(fresh, entry)
        return fresh._replace(births=births)

    def _read_clock(self, state: State, g: int) -> Step:
        gateway = state.gateways[g]
        step = self.rules.clock_step(gateway.offset * TICK_MS, state.clock * TICK_MS, 0)
        is_jump = abs(state.clock - gateway.offset) * TICK_MS > coherence.CLOCK_JUMP_MS
        gateway = gateway._replace(offset=gateway.offset + step.by_ms // TICK_MS)
        if is_jump:
            gateway = gateway._replace(calm=False)
        if step.is_jump:
            gateway = self._forgotten(gateway, poisons=False)
        return Step(("read the clock", g), _put(state, g, gateway))

    # --- what befalls the store

    def _stray_steps(self, state: State) -> Iterator[Step]:
        for stray in state.strays:
            at, name, arguments = stray
            rest = state._replace(strays=tuple(other for other in state.strays if other is not stray))
            if not state.alive[at]:
                continue
            if name == "touches":
                shard = store.exchange(rest.shards[at], None, arguments, how=self.rules.touch)[0]
                broken = promises.moved_back(state.shards[at], shard)
                yield Step(("a late request", name, arguments), _store(rest, at, shard), broken)
            else:
                yield Step(("a late request", name, arguments), self._script(rest, at, name, arguments)[0])

    def _fault_steps(self, state: State) -> Iterator[Step]:
        left = state.left
        if left[INDEX["failovers"]]:
            if state.snapshot is None:
                yield Step(("snapshot",), state._replace(snapshot=state.shards[0]))
            else:
                for old_lives in (False, True) if self.scope.old_lives else (False,):
                    yield Step(("failover", old_lives), self._failed_over(state, old_lives))
        if left[INDEX["trims"]]:
            shard = state.shards[state.primary]
            if len(shard.log) > 1:
                yield Step(("trim the log",), _store(_spend(state, "trims"), state.primary, store.trim(shard)))
        if left[INDEX["steps"]]:
            yield Step(("the clock steps",), _spend(state, "steps")._replace(clock=state.clock + 1))
        if left[INDEX["jumps"]]:
            yield Step(("the clock jumps",), _spend(state, "jumps")._replace(clock=state.clock + 3))

    def _failed_over(self, state: State, old_lives: bool) -> State:
        state = _spend(state, "failovers")
        state = state._replace(
            shards=(*state.shards, state.snapshot), alive=(old_lives, True), primary=1, snapshot=None
        )
        over = tuple(
            None if since is None else NOW if store.record_of(state.shards[1], sid) else since
            for sid, since in enumerate(state.over)
        )
        state = state._replace(over=over)
        if old_lives:
            return state
        gateways = tuple(_cut(gateway, self.scope) for gateway in state.gateways)
        return state._replace(gateways=gateways, strays=())

    # --- time

    def _tick(self, state: State) -> Iterator[Step]:
        """A tick, if nobody who runs has anything to do before."""
        if not self.scope.ticks:
            return
        last = self.scope.timeout - 1
        for g, gateway in enumerate(state.gateways[: self.scope.caches]):
            if gateway.runs and ((gateway.flushed_at < NOW and self._flushes(state, g)) or _is_repair_due(gateway)):
                return
            for message in gateway.out:
                age = NOW - message.sent_at
                is_answered = message.answer is not None
                if gateway.runs and (age >= self.scope.timeout or (age >= last and not message.is_lost)):
                    return
                if age >= last and not message.is_lost and not is_answered:
                    return
        broken = promises.passed(self, state)
        yield Step(("tick",), self._later(state), broken)

    def _later(self, state: State) -> State:
        caches, elsewhere = state.gateways[: self.scope.caches], state.gateways[self.scope.caches :]
        gateways = (*(_older(gateway, bool(self.scope.idle)) for gateway in caches), *map(_timeless, elsewhere))
        state = state._replace(
            gateways=gateways,
            over=tuple(None if since is None else _since(state, sid, since) for sid, since in enumerate(state.over)),
        )
        if not self.scope.idle:
            return state
        shards = tuple(
            shard._replace(
                live=tuple((sid, record._replace(deadline=_before(record.deadline))) for sid, record in shard.live)
            )
            for shard in state.shards
        )
        strays = tuple(
            (
                at,
                name,
                tuple((sid, _before(deadline)) for sid, deadline in arguments) if name == "touches" else arguments,
            )
            for at, name, arguments in state.strays
        )
        return state._replace(shards=shards, strays=strays, used=tuple(map(_before, state.used)))


# --- changes of values


def _put(state: State, g: int, gateway: Gateway) -> State:
    gateways = state.gateways
    return state._replace(gateways=(*gateways[:g], gateway, *gateways[g + 1 :]))


def _spend(state: State, name: str) -> State:
    index = INDEX[name]
    left = state.left
    return state._replace(left=(*left[:index], left[index] - 1, *left[index + 1 :]))


def _store(state: State, at: int, shard: Shard, *, writes: bool = False) -> State:
    """The state in which a server holds this shard."""
    if shard is not state.shards[at]:
        state = state._replace(shards=(*state.shards[:at], shard, *state.shards[at + 1 :]))
    return state._replace(at=state.at + STRIDE) if writes else state


def _sent(gateway: Gateway, message: Message) -> Gateway:
    return gateway._replace(out=tuple(sorted((*gateway.out, message), key=_order)))


def _order(message: Message) -> tuple[str, tuple[int, ...]]:
    return message.kind, message.wanted


def _without(gateway: Gateway, message: Message) -> Gateway:
    key = _order(message)
    return gateway._replace(out=tuple(other for other in gateway.out if _order(other) != key))


def _hold(gateway: Gateway, sid: int, entry: Held | None) -> Gateway:
    return gateway._replace(held=(*gateway.held[:sid], entry, *gateway.held[sid + 1 :]))


def _is_repair_due(gateway: Gateway) -> bool:
    return gateway.repair_due and gateway.trusts and all(message.kind != "repair" for message in gateway.out)


def _written(gateway: Gateway, touches: tuple[tuple[int, int], ...]) -> Gateway:
    for sid, deadline in touches:
        entry = gateway.held[sid]
        if entry and entry.dirty == deadline:
            gateway = _hold(gateway, sid, entry._replace(dirty=0))
    return gateway


def _heard(gateway: Gateway, ended: tuple[int, ...], operation: Operation | None) -> Gateway:
    """These are over, for ever: refused from now on, whatever is under way."""
    if operation:
        gateway = gateway._replace(ledger=ledger.noted(gateway.ledger, operation))
    if not ended:
        return gateway
    over = frozenset(ended)
    return gateway._replace(
        heard=gateway.heard | over,
        held=tuple(None if sid in over else entry for sid, entry in enumerate(gateway.held)),
        out=tuple(message._replace(ended=message.ended | (over & set(message.wanted))) for message in gateway.out),
    )


def _everywhere(entry: Entry) -> Operation:
    return Operation("everywhere", principal=entry.principal, up_to=entry.up_to, kept=entry.kept)


def _darkened(gateway: Gateway, scope: Scope) -> Gateway:
    """A message is lost. If it is the first one, what is held must be admitted from now on (P8)."""
    gateway = gateway._replace(calm=gateway.calm or None)
    if gateway.is_dark and gateway.dark_last + scope.timeout + scope.lease >= NOW:
        return gateway._replace(dark_last=NOW)
    owed = NOBODY
    if gateway.calm and gateway.awake and not gateway.out:
        owed = frozenset(sid for sid, entry in enumerate(gateway.held) if entry)
    return gateway._replace(is_dark=True, dark_since=NOW, dark_last=NOW, owed=owed)


def _cut(gateway: Gateway, scope: Scope) -> Gateway:
    """The server that it spoke to is gone: what is under way is lost, unless it was answered."""
    out = tuple(message._replace(is_lost=message.answer is None) for message in gateway.out)
    gateway = gateway._replace(out=out)
    return _darkened(gateway, scope) if any(message.is_lost for message in out) else gateway


def _bear(state: State, sid: int, record: Record) -> State:
    return state._replace(born=(*state.born[:sid], record, *state.born[sid + 1 :]))


def _doom(state: State, name: str, arguments: tuple) -> State:
    """Somebody asked for this end; it was done, and nobody knows."""
    match name:
        case "create":
            return _bear(state, *arguments)
        case "revoke":
            return state._replace(doomed=state.doomed | {arguments[0]})
        case "rotate":
            sid, successor, record = arguments
            return _bear(state._replace(doomed=state.doomed | {sid}), successor, record)
    principal, _ = arguments
    ended = {sid for sid, record in enumerate(state.born) if record and record.principal == principal}
    return state._replace(doomed=state.doomed | ended)


def _end(state: State, ended: tuple[int, ...]) -> State:
    over = tuple(NOW if sid in ended and since is None else since for sid, since in enumerate(state.over))
    return state._replace(over=over, doomed=state.doomed | set(ended))


def _with(strays: tuple[tuple, ...], stray: tuple) -> tuple[tuple, ...]:
    return strays if stray in strays else (*strays, stray)


def _before(time: int) -> int:
    """A time, one tick later. What is long past stays there."""
    return time - 1 if time > PAST else time


def _since(state: State, sid: int, since: int) -> int:
    """An end counts from when the primary has it."""
    return NOW if store.record_of(state.shards[state.primary], sid) else _before(since)


def _older(gateway: Gateway, has_deadlines: bool) -> Gateway:
    held = gateway.held
    if has_deadlines:
        held = tuple(
            entry and entry._replace(deadline=_before(entry.deadline), dirty=entry.dirty and _before(entry.dirty))
            for entry in held
        )
    out = tuple(
        message._replace(
            sent_at=_before(message.sent_at),
            touches=tuple((sid, _before(deadline)) for sid, deadline in message.touches),
            answer=_answer_before(message.answer) if has_deadlines else message.answer,
        )
        for message in gateway.out
    )
    return gateway._replace(
        held=held,
        out=out,
        lease=_before(gateway.lease),
        answered_at=_before(gateway.answered_at),
        confirmed_at=_before(gateway.confirmed_at),
        flushed_at=max(_before(gateway.flushed_at), NOW - 1),
        outage=None if gateway.outage is None else _before(gateway.outage),
        stalled_at=_before(gateway.stalled_at),
        beat_at=NOW if gateway.runs else _before(gateway.beat_at),
        dark_since=_before(gateway.dark_since),
        dark_last=_before(gateway.dark_last),
    )


def _timeless(gateway: Gateway) -> Gateway:
    """A gateway that holds nothing, without its times: it admits nobody by them."""
    return gateway._replace(lease=PAST, answered_at=PAST, confirmed_at=NOW)


def _answer_before(answer: Answer | None) -> Answer | None:
    if answer is None:
        return None
    return answer._replace(deadlines=tuple(deadline and _before(deadline) for deadline in answer.deadlines))

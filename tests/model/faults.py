"""Faults put back: each is the right protocol but for one decision, and a scope in which the search
must find it.

The number is the one in the list of what was seen broken, where a fault is from there
(docs/decisions has the story).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastticket.sessions.coherence import ClockStep, Failure, Landing, TailEffect, clock_step, landing, read_tail
from model import store
from model.protocol import NOW, Rules
from model.scopes import AGAIN, FULL, GAP, IDLE, MADE, OUTAGE, PRIMARY, RESTART, STALL, TWICE, Scope
from model.store import Operation, Record, Shard


@dataclass(frozen=True)
class Fault:
    name: str
    what: str
    rules: Rules
    scope: Scope
    breaks: str  #: the promise


def _within(scope: Scope, depth: int = 30, **budgets: int) -> Scope:
    """A scope with nothing but this happening in it."""
    return replace(scope, budgets=budgets, depth=depth)


# --- the lease


def _credit_for_all(lease: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    if failure.sent_at_ms <= max(failure.stalled_at_ms, failure.answered_at_ms):
        return lease
    return max(lease, min(failure.failed_at_ms + lease_ms, failure.outage_since_ms + grace_ms))


def _credit_after_stall(lease: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    if lease <= failure.sent_at_ms or failure.sent_at_ms <= failure.answered_at_ms:
        return lease
    return max(lease, min(failure.failed_at_ms + lease_ms, failure.outage_since_ms + grace_ms))


def _credit_if_not_run_out(lease: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    """As it was when the model was begun."""
    ran_out = failure.stalled_at_ms >= failure.sent_at_ms and lease <= failure.failed_at_ms
    if lease <= failure.sent_at_ms or ran_out or failure.sent_at_ms <= failure.answered_at_ms:
        return lease
    return max(lease, min(failure.failed_at_ms + lease_ms, failure.outage_since_ms + grace_ms))


def _credit_although_answered(lease: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    if lease <= failure.sent_at_ms or failure.sent_at_ms <= failure.stalled_at_ms:
        return lease
    return max(lease, min(failure.failed_at_ms + lease_ms, failure.outage_since_ms + grace_ms))


def _credit_without_end(lease: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    if lease <= failure.sent_at_ms or failure.sent_at_ms <= max(failure.stalled_at_ms, failure.answered_at_ms):
        return lease
    return failure.failed_at_ms + lease_ms


def _no_credit(lease: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    return lease


def _granted_from_answer(lease: int, sent_at: int, lease_ms: int) -> int:
    return NOW + lease_ms


def _old_gap_renews(known: int | None, since: int | None, position: int, gap: bool) -> TailEffect:
    effect = read_tail(known, since, position, gap)
    return effect._replace(renews=True) if gap else effect


def _gap_does_not_poison(known: int | None, since: int | None, position: int, gap: bool) -> TailEffect:
    return read_tail(known, since, position, gap)._replace(poisons=False)


def _gap_forgets_nothing(known: int | None, since: int | None, position: int, gap: bool) -> TailEffect:
    return read_tail(known, since, position, gap)._replace(forgets=False)


def _every_step_is_a_jump(known: int, measured: int, uncertainty: int) -> ClockStep:
    step = clock_step(known, measured, uncertainty)
    return step._replace(is_jump=step.by_ms != 0)


def _landing(**changed: Any) -> Callable[..., Landing]:
    return lambda **asked: landing(**asked | changed)


# --- the store


def _marks_only_what_lives(shard: Shard, at: int, sid: int) -> tuple[Shard, bool]:
    return store.revoke(shard, at, sid) if store.record_of(shard, sid) else (shard, False)


def _end_again_without_mark(shard: Shard, at: int, operation: Operation) -> Shard:
    return _marks_only_what_lives(shard, at, operation.sid)[0]


def _rotate_again_without_looking(shard: Shard, at: int, operation: Operation) -> Shard:
    bare = shard._replace(barred=frozenset(), barred_principals=frozenset())
    made = store.again_rotate(bare, at, operation)
    return made._replace(barred=made.barred | shard.barred, barred_principals=shard.barred_principals)


def _create_again_without_looking(shard: Shard, at: int, operation: Operation) -> Shard:
    return _create_without_looking(shard, at, operation.sid, operation.record)[0]


def _rotate_again_only_what_lives(shard: Shard, at: int, operation: Operation) -> Shard:
    return store.again_rotate(shard, at, operation) if store.record_of(shard, operation.sid) else shard


def _everywhere_again_without_mark(shard: Shard, at: int, operation: Operation) -> Shard:
    return store.again_everywhere(shard, at, operation)._replace(barred_principals=shard.barred_principals)


def _nothing_again(shard: Shard, at: int, operation: Operation) -> Shard:
    return shard


def _create_without_looking(shard: Shard, at: int, sid: int, record: Record) -> tuple[Shard, bool]:
    made, _ = store.create(shard._replace(barred=frozenset(), barred_principals=frozenset()), at, sid, record)
    return made._replace(barred=shard.barred, barred_principals=shard.barred_principals), True


def _rotate_without_looking(shard: Shard, at: int, sid: int, successor: int, record: Record) -> tuple[Shard, bool]:
    made, is_done = store.rotate(shard._replace(barred=frozenset()), at, sid, successor, record)
    return made._replace(barred=made.barred | shard.barred), is_done


def _rotate_what_is_not_there(shard: Shard, at: int, sid: int, successor: int, record: Record) -> tuple[Shard, bool]:
    if not store.record_of(shard, sid):
        shard = store.create(shard, at, sid, record)[0]
    return store.rotate(shard, at, sid, successor, record)


def _touch_revives(shard: Shard, sid: int, deadline: int) -> Shard:
    """ZADD without XX."""
    if store.record_of(shard, sid):
        return store.touch(shard, sid, deadline)
    return store.create(shard._replace(barred=frozenset()), 0, sid, Record("ann", 0, deadline))[0]


def _touch_moves_back(shard: Shard, sid: int, deadline: int) -> Shard:
    """ZADD without GT."""
    live = tuple(
        (other, record._replace(deadline=deadline) if other == sid else record) for other, record in shard.live
    )
    return shard._replace(live=live)


def _again(**how: Callable[..., Shard]) -> Callable[..., Shard]:
    handlers = store.AGAIN | {"end" if kind == "end_" else kind: handler for kind, handler in how.items()}
    return partial(store.again, how=handlers)


RIGHT = Rules()
_STALLED = _within(STALL, logouts=1, loads=1, stalls=1)
_AWAY = _within(OUTAGE, losses=6)
_TWO_LOADS = tuple((move, 0, "load", (sid,)) for sid in (0, 1) for move in ("ask", "serve"))
_LOAD = (("ask", 0, "load", (1,)), ("serve", 0, "load", (1,)))
_LOST_LOAD = (("ask in vain", 0, "load", (0,)), ("tick",))
_GAP = (("trim the log",), ("tick",), ("ask", 0, "flush", ()), ("hear", 0, "flush", ()))
_OTHER = _within(PRIMARY, logouts=1, failovers=1)

FAULTS = (
    # the lease
    Fault(
        "credit-for-all",
        "1a: credit without asking whether the lease was in force",
        replace(RIGHT, credited_until_ms=_credit_for_all),
        _within(STALL, logouts=1, losses=2, stalls=1),
        "P2",
    ),
    Fault(
        "credit-after-stall",
        "1a: credit after a stall",
        replace(RIGHT, credited_until_ms=_credit_after_stall),
        _STALLED,
        "P2",
    ),
    Fault(
        "credit-if-not-run-out",
        "credit after a stall, for a lease that has not run out",
        replace(RIGHT, credited_until_ms=_credit_if_not_run_out),
        replace(_STALLED, lease=4),
        "P2",
    ),
    Fault(
        "credit-although-answered",
        "credit although a later question was answered",
        replace(RIGHT, credited_until_ms=_credit_although_answered, believes_old_failures=True),
        replace(_within(STALL, logouts=1, loads=1, losses=1, stalls=1), is_strong=True, prelude=_LOST_LOAD),
        "P2",
    ),
    Fault(
        "credit-unwatched",
        "1b: credit, and a shard that is not used is not read",
        replace(RIGHT, credited_until_ms=_credit_for_all, watches=False),
        _within(STALL, logouts=1, losses=1, loads=1),
        "P2",
    ),
    Fault(
        "unwatched",
        "a shard that is not used is not read",
        replace(RIGHT, watches=False),
        _within(OUTAGE, losses=2, loads=1),
        "P8",
    ),
    Fault(
        "credit-without-end",
        "credit beyond the grace",
        replace(RIGHT, credited_until_ms=_credit_without_end),
        replace(_within(STALL, logouts=1, losses=7), grace=4),
        "P2",
    ),
    Fault("no-credit", "no credit at all", replace(RIGHT, credited_until_ms=_no_credit), _AWAY, "P8"),
    Fault(
        "uncached",
        "1c: an admission without an entry does not ask for the lease",
        replace(RIGHT, uncached_needs_lease=False),
        FULL,
        "P2",
    ),
    Fault(
        "lease-from-answer",
        "the lease counts from the answer",
        replace(RIGHT, granted_until_ms=_granted_from_answer),
        _within(STALL, logouts=1, stalls=1),
        "P2",
    ),
    Fault(
        "old-gap-renews",
        "a gap of an old question renews the lease",
        replace(RIGHT, read_tail=_old_gap_renews),
        replace(
            _within(GAP, logouts=1, loads=2, trims=1),
            holds=2,
            timeout=3,
            is_strong=True,
            is_behind=True,
            prelude=_TWO_LOADS,
        ),
        "P2",
    ),
    Fault(
        "gap-does-not-poison",
        "loads under way survive a gap",
        replace(RIGHT, read_tail=_gap_does_not_poison),
        replace(_within(GAP, logouts=1, loads=1, trims=1), prelude=_LOAD),
        "P2",
    ),
    Fault(
        "gap-forgets-nothing",
        "what is held survives a gap",
        replace(RIGHT, read_tail=_gap_forgets_nothing),
        _within(GAP, logouts=1, trims=1),
        "P2",
    ),
    Fault(
        "landing-ignores-ended",
        "a load lands although its session ended",
        replace(RIGHT, landing=_landing(ended=None)),
        _within(GAP, logouts=1, loads=1),
        "P6",
    ),
    Fault(
        "landing-ignores-poisoned",
        "a load lands although it is poisoned",
        replace(RIGHT, landing=_landing(is_poisoned=False)),
        replace(_within(GAP, logouts=1, loads=1, trims=1), prelude=_LOAD),
        "P2",
    ),
    Fault(
        "repair-ignores-epoch",
        "a repair confirms what was forgotten meanwhile",
        replace(RIGHT, repair_checks_epoch=False),
        replace(_within(GAP, logouts=1, trims=2), sessions=1, timeout=3, is_behind=True, prelude=_GAP),
        "P2",
    ),
    # the outage
    Fault(
        "gap-not-repaired",
        "6: after a gap nothing is looked up again",
        replace(RIGHT, repairs=False),
        _within(OUTAGE, losses=1, trims=1, logins=1),
        "P8",
    ),
    Fault(
        "every-step-bumps",
        "6: each correction of the clock empties the cache",
        replace(RIGHT, clock_step=_every_step_is_a_jump),
        _within(OUTAGE, losses=2, steps=1),
        "P8",
    ),
    # another primary
    Fault(
        "old-master-believed",
        "2: nobody asks who the primary is",
        replace(RIGHT, confirms=False, counts_confirmation=False),
        _OTHER,
        "P2",
    ),
    Fault(
        "confirmed-once-a-lease",
        "the lease does not count from when the primary was confirmed",
        replace(RIGHT, counts_confirmation=False),
        replace(_within(PRIMARY, logouts=1, failovers=1, losses=1, stalls=1), prelude=(("failover", True),)),
        "P2",
    ),
    # made again
    Fault(
        "believed-before-again",
        "the other primary is believed before all is made again there",
        replace(RIGHT, makes_again_first=False),
        _within(AGAIN, logouts=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "end-leaves-no-mark",
        "4: an end of what is not there leaves no mark",
        replace(RIGHT, again=_again(end_=_end_again_without_mark)),
        _within(AGAIN, rotations=1, logouts=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "revoke-leaves-no-mark",
        "the same, of the ordinary script",
        replace(RIGHT, revoke=_marks_only_what_lives),
        _within(AGAIN, rotations=1, logouts=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "rotate-again-blind",
        "4: a rotation made again does not look at marks",
        replace(RIGHT, again=_again(rotate=_rotate_again_without_looking)),
        _within(AGAIN, rotations=1, logouts=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "create-again-blind",
        "a login made again does not look at marks",
        replace(RIGHT, again=_again(create=_create_again_without_looking)),
        _within(AGAIN, logins=1, logouts=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "everywhere-leaves-no-mark",
        "a logout everywhere leaves no mark",
        replace(RIGHT, again=_again(everywhere=_everywhere_again_without_mark)),
        _within(AGAIN, logins=1, everywheres=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "everywhere-is-a-list",
        "5: a logout everywhere is remembered as a list of one",
        replace(RIGHT, everywhere_max=1),
        replace(_within(AGAIN, everywheres=1, failovers=1, snapshots=1), sessions=2),
        "P6",
    ),
    Fault(
        "ledger-dies",
        "5: a restart forgets what is to be made again",
        replace(RIGHT, reads_log=False),
        _within(RESTART, logouts=1, restarts=1, failovers=1, snapshots=1),
        "P6",
    ),
    Fault(
        "logins-not-made-again",
        "2: logins that were acknowledged are lost",
        replace(RIGHT, again=_again(create=_nothing_again)),
        _within(AGAIN, logins=1, failovers=1, snapshots=1),
        "P4",
    ),
    Fault(
        "rotations-not-made-again",
        "rotations of what is not there are lost",
        replace(RIGHT, again=_again(rotate=_rotate_again_only_what_lives)),
        _within(AGAIN, logins=1, rotations=1, failovers=1, snapshots=1),
        "P4",
    ),
    Fault(
        "login-grants-lease",
        "what a login's answer does not say is taken for said",
        replace(RIGHT, login_grants_lease=True),
        _within(MADE, logouts=1, logins=1, stalls=1),
        "P2",
    ),
    Fault(
        "login-without-lease",
        "what a login has made is held alone, under a lease that nothing renews",
        replace(RIGHT, holds_beside_others=False),
        _within(MADE, logouts=1, logins=1, losses=1),
        "P8",
    ),
    # done twice, or late
    Fault(
        "create-blind",
        "a login done twice does not look at marks",
        replace(RIGHT, create=_create_without_looking),
        _within(TWICE, logins=1, logouts=1, strays=1),
        "P6",
    ),
    Fault(
        "rotate-blind",
        "a rotation done twice does not look at marks",
        replace(
            RIGHT, rotate=lambda *asked: _rotate_what_is_not_there(asked[0]._replace(barred=frozenset()), *asked[1:])
        ),
        _within(TWICE, rotations=1, logouts=1, strays=1),
        "P6",
    ),
    Fault(
        "touch-revives",
        "ZADD without XX",
        replace(RIGHT, touch=_touch_revives),
        _within(IDLE, uses=1, strays=1, logouts=1),
        "P6",
    ),
    Fault(
        "touch-moves-back",
        "ZADD without GT",
        replace(RIGHT, touch=_touch_moves_back),
        _within(IDLE, uses=2, strays=1),
        "P6",
    ),
    Fault(
        "expired-not-loaded",
        "what is past its deadline here is refused without a look",
        replace(RIGHT, loads_expired=False),
        _within(IDLE, uses=1),
        "P4",
    ),
    Fault(
        "idle-not-asked-again",
        "a deadline that passes while a load is under way refuses",
        replace(RIGHT, asks_again_if_idle=False),
        _within(IDLE, uses=1, loads=1),
        "P4",
    ),
)

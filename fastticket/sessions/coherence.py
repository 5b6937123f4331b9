"""What a gateway may believe, and until when: the decisions of the coherence protocol, without I/O
and without a clock.

    granted_until_ms     the lease after an answer
    credited_until_ms    the lease after a failure
    take_in              what the tail of a shard's log means for what is held of the shard
    landing              what the answer to a load is worth when it gets here
    clock_step           how to follow the store's clock
    Pulse                notices that this process was stalled

`TicketCache` asks these and nothing else, and `tests/model` explores every interleaving of them.
Times are ms of one clock of this process, which goes on while the machine is suspended; a lease is
a time on it until which a shard's entries may be admitted.

Rules of this file
- A lease counts from when the question was *sent*: what was revoked after that, the answer may not
  know.
- A lease that has run out is only replaced by an answer. Credit continues one that was in force.
- Whoever was not running cannot tell a store that was silent from an answer that nobody read.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from fastticket.errors import Verdict
from fastticket.stores.contract import Position

#: A correction of the clock up to this is a step, which moves nobody's deadline by more; beyond it,
#: a jump.
CLOCK_JUMP_MS = 500


def granted_until_ms(lease_until_ms: int, sent_at_ms: int, lease_ms: int) -> int:
    """The lease after an answer to what was sent at `sent_at_ms`. Answers may come in any order:
    the latest question counts.

    Where another primary may take over, it counts from when this one was confirmed: what was
    revoked at the other one since then, the answer does not know.
    """
    return max(lease_until_ms, sent_at_ms + lease_ms)


class Failure(NamedTuple):
    """An exchange that brought no answer."""

    sent_at_ms: int
    failed_at_ms: int
    stalled_at_ms: int  #: when the last stall of this process was noticed
    answered_at_ms: int  #: when the latest question was sent that was answered
    outage_since_ms: int  #: the first failure since the store was last heard; this one, if it is the first


def credited_until_ms(lease_until_ms: int, failure: Failure, lease_ms: int, grace_ms: int) -> int:
    """The lease after a failure: one lease more, within `grace_ms` of the outage's begin, for what
    was in force (P8).

    P2 forbids three cases:

    1. The lease had run out when the question was sent. Somebody may have revoked since then, and
       the store told all who asked.
    2. This process was stalled since then. The store may have answered, and nobody was there to
       read it.
    3. A question that was sent later was answered: the store is there, and the lease of that answer is what there is.
    In each of them what is in force stays so, and the next question decides.
    """
    had_run_out = lease_until_ms <= failure.sent_at_ms
    if had_run_out or failure.stalled_at_ms >= failure.sent_at_ms or failure.answered_at_ms > failure.sent_at_ms:
        return lease_until_ms
    return max(lease_until_ms, min(failure.failed_at_ms + lease_ms, failure.outage_since_ms + grace_ms))


class Tidings(NamedTuple):
    """What an answer's log tail means for a shard."""

    position: Position | None  #: to ask from the next time
    renews: bool  #: the lease, from when the question was sent
    forgets: bool  #: what is held of the shard must be looked up again
    poisons: bool  #: loads under way, too, but those that came with this answer


def take_in(known: Position | None, since: Position | None, position: Position, gap: bool) -> Tidings:
    """An answer to "what happened after `since`?", where `known` is the last position heard by now.

    A gap: what happened since is lost. If the question is older than what was heard meanwhile, the
    gap may lie before that, and the next question finds it if it does not: so no lease is built on
    such an answer.
    """
    if since is None:  # "from now on": it says nothing of what is held
        return Tidings(position if known is None else known, renews=False, forgets=False, poisons=False)
    if gap and since != known:
        return Tidings(known, renews=False, forgets=True, poisons=False)
    newest = position if known is None or gap else max(known, position)
    return Tidings(newest, renews=True, forgets=gap, poisons=gap)


class Landing(enum.Enum):
    """What becomes of a load when its answer is here."""

    ENDED = "ended"  # the session is over, whatever the answer says
    FAILED = "failed"
    AGAIN = "again"  # the answer may be older than what has happened since
    KEYLESS = "keyless"  # judge the ticket again
    GONE = "gone"  # the store has no such session
    IDLE = "idle"
    LIVES = "lives"


def landing(
    *,
    ended: Verdict | None,
    has_failed: bool,
    is_poisoned: bool,
    is_keyless: bool,
    deadline_ms: int | None,
    asked_ms: int,
    now_ms: int,
) -> Landing:
    """`ended`: what a log, or a logout here, said while the load was under way. The interleaving
    that it guards against:

    1. the load reads the log, then the deadline: the session lives
    2. the session is revoked
    3. a flush reads the log, and its reply gets here first: the near cache forgets the session
    4. the load's reply gets here. It must not bring the session back.

    `deadline_ms`: the latest one known of the session, in the store's time as `asked_ms`, when it
    was asked, and `now_ms`; None: the store has none. A deadline that has passed in between may
    have moved in between: another gateway's use was on its way.
    """
    if ended is not None:
        return Landing.ENDED
    if has_failed:
        return Landing.FAILED
    if is_poisoned:
        return Landing.AGAIN
    if is_keyless:
        return Landing.KEYLESS
    if deadline_ms is None:
        return Landing.GONE
    if now_ms < deadline_ms:
        return Landing.LIVES
    return Landing.IDLE if deadline_ms <= asked_ms else Landing.AGAIN


class ClockStep(NamedTuple):
    """A correction of the offset to the store's clock."""

    by_ms: int
    is_jump: bool  #: somebody set the clock: what is held must be looked up again


def clock_step(known_offset_ms: int, measured_offset_ms: int, uncertainty_ms: int) -> ClockStep:
    """The correction that a measurement asks for: none within its uncertainty."""
    by_ms = measured_offset_ms - known_offset_ms
    if abs(by_ms) <= uncertainty_ms:
        return ClockStep(0, False)
    return ClockStep(by_ms, abs(by_ms) > CLOCK_JUMP_MS)


class Pulse:
    """Beats while this process runs. A pause of more than `stall_ms` is a stall: a signal, a
    suspended machine, a blocked loop.

    Whoever is about to draw a conclusion from silence lets it beat first: after a stall, that may
    run before the timer does.
    """

    def __init__(self, stall_ms: int) -> None:
        self.stalled_at_ms = 0  #: when the last stall was over, as far as is known; the start counts as one
        self._stall_ms = stall_ms
        self._beat_at_ms = 0

    def beat(self, now_ms: int) -> None:
        """This process runs at `now_ms`."""
        if now_ms - self._beat_at_ms > self._stall_ms:
            self.stalled_at_ms = now_ms
        self._beat_at_ms = now_ms

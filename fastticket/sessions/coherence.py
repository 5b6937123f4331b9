"""The decisions of the coherence protocol: what a process may believe, and until when. No I/O, no
clock.

    granted_until_ms     the lease after an answer
    credited_until_ms    the lease after a failure
    read_tail            what the tail of a shard's log means for the entries held of the shard
    landing              what becomes of a load when its answer arrives
    may_give_back        whether sessions that are held may be given back to a store that lost them
    clock_step           how to follow the store's clock
    Pulse                notices that this process was stalled

The ticket cache decides by these alone, and `tests/model` explores every interleaving of them.
Times are ms of this process's clock that goes on while the machine is suspended. A lease is a time
on it until which a shard's entries may be admitted.

Rules of this file
- A lease counts from when the question was *sent*: the answer may not show what was revoked after
  that.
- A lease that has run out is only replaced by an answer. Credit continues one that was in force.
- A process that was not running cannot tell a store that was silent from an answer that it did not
  read.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from fastticket.errors import Verdict
from fastticket.stores.contract import Loss, Position

#: A correction of the clock up to this is a step: no deadline moves by more. A larger one is a
#: jump.
CLOCK_JUMP_MS = 500


def granted_until_ms(lease_until_ms: int, sent_at_ms: int, lease_ms: int) -> int:
    """The lease after the answer to a question that was sent at `sent_at_ms`. Answers may come in
    any order: the latest question counts.

    Where another primary may take over, callers give the time at which this one was confirmed: the
    answer does not show what was revoked at another primary since then.
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

    1. The lease had run out when the question was sent. A session may have been revoked since it
       did, and every process that asked has heard of it.
    2. This process was stalled since then. The store may have answered, and nothing here read it.
    3. A question that was sent later was answered: the store is there, and that answer's lease
       counts.

    In each of them the lease stays as it is, and the next question decides.
    """
    had_run_out = lease_until_ms <= failure.sent_at_ms
    if had_run_out or failure.stalled_at_ms >= failure.sent_at_ms or failure.answered_at_ms > failure.sent_at_ms:
        return lease_until_ms
    return max(lease_until_ms, min(failure.failed_at_ms + lease_ms, failure.outage_since_ms + grace_ms))


class TailEffect(NamedTuple):
    """What the log tail in an answer means for its shard."""

    position: Position | None  #: to ask from the next time
    renews: bool  #: the lease is renewed, from when the question was sent
    forgets: bool  #: entries held of the shard must be looked up again
    poisons: bool  #: and loads under way, but for those that came with this answer


def read_tail(known: Position | None, since: Position | None, position: Position, gap: bool) -> TailEffect:
    """The answer to "what happened after `since`?"; `known` is the last position heard by now.

    `gap`: entries after `since` are lost. If `since` is older than `known`, the gap may lie before
    `known`; if it lies behind, the next question finds it. So such an answer renews no lease.
    """
    if since is None:  # "from now on": that says nothing of the entries held
        return TailEffect(position if known is None else known, renews=False, forgets=False, poisons=False)
    if gap and since != known:
        return TailEffect(known, renews=False, forgets=True, poisons=False)
    newest = position if known is None or gap else max(known, position)
    return TailEffect(newest, renews=True, forgets=gap, poisons=gap)


class Landing(enum.Enum):
    """What becomes of a load when its answer arrives."""

    ENDED = "ended"  # the session is over, whatever the answer says
    FAILED = "failed"
    AGAIN = "again"  # the answer may be out of date: ask again
    KEYLESS = "keyless"  # the ticket's key has left the ring: judge the ticket again
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
    """Times are the store's. `ended`: what a log, or a logout here, said while the load was under
    way. The interleaving that it guards against:

    1. the load reads the log, then the deadline: the session lives
    2. the session is revoked
    3. a flush reads the log, and its reply arrives first: the near cache forgets the session
    4. the load's reply arrives. It must not bring the session back.

    `deadline_ms`: the latest known one; None: the store has no such session. A deadline that has
    passed between `asked_ms` and `now_ms` may also have moved in between, by a use at another
    gateway that was on its way.
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


#: A process that heard a shard's log so shortly before the loss, or before the last that any
#: process heard of it, may give sessions back. Every process makes again what ended in the minute
#: before.
CURRENT_MS = 30_000
#: Sessions are given back for so long after a loss. What was made again of ends bars them for
#: longer.
GIVE_BACK_WITHIN_MS = 120_000


def may_give_back(heard_ms: int, loss: Loss) -> bool:
    """Whether what a process holds of a shard that has lost its data may go back into the store.
    `heard_ms`: how long ago this process last heard what was there before.

    P6 forbids it where a session may have ended, and nobody will say so any more:

    1. this process is cut off from the store, or suspended
    2. a session that it holds ends elsewhere, and every process forgets that in time
    3. the store loses its data, and this process hears it again

    A process that heard the log in the last CURRENT_MS cannot have missed an end that is forgotten.
    Nor can one to which the store fell silent when it did so to all: others have heard it for no
    longer. All that follow the log have said so a lease after the loss; whoever asks then, knows.
    """
    if loss.noticed_ms > GIVE_BACK_WITHIN_MS:
        return False
    return heard_ms <= CURRENT_MS + loss.noticed_ms or heard_ms <= loss.heard_ms + CURRENT_MS


class ClockStep(NamedTuple):
    """A correction of the offset to the store's clock."""

    by_ms: int
    is_jump: bool  #: the clock was set: all that is held must be looked up again


def clock_step(known_offset_ms: int, measured_offset_ms: int, uncertainty_ms: int) -> ClockStep:
    """The correction by a measurement; none if it is within the measurement's uncertainty."""
    by_ms = measured_offset_ms - known_offset_ms
    if abs(by_ms) <= uncertainty_ms:
        return ClockStep(0, False)
    return ClockStep(by_ms, abs(by_ms) > CLOCK_JUMP_MS)


class Pulse:
    """Beats while this process runs. A pause of more than `stall_ms` is a stall: a signal, a
    suspended machine, a blocked loop.

    A caller that concludes something from silence calls `beat` first: after a stall it may run
    before the timer does.
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

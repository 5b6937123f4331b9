"""What must hold: P2, P3, P4, P6 and P8 of the design, as judgements of a state or of a move. Each
returns what is broken, or nothing.

P2 is judged by what the network did, not by what a gateway made of it. A session's end counts from
when it was acknowledged and the primary has it (a failover may lose an end until it is made again).
A gateway is excused as long as its messages are lost, one after the other, from within a lease of
the end on: that is an outage, and P8 is about it. A stall, or one lost message among others that
are answered later, excuses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model import store
from model.scopes import NOW

if TYPE_CHECKING:
    from model.protocol import Gateway, Protocol, State


def broken(protocol: Protocol, state: State) -> str:
    """The promise that a state breaks: whom would a gateway admit right now, and who lives?"""
    primary = state.shards[state.primary]
    for g, gateway in enumerate(state.gateways):
        if gateway.heard and gateway.trusts and gateway.at == state.primary:
            for sid, _ in primary.live:
                if sid in gateway.heard:
                    return f"P6: session {sid} lives, although gateway {g}, which could know of its end, has made again what it knows"
        for sid, since in enumerate(state.over):
            if since is not None and protocol.admits(gateway, sid):
                late = _late(protocol, gateway, sid, NOW if store.record_of(primary, sid) else since)
                if late:
                    return f"gateway {g} admits session {sid}: {late}"
        if state.used:
            for sid, used in enumerate(state.used):
                if used + protocol.scope.idle + 1 < NOW and protocol.admits(gateway, sid):
                    return f"P3: gateway {g} admits session {sid} past its deadline"
    return ""


def admitted(protocol: Protocol, state: State, g: int, sid: int) -> str:
    """A gateway admits a session without an entry."""
    since = state.over[sid]
    late = "" if since is None else _late(protocol, state.gateways[g], sid, since)
    return late and f"gateway {g} admits session {sid}, which found no room: {late}"


def _late(protocol: Protocol, gateway: Gateway, sid: int, since: int) -> str:
    scope = protocol.scope
    if NOW - since < scope.lease:
        return "P6: it knows of its end" if sid in gateway.heard else ""
    is_outage = gateway.is_dark and gateway.dark_last + scope.timeout + scope.lease > NOW
    if (
        is_outage
        and gateway.dark_since < since + scope.lease
        and gateway.dark_since + scope.timeout + scope.grace > NOW
    ):
        return ""
    return f"P2: its end was acknowledged {NOW - since} ticks ago, and a lease is {scope.lease}"


def refused(protocol: Protocol, state: State, g: int, sid: int, said: str) -> str:
    """A load has landed, and said what it says."""
    primary = state.shards[state.primary]
    if said not in ("idle", "gone") or state.over[sid] is not None or sid in state.doomed:
        return ""
    if said == "idle" and state.used and state.used[sid] + protocol.scope.idle <= NOW:
        return ""
    if said == "idle" and protocol.scope.has("losses"):
        return ""  # the gateway that saw the use may not have been able to say so
    if said == "gone" and (store.record_of(primary, sid) is None or state.gateways[g].at != state.primary):
        return ""  # a login that a failover lost; or a gateway that has not heard of the failover yet
    return f"P4: gateway {g} refuses session {sid} as {said}, which is in use"


def moved_back(before: store.Shard, after: store.Shard) -> str:
    """P6: touches bring no session to life and move no deadline back."""
    for sid, record in after.live:
        earlier = store.record_of(before, sid)
        if earlier is None:
            return f"P6: a touch brings session {sid} to life"
        if record.deadline < earlier.deadline:
            return f"P6: the deadline of session {sid} moves back"
    return ""


def made_again(state: State, g: int, before: store.Shard, after: store.Shard) -> str:
    """A gateway made again what it heard: nobody else is ended by that, and what was acknowledged
    to it lives.
    """
    for sid, _ in before.live:
        if sid not in state.doomed and store.record_of(after, sid) is None:
            return f"P4: gateway {g} makes again, and ends session {sid}, which nobody ended"
    for sid in sorted(state.gateways[g].births - state.doomed):
        if store.record_of(after, sid) is None:
            return f"P4: gateway {g} has made again what it heard, and session {sid}, which it acknowledged, is lost"
    return ""


def passed(protocol: Protocol, state: State) -> str:
    """Time goes on: everything that was due is done."""
    scope = protocol.scope
    if scope.idle:
        return ""  # it may have passed its deadline
    for g, gateway in enumerate(state.gateways):
        if not gateway.runs or not gateway.owed or not gateway.awake or gateway.dark_since + scope.grace <= NOW:
            continue
        for sid in sorted(gateway.owed - state.doomed):
            if not protocol.admits(gateway, sid):
                return f"P8: the store went away {NOW - gateway.dark_since} ticks ago, and gateway {g} no longer admits session {sid}"
    return ""

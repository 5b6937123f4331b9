"""One shard of the store: what its scripts do, in plain Python. The twin of the Lua, and part of
the model's state.

    create  rotate  revoke  revoke_all    as logins, rotations and logouts ask for them
    exchange                              touches, the log's tail, deadlines
    again                                 a gateway's ledger, made again after a failover, at once

A shard is a value: each function returns another one. `at` is the store's time; entries of the log
get `at`, `at + 1` and so on as positions, so the caller leaves room. Session ids and principals are
anything that can be compared and hashed.

Rules of this file
- An end bars its session id whether or not the session is there: whoever makes an older login or
  rotation again finds the mark.
- Doing it twice is doing it once.
- Marks are never forgotten here. The real ones are, after minutes, when nobody has a ledger that
  old.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

Id = Hashable


class Record(NamedTuple):
    principal: Id
    created: int
    deadline: int


class Entry(NamedTuple):
    """An entry of the log. `revoked`: sid. `rotated`: sid, successor and its record. `everywhere`:
    principal, up_to, kept. `created`: sid.
    """

    position: int
    kind: str
    sid: Id = None
    successor: Id = None
    record: Record | None = None
    principal: Id = None
    up_to: int = 0
    kept: Id = None


class Shard(NamedTuple):
    live: tuple[tuple[Id, Record], ...] = ()
    log: tuple[Entry, ...] = (Entry(0, "opened"),)
    barred: frozenset[Id] = frozenset()
    barred_principals: frozenset[tuple[Id, int]] = frozenset()  #: with all sessions created up to then


class Answer(NamedTuple):
    position: int
    gap: bool
    events: tuple[Entry, ...]
    deadlines: tuple[int | None, ...]


class Operation(NamedTuple):
    """An entry of a ledger: `end` (sid), `everywhere` (principal, up_to, kept), `rotate` (sid,
    successor, record), `create` (sid, record).
    """

    kind: str
    sid: Id = None
    successor: Id = None
    record: Record | None = None
    principal: Id = None
    up_to: int = 0
    kept: Id = None


# --- reading


def record_of(shard: Shard, sid: Id) -> Record | None:
    for other, record in shard.live:
        if other == sid:
            return record
    return None


def is_barred_with_all(shard: Shard, record: Record) -> bool:
    """Whether all that its principal had then was ended."""
    return any(who == record.principal and record.created <= up_to for who, up_to in shard.barred_principals)


# --- changes, of which the scripts consist


def _with(shard: Shard, sid: Id, record: Record) -> Shard:
    return shard._replace(live=tuple(sorted((*_others(shard, sid), (sid, record)), key=lambda pair: pair[0])))


def _others(shard: Shard, sid: Id) -> tuple[tuple[Id, Record], ...]:
    return tuple(pair for pair in shard.live if pair[0] != sid)


def _append(shard: Shard, at: int, kind: str, **what: object) -> Shard:
    position = max(at, shard.log[-1].position + 1)
    return shard._replace(log=(*shard.log, Entry(position, kind, **what)))  # type: ignore[arg-type]


def _bar(shard: Shard, sid: Id) -> Shard:
    return shard._replace(barred=shard.barred | {sid})


def _end(shard: Shard, at: int, sid: Id) -> Shard:
    if record_of(shard, sid):
        shard = _append(shard._replace(live=_others(shard, sid)), at, "revoked", sid=sid)
    return _bar(shard, sid)


def _end_all(shard: Shard, at: int, principal: Id, up_to: int, kept: Id) -> tuple[Shard, tuple[Id, ...]]:
    """Mark each, and all sessions if none is kept: for those that are not there just now."""
    ids = tuple(
        sid for sid, record in shard.live if record.principal == principal and record.created <= up_to and sid != kept
    )
    for sid in ids:
        shard = _end(shard, at, sid)
    if kept is None:
        shard = shard._replace(barred_principals=shard.barred_principals | {(principal, up_to)})
    return shard, ids


def _move(shard: Shard, at: int, sid: Id, successor: Id, record: Record) -> Shard:
    shard = _with(shard._replace(live=_others(shard, sid)), successor, record)
    return _bar(_append(shard, at, "rotated", sid=sid, successor=successor, record=record), sid)


# --- the scripts


def create(shard: Shard, at: int, sid: Id, record: Record) -> tuple[Shard, bool]:
    """False: refused, the session was ended, or all of its principal's were that were created until
    then.
    """
    if record_of(shard, sid):
        return shard, True
    if sid in shard.barred or is_barred_with_all(shard, record):
        return shard, False
    return _append(_with(shard, sid, record), at, "created", sid=sid), True


def revoke(shard: Shard, at: int, sid: Id) -> tuple[Shard, bool]:
    """End a session. False if there was none."""
    return _end(shard, at, sid), record_of(shard, sid) is not None


def revoke_all(shard: Shard, at: int, principal: Id, kept: Id = None) -> tuple[Shard, tuple[Id, ...]]:
    """The ids of those that ended. If it was all, the log says so, for the ledgers of others; if
    one was kept, it says each.
    """
    up_to = max([at, *(record.created for _, record in shard.live if record.principal == principal)])
    shard, ended = _end_all(shard, at, principal, up_to, kept)
    if kept is None:
        shard = _append(shard, at, "everywhere", principal=principal, up_to=up_to)
    return shard, ended


def rotate(shard: Shard, at: int, sid: Id, successor: Id, record: Record) -> tuple[Shard, bool]:
    """False: there was no such session, or its successor was ended."""
    if record_of(shard, successor):
        return shard, True
    if successor in shard.barred or not record_of(shard, sid):
        return shard, False
    return _move(shard, at, sid, successor, record), True


def exchange(
    shard: Shard,
    since: int | None,
    touches: Iterable[tuple[Id, int]] = (),
    wanted: Iterable[Id] = (),
    how: Callable[..., Shard] | None = None,
) -> tuple[Shard, Answer]:
    for sid, deadline in touches:
        shard = (how or touch)(shard, sid, deadline)
    position = shard.log[-1].position
    gap, events = False, ()
    if since is not None and since != position:
        gap = not any(entry.position == since for entry in shard.log)
        events = () if gap else tuple(entry for entry in shard.log if entry.position > since)
    found = [record_of(shard, sid) for sid in wanted]
    return shard, Answer(position, gap, events, tuple(record and record.deadline for record in found))


def touch(shard: Shard, sid: Id, deadline: int) -> Shard:
    """ZADD XX GT: it revives nothing, and moves nothing back."""
    record = record_of(shard, sid)
    if record is None or deadline <= record.deadline:
        return shard
    return _with(shard, sid, record._replace(deadline=deadline))


def trim(shard: Shard, keep: int = 1) -> Shard:
    """The log drops all but its newest entries."""
    return shard._replace(log=shard.log[-keep:])


def again(
    shard: Shard, at: int, ledger: Sequence[Operation], how: Mapping[str, Callable[..., Shard]] | None = None
) -> Shard:
    """Make again what a gateway heard in the last minute, first heard first."""
    for operation in ledger:
        shard = (how or AGAIN)[operation.kind](shard, at, operation)
    return shard


def again_end(shard: Shard, at: int, operation: Operation) -> Shard:
    return _end(shard, at, operation.sid)


def again_everywhere(shard: Shard, at: int, operation: Operation) -> Shard:
    return _end_all(shard, at, operation.principal, operation.up_to, operation.kept)[0]


def again_rotate(shard: Shard, at: int, operation: Operation) -> Shard:
    """If what it became has ended since, it ends."""
    sid, successor, record = operation.sid, operation.successor, operation.record
    if record_of(shard, successor):
        return shard
    if successor in shard.barred or is_barred_with_all(shard, record):
        return _end(shard, at, sid)
    return _move(shard, at, sid, successor, record)


def again_create(shard: Shard, at: int, operation: Operation) -> Shard:
    sid, record = operation.sid, operation.record
    if record_of(shard, sid) or sid in shard.barred or is_barred_with_all(shard, record):
        return shard
    return _append(_with(shard, sid, record), at, "created", sid=sid)


AGAIN: Mapping[str, Callable[..., Shard]] = {
    "end": again_end,
    "everywhere": again_everywhere,
    "rotate": again_rotate,
    "create": again_create,
}

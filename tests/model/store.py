"""One shard of the store: what its scripts do, in plain Python. The twin of the Lua, and part of the model's state.

    create  rotate  revoke  revoke_all    as logins, rotations and logouts ask for them
    exchange                              touches, the log's tail, deadlines
    again                                 a gateway's ledger, made again after a failover, in one step

A shard is a value: each function returns another one. `at` is the store's time; entries of the log get `at`, `at + 1` and so on as
positions, so the caller leaves room. Session ids and principals are anything that can be compared and hashed.

Rules of this file
- An end bars its session id whether or not the session is there: whoever makes an older login or rotation again finds the mark.
- Doing it twice is doing it once.
- Marks are never forgotten here. The real ones are, after minutes, when nobody has a ledger that old.
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
    """Of the log. `revoked`: sid. `rotated`: sid, successor and its record. `everywhere`: principal, up_to, keeps. `created`: sid."""

    position: int
    kind: str
    sid: Id = None
    successor: Id = None
    record: Record | None = None
    principal: Id = None
    up_to: int = 0
    keeps: tuple[Id, ...] = ()


class Shard(NamedTuple):
    live: tuple[tuple[Id, Record], ...] = ()
    log: tuple[Entry, ...] = (Entry(0, "opened"),)
    barred: frozenset[Id] = frozenset()
    everywheres: frozenset[tuple[Id, int, tuple[Id, ...]]] = frozenset()  #: principal, up to when created, those kept
    heirs: frozenset[tuple[Id, Id]] = frozenset()  #: a session, and what it was rotated to


class Answer(NamedTuple):
    position: int
    gap: bool
    events: tuple[Entry, ...]
    deadlines: tuple[int | None, ...]


class Operation(NamedTuple):
    """Of a ledger: `end` (sid), `everywhere` (principal, up_to, keeps), `rotate` (sid, successor, record), `create` (sid, record)."""

    kind: str
    sid: Id = None
    successor: Id = None
    record: Record | None = None
    principal: Id = None
    up_to: int = 0
    keeps: tuple[Id, ...] = ()


# --- reading


def record_of(shard: Shard, sid: Id) -> Record | None:
    for other, record in shard.live:
        if other == sid:
            return record
    return None


def is_barred_with_all(shard: Shard, sid: Id, record: Record) -> bool:
    """Whether all that its principal had then was ended, and this was not kept by the latest such end."""
    latest = max((mark for mark in shard.everywheres if mark[0] == record.principal), key=lambda mark: mark[1], default=None)
    return latest is not None and record.created <= latest[1] and sid not in latest[2]


def heirs(keeps: Iterable[Id], pairs: Iterable[tuple[Id, Id]]) -> list[Id]:
    """Sessions, what they were rotated to, and so on."""
    pairs, found = list(pairs), list(keeps)
    for sid in found:  # grows as it goes
        found += [successor for other, successor in pairs if other == sid]
    return found


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


def _end_all(shard: Shard, at: int, principal: Id, up_to: int, keeps: tuple[Id, ...]) -> tuple[Shard, tuple[Id, ...]]:
    """All of a principal that were created up to then, but those kept and what they were rotated to."""
    spared = heirs(keeps, shard.heirs)
    ids = [sid for sid, record in shard.live if record.principal == principal and record.created <= up_to and sid not in spared]
    for sid in ids:
        shard = _end(shard, at, sid)
    return shard._replace(everywheres=shard.everywheres | {(principal, up_to, keeps)}), tuple(ids)


def _rename(shard: Shard, at: int, sid: Id, successor: Id, record: Record) -> Shard:
    """Whoever is kept goes on to be kept."""
    marks = frozenset((who, up_to, (*keeps, successor) if sid in keeps else keeps) for who, up_to, keeps in shard.everywheres)
    shard = _with(shard._replace(live=_others(shard, sid)), successor, record)
    shard = _append(shard, at, "rotated", sid=sid, successor=successor, record=record)
    return _bar(shard._replace(everywheres=marks, heirs=shard.heirs | {(sid, successor)}), sid)


# --- the scripts


def create(shard: Shard, at: int, sid: Id, record: Record) -> tuple[Shard, bool]:
    """False: refused, the session was ended."""
    if record_of(shard, sid):
        return shard, True
    if sid in shard.barred:
        return shard, False
    return _append(_with(shard, sid, record), at, "created", sid=sid), True


def revoke(shard: Shard, at: int, sid: Id) -> tuple[Shard, bool]:
    """False: there was none."""
    return _end(shard, at, sid), record_of(shard, sid) is not None


def revoke_all(shard: Shard, at: int, principal: Id, kept: Id = None) -> tuple[Shard, tuple[Id, ...]]:
    """The ids of those that ended. The log says `everywhere`, too, for the ledgers of others. One to be kept that is over is none."""
    keeps = (kept,) if record_of(shard, kept) else ()
    shard, ended = _end_all(shard, at, principal, at, keeps)
    return _append(shard, at, "everywhere", principal=principal, up_to=at, keeps=keeps), ended


def rotate(shard: Shard, at: int, sid: Id, successor: Id, record: Record) -> tuple[Shard, bool]:
    """False: there was no such session, or its successor was ended."""
    if record_of(shard, successor):
        return shard, True
    if successor in shard.barred or not record_of(shard, sid):
        return shard, False
    return _rename(shard, at, sid, successor, record), True


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


def again(shard: Shard, at: int, ledger: Sequence[Operation], how: Mapping[str, Callable[..., Shard]] | None = None) -> Shard:
    """What a gateway heard in the last minute, in the order in which it heard it first."""
    for operation in ledger:
        shard = (how or AGAIN)[operation.kind](shard, at, operation)
    return shard


def again_end(shard: Shard, at: int, operation: Operation) -> Shard:
    return _end(shard, at, operation.sid)


def again_everywhere(shard: Shard, at: int, operation: Operation) -> Shard:
    return _end_all(shard, at, operation.principal, operation.up_to, operation.keeps)[0]


def again_rotate(shard: Shard, at: int, operation: Operation) -> Shard:
    """If what it became has ended since, it ends. One that lives is in nobody's way: whoever ended all of its principal's was here."""
    sid, successor, record = operation.sid, operation.successor, operation.record
    if record_of(shard, successor):
        return shard
    if successor in shard.barred:
        return _end(shard, at, sid)
    is_over = is_barred_with_all(shard, sid, record) and is_barred_with_all(shard, successor, record)
    if is_over and not record_of(shard, sid):
        return _bar(shard, sid)
    return _rename(shard, at, sid, successor, record)


def again_create(shard: Shard, at: int, operation: Operation) -> Shard:
    sid, record = operation.sid, operation.record
    if record_of(shard, sid) or sid in shard.barred or is_barred_with_all(shard, sid, record):
        return shard
    return _append(_with(shard, sid, record), at, "created", sid=sid)


AGAIN: Mapping[str, Callable[..., Shard]] = {
    "end": again_end,
    "everywhere": again_everywhere,
    "rotate": again_rotate,
    "create": again_create,
}

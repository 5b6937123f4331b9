"""What stands in Redis, and how to read it.

    ft:meta              HASH     format, shards; the fleet's longest flush_interval_ms and lease_ms
    {ft:NNN}:live        ZSET     MEMBER -> idle deadline, ms
    {ft:NNN}:user:USER   HASH     session id -> record
    {ft:NNN}:attr:ID     HASH     attribute -> value, and "" -> version and size; if there are any
    {ft:NNN}:ended       ZSET     "sMEMBER" or "pUSER" -> when the mark expires, ms (prelude.lua)
    {ft:NNN}:bars        ZSET     USER, or "" for everybody -> when all sessions were ended, ms
    {ft:NNN}:lost        HASH     at, heard: data was lost (loss.lua); for some minutes
    {ft:NNN}:log         STREAM   kind -> MEMBER, then names and values
    {ft:000}:gateways    ZSET     a gateway's id -> until when it is in the register, ms
    {ft:000}:cards       HASH     a gateway's id -> what it says of itself, as JSON
    ft:doorbell          CHANNEL  "NNN ENTRY" or "NNN ENTRY ID"

NNN is `shard_of(principal)` (contract.py), ID a session id, USER a principal, MEMBER "ID.USER",
ENTRY an id in the log. All keys of a shard have its hash tag, so they are in one slot of a Cluster.

A record has creation, idle timeout, absolute lifetime and the login's details. Kinds of log entries
are opened, created, rotated, changed, revoked, everywhere and expired. The doorbell's short message
says that a session was revoked, has expired or has another id now, the long one that the attributes
of the session ID were written.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from typing import Any

from fastticket.stores.contract import NO_DETAILS, SESSION_ID_CHARS, Event, Position, StoredSession

FORMAT = 2
META = "ft:meta"
DOORBELL = "ft:doorbell"
REGISTER_SHARD = 0  # the register is in its slot: there is one for the whole store

#: A record's beginning: created, ms, in 6 bytes (48 bits of 64); idle timeout and absolute
#: lifetime, s. Details follow, as JSON.
RECORD = struct.Struct(">HIII")

CURSOR = re.compile(r"([0-9]{1,5})-([0-9]{1,20})-([0-9a-f]{0,8})")  # of a scan
KINDS = (b"created", b"rotated", b"changed", b"revoked", b"expired")  # of log entries that concern one session


def key(shard: int, name: str) -> str:
    """A key of a shard: live, log, ended, …"""
    return f"{{ft:{shard:03}}}:{name}"


def user_key(shard: int, principal: str) -> str:
    """The index of a principal's sessions."""
    return key(shard, f"user:{principal}")


def attributes_key(shard: int, session_id: str) -> str:
    """The attributes of a session."""
    return key(shard, f"attr:{session_id}")


def pack_record(session: StoredSession) -> bytes:
    """The value in the user's index."""
    details = json.dumps(dict(session.details), ensure_ascii=False).encode() if session.details else b""
    created_ms = divmod(session.created_ms, 1 << 32)
    return RECORD.pack(*created_ms, session.idle_timeout_s, session.absolute_lifetime_s) + details


def read_session(principal: str, session_id: bytes, idle_deadline_ms: bytes, record: bytes) -> StoredSession:
    """What sessions.lua says of one session."""
    high, low, idle_timeout_s, absolute_lifetime_s = RECORD.unpack_from(record)
    details = json.loads(record[RECORD.size :]) if len(record) > RECORD.size else NO_DETAILS
    created_ms = high << 32 | low
    return StoredSession(
        session_id.decode(), principal, int(idle_deadline_ms), created_ms, idle_timeout_s, absolute_lifetime_s, details
    )


def split_member(member: bytes) -> tuple[str, str]:
    """(session id, principal) of a member of `live`, or of a log entry."""
    text = member.decode(errors="replace")
    return text[:SESSION_ID_CHARS], text[SESSION_ID_CHARS + 1 :]


def read_position(entry: bytes) -> Position:
    """The id of a stream's entry: ms, sequence number."""
    milliseconds, _, sequence = entry.partition(b"-")
    return int(milliseconds), int(sequence)


def read_cursor(cursor: str, shards: int) -> tuple[int, str, str]:
    """(shard, cursor of `ZSCAN`, its server) of a cursor of `Store.scan`. ValueError."""
    parts = CURSOR.fullmatch(cursor or "0-0-")
    if not parts or int(parts[1]) >= shards:
        raise ValueError(f"not a cursor of this store: {cursor!r}")
    return int(parts[1]), parts[2], parts[3]


def position_text(position: Position | None) -> str:
    """The id again; "" for None, which the scripts take for "from now on"."""
    return "" if position is None else f"{position[0]}-{position[1]}"


def read_events(entries: Iterable[Any]) -> list[Event]:
    """Entries of the log, without those that concern no single session (`opened`, `everywhere`) and
    those that no version of fastticket writes.
    """
    events = []
    for entry, fields in entries:
        if fields[0] in KINDS:
            more = dict(zip(fields[2::2], fields[3::2], strict=False))
            reason, successor_id = more.get(b"reason", b"").decode(), more.get(b"to", b"").decode()
            member = split_member(fields[1])
            events.append(Event(read_position(entry), fields[0].decode(), *member, reason, successor_id))
    return events

"""The ledger: what a gateway makes again when another server has taken over. Ends and rotations of
the last minute, and its own logins.

    Ledger        a shard's records, in the order heard: own calls, and the log's entries
    again.lua     makes it again, and says why the order of gateways does not matter
    takeover.py   when that is done

Rules of this file
- Every gateway makes again what *any* gateway ended or rotated, so the death of the one that did it
  loses nothing. A gateway that has just started reads the last minute of the log first.
- "All of a principal's sessions created by then" is one record, however many there are. Where one
  session was kept, each of the others is a record, up to LISTED_MAX (revoke.lua says why).
- Bounded in time by HEARD_S, in number by HEARD_MAX a shard, which is all that the log itself
  holds.
- Ends do not grow old while their shard does not answer: a server that comes back without its data
  after a long outage must hear of them before sessions are given back to it
  (sessions/restoring.py). Logins and rotations do grow old: their end, at another gateway that
  could reach the store, may be forgotten by then. Of such a rotation the end of its former id is
  left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from fastticket.stores.redis.layout import split_member

HEARD_S = 60.0
HEARD_MAX = 8192
LISTED_MAX = 1000
ENDING = frozenset(("end", "everywhere", "rotate", "bar"))  # kinds of records
REMEMBERED = frozenset((b"revoked", b"everywhere", b"rotated"))  # kinds of log entries; the others are many more
AT_ONCE = 500  # records in one script, which holds up all other commands

Words = tuple[str | bytes | int, ...]  # a record: the arguments of again.lua for it
Entry = tuple[bytes, Sequence[bytes]]  # of the log: id; then kind, member, names and values


class Ledger:
    """`clock`: monotonic, s, also while the machine is suspended."""

    def __init__(self, shards: int, clock: Callable[[], float]) -> None:
        self._shards = [_Shard(clock) for _ in range(shards)]
        self._clock = clock

    def created(self, shard: int, session_id: str, principal: str, idle_deadline_ms: int, record: bytes) -> None:
        """A login of this process."""
        self._shards[shard].begin(("create", session_id), ("create", session_id, principal, idle_deadline_ms, record))

    def rotated(
        self, shard: int, session_id: str, principal: str, successor_id: str, idle_deadline_ms: int, record: bytes
    ) -> None:
        """A session has another id now. `record`: without the login's details."""
        words: Words = ("rotate", session_id, principal, successor_id, idle_deadline_ms, record)
        self._shards[shard].begin(words[:2], words)

    def ended(self, shard: int, session_id: str, principal: str) -> None:
        """A session is over."""
        self._shards[shard].end(session_id, principal)

    def ended_everywhere(self, shard: int, principal: str, before_ms: int, kept_id: str) -> None:
        """A principal's sessions created by `before_ms` are over, but the kept one."""
        self._shards[shard].end_all(principal, before_ms, kept_id)

    def barred(self, shard: int, principal: str, at_ms: int) -> None:
        """A bar of this process."""
        self._shards[shard].bar(principal, at_ms)

    def hear(self, shard: int, entries: Sequence[Entry]) -> None:
        """Entries of the log, in order. Old ones, as a server that has taken over may have, are
        left out.
        """
        if not entries:
            return
        heard = self._shards[shard]
        heard.newest_ms = max(heard.newest_ms, _milliseconds(entries[-1]))
        since_ms = heard.newest_ms - HEARD_S * 1000
        covered: dict[str, int] = {}  # principals, by an `everywhere` that comes later in the list
        for number, (_, fields) in enumerate(entries):
            if fields[0] == b"everywhere" and fields[-1] == b"":  # none was kept
                covered[split_member(fields[1])[1]] = number
        for number, entry in enumerate(entries):
            if entry[1][0] in REMEMBERED and _milliseconds(entry) >= since_ms:
                self._hear(shard, entry[1], covered, number)

    def miss(self, shard: int) -> None:
        """A shard has not answered."""
        heard = self._shards[shard]
        if heard.silent_since_s is None:
            heard.silent_since_s = self._clock()

    def answered(self, shard: int) -> None:
        """A shard answers, and lacks nothing of this."""
        self._shards[shard].silent_since_s = None

    def _hear(self, shard: int, fields: Sequence[bytes], covered: dict[str, int], number: int) -> None:
        kind, (session_id, principal) = fields[0], split_member(fields[1])
        more = dict(zip(fields[2::2], fields[3::2], strict=False))
        if kind == b"revoked" and number >= covered.get(principal, 0):
            self.ended(shard, session_id, principal)
        elif kind == b"everywhere":
            self.ended_everywhere(shard, principal, int(more[b"before"]), more[b"keep"].decode())
        elif kind == b"rotated" and b"record" in more:
            self.rotated(shard, session_id, principal, more[b"to"].decode(), int(more[b"until"]), more[b"record"])

    def words(self, shard: int) -> Iterator[list[Words]]:
        """The records to make again, in pieces for one script each; none is old when it is handed
        out.
        """
        records = self._shards[shard]
        heard = iter(records.entries())
        while piece := list(islice(heard, AT_ONCE)):
            yield [records.as_of_now(heard_s, words) for heard_s, words in piece if heard_s >= records.since_s(words)]


class _Shard:
    """The records of one shard. An end removes the login or rotation that the session came from:
    that is not made again even for a moment.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.newest_ms = 0  #: the time of the log's newest entry
        self.silent_since_s: float | None = None  #: since when the shard does not answer
        self._clock = clock
        self._heard: OrderedDict[Words, tuple[float, Words]] = OrderedDict()
        self._beginnings: dict[str, dict[Words, None]] = {}  # by principal: keys of logins and rotations
        self._origins: dict[str, Words] = {}  # by successor's id: the key of its rotation

    def entries(self) -> list[tuple[float, Words]]:
        """(when it was heard, s; the record)"""
        self._forget_old()
        return list(self._heard.values())

    def begin(self, key: Words, words: Words) -> None:
        """A login, or a rotation."""
        if key in self._heard:
            return
        self._beginnings.setdefault(str(words[2]), {})[key] = None
        if words[0] == "rotate":
            self._origins[str(words[3])] = key
        self._note(key, words)

    def end(self, session_id: str, principal: str) -> None:
        """A session is over, and so are the ids that it had before."""
        ended: str | None = session_id
        while ended is not None:
            self._remove(("create", ended))
            self._note(("end", ended), ("end", ended, principal))
            origin = self._remove(self._origins.get(ended, ()))
            ended = str(origin[1]) if origin else None

    def end_all(self, principal: str, before_ms: int, kept_id: str) -> None:
        """One record a principal: a later one covers the earlier one."""
        for key in list(self._beginnings.get(principal, ())):
            words = self._heard[key][1]
            is_kept = words[3 if words[0] == "rotate" else 1] == kept_id
            if not is_kept and _created_ms(words[-1]) <= before_ms:
                self._remove(key)
        self._remove(("everywhere", principal))
        self._note(("everywhere", principal), ("everywhere", principal, before_ms, kept_id))

    def bar(self, principal: str, at_ms: int) -> None:
        """One record a principal: the latest."""
        self._remove(("bar", principal))
        self._note(("bar", principal), ("bar", principal, at_ms))

    def _note(self, key: Words, words: Words) -> None:
        """Keep a record, at the place where it was heard first."""
        if key not in self._heard:
            self._heard[key] = self._clock(), words
            self._forget_old()

    def _remove(self, key: Words) -> Words:
        """Remove a record and return it; empty if there is none."""
        _, words = self._heard.pop(key, (0.0, ()))
        if words and words[0] in ("create", "rotate"):
            keys = self._beginnings[str(words[2])]
            del keys[key]
            if not keys:
                del self._beginnings[str(words[2])]
        if words and words[0] == "rotate":
            self._origins.pop(str(words[3]), None)
        return words

    def since_s(self, words: Words) -> float:
        """A record is old that was heard before this."""
        now_s = self._clock()
        if words[0] in ENDING and self.silent_since_s is not None:
            now_s = self.silent_since_s
        return now_s - HEARD_S

    def as_of_now(self, heard_s: float, words: Words) -> Words:
        """What is left of a record that is not old. A rotation from before a long silence begins
        nothing any more, but its former id is over.
        """
        if words[0] == "rotate" and heard_s < self._clock() - HEARD_S:
            return "end", *words[1:3]
        return words

    def _forget_old(self) -> None:
        while self._heard and (len(self._heard) > HEARD_MAX or self._is_old(*next(iter(self._heard.values())))):
            self._remove(next(iter(self._heard)))

    def _is_old(self, heard_s: float, words: Words) -> bool:
        return heard_s < self.since_s(words)


def sessions_in(pieces: Iterable[Words]) -> Iterator[tuple[str, str]]:
    """(session id or "", principal) of the keys that a script declares.

    Ends and bars declare none: while a Cluster moves the slot, a declared key that exists nowhere
    makes the script TRYAGAIN, and ends must not wait for that.
    """
    for kind, *words in pieces:
        if kind in ("end", "bar"):
            continue
        if kind == "everywhere":
            yield "", str(words[0])
            continue
        yield str(words[0]), str(words[1])
        if kind == "rotate":
            yield str(words[2]), str(words[1])


def _created_ms(record: str | bytes | int) -> int:
    return int.from_bytes(record[:6], "big") if isinstance(record, bytes) else 0


def _milliseconds(entry: Entry) -> int:
    return int(entry[0].partition(b"-")[0])

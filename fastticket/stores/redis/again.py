"""What a gateway makes again when another server has taken over: ends, rotations and its own logins
of the last minute.

    Ledger      per shard, in the order in which it was heard: from this process's own calls, and from the log
    again.lua   does it, and says why the order of gateways does not matter

Rules of this file
- Every gateway makes again what *anybody* ended or rotated, so the death of the one that did it
  loses nothing. One that has just started reads the last minute of the log first.
- "All of a principal's sessions until then" is one record, however many there are. Where one was
  kept, each of the others is one, up to
  LISTED_MAX (revoke.lua says why).
- Bounded: in time by HEARD_S, in number by HEARD_MAX of a shard, which is all that the log itself
  holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from fastticket.stores.redis.layout import split_member

HEARD_S = 60.0
HEARD_MAX = 8192
LISTED_MAX = 1000
REMEMBERED = frozenset((b"revoked", b"everywhere", b"rotated"))  # of the kinds of entries; the others are many more
AT_ONCE = 500  # in one script, which holds up everybody else

Words = tuple[str | bytes | int, ...]  # what again.lua takes for one of them
Entry = tuple[bytes, Sequence[bytes]]  # of the log: its id; kind, member, then names and values


class Ledger:
    """`clock`: monotonic, s; it goes on while the machine is suspended."""

    def __init__(self, shards: int, clock: Callable[[], float]) -> None:
        self._shards = [_Shard(clock) for _ in range(shards)]

    def created(self, shard: int, session_id: str, principal: str, idle_deadline_ms: int, record: bytes) -> None:
        """A login of this process."""
        self._shards[shard].begin(("create", session_id), ("create", session_id, principal, idle_deadline_ms, record))

    def rotated(
        self, shard: int, session_id: str, principal: str, successor_id: str, idle_deadline_ms: int, record: bytes
    ) -> None:
        """A session has another id now. `record`: without details."""
        words: Words = ("rotate", session_id, principal, successor_id, idle_deadline_ms, record)
        self._shards[shard].begin(words[:2], words)

    def ended(self, shard: int, session_id: str, principal: str) -> None:
        """A session is over."""
        self._shards[shard].end(session_id, principal)

    def ended_everywhere(self, shard: int, principal: str, before_ms: int, kept_id: str) -> None:
        """All sessions of a principal that were created until then are over, but one."""
        self._shards[shard].end_all(principal, before_ms, kept_id)

    def hear(self, shard: int, entries: Sequence[Entry]) -> None:
        """Entries of the log, in order. What a server that has taken over brings of former times is
        not of the last minute.
        """
        if not entries:
            return
        heard = self._shards[shard]
        heard.newest_ms = max(heard.newest_ms, _milliseconds(entries[-1]))
        since_ms = heard.newest_ms - HEARD_S * 1000
        covered: dict[str, int] = {}  # by an `everywhere` that comes later in the list
        for number, (_, fields) in enumerate(entries):
            if fields[0] == b"everywhere" and fields[-1] == b"":  # none was kept
                covered[split_member(fields[1])[1]] = number
        for number, entry in enumerate(entries):
            if entry[1][0] in REMEMBERED and _milliseconds(entry) >= since_ms:
                self._hear(shard, entry[1], covered, number)

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
        """What there is to make again, in pieces for one script each, none of it old when it is
        handed out.
        """
        heard = iter(self._shards[shard].entries())
        while piece := list(islice(heard, AT_ONCE)):
            since_s = self._shards[shard].since_s
            yield [words for heard_s, words in piece if heard_s >= since_s]


class _Shard:
    """What was heard of one shard. What has ended is not made again even for a moment, nor what it
    came from.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.newest_ms = 0  #: of the log's entries
        self._clock = clock
        self._heard: OrderedDict[Words, tuple[float, Words]] = OrderedDict()
        self._beginnings: dict[str, dict[Words, None]] = {}  # of a principal: keys of logins and rotations
        self._origins: dict[str, Words] = {}  # of a successor: the key of its rotation

    def entries(self) -> list[tuple[float, Words]]:
        """When each was heard, s, and what it is."""
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
        """Back to where it came from."""
        ended: str | None = session_id
        while ended is not None:
            self._remove(("create", ended))
            self._note(("end", ended), ("end", ended, principal))
            origin = self._remove(self._origins.get(ended, ()))
            ended = str(origin[1]) if origin else None

    def end_all(self, principal: str, before_ms: int, kept_id: str) -> None:
        """One record; a later one says more."""
        for key in list(self._beginnings.get(principal, ())):
            words = self._heard[key][1]
            is_kept = words[3 if words[0] == "rotate" else 1] == kept_id
            if not is_kept and _created_ms(words[-1]) <= before_ms:
                self._remove(key)
        self._remove(("everywhere", principal))
        self._note(("everywhere", principal), ("everywhere", principal, before_ms, kept_id))

    def _note(self, key: Words, words: Words) -> None:
        """At the place where it was heard first."""
        if key not in self._heard:
            self._heard[key] = self._clock(), words
            self._forget_old()

    def _remove(self, key: Words) -> Words:
        """Empty: it was not there."""
        _, words = self._heard.pop(key, (0.0, ()))
        if words and words[0] in ("create", "rotate"):
            keys = self._beginnings[str(words[2])]
            del keys[key]
            if not keys:
                del self._beginnings[str(words[2])]
        if words and words[0] == "rotate":
            self._origins.pop(str(words[3]), None)
        return words

    @property
    def since_s(self) -> float:
        """What was heard before is old."""
        return self._clock() - HEARD_S

    def _forget_old(self) -> None:
        since_s = self.since_s
        while self._heard and (len(self._heard) > HEARD_MAX or next(iter(self._heard.values()))[0] < since_s):
            self._remove(next(iter(self._heard)))


def sessions_in(pieces: Iterable[Words]) -> Iterator[tuple[str, str]]:
    """Session ids and principals whose keys a script must be able to write to: (id or "",
    principal).

    Not of what has ended: while a Cluster moves the slot, a key that is nowhere makes it TRYAGAIN,
    and ends must not wait for that.
    """
    for kind, *words in pieces:
        if kind == "end":
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

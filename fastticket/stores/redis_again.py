"""What a gateway makes again when another server has taken over: ends, rotations and its own logins of the last minute.

    Ledger      per shard, in the order in which it was heard: from this process's own calls, and from the log
    again.lua   does it, and says why the order of gateways does not matter

Rules of this file
- Every gateway makes again what *anybody* ended or rotated, so the death of the one that did it loses nothing. One that has just
  started reads the last minute of the log first.
- "All of a principal's sessions until then" is one record, however many there are. Where one was kept, each of the others is one, up to
  LISTED_MAX (revoke.lua says why).
- Bounded: in time by HEARD_S, in number by HEARD_MAX of a shard, which is all that the log itself holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

HEARD_S = 60.0
HEARD_MAX = 8192
LISTED_MAX = 1000
AT_ONCE = 500  # in one script, which holds up everybody else

Words = tuple[str | bytes | int, ...]  # what again.lua takes for one of them
Entry = tuple[bytes, Sequence[bytes]]  # of the log: its id; kind, member, then names and values


class Ledger:
    """`clock`: monotonic, s; it goes on while the machine is suspended."""

    def __init__(self, shards: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard: list[OrderedDict[Words, tuple[float, Words]]] = [OrderedDict() for _ in range(shards)]
        self._origins: list[dict[str, Words]] = [
            {} for _ in range(shards)
        ]  # of a rotation's successor: the key of that
        self._beginnings: list[dict[str, dict[Words, None]]] = [
            {} for _ in range(shards)
        ]  # of a principal: the keys of his logins and rotations
        self._newest_ms = [0] * shards

    def created(self, shard: int, session_id: str, principal: str, idle_deadline_ms: int, record: bytes) -> None:
        """A login of this process."""
        self._note(shard, ("create", session_id), ("create", session_id, principal, idle_deadline_ms, record))

    def rotated(
        self, shard: int, session_id: str, principal: str, successor_id: str, idle_deadline_ms: int, record: bytes
    ) -> None:
        """A session has another id now. `record`: without details."""
        words: Words = ("rotate", session_id, principal, successor_id, idle_deadline_ms, record)
        self._note(shard, words[:2], words)

    def ended(self, shard: int, session_id: str, principal: str) -> None:
        """A session is over: it is not made again even for a moment, nor what it came from."""
        chain = [session_id]
        while origin := self._drop_beginning(shard, chain[-1]):
            chain.append(origin)
        for each in reversed(chain):
            self._note(shard, ("end", each), ("end", each, principal))

    def ended_everywhere(self, shard: int, principal: str, before_ms: int, kept_id: str) -> None:
        """All sessions of a principal that were created until then are over, but one."""
        heard = self._heard[shard]
        for key in list(self._beginnings[shard].get(principal, ())):
            _, words = heard[key]
            is_kept = words[1 if words[0] == "create" else 3] == kept_id
            if not is_kept and _created_ms(words[-1]) <= before_ms:
                self._drop(shard, key)
        heard.pop(("everywhere", principal), None)
        self._note(shard, ("everywhere", principal), ("everywhere", principal, before_ms, kept_id))

    def hear(self, shard: int, entries: Sequence[Entry]) -> None:
        """Entries of the log, in order. What a server that has taken over brings of former times is not of the last minute."""
        if not entries:
            return
        self._newest_ms[shard] = max(self._newest_ms[shard], _milliseconds(entries[-1]))
        since_ms = self._newest_ms[shard] - HEARD_S * 1000
        covered: dict[str, int] = {}  # by an `everywhere` that comes later in the list
        for number, (_, fields) in enumerate(entries):
            if fields[0] == b"everywhere" and fields[-1] == b"":  # none was kept
                covered[_session_of(fields[1])[1]] = number
        for number, entry in enumerate(entries):
            if _milliseconds(entry) >= since_ms:
                self._hear(shard, entry[1], covered, number)

    def _hear(self, shard: int, fields: Sequence[bytes], covered: dict[str, int], number: int) -> None:
        kind, (session_id, principal) = fields[0], _session_of(fields[1])
        more = dict(zip(fields[2::2], fields[3::2], strict=False))
        if kind == b"revoked" and number >= covered.get(principal, 0):
            self.ended(shard, session_id, principal)
        elif kind == b"everywhere":
            self.ended_everywhere(shard, principal, int(more[b"before"]), more[b"keep"].decode())
        elif kind == b"rotated" and b"record" in more:
            self.rotated(shard, session_id, principal, more[b"to"].decode(), int(more[b"until"]), more[b"record"])

    def words(self, shard: int) -> Iterator[list[Words]]:
        """What there is to make again, in pieces for one script each, none of it old when it is handed out."""
        self._forget_old(shard)
        heard = iter(list(self._heard[shard].values()))
        while piece := list(islice(heard, AT_ONCE)):
            since_s = self._clock() - HEARD_S
            yield [words for heard_s, words in piece if heard_s >= since_s]

    def _note(self, shard: int, key: Words, words: Words) -> None:
        """At the place where it was heard first."""
        heard = self._heard[shard]
        if key not in heard:
            heard[key] = self._clock(), words
            if words[0] in ("create", "rotate"):
                self._beginnings[shard].setdefault(str(words[2]), {})[key] = None
            if words[0] == "rotate":
                self._origins[shard][str(words[3])] = key
            self._forget_old(shard)

    def _drop_beginning(self, shard: int, session_id: str) -> str:
        """Of a session. The id that it had before, if that is known."""
        self._drop(shard, ("create", session_id))
        origin = self._origins[shard].get(session_id)
        if origin:
            self._drop(shard, origin)
        return str(origin[1]) if origin else ""

    def _drop(self, shard: int, key: Words) -> None:
        """One that is heard of, or not."""
        _, words = self._heard[shard].pop(key, (0.0, ()))
        if words and words[0] in ("create", "rotate"):
            of_principal = self._beginnings[shard][str(words[2])]
            del of_principal[key]
            if not of_principal:
                del self._beginnings[shard][str(words[2])]
        if words and words[0] == "rotate":
            self._origins[shard].pop(str(words[3]), None)

    def _forget_old(self, shard: int) -> None:
        heard, since_s = self._heard[shard], self._clock() - HEARD_S
        while heard and (len(heard) > HEARD_MAX or next(iter(heard.values()))[0] < since_s):
            self._drop(shard, next(iter(heard)))


def sessions_in(pieces: Iterable[Words]) -> Iterator[tuple[str, str]]:
    """Session ids and principals whose keys a script must be able to write to: (id or "", principal).

    Not of what has ended: while a Cluster moves the slot, a key that is nowhere makes it TRYAGAIN, and ends must not wait for that.
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


def _session_of(member: bytes) -> tuple[str, str]:
    """A session id has 22 characters."""
    text = member.decode(errors="replace")
    return text[:22], text[23:]

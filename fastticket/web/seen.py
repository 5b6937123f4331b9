"""P11, read your writes: which version of its session's attributes a client has seen. A cookie
beside the ticket's says so.

    ticket-seen=1763740000000-0

Near copies are kept true by the store's log, which is read now and then. A browser that has changed
its cart asks sooner, and another process: that one knows by the cookie that its copy is too old. A
version is a place in the log of the session's shard, so of one session's versions the later one is
the greater one, and a write's is greater than all before it.

Rules of this file
- The cookie proves nothing, and admits nobody. It makes a process ask the store where it has a
  copy; who forges it causes one read of his own session a request.
- Where the store was asked, it is right. A cookie that claims more (forged, of another session, of
  writes that a failover has lost) is corrected, so that it costs one read and not one for ever.
- What is not a version counts as newer than any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastticket.stores.contract import NEVER_WRITTEN, Position

VERSION = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
UNREADABLE: Position = (10**20, 0)


class SeenVersion:
    """What one client has seen, for the length of a request. `values`: of the cookies that came;
    several mean the greatest.

    `version` is what near copies must not be older than.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._told = max(map(_version, values), default=NEVER_WRITTEN)
        self._written: Position = NEVER_WRITTEN
        self.version = self._told

    def read(self, version: Position) -> None:
        """The attributes were read, none older than `version` asked for: what is older all the same
        is what the store holds.
        """
        if version < self.version:
            self.version = max(version, self._written)

    def wrote(self, version: Position) -> None:
        """This request has written them. An earlier claim to a later version was none of this
        session.
        """
        self._written = max(version, self._written)
        self.version = self._written

    def forget(self) -> None:
        """There is no session, or one that nobody had before: nobody has a copy of its attributes."""
        self.version = self._written = NEVER_WRITTEN

    @property
    def news(self) -> str | None:
        """The cookie's value that the client does not have yet. Empty: it needs none any more;
        None: it has what it needs.
        """
        if self.version == self._told:
            return None
        return "" if self.version == NEVER_WRITTEN else f"{self.version[0]}-{self.version[1]}"


def _version(value: str) -> Position:
    found = VERSION.fullmatch(value)
    return (int(found[1]), int(found[2])) if found else UNREADABLE

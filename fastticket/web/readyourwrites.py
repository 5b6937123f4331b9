"""Read your writes (P11): a cookie beside the ticket's says which version of its session's
attributes a client has seen.

    ticket-seen=1763740000000-0

A process has near copies of attributes, and learns from the store's log, within milliseconds to
`lease_ms`, that one is outdated. A browser that has changed its cart may ask another process
sooner: the cookie tells that process that its copy is too old. A version is a position in the log
of the session's shard, so a later version of a session is greater than an earlier one.

Rules of this file
- The cookie proves nothing and admits nobody. It makes a process read from the store what it has a
  copy of; a forged one costs one read of the forger's own session.
- What the store answers is right. A cookie that claims more (forged, of another session, of writes
  that a failover lost) is corrected in the response, so that it costs one read and not one a
  request.
- A value that is not a version counts as newer than any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastticket.stores.contract import NEVER_WRITTEN, Position

VERSION = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
UNREADABLE: Position = (10**20, 0)


class SeenVersion:
    """The version that one client has seen, for the length of a request.

    `values`: of the cookies that came; of several the greatest version counts. `version`: near
    copies must not be older than this one.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._told = max(map(_version, values), default=NEVER_WRITTEN)
        self._written: Position = NEVER_WRITTEN
        self.version = self._told

    def read(self, version: Position) -> None:
        """The attributes were read, with `self.version` as the oldest acceptable version. An older
        one is what the store itself holds, so the claim was wrong.
        """
        if version < self.version:
            self.version = max(version, self._written)

    def wrote(self, version: Position) -> None:
        """This request has written the attributes. A claim to a later version was wrong, or of
        another session.
        """
        self._written = max(version, self._written)
        self.version = self._written

    def forget(self) -> None:
        """There is no session, or a new one, of whose attributes no process has a copy."""
        self.version = self._written = NEVER_WRITTEN

    @property
    def news(self) -> str | None:
        """The value of the cookie to set, `<ms>-<sequence>`. Empty: delete the cookie. None: the
        client has the right one, or needs none.
        """
        if self.version == self._told:
            return None
        return "" if self.version == NEVER_WRITTEN else f"{self.version[0]}-{self.version[1]}"


def _version(value: str) -> Position:
    found = VERSION.fullmatch(value)
    return (int(found[1]), int(found[2])) if found else UNREADABLE

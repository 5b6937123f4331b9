"""Linkis' tickets that were made for programs' tokens. No session's end would end such a ticket, so
it ends here

    with its token    which has expired, or was taken out of the file, or no longer has this user
    with its gateway  which stops
    by itself         when it is two idle timeouts old: its pass was renewed long before

When all sessions of its user are ended, walks.py ends it, whichever gateway has made it; watch.py
sees that it has gone, and the program's next request gets another.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from fastticket.core.ticket import decode_session_id
from fastticket.gateway.migration.oldstores import LinkisHash
from fastticket.gateway.tokens import Tokens


class MadeForToken(NamedTuple):
    """`session_id`: what its pass has in the place of one (passes.py)."""

    made_ms: int
    session_id: str
    principal: str
    old_id: str


class Programs:
    """Those that one configuration has made, or the configurations before it."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens
        self._made: deque[MadeForToken] = deque()
        self._coming: Programs | None = None

    def add(self, made: MadeForToken) -> None:
        """One more."""
        if self._coming:
            self._coming.add(made)
        else:
            self._made.append(made)

    def give_way(self, coming: Programs | None) -> None:
        """Those that are there, and each further one, are judged by the tokens of another
        configuration; None: they end with this one.
        """
        self._coming = coming
        if coming:
            coming._made.extend(self.take_all())

    def take_over(self, store: LinkisHash, now_ms: int) -> list[MadeForToken]:
        """Those that are over, which are forgotten."""
        over = [each for each in self._made if not self._is_good(each, store, now_ms)]
        for each in over:
            self._made.remove(each)
        return over

    def take_all(self) -> list[MadeForToken]:
        """All of them, which are forgotten."""
        made = list(self._made)
        self._made.clear()
        return made

    def _is_good(self, made: MadeForToken, store: LinkisHash, now_ms: int) -> bool:
        if now_ms - made.made_ms > 2000 * store.idle_timeout_s:
            return False
        token = self._tokens.of_id(decode_session_id(made.session_id)[:8]) if self._tokens else None
        return token is not None and token.speaks_for(made.principal, now_ms / 1000)

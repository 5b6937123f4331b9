"""Passes: what a request that was admitted by a token goes on with, in the place of a ticket.

A pass is a ticket that names the token where others name a session, signed with a key of this
process that no key ring has. No client ever gets one, and no check admits one. While the request
goes on (a stream, a wait for a busy upstream), the data plane asks about its pass as about a
ticket; then the token is looked at again.

In the place of a session's id stand the token's id and, since one token may speak for many users, 8
bytes of the user's name and of the time: what is kept by session is never another user's, and no
older than RENEWED_PART of an idle timeout, or than `renew`.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections import Counter

from fastticket.core.ticket import Keyring, Ticket, check_principal, decode_session_id
from fastticket.errors import InvalidPrincipal
from fastticket.gateway.rules import LIFETIME_S_MAX
from fastticket.gateway.tokens import Tokens

log = logging.getLogger("fastticket.gateway")

#: How a request with a token ends: admitted, or the reason why not.
OUTCOMES = ("admitted", "unknown", "expired", "user", "address", "malformed")
RENEWED_PART = 4
NO_TIMEOUT_S = 7200  # where sessions have no idle timeout
SHOWN_CHARS_MAX = 80  # of what a client sent, in a log line


class Passes:
    """The passes of one service. `outcomes` counts the requests with a token."""

    def __init__(self, tokens: Tokens, idle_timeout_s: int = 0) -> None:
        self._renewed_s = (idle_timeout_s or NO_TIMEOUT_S) / RENEWED_PART
        self.outcomes: Counter[str] = Counter()
        self._tokens = tokens
        self._keys = Keyring.generate()
        self._secret = secrets.token_bytes(32)
        self._renewals = 0

    def admit(self, code: bytes, user: bytes, address: str, path: bytes) -> str:
        """A pass for a request; "": it is refused. Either is counted, and is a line of the log.
        `code`, `user`: of the fields, empty if there are several, which is malformed; `address` "":
        it is not known.
        """
        token = self._tokens.find(code)
        now_s = time.time()
        try:
            name = user.decode() if code else ""
            check_principal(name)
            outcome = token.refusal(name, address, now_s) or "admitted" if token else "unknown"
            made = self._mint(name, token.id, now_s, token.ends_s) if token and outcome == "admitted" else ""
        except (UnicodeDecodeError, InvalidPrincipal):
            outcome, made = "malformed", ""
        self.outcomes[outcome] += 1
        line = "token %s: %s: user %s from %s, %s" if made else "token %s: refused, %s: user %s from %s, %s"
        log.log(
            logging.INFO if made else logging.WARNING,
            line,
            token.name if token else "that nobody has",
            outcome,
            _shown(user),
            address or "an unknown address",
            _shown(path),
        )
        return made

    def read(self, ticket: str) -> Ticket | None:
        """What a pass says, good or not; None: it is none."""
        found = self._keys.verify(ticket, 0)
        return found if isinstance(found, Ticket) else None

    def judge(self, ticket: str) -> bool | None:
        """Whether a pass is still good; None: it is no pass, but a ticket."""
        found = self.read(ticket)
        if not found:
            return None
        token = self._tokens.of_id(decode_session_id(found.session_id)[:8])
        return token is not None and (token.ends_s is None or time.time() < token.ends_s)

    def renew(self) -> None:
        """From now on, all passes have other ids."""
        self._renewals += 1

    def _mint(self, user: str, token_id: bytes, now_s: float, ends_s: float | None) -> str:
        """InvalidPrincipal."""
        lifetime_s = min(max(1, int(ends_s - now_s)), LIFETIME_S_MAX) if ends_s is not None else 0
        told = f"{self._renewals} {now_s // self._renewed_s} {user}".encode()
        of_user = hmac.digest(self._secret, told, "sha256")[:8]
        return self._keys.mint(user, int(now_s * 1000), 0, lifetime_s, token_id + of_user)


def _shown(text: bytes) -> str:
    """What a client sent, in ASCII and short."""
    return ascii(text.decode("utf-8", "backslashreplace")[:SHOWN_CHARS_MAX])

"""Verdicts and errors.

A *verdict* is a value: what a check says of a ticket that it does not admit. Bad tickets are the
attacker's to send, so refusing one raises nothing. An *error* is an exception; each class has a
`reason`, a slug that is safe to log and to show, and the HTTP `status` that a gateway answers with.
No message contains a ticket, a key or a password.
"""

from __future__ import annotations

import enum
from typing import Literal

PROBLEMS_SHOWN = 5  # in one message

#: By its reason, what a program does with a ticket cache that none can do, and what to do instead.
MISUSES = {
    "cache_not_open": "the ticket cache is not open: use it within `async with cache:`, or after `await cache.open()`",
    "cache_open_already": "the ticket cache is open already: open it once, where the program starts, and share it",
    "cache_closed": "the ticket cache was closed, and a closed one stays so: make it anew, with a store of its own",
    "cache_of_another_loop": (
        "the ticket cache was opened in another event loop, to which its connections belong: open, use and close it in "
        "one loop (one `asyncio.run`; in tests `with TestClient(app)`); for threads there is fastticket.sync.TicketCache"
    ),
    "cache_of_another_process": (
        "the ticket cache was opened before this process was forked, and its connections belong to the parent; "
        "open it in the child, or make one there"
    ),
    "cache_in_its_own_thread": (
        "a callback of the ticket cache, such as `suits`, runs in the cache's own thread, which can not wait for itself: "
        "call the cache before or after"
    ),
    "store_in_use": (
        "this store object belongs to another ticket cache, which is open: give each cache one of its own, by the same URL"
    ),
}


class Verdict(enum.Enum):
    """Why a check did not admit a ticket. Always falsy; `reason` is the slug.

    MALFORMED, UNKNOWN_KEY, BAD_SIGNATURE and EXPIRED are about the ticket
    (docs/reference/ticket-format.md). IDLE, REVOKED and UNKNOWN_SESSION are about its session:
    REVOKED if the store's log or this process says that it was ended; UNKNOWN_SESSION if the store
    has no such session and no end of it is remembered, because it ended long ago, or never began
    and somebody else has the key. MISSING, AMBIGUOUS (the request has several tickets), BAD_TOKEN
    (a program's token, in the place of a ticket), STORE_UNAVAILABLE and OLD_STORE_UNAVAILABLE (that
    of another system, whose sessions go on here) come from a gateway. All of these are refusals.
    MISS and REFRESH are none: the store has to be asked first.

    C code has the names in the same order, and so the same numbers (`core/verdict.pxd`).
    """

    MALFORMED = 1
    UNKNOWN_KEY = 2
    BAD_SIGNATURE = 3
    EXPIRED = 4
    IDLE = 5
    REVOKED = 6
    MISS = 7
    REFRESH = 8
    MISSING = 9
    AMBIGUOUS = 10
    STORE_UNAVAILABLE = 11
    UNKNOWN_SESSION = 12
    BAD_TOKEN = 13
    OLD_STORE_UNAVAILABLE = 14

    def __bool__(self) -> Literal[False]:
        return False

    @property
    def reason(self) -> str:
        """The slug, e.g. `bad_signature`."""
        return self.name.lower()

    @property
    def is_refusal(self) -> bool:
        """False for MISS and REFRESH: the store has to be asked first."""
        return self not in (Verdict.MISS, Verdict.REFRESH)


class FastticketError(Exception):
    """Base class of every error that fastticket raises on purpose."""

    reason = "error"
    status = 500


class TicketRefused(FastticketError):  # noqa: N818 -- a refusal, not a malfunction
    """The ticket does not admit its bearer; `verdict` says why."""

    status = 401

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"ticket refused: {verdict.reason}")
        self.verdict = verdict
        self.reason = verdict.reason


class StoreUnavailable(FastticketError):  # noqa: N818 -- the field's word for it
    """The store did not answer, or answered with an error. Nothing is known of the session; nobody
    is logged out.
    """

    reason = "store_unavailable"
    status = 503


class OldStoreUnavailable(StoreUnavailable):
    """As StoreUnavailable, of another system's store, whose sessions go on here."""

    reason = "old_store_unavailable"


class StoreBusy(StoreUnavailable):
    """The store is well, but has more to do than it does in time. It is no outage: trying again in
    a moment helps.
    """


class CacheClosed(StoreUnavailable):
    """The ticket cache was closed, as when a server stops: what is still asked for is answered with
    503, and nobody is logged out.
    """

    def __init__(self) -> None:
        super().__init__("the ticket cache is closed: make a new one, with a store of its own")


class NotConfirmed(StoreUnavailable):
    """The change was written, but no replica confirmed it in time (`durability=replicated`): a
    failover may lose it.
    """


class ConfigError(FastticketError):
    """A configuration, key ring or URL cannot be used.

    `problems` are all that is wrong with it, one or more; each says what, where, and what to do.
    The message has the first few.
    """

    reason = "config"

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        more = len(self.problems) - PROBLEMS_SHOWN
        shown = "; ".join(self.problems[:PROBLEMS_SHOWN])
        return f"{shown}; and {more} more, which `fastticket check-config` shows" if more > 0 else shown


class NoStore(ConfigError):  # noqa: N818
    """There is no store at a URL, and the caller did not want one made."""


class InvalidPrincipal(FastticketError, ValueError):  # noqa: N818
    """A principal must be 1 to 190 bytes of UTF-8 without control characters or outer spaces."""

    reason = "invalid_principal"
    status = 502


class TooManySessions(FastticketError):  # noqa: N818
    """A login was refused: the principal has `sessions_max` live sessions, and the policy is to
    evict none.
    """

    reason = "too_many_sessions"
    status = 409

    def __init__(self, sessions_max: int) -> None:
        super().__init__(f"the principal has {sessions_max} sessions already, and may have no more; end one first")
        self.sessions_max = sessions_max


class IssuedTooEarly(FastticketError):  # noqa: N818
    """A login was refused: its time is not after the one at which all sessions of the principal
    were ended. Issue the ticket after `after_ms`, store time.
    """

    reason = "issued_too_early"

    def __init__(self, after_ms: int) -> None:
        super().__init__(f"all sessions of the principal that began until {after_ms} were ended: issue a later one")
        self.after_ms = after_ms


class AttributesTooLarge(FastticketError, ValueError):  # noqa: N818
    """A session's attributes would have more than `attributes_bytes_max` bytes. Nothing was
    written.
    """

    reason = "attributes_too_large"

    def __init__(self, size_bytes: int, bytes_max: int) -> None:
        super().__init__(
            f"the session's attributes would have {size_bytes} bytes, names included; {bytes_max} are allowed "
            "(attributes_bytes_max): keep what is large elsewhere, and its key here"
        )
        self.size_bytes = size_bytes
        self.bytes_max = bytes_max


class BadAttribute(FastticketError, ValueError):  # noqa: N818
    """An attribute cannot be written, or cannot be read back; the message names it. The others are
    unchanged.
    """

    reason = "bad_attribute"

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"attribute {name!r}: {what}")
        self.name = name


class NotLoaded(FastticketError, RuntimeError):  # noqa: N818
    """The program asked for attributes that it had not read from the store: a programming error."""

    reason = "not_loaded"


class NotLoggedIn(FastticketError, RuntimeError):  # noqa: N818
    """The program asked for what only a session has, for a visitor without one. Unless the
    application handles it, by asking the visitor to log in, it is a programming error.
    """

    reason = "not_logged_in"


class CacheMisused(FastticketError, RuntimeError):  # noqa: N818
    """The program uses a ticket cache as none can be used, and trying again does not mend it: a
    programming error. `reason` says which mistake it is, and the message what to do instead.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(MISUSES[reason])
        self.reason = reason

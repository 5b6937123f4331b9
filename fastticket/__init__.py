"""Session tickets that many processes check without asking the store.

    Keyring       signs and verifies tickets
    open_store    the shared store of sessions, named by a URL
    TicketCache   begins, admits and ends sessions, for asyncio: login, authenticate, logout; and
                  check, which asks nobody: where it says MISS or REFRESH, ask authenticate
    Attributes    what an application keeps in a session
    TicketCookie  the cookie that carries a ticket
    errors        each a FastticketError, with a `reason` slug and an HTTP `status`

`fastticket.sync` has the cache for threads; `fastticket.asgi`, `.wsgi`, `.fastapi`, `.flask` and
`.django` put sessions into web frameworks; `fastticket.testing` is for your application's tests.
"""

from fastticket.core.check import Session
from fastticket.core.ticket import Keyring, Ticket, check_principal
from fastticket.errors import (
    AttributesTooLarge,
    BadAttribute,
    CacheClosed,
    CacheMisused,
    ConfigError,
    FastticketError,
    InvalidPrincipal,
    NotLoaded,
    NotLoggedIn,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
    Verdict,
)
from fastticket.sessions.attributes import Attributes, JSONSerializer, Serializer
from fastticket.sessions.events import EventStream, SessionEvent
from fastticket.sessions.ticketcache import SessionInfo, TicketCache
from fastticket.stores import open_store
from fastticket.stores.contract import Store, StoredSession
from fastticket.web.cookies import TicketCookie

__version__ = "0.1.0"  # the one place; CHANGELOG.md says what is in it

__all__ = [
    "Attributes",
    "AttributesTooLarge",
    "BadAttribute",
    "CacheClosed",
    "CacheMisused",
    "ConfigError",
    "EventStream",
    "FastticketError",
    "InvalidPrincipal",
    "JSONSerializer",
    "Keyring",
    "NotLoaded",
    "NotLoggedIn",
    "Serializer",
    "Session",
    "SessionEvent",
    "SessionInfo",
    "Store",
    "StoreUnavailable",
    "StoredSession",
    "Ticket",
    "TicketCache",
    "TicketCookie",
    "TicketRefused",
    "TooManySessions",
    "Verdict",
    "check_principal",
    "open_store",
]

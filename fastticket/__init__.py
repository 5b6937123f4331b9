"""fastticket: session tickets that many gateways check without asking the store.

`Keyring` signs and verifies tickets, `open_store` names the shared truth, `TicketCache` answers.
"""

from fastticket.cache import TicketCache
from fastticket.core.check import Session
from fastticket.core.ticket import Keyring, Ticket
from fastticket.errors import ConfigError, FastticketError, InvalidPrincipal, StoreUnavailable, TicketRefused, Verdict
from fastticket.stores.base import Store, StoredSession, open_store

__all__ = [
    "ConfigError",
    "FastticketError",
    "InvalidPrincipal",
    "Keyring",
    "Session",
    "Store",
    "StoreUnavailable",
    "StoredSession",
    "Ticket",
    "TicketCache",
    "TicketRefused",
    "Verdict",
    "open_store",
]

"""For tests of applications: sessions without a server, and a time that the test sets.

    MemoryStore        the store, in this process's memory; it can be away
    Clock              what the time is, for the store and for the caches on it
    .starlette.log_in  somebody is logged in, for Starlette's and FastAPI's TestClient
    .flask.log_in      the same for `app.test_client()`
    .django.log_in     the same for django.test.Client
    .plugin            pytest's fixtures: `ticket_cache` and what it is made of

    clock = Clock()
    store = MemoryStore(clock)
    cache = fastticket.TicketCache(store, fastticket.Keyring.generate(), clock=clock)

docs/how-to/test-your-application.md has an example for each framework.
"""

from fastticket.testing.clock import Clock
from fastticket.testing.memory import MemoryStore

__all__ = ["Clock", "MemoryStore"]

"""A store for tests of web frameworks: in memory, it counts what it is asked for, and it can be
away.
"""

import contextlib
import inspect
from collections import Counter
from collections.abc import Iterator

from fastticket import Keyring, StoreUnavailable
from fastticket.sync import TicketCache
from fastticket.testing import MemoryStore


class CountedStore:
    """`asked` counts calls by name; with `is_away`, each of them fails."""

    def __init__(self):
        self._store = MemoryStore()
        self.asked = Counter()
        self.is_away = False

    def __getattr__(self, name):
        member = getattr(self._store, name)
        if not inspect.iscoroutinefunction(member) or name in ("open", "settle", "aclose", "time_ms"):
            return member

        async def counted(*arguments, **options):
            self.asked[name] += 1
            if self.is_away:
                raise StoreUnavailable("the store is away")
            return await member(*arguments, **options)

        return counted

    def asked_for(self, do):
        """The numbers of calls, by name, while something is done."""
        self.asked.clear()
        do()
        return dict(self.asked)


#: Nothing is asked for in the background while a test runs.
QUIET = {"flush_interval_ms": 600_000, "lease_ms": 1_200_000}


@contextlib.contextmanager
def quiet_cache(store: CountedStore) -> Iterator[TicketCache]:
    """A cache for threads over it; the store is back before that closes."""
    with TicketCache(store, Keyring.generate(), idle_timeout_s=0, **QUIET) as cache:
        yield cache
        store.is_away = False

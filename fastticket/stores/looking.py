"""Opens a store only to look into it: where there is none, none is made."""

from __future__ import annotations

from collections.abc import Callable

from fastticket.errors import NoStore
from fastticket.stores.contract import Store
from fastticket.stores.sqlite import SQLiteStore


async def open_to_look(make: Callable[[bool], Store]) -> Store:
    """The store, open; an empty one in memory where there is none yet. `make`: given whether to
    create it, the store, not open. ConfigError, StoreUnavailable.
    """
    store = make(False)
    try:
        await store.open()
    except NoStore:
        store = SQLiteStore(None)
        await store.open()
    return store

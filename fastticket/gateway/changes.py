"""Which changes of a configuration a running worker takes over, which need a new process, and what
that one may be handed.
"""

from __future__ import annotations

import hashlib

from fastticket.gateway.inheritance import Given
from fastticket.gateway.settings import Config

#: The settings that the ticket cache is built on: its store, its table, and what the other
#: processes on the store rely on.
FIXED = {
    "ticket": ("audience", "accept_audiences"),
    "store": ("url", "mirror_url", "flush_interval_ms", "lease_ms", "touch_resolution_ms"),
    "cache": ("capacity",),
}


def obstacles(before: Given, after: Given) -> list[str]:
    """What has changed that needs a new process, as an operator knows it; []: the worker goes on,
    with every session that it holds.
    """
    changed = [
        f"[{table}] {name}"
        for table, names in FIXED.items()
        for name in names
        if getattr(getattr(before.config, table), name) != getattr(getattr(after.config, table), name)
    ]
    if before.store_files != after.store_files:
        changed.append("the files that [store] url names")
    if (before.pairs is None) != (after.pairs is None):
        changed.append("[ticket] keys, which came from the environment or will come from it")
    return changed


def heritage(config: Config) -> str:
    """What two workers must have in common for one to begin with what the other holds of sessions:
    a digest of store and audiences.
    """
    audiences = [config.ticket.audience, *config.ticket.accept_audiences]
    return hashlib.sha256("\n".join([config.store.url, *audiences]).encode()).hexdigest()

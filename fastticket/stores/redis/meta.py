"""`ft:meta`: the layout of the store, and the fleet's longest intervals."""

from __future__ import annotations

from fastticket.errors import ConfigError
from fastticket.stores.contract import Fleet
from fastticket.stores.redis.address import slot_of
from fastticket.stores.redis.layout import FORMAT, META
from fastticket.stores.redis.scripts import JOIN
from fastticket.stores.redis.sending import Sender

CONFIRMED_PART = 0.25  # of a lease: so often the topology confirms which server is the primary


class Meta:
    """What `Store.join` does on Redis."""

    def __init__(self, sender: Sender, shards: int) -> None:
        self._sender = sender
        self._shards = shards
        self._slot = slot_of(META)

    async def read(self) -> dict[str, str]:
        """`HGETALL`; empty: there is no store."""
        stored = await self._sender.ask(self._slot, ("HGETALL", META))
        return {name.decode(): value.decode() for name, value in zip(stored[::2], stored[1::2], strict=True)}

    async def join(self, fleet: Fleet) -> Fleet | None:
        """`HGETALL`, `HSETNX` for what is missing, and a script for what is longer."""
        if fleet.lease_ms:
            topology = self._sender.topology
            topology.confirm_s = min(topology.confirm_s, CONFIRMED_PART * fleet.lease_ms / 1000)
        stored = await self.read()
        before = {name: int(stored[name]) for name in fleet._fields if name in stored}
        for name, mine in (("format", FORMAT), ("shards", self._shards)):
            if name not in stored:  # the database is empty, or was emptied: the first process writes it down
                await self._sender.ask(self._slot, ("HSETNX", META, name, mine))
                stored = await self.read()
            self._sender.mismatch = _mismatch_of(name, int(stored[name]), mine)
            if self._sender.mismatch:
                raise ConfigError(self._sender.mismatch)
        if any(mine > before.get(name, 0) for name, mine in zip(fleet._fields, fleet, strict=True)):
            # In one step: of processes that join at the same time each but the first hears of the
            # others.
            pairs = [part for pair in zip(fleet._fields, fleet, strict=True) for part in pair]
            known = await self._sender.ask(self._slot, JOIN.by_source(JOIN.by_sha((META,), pairs)))
            before = {name: int(value) for name, value in zip(fleet._fields, known, strict=True) if value is not None}
        return Fleet(**before) if len(before) == len(fleet) else None


def _mismatch_of(name: str, theirs: int, mine: int) -> str:
    """Why this store does not fit; empty if it does."""
    move = f"say ?shards={theirs} in the URL, or move to another store: how-to/move-store in the documentation"
    hint = move if name == "shards" else "use another database"
    return "" if theirs == mine else f"redis: made with {name} {theirs}, not {mine}; {hint}"

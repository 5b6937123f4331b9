"""The Lua scripts of this folder, as commands. Each is one atomic step in one shard.

Every script begins with prelude.lua, but exchange.lua, which is run too often to define what it
does not use, and join.lua, which is about `ft:meta`. Every script may be sent again: doing it twice
is doing it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from fastticket.stores.redis.address import Command
from fastticket.stores.redis.layout import key


class Script:
    """`EVALSHA` runs it where it is known, `EVAL` anywhere."""

    def __init__(self, name: str, *, begins_with: str = "") -> None:
        folder = files("fastticket.stores.redis")
        flags, newline, body = folder.joinpath(f"{name}.lua").read_bytes().partition(b"\n")
        prelude = folder.joinpath(f"{begins_with}.lua").read_bytes() if begins_with else b""
        self._source = flags + newline + prelude + body
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    def by_sha(self, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
        """NOSCRIPT where the server does not know it."""
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def by_source(self, command: Command) -> Command:
        """The command that `by_sha` made, for a server that does not know the script."""
        return ("EVAL", self._source, *command[2:])


EXCHANGE, JOIN = Script("exchange"), Script("join")
CREATE, ROTATE, REVOKE, AGAIN, SESSIONS, SWEEP, READ, WRITE, TAIL, COUNT, SCAN, RESTORE, LOSS, ANNOUNCE, GATEWAYS = (
    Script(name, begins_with="prelude")
    for name in (
        *("create", "rotate", "revoke", "again", "sessions", "sweep", "read", "write", "tail"),
        *("count", "scan", "restore", "loss", "announce", "gateways"),
    )
)

ScriptCall = tuple[Script, Command]


def call_of(shard: int, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> ScriptCall:
    """A script's call in a shard. `keys`: beside live and log, which every one has."""
    return script, script.by_sha((key(shard, "live"), key(shard, "log"), *keys), arguments)

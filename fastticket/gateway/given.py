"""What a worker is given by its supervisor: all that it would otherwise have to read or to look up.

A worker that takes another's place serves by what that one had, whatever has become of the key
file, the name server or the store since.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence

from fastticket.core.ticket import Keyring
from fastticket.gateway.addresses import Server
from fastticket.gateway.settings import Config


class Start(enum.Enum):
    """Why a worker starts, which says what may be away. What is wrong with the configuration itself
    always ends it.
    """

    FIRST = "first"  #: store and names may be away; a store that answers and is not what was configured may not
    RELOAD = "reload"  #: what the present workers have may not be away: they go on instead
    REPLACEMENT = "replacement"  #: everything may be away, or wrong by now: it was right when it was checked


# Words of the supervisor to a worker, each with a line end; whatever else is a key ring.
GO = b"go"  #: serve
LEAVE = b"leave"  #: SIGTERM will follow: nobody shall stay
STAY = b"stay"  #: it will not


def word_of(pairs: Sequence[tuple[int, bytes]]) -> bytes:
    """A key ring as a word."""
    return json.dumps([(key_id, secret.hex()) for key_id, secret in pairs]).encode()


def pairs_of(word: bytes) -> list[tuple[int, bytes]]:
    """The key ring of a word."""
    return [(key_id, bytes.fromhex(secret)) for key_id, secret in json.loads(word)]


@dataclasses.dataclass(frozen=True)
class Given:
    """The configuration in force, and what goes with it."""

    config: Config
    keys: Keyring
    pairs: Sequence[tuple[int, bytes]] | None = dataclasses.field(
        default=None, repr=False
    )  #: what they are; None: of the environment
    start: Start = Start.FIRST
    #: The addresses of `host:port`, as some worker found them last; none: it has looked, and found
    #: none.
    servers: Mapping[str, Sequence[Server]] = dataclasses.field(default_factory=dict)
    is_store_away: bool = False  #: for the present workers, and they hold nobody's session: a reload loses nothing

    @property
    def may_lack_store(self) -> bool:
        """Whether to serve without one."""
        return self.start is not Start.RELOAD or self.is_store_away

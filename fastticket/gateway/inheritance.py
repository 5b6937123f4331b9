"""What a supervisor gives a worker at its fork, so that the worker reads and looks up nothing that
could have changed.

A worker that replaces another one runs by what that one was given, whatever has become of the key
file, the name server or the store since.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence

from fastticket.core.ticket import Keyring
from fastticket.gateway import identity
from fastticket.gateway.addresses import Server
from fastticket.gateway.identity import Identity
from fastticket.gateway.settings import Config
from fastticket.sessions.handing import Known


class Start(enum.Enum):
    """Why a worker starts, which decides what may be missing. An error in the configuration itself
    always ends the worker.
    """

    FIRST = "first"  #: the store and names may be away; a store that answers must be the one configured
    RELOAD = "reload"  #: nothing may be away that the present workers have: they go on instead
    REPLACEMENT = "replacement"  #: everything may be away or wrong by now: it was right when it was checked


@dataclasses.dataclass(frozen=True)
class Given:
    """The configuration of a worker, and what was read and looked up for it. ConfigError: the keys
    make no ring.
    """

    config: Config
    #: The (id, secret) pairs of the key file, the one that signs last; None: the keys are in the
    #: environment.
    pairs: Sequence[tuple[int, bytes]] | None = dataclasses.field(default=None, repr=False)
    start: Start = Start.FIRST
    #: The addresses of names by `host:port`, as a worker found them last; []: it found none.
    servers: Mapping[str, Sequence[Server]] = dataclasses.field(default_factory=dict)
    #: What the worker before holds of sessions, until the new one has taken it; []: the near cache
    #: begins empty.
    handed: list[Known | bytes] = dataclasses.field(default_factory=list, repr=False)
    #: Digests of the files that the store's URL names, in its order.
    store_files: Sequence[bytes] = ()
    #: A reload without the store loses nothing: the present workers have no store either, and hold
    #: no session.
    loses_nothing: bool = False
    identity: Identity = dataclasses.field(default_factory=identity.of_this_process)  #: the supervisor's
    keys: Keyring = dataclasses.field(init=False, repr=False)  #: made of `pairs`, or of the environment

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", self.config.keyring_of(self.pairs))

    @property
    def may_lack_store(self) -> bool:
        """Whether to serve without a store that answers."""
        return self.start is not Start.RELOAD or self.loses_nothing

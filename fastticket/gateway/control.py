"""What a supervisor and its worker say to each other (`channel`).

to the worker     Serve, Leave, ReplaceKeys, Reload, HandSessions, Inquiry,
                  SetLogLevel, DrainServers
from the worker   Ready or Failed, once; Reloaded, once for each Reload; Handed, some for a
                  HandSessions; Told, once for each Inquiry; DrainServers, after each change

Rule of this file: a secret is not shown by `repr`, which is what a log line would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fastticket.gateway.addresses import Server
from fastticket.gateway.settings import Config
from fastticket.sessions.handing import Known


@dataclasses.dataclass(frozen=True)
class Serve:
    """Accept clients."""


@dataclasses.dataclass(frozen=True)
class Leave:
    """SIGTERM will follow: close every connection after its next answer. `is_leaving` False: it
    will not after all.
    """

    is_leaving: bool = True


@dataclasses.dataclass(frozen=True)
class ReplaceKeys:
    """Use these keys from now on: (id, secret) pairs, the one that signs last."""

    pairs: Sequence[tuple[int, bytes]] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Reload:
    """Serve by another configuration, on the sockets that come along. The answer is Reloaded."""

    config: Config = dataclasses.field(repr=False)
    pairs: Sequence[tuple[int, bytes]] | None = dataclasses.field(repr=False)  #: as `Given.pairs`
    servers: Mapping[str, Sequence[Server]]  #: as `Given.servers`
    listeners: Sequence[Sequence[int]]  #: for each plane, which of the sockets


@dataclasses.dataclass(frozen=True)
class HandSessions:
    """Tell what you hold of sessions, for the worker that will take your place."""


@dataclasses.dataclass(frozen=True)
class Handed:
    """A part of it, as `sessions.handing` has them; None: that was all."""

    part: Known | bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Inquiry:
    """Answer an operator (`inquiries`), in so many seconds. The answer is Told."""

    number: int
    name: str
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    timeout_s: float


@dataclasses.dataclass(frozen=True)
class Told:
    """The answer to the inquiry of that number; or, with a slug of `admin.refusals`, why there is
    none.
    """

    number: int
    answer: Any = dataclasses.field(default=None, repr=False)  #: a ticket may be in it
    refusal: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True)
class SetLogLevel:
    """Log from this level on."""

    level: str


@dataclasses.dataclass(frozen=True)
class DrainServers:
    """Let these have no new request, and all others: (upstream, server) as an operator has named
    them. From the worker: these are drained now.
    """

    servers: frozenset[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Ready:
    """Requests could be served."""


@dataclasses.dataclass(frozen=True)
class Failed:
    """It cannot start, and ends."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Reloaded:
    """The other configuration is in force; or, with a reason, the one before goes on."""

    refusal: str = ""

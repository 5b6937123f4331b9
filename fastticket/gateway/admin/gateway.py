"""What the admin API needs of a gateway's supervisor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastticket.gateway.admin.recent import Recent
from fastticket.gateway.inheritance import Given
from fastticket.gateway.snapshot import Snapshot


class Gateway(Protocol):
    """The supervisor, as operations see it. What is a coroutine may raise `Refused`."""

    #: What the last seconds were like.
    recent: Recent

    #: Of the program; "" if it is not known.
    version: str

    def snapshot(self) -> Snapshot:
        """The state of the gateway now."""

    @property
    def in_force(self) -> Given:
        """The configuration in force, with its keys."""

    def worker_states(self) -> Sequence[Mapping[str, Any]]:
        """What there is to say of each worker's process."""

    async def inquire(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        """Ask the worker that serves; `inquiries` has the names."""

    @property
    def log_level(self) -> str:
        """From which level on lines are logged."""

    def set_log_level(self, level: str) -> None:
        """Log from that level on, in every process, until the next reload."""

    async def reload(self) -> None:
        """Read the configuration anew, and serve by it. Refused: the one before stays."""

    def drain(self) -> None:
        """Not ready from now on."""

    def undrain(self) -> bool:
        """Ready again. False: it was told to stop."""

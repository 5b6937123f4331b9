"""A touch whose parts have names: what `contract.Touch` is as a plain tuple."""

from typing import NamedTuple


class Touch(NamedTuple):
    """A session was used."""

    session_id: str
    principal: str
    idle_deadline_ms: int

"""Lines of the access log, written by the data plane into memory and fetched by the control plane,
which writes the file.
"""

from typing import Self, final

@final
class AccessLog:
    """A buffer of at most 4 MiB of lines, JSON or text: of one plane, whose thread writes while
    another one takes.
    """

    @property
    def dropped(self) -> int:
        """Lines for which there was no room, since the start."""

    def __new__(cls, is_json: bool) -> Self: ...
    def take(self) -> bytes:
        """The lines written since the last call, each whole."""

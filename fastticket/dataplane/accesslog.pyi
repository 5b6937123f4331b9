"""Lines of the access log, written by the data plane into memory and fetched by the control plane,
which writes the file.
"""

from typing import Self, final

@final
class AccessLog:
    """At most 4 MB of lines, JSON or text; `dropped` counts those that found no room."""

    dropped: int

    def __new__(cls, is_json: bool) -> Self: ...
    def take(self) -> bytes:
        """What was written since the last call: whole lines."""

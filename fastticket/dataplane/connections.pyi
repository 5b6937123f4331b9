"""The lowest layer of the data plane: slots, deadlines, turns, sending."""

from collections.abc import Mapping

from typing_extensions import disjoint_base

from fastticket.dataplane.occupancy import Occupancy

#: Name of each timeout: (number, default in s).
TIMEOUTS_S: Mapping[str, tuple[int, float]]

#: The timeouts that a route may have of its own.
ROUTE_TIMEOUTS: tuple[str, ...]

@disjoint_base
class Connections:
    """The slots of connections.

    Either register `fileno()` for reading, and call `turn` whenever it is readable, `tick` some
    times a second; or call `run` in a thread.
    """

    occupancy: Occupancy

    def fileno(self) -> int:
        """The epoll descriptor."""

    def add_waits(self, timeouts_s: Mapping[str, float]) -> int:
        """A set of timeouts for routes: those of ROUTE_TIMEOUTS that differ from the general ones.
        Its number, for `Routes.add`.
        """

    def turn(self) -> bool:
        """Serve every ready socket. True: there is more to do at once. RuntimeError: the plane is
        for a thread, as for `tick`.
        """

    def tick(self) -> None:
        """End what took too long."""

    def run(self) -> None:
        """Serve until `stop`, without the GIL. Once. RuntimeError: the plane is not for a
        thread.
        """

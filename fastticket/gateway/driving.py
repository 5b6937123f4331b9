"""What drives a data plane: the event loop, or a thread of its own.

The loop's plane works in callbacks. A plane in a thread never takes the GIL; what it asks wakes the
loop through a descriptor, and what it is told it does a moment later.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from fastticket.dataplane.proxy import Proxy
from fastticket.gateway.asks import Answers


class LoopDriver:
    """Drives a plane by the running event loop."""

    def __init__(self, plane: Proxy, answers: Answers) -> None:
        self._plane = plane
        self._answers = answers
        self._is_turn_due = False

    def start(self) -> None:
        """Serve whatever is ready, from now on."""
        asyncio.get_running_loop().add_reader(self._plane.fileno(), self.turn)

    def turn(self) -> None:
        """The plane has ready sockets. If one turn does not serve all of them, the next one comes
        after whatever else the loop has to do.
        """
        if self._plane.turn() and not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._turn_again)
        self._answers.begin_new()

    def _turn_again(self) -> None:
        self._is_turn_due = False
        self.turn()

    def tick(self) -> None:
        """What the plane needs the time for."""
        self._plane.tick()
        self._answers.begin_new()

    def is_alive(self) -> bool:
        """As long as the loop is."""
        return True

    def part(self, most: int) -> int:
        """As `Proxy.part`."""
        return self._plane.part(most)

    async def stop(self) -> None:
        """Close every connection, and be driven no more."""
        asyncio.get_running_loop().remove_reader(self._plane.fileno())
        self._is_turn_due = True  # one that is due comes to nothing
        self._plane.stop()


class ThreadDriver:
    """Lets a plane run in a thread."""

    def __init__(self, plane: Proxy, answers: Answers) -> None:
        self._plane = plane
        self._answers = answers
        self._parted = 0  # clients that were told by the way
        self._thread = threading.Thread(target=plane.run, daemon=True, name="fastticket-plane")

    def start(self) -> None:
        """Serve whatever is ready, from now on."""
        asyncio.get_running_loop().add_reader(self._plane.asks_fileno(), self._answers.begin_new)
        self._thread.start()

    def tick(self) -> None:
        """Fetch what is asked, and send on what found no room before."""
        self._answers.begin_new()

    def is_alive(self) -> bool:
        """Whether the thread has done all that it was told before the last call. Gives it something
        to do.
        """
        is_alive = self._plane.is_caught_up
        if is_alive:
            self._parted += self._plane.part(0)
        return is_alive

    def part(self, most: int) -> int:
        """As `Proxy.part`: how many were told since the last call."""
        parted, self._parted = self._parted + self._plane.part(most), 0
        return parted

    async def stop(self) -> None:
        """Close every connection, and end the thread."""
        self._plane.stop()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)
        asyncio.get_running_loop().remove_reader(self._plane.asks_fileno())


def drivers_of(planes: Sequence[Proxy], answers: Sequence[Answers]) -> list[LoopDriver | ThreadDriver]:
    """The drivers of a service's planes: the loop's for the first one, threads for the others."""
    first, *others = zip(planes, answers, strict=True)
    return [LoopDriver(*first), *(ThreadDriver(*each) for each in others)]

"""A worker whose only plane runs in a thread of its own: with FASTTICKET_PLANE=thread, every test
of a gateway in pytest's process is served by such a one, through the rings.
"""

import asyncio
import functools
import threading
import time

from fastticket.gateway import assembly, worker
from fastticket.gateway.worker import Worker


class ThreadedWorker(Worker):
    def __init__(self, *given):
        plain, assembly.Proxy = assembly.Proxy, functools.partial(assembly.Proxy, in_thread=True)
        try:
            super().__init__(*given)
        finally:
            assembly.Proxy = plain
        self._plane = _InLoop(self.proxy)
        self._thread = threading.Thread(target=self.proxy.run)
        self._thread.start()

    def _serve(self):
        self.proxy, real = self._plane, self.proxy
        try:
            super()._serve()
        finally:
            self.proxy = real

    def _turn(self):
        self._answers.begin_new()

    def _tick(self):
        self.proxy, real = self._plane, self.proxy
        try:
            super()._tick()
        finally:
            self.proxy = real

    def _stop_accepting(self):
        super()._stop_accepting()
        while not self.proxy.is_caught_up:
            time.sleep(0.001)

    async def stop(self):
        await super().stop()
        asyncio.get_running_loop().remove_reader(self.proxy.asks_fileno())
        self.proxy.stop()
        self._thread.join(worker.LAST_ANSWERS_S * 10)


class _InLoop:
    """What a worker that drives its plane calls, without an effect on one that runs."""

    def __init__(self, proxy):
        self._proxy = proxy

    def fileno(self):
        return self._proxy.asks_fileno()

    def turn(self):
        return False

    def tick(self):
        pass

    def __getattr__(self, name):
        return getattr(self._proxy, name)

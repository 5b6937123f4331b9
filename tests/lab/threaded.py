"""A worker whose only plane runs in a thread of its own: with FASTTICKET_PLANE=thread, every test
of a gateway in pytest's process is served by such a one, through the rings.
"""

from unittest import mock

from fastticket.gateway import assembly, service
from fastticket.gateway.driving import ThreadDriver
from fastticket.gateway.worker import Worker


class ThreadedWorker(Worker):
    def _make_service(self, *given):
        plane = assembly.Proxy
        with (
            mock.patch.object(
                assembly, "Proxy", lambda *each, **options: plane(*each, **options | {"in_thread": True})
            ),
            mock.patch.object(service, "drivers_of", lambda *each: list(map(ThreadDriver, *each))),
        ):
            made = super()._make_service(*given)
        made.planes[0].checker.near.share()
        return made

"""A page that shows a terminal, with real servers in the place of those that it names.

with shown("how-to/nginx.md", folder) as at:
    at.run(text)            a block of `console`: lab/terminal.py
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from lab.documents import ROOT
from lab.redis_servers import Server, free_port
from lab.snippets import write_files
from lab.terminal import Terminal, terminal

PORTS = (6380, 8080, 8081, 8082, 8443, 9001, 9002)


@contextlib.contextmanager
def shown(page: str, folder: Path, *, with_redis: bool = True) -> Iterator[Terminal]:
    """A terminal in a folder with the files that a page shows, and the application of examples/. A
    Redis server is there, as most pages want it.
    """
    with contextlib.ExitStack() as stack:
        ports = {port: free_port() for port in PORTS}
        if with_redis:
            (folder / "redis").mkdir()
            server = Server(folder / "redis")
            stack.callback(server.kill)
            ports[6379] = int(server.address.rpartition(":")[2])
        else:
            ports[6379] = free_port()
        at = stack.enter_context(terminal(folder, ports))
        stack.callback(_stop_nginx, folder)
        shutil.copy(ROOT / "examples/application.py", folder)
        for path in [*write_files(page, folder), folder / "application.py"]:
            path.write_text(at.here(path.read_text()))
        yield at


def _stop_nginx(folder: Path) -> None:
    """It is a daemon, and does not end with its terminal."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((folder / "nginx.pid").read_text()), signal.SIGTERM)

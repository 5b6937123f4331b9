"""The nginx in front: it balances over servers, in turns or by another method. Changes of the list
are made as an operator would make them.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

from lab import Lab, Program, program, wait_until

CONFIG = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 100000;
  upstream servers {{ {method} {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=512;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    {directives}
    location / {{ proxy_pass http://servers; }}
  }}
}}
"""


class Balancer:
    """An nginx on `port`. `method` is the directive of `upstream`, "" for turns. `directives` are
    added to the server block.
    """

    def __init__(self, lab: Lab, servers: Sequence[Program], *, method: str = "", directives: str = "") -> None:
        self._method = method
        self._directives = directives
        self.port = _free_port()
        self._folder = lab.folder / f"nginx-{self.port}"
        self._folder.mkdir(mode=0o755)
        self._file = self._folder / "nginx.conf"
        self._write(servers, ())
        self._nginx = lab.start(self._folder.name, [program("nginx"), "-c", self._file])
        wait_until(self._serves, "nginx serves")

    def balance(self, servers: Sequence[Program], *, down: Sequence[Program] = ()) -> None:
        """Balance over these servers from now on. Servers in `down` stay in the list and get no
        requests.
        """
        before = self._nginx.children()
        self._write(servers, down)
        self._nginx.signal(signal.SIGHUP)
        wait_until(lambda: (now := self._nginx.children()) and not now & before, "nginx serves by its new file")

    def _write(self, servers: Sequence[Program], down: Sequence[Program]) -> None:
        lines = [f"server 127.0.0.1:{each.port}{' down' if each in down else ''};" for each in servers]
        self._file.write_text(
            CONFIG.format(
                folder=self._folder,
                method=self._method,
                servers=" ".join(lines),
                port=self.port,
                directives=self._directives,
            )
        )

    def _serves(self) -> bool:
        """Whether it has a worker. It listens before that; but a signal that comes before it has
        blocked signals to start the worker, ends it, or is forgotten.
        """
        return bool(self._nginx.children())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

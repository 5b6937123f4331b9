"""A Redis of a demonstration, on a Unix socket, and its own count of the commands that it got."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis
from lab import Lab, program, wait_until

NOT_ASKED = (
    "info",
    "config|resetstat",
    "hello",
    "client|setinfo",
    "monitor",
)  # by us to count, and by each connection when it is made

END = "nothing more is to be overheard"  # a text that no script has


class RedisServer:
    """A server that writes nothing to disk."""

    def __init__(self, lab: Lab) -> None:
        self.path = lab.folder / "redis.sock"
        self.url = f"unix://{self.path}?db=0"
        command = [program("redis-server"), "--port", 0, "--unixsocket", self.path, "--save", "", "--dir", lab.folder]
        lab.start("redis", command)
        self.client = redis.Redis(unix_socket_path=str(self.path))
        wait_until(self._answers, "Redis answers")

    def forget(self) -> None:
        """Reset the count."""
        self.client.config_resetstat()

    def commands(self) -> int:
        """The number of commands since `forget`, including those that scripts call."""
        stats = self.client.info("commandstats")
        return sum(int(each["calls"]) for name, each in stats.items() if name.removeprefix("cmdstat_") not in NOT_ASKED)

    @contextlib.contextmanager
    def overheard(self) -> Iterator[list[str]]:
        """A list that receives the commands that clients send meanwhile, without those that scripts
        call. It is filled at the end of the context.
        """
        sent: list[str] = []
        with self.client.monitor() as monitor:
            yield sent
            self.client.echo(END)
            while END not in (heard := monitor.next_command())["command"]:
                if heard["client_type"] != "lua":
                    sent.append(heard["command"])

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(self.client.ping())
        return False

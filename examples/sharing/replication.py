"""3. Replication: every node holds a copy of every session, and hears of every change.

Nodes grow from 2 to 8 while users, sessions and requests stay the same. In turns, nearly every request comes to a node that did not
have the one before it, and the others have to be told; with `ip_hash` in front a session stays, and only writes are told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import table
from balancer import Balancer
from browser import Browser
from lab import Lab, Program, listening

NODES = (2, 4, 8)
USERS = 41  # no multiple of a number of nodes: a user's next request comes to another node
READS = 9  # of each user, for one write
VALUE = "x" * 1000
METHODS = {"in turns": "", "ip_hash": "ip_hash;"}


class Cluster:
    """Nodes, each of which knows the ports of those that were there before it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ports: list[int] = []
        self.nodes: list[Program] = []

    def add(self, number: int) -> None:
        """So many; when this returns, each has been given everything that there was."""
        for _ in range(number):
            listener = listening()
            arguments = [listener.fileno(), *self._ports]
            self._ports.append(listener.getsockname()[1])
            name = f"node {len(self._ports)}"
            self.nodes.append(self._lab.application("values.py", name, *arguments, sockets=(listener,)))
        self.counters()  # a node answers once it has joined

    def counters(self) -> dict[str, int]:
        """Sums over all nodes."""
        each = [json.loads(Browser(node.port).ask("/counters").text) for node in self.nodes]
        return {name: sum(counters[name] for counters in each) for name in each[0]}


def use(browsers: Sequence[Browser]) -> int:
    """Everybody writes once and reads so many times. How many reads failed."""
    for browser in browsers:
        browser.ask(f"/set-session?sessionVal={VALUE}")
    return sum(lost(browsers) for _ in range(READS))


def lost(browsers: Sequence[Browser]) -> int:
    return sum(browser.ask("/get-session").text != VALUE for browser in browsers)


def measure() -> list[table.Row]:
    return [measure_cluster(size, method) for method in METHODS for size in NODES]


def measure_cluster(size: int, method: str) -> table.Row:
    with Lab() as lab:
        cluster = Cluster(lab)
        cluster.add(size)
        nginx = Balancer(lab, cluster.nodes, method=METHODS[method])
        browsers = [Browser(nginx.port, address=f"127.1.{user}.1") for user in range(USERS)]
        before = cluster.counters()
        failed = use(browsers)
        after = cluster.counters()

        cluster.add(1)
        handed_over = cluster.counters()["bytes_sent"] - after["bytes_sent"]
        nginx.balance(cluster.nodes)
        lost_by_adding = lost(browsers)

        leaving = cluster.nodes.pop(0)
        nginx.balance(cluster.nodes)
        leaving.stop()
        lost_by_removing = lost(browsers)
    thousands = USERS * (1 + READS) / 1000
    return {
        "balancing": method,
        "nodes": size,
        "sessions": USERS,
        "copies": after["sessions"],
        "KB held": after["bytes_held"] / 1000,
        "messages/1,000 requests": (after["messages"] - before["messages"]) / thousands,
        "KB/1,000 requests": (after["bytes_sent"] - before["bytes_sent"]) / 1000 / thousands,
        "failed reads": failed,
        "lost by adding": lost_by_adding,
        "KB to the new node": handed_over / 1000,
        "lost by removing": lost_by_removing,
    }


TITLE = "3. Replication: a copy of every session at every node"

if __name__ == "__main__":
    table.run(TITLE, measure)

"""3. Replication: every node holds a copy of every session, and is told every change.

The number of nodes grows from 2 to 8 while users, sessions and requests stay the same. In turns,
nearly every request arrives at a node that did not have the one before it, and the others have to
be told. With `ip_hash` in front, a session stays at its node, and only writes are told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import table
from balancer import Balancer
from browser import Browser
from lab import Lab, Program, listening

NODES = (2, 4, 8)
USERS = 41  # not a multiple of a number of nodes, so a user's next request arrives at another node
READS = 9  # of each user, for one write
VALUE = "x" * 1000


class Cluster:
    """The nodes. Each knows the ports of those that were there before it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ports: list[int] = []
        self.nodes: list[Program] = []

    def add(self, number: int) -> None:
        """Add so many nodes. When this returns, each has received all sessions."""
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


def measure() -> list[table.Row]:
    return [measure_cluster(size) for size in NODES]


def measure_cluster(size: int) -> table.Row:
    with Lab() as lab:
        cluster = Cluster(lab)
        cluster.add(size)
        in_turns = Balancer(lab, cluster.nodes)
        hashed = Balancer(lab, cluster.nodes, method="ip_hash;")
        browsers = [Browser(in_turns.port, address=f"127.1.{user}.1") for user in range(USERS)]
        traffic, failed = use(cluster, browsers)
        sticky = [Browser(hashed.port, address=each.address, cookies=each.cookies) for each in browsers]
        sticky_traffic, failed_sticky = use(cluster, sticky)
        held = cluster.counters()

        cluster.add(1)
        handed_over = cluster.counters()["bytes_sent"] - held["bytes_sent"]
        in_turns.balance(cluster.nodes)
        lost_by_adding = lost(browsers)

        leaving = cluster.nodes.pop(0)
        in_turns.balance(cluster.nodes)
        leaving.stop()
        lost_by_removing = lost(browsers)
    return {
        "nodes": size,
        "sessions": USERS,
        "copies": held["sessions"],
        "KB held": held["bytes_held"] / 1000,
        "messages/1,000 requests": traffic["messages"],
        "KB": traffic["bytes_sent"] / 1000,
        "messages, ip_hash": sticky_traffic["messages"],
        "KB, ip_hash": sticky_traffic["bytes_sent"] / 1000,
        "reads": 2 * USERS * READS,
        "failed reads": failed + failed_sticky,
        "lost by adding": lost_by_adding,
        "KB to the new node": handed_over / 1000,
        "lost by removing": lost_by_removing,
    }


def use(cluster: Cluster, browsers: Sequence[Browser]) -> tuple[dict[str, float], int]:
    """Each user writes once and reads so many times. Returns what the nodes sent for 1,000
    requests, and how many reads failed.
    """
    before = cluster.counters()
    for browser in browsers:
        browser.ask(f"/set-session?sessionVal={VALUE}")
    failed = sum(lost(browsers) for _ in range(READS))
    after = cluster.counters()
    thousands = USERS * (1 + READS) / 1000
    return {name: (after[name] - before[name]) / thousands for name in after}, failed


def lost(browsers: Sequence[Browser]) -> int:
    return sum(browser.ask("/get-session").text != VALUE for browser in browsers)


TITLE = "3. Replication: a copy of every session at every node"

if __name__ == "__main__":
    table.run(TITLE, measure)

"""2. `ip_hash`: a client stays at one server, chosen by its address, as long as the list of servers
stays the same.

nginx hashes the first three octets of an IPv4 address. So each client here has an address in a /24
of its own, except those behind one NAT. A session is lost if its next request arrives at a server
that does not have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import table
from balancer import Balancer
from browser import Browser
from lab import Lab

SERVERS = 3
CLIENTS = 200


def measure() -> list[table.Row]:
    spread = [f"127.{1 + number // 100}.{number % 100}.1" for number in range(CLIENTS)]
    behind_nat = [f"127.250.1.{1 + number}" for number in range(CLIENTS)]
    with Lab() as lab:
        servers = [lab.application("values.py", f"server {number}") for number in range(1, SERVERS + 1)]
        added = lab.application("values.py", "the server that is added")
        nginx = Balancer(lab, servers, method="ip_hash;")
        changes = {
            "nothing changes": lambda: nginx.balance(servers),
            "a server is added": lambda: nginx.balance([*servers, added]),
            "a server is removed": lambda: nginx.balance(servers[:-1]),
            "a server is marked down": lambda: nginx.balance(servers, down=servers[-1:]),
        }
        rows = []
        for change, make in changes.items():
            nginx.balance(servers)
            clients = [Browser(nginx.port, address=address) for address in spread]
            busiest = log_in(clients)
            make()
            rows.append(row("a /24 each", change, lost(clients), busiest))
        nginx.balance(servers)
        clients = [Browser(nginx.port, address=address) for address in behind_nat]
        busiest = log_in(clients)
        rows.append(row("one NAT", "nothing changes", lost(clients), busiest))
        return rows


def log_in(clients: Sequence[Browser]) -> int:
    """Give each client a session. Returns the number of sessions at the busiest server."""
    at = Counter(client.ask(f"/set-session?sessionVal={number}").application for number, client in enumerate(clients))
    return max(at.values())


def lost(clients: Sequence[Browser]) -> int:
    return sum(client.ask("/get-session").text != str(number) for number, client in enumerate(clients))


def row(clients: str, change: str, lost_sessions: int, busiest: int) -> table.Row:
    return {
        "clients": clients,
        "change": change,
        "servers": SERVERS,
        "sessions": CLIENTS,
        "lost": lost_sessions,
        "lost, %": 100 * lost_sessions / CLIENTS,
        "at the busiest server": busiest,
        "its share, %": 100 * busiest / CLIENTS,
    }


TITLE = "2. ip_hash, sessions in each server's memory"

if __name__ == "__main__":
    table.run(TITLE, measure)

"""Requests to a gateway that a test has started, its figures, and sessions on its SQLite store."""

import asyncio
import threading

from conftest import BOUND_S, Client, fields_of, status_of
from prometheus_client.parser import text_string_to_metric_families

import fastticket
from lab.redis_servers import wait_until


def get(ticket="", path="/x", cookie="ticket"):
    field = f"Cookie: {cookie}={ticket}\r\n" if ticket else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n".encode()


def log_in(folder, *principals, ring="keys.toml", store="sqlite:///s.db"):
    """Tickets, of sessions made by another program on the same store."""

    async def act():
        keys = fastticket.Keyring.from_file(folder / ring)
        async with fastticket.TicketCache(fastticket.open_store(store, base=folder), keys) as cache:
            return [await cache.login(principal) for principal in principals]

    return asyncio.run(act())


def metric(at, name, **labels):
    """A value of `/metrics`."""
    with Client(str(at.folder / "admin.sock")) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        page = client.read_response()[1].decode()
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"fastticket_{name}" and sample.labels == labels
    ]
    return value


def noted(at, name):
    """A value of the worker's notes, after the next one was written."""
    seen = metric(at, "touches_coalesced_total") + metric(at, "near_cache_hits_total")
    at.ask(at.fresh)
    wait_until(
        lambda: metric(at, "touches_coalesced_total") + metric(at, "near_cache_hits_total") > seen, "a note", BOUND_S
    )
    return metric(at, name)


def hold(at, tickets):
    """Have a gateway look each of these up, once; `noted` asks with the first from now on."""
    at.fresh = get(tickets[0])
    for ticket in tickets:
        assert status_of(at.ask(get(ticket))[0]) == 200
    assert noted(at, "store_loads_total") == len(tickets)


class Traffic:
    """Threads that ask without end, on kept connections and with many tickets; what went wrong."""

    def __init__(self, at, tickets, clients=4):
        self.failures, self.asked = [], 0
        self._at, self._tickets, self._is_over = at, tickets, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n, clients)) for n in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join(BOUND_S)

    def _ask(self, first, step):
        client, tickets = self._at.connect(), self._tickets[first::step]
        while not self._is_over.is_set():
            for ticket in tickets:
                try:
                    client.sendall(get(ticket))
                    head, body = client.read_response()
                    if (status_of(head), body) != (200, b"ok"):
                        self.failures.append(head)
                    if fields_of(head).get(b"connection") == b"close":
                        client.close()
                        client = self._at.connect()
                    self.asked += 1
                except (OSError, EOFError) as failure:
                    self.failures.append(failure)
                    client.close()
                    client = self._at.connect()
        client.close()

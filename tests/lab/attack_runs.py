"""One attack of the corpus sent over a socket, and whether what came of it is what its verdict
says.

Rule: a run looks at both ends. The client has seen an answer to each request that was let through,
in order, then the refusal, if there is one, and nothing more; the service has seen those requests
as they had to be understood, and nothing of the others.
"""

import re
import socket
from dataclasses import dataclass, field

from conftest import OK, Gateway, Origin, fields_of, status_of

from lab.attack_corpus import COOKIE
from lab.deliveries import send

TIMEOUTS = {"linger_s": 1}  # a client of the corpus closes last


@dataclass
class Guarded:
    """A gateway that requires tickets in the corpus' cookie, its upstream, and a ticket."""

    gateway: Gateway
    behind: Origin
    ticket: str
    statuses: list[int] = field(default_factory=list)  # of the last run

    def bytes_of(self, attack):
        return attack.raw(f"Cookie: {COOKIE}={self.ticket}")


def guard(start_gateway, start_origin):
    def serve(connection):
        while True:
            head, _ = behind.request(connection)
            connection.sendall(OK.removesuffix(b"ok") if head.startswith(b"HEAD ") else OK)

    behind = start_origin(serve)
    gateway = start_gateway(behind, routes=[{"path": "/"}], ticket={"cookie": COOKIE}, timeouts=TIMEOUTS)
    return Guarded(gateway, behind, gateway.login())


def run(guarded, attack, pieces):
    """AssertionError, if anything is not as the verdict says."""
    verdict = attack.verdict
    requests_before = len(guarded.behind.requests)
    guarded.statuses = []
    with guarded.gateway.connect() as client:
        send(guarded.gateway, client, pieces)
        for seen in verdict.seen:
            assert read_answer(guarded, client, to_head=seen.method == "HEAD") == (
                200,
                b"" if seen.method == "HEAD" else b"ok",
            )
        if verdict.statuses:
            assert read_answer(guarded, client, to_head=verdict.to_head)[0] in verdict.statuses
        elif not verdict.closes:
            client.shutdown(socket.SHUT_WR)
        assert client.read_all() == b""
    arrived = guarded.behind.requests[requests_before:]
    assert len(arrived) == len(verdict.seen)
    for (head, body), seen in zip(arrived, verdict.seen, strict=True):
        check_arrived(head, body, seen)


def read_answer(guarded, client, to_head=False):
    """Status and body, interim ones left out."""
    head, body = client.read_response(to_head)
    while status_of(head) == 100:
        head, body = client.read_response(to_head)
    guarded.statuses.append(status_of(head))
    return status_of(head), body


def check_in_the_end(guarded, attack, runs):
    """At the end: nothing has come late; what was refused by its head has reached no upstream."""
    guarded.gateway.stop()
    guarded.behind.close()
    assert len(guarded.behind.requests) == runs * len(attack.verdict.seen)
    if attack.verdict.by == "head" and not attack.verdict.seen:
        assert guarded.behind.connections == []


def normal(name):
    return re.sub(rb"[^a-z0-9]", b"-", name.lower())


def check_arrived(head, body, seen):
    assert head.split(b"\r\n")[0] == f"{seen.method} {seen.target} HTTP/1.1".encode("latin-1")
    fields = fields_of(head)
    assert fields[b"host"] == seen.host.encode()
    assert fields[b"x-forwarded-user"] == b"alice"
    assert body == seen.body.encode("latin-1")
    names = [line.partition(b": ")[0] for line in head.split(b"\r\n")[1:-2]]
    assert [normal(name) for name in names].count(b"x-forwarded-user") == 1
    assert all(name.lower() == normal(name) or normal(name) not in fields for name in names)
    for line in seen.has:
        name, _, value = line.encode("latin-1").partition(b": ")
        assert fields[name.lower()] == value
    for line in seen.lacks:
        name, _, value = line.encode("latin-1").partition(b": ")
        assert (normal(name), value) not in {(normal(n), v) for n, v in fields.items()}

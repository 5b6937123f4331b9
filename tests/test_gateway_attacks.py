"""Every raw request of the corpus, over a socket: what is refused reaches nobody, what is forwarded arrives as it was understood."""

import contextlib
import re

import pytest
from attack_corpus import ATTACKS, COOKIE
from conftest import OK, fields_of, status_of

DELIVERIES = {
    "at once": lambda raw: [raw],
    "line by line": lambda raw: re.findall(rb"[^\r\n]*[\r\n]|[^\r\n]+", raw),
    "byte by byte": lambda raw: [raw[at : at + 1] for at in range(len(raw))],
}
LONGEST_IN_BYTES = 5000  # longer ones say nothing more byte by byte


@pytest.fixture
def guarded(gateway, origin):
    """A gateway that requires tickets in the corpus' cookie, the origin behind it, and a ticket."""

    def serve(connection):
        while True:
            head, _ = behind.request(connection)
            connection.sendall(OK.removesuffix(b"ok") if head.startswith(b"HEAD ") else OK)

    behind = origin(serve)
    at = gateway(
        behind, routes=[{"path": "/"}], ticket={"cookie": COOKIE}, timeouts={"request_head_s": 1, "linger_s": 1}
    )
    return at, behind, at.login()


def send(client, pieces):
    """As far as the gateway lets us: it may close before the end."""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            client.sendall(piece)


def normal(name):
    return re.sub(rb"[^a-z0-9]", b"-", name.lower())


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack(guarded, attack, delivery):
    at, behind, ticket = guarded
    verdict = attack.verdict
    raw = attack.raw(f"Cookie: {COOKIE}={ticket}")
    if delivery == "byte by byte" and len(raw) > LONGEST_IN_BYTES:
        raw = raw[:LONGEST_IN_BYTES] if not verdict.seen and not verdict.statuses else raw
    with at.connect() as client:
        send(client, DELIVERIES[delivery](raw))
        for seen in verdict.seen:
            head = client.read_head()
            while status_of(head) == 100:
                head = client.read_head()
            assert status_of(head) == 200, head
            assert seen.method == "HEAD" or client.read_exactly(2) == b"ok"
        if verdict.statuses:
            assert status_of(client.read_head()) in verdict.statuses
        if verdict.statuses or verdict.closes:
            client.read_all()
    assert len(behind.requests) == len(verdict.seen)
    if verdict.by == "head" and not verdict.seen:
        assert behind.connections == []
    for (head, body), seen in zip(behind.requests, verdict.seen, strict=True):
        assert_arrived(head, body, seen)


def assert_arrived(head, body, seen):
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

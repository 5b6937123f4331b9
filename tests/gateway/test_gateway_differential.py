"""llhttp and h11 read what the gateway forwards, in both directions, as we do: exactly one message,
and the same one.

Rule: the bytes that arrive are judged, not what a lenient server or client of ours makes of them. A
peer's refusal is a difference here, as nothing that goes out has to be anything but plain; only of
methods llhttp may know fewer.

The seed of a failure is in its message, and makes the same bytes again.
"""

import contextlib
import json
import random
import re
import socket
from collections import Counter

import pytest
from conftest import fields_of, gateways, origins
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.attack_corpus import ATTACKS
from lab.http_grammar import FACTOR, REAL_REQUESTS, REAL_RESPONSES, mutated, requests, responses, seeds
from lab.readers import (
    LLHTTP_METHODS,
    LlhttpRequests,
    LlhttpResponses,
    Message,
    difference,
    h11_requests,
    h11_responses,
    llhttp_reading,
    our_requests,
    our_responses,
    values_of,
)
from lab.response_corpus import ANSWERS

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"  # answers HEAD, too


class Relay:
    """A gateway, and a service that keeps the bytes of each request and answers all of them with
    `answer`.
    """

    def __init__(self, start_gateway, start_origin, ends):
        self.arrived = []
        self.answer = EMPTY
        self.ends = ends  # after each answer
        self.gateway = start_gateway(start_origin(self.serve), routes=[{"path": "/"}])
        self.ticket = f"Cookie: ticket={self.gateway.login()}\r\n".encode()

    def serve(self, connection):
        while True:
            self.arrived.append(read_raw(connection))
            connection.sendall(self.answer)
            if self.ends:
                return

    def send(self, raw):
        """All that a client gets for these bytes; what arrives at the service for them is in
        `arrived`.
        """
        self.arrived.clear()
        with self.gateway.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
            return client.read_all()

    def with_ticket(self, raw):
        """In every head, also of HTTP/1.0 without Host."""
        return re.sub(rb"( HTTP/1\.[01]\r\n)", rb"\1" + self.ticket, raw)


@pytest.fixture(scope="module")
def start_relay(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relays")
    with origins() as start_origin, gateways(folder) as start_gateway:
        yield lambda ends: Relay(start_gateway, start_origin, ends)


@pytest.fixture(scope="module")
def relay(start_relay):
    return start_relay(ends=False)


@pytest.fixture(scope="module")
def closing(start_relay):
    return start_relay(ends=True)


def read_raw(connection):
    """The bytes of one request, however its body is framed."""
    raw = connection.read_head()
    fields = fields_of(raw)
    if b"transfer-encoding" not in fields:
        return raw + connection.read_exactly(int(fields.get(b"content-length", 0)))
    size = None
    while size != 0:
        line = connection.read_until(b"\r\n")
        size = int(line, 16)
        raw += line + connection.read_exactly(size + 2)
    return raw


def check_read_alike(ours, peers):
    """`ours` is one message, and so it is to the peers."""
    assert len(ours.messages) == 1
    for peer, theirs in peers.items():
        assert difference(ours, theirs, []) is None, peer
        assert len(theirs.messages) == 1, peer


@contextlib.contextmanager
def noted(seed, raw):
    """An assertion that fails within names the seed and the bytes."""
    try:
        yield
    except Exception as error:
        error.add_note(f"seed {seed}: {raw!r}")
        raise


# ----------------------------------------------------------------------------------------- requests


def check_arrived(message: Message, arrived: bytes):
    """As the message that we understood, and as nothing else."""
    ours = our_requests(arrived)
    peers = {"h11": h11_requests(arrived)}
    if message.start[0] in LLHTTP_METHODS:
        peers["llhttp"] = llhttp_reading(LlhttpRequests(), arrived)
    check_read_alike(ours, peers)
    again = ours.messages[0]
    assert (again.start, again.body, again.is_whole) == (message.start, message.body, True)
    assert again.raw == arrived


def check_requests(relay, raw) -> int:
    """How many of these requests were forwarded; each as it was understood."""
    raw = relay.with_ticket(raw)
    answers = relay.send(raw)
    understood = our_requests(raw).messages
    methods = [message.start[0].decode() for message in understood]
    statuses = [answer.start[0] for answer in our_responses(answers, [*methods, "GET"]).messages]
    finals = [status for status in statuses if status >= 200]
    forwarded = [message for message, status in zip(understood, finals, strict=False) if status == 200]
    assert len(relay.arrived) == len(forwarded)
    for message, arrived in zip(forwarded, relay.arrived, strict=True):
        check_arrived(message, arrived)
    return len(forwarded)


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=int(300 * FACTOR) + 1)
def test_requests_that_hypothesis_makes(relay, rng):
    check_requests(relay, requests(rng))


def test_mutated_requests(relay):
    real = REAL_REQUESTS + [attack.raw() for attack in ATTACKS if len(attack.raw()) < 1000]
    counts = Counter()
    for seed in seeds(4000):
        rng = random.Random(seed)
        raw = mutated(rng, rng.choice(real) if rng.random() < 0.5 else requests(rng))
        with noted(seed, raw):
            counts[check_requests(relay, raw) > 0] += 1
    assert min(counts[False], counts[True]) > 0.15 * counts.total(), counts  # else nothing much is tested


# ---------------------------------------------------------------------------------------- responses


def final_said(raw: bytes, method: str) -> tuple[Message, bytes] | None:
    """The response after interim ones, and what follows it."""
    while messages := our_responses(raw, [method]).messages:
        first, raw = messages[0], raw[len(messages[0].raw) :]
        if first.start[0] >= 200:
            return first, raw
        if first.start[0] == 101:  # nobody asked
            return None
    return None


def is_complete(message: Message) -> bool:
    """Whether a message before the end of its connection is complete: without framing it is."""
    is_framed = values_of(message, b"content-length") or values_of(message, b"transfer-encoding")
    return message.is_whole or not is_framed


def is_refusal(message: Message, method: str) -> bool:
    """Whether it is the gateway's own 502 for a response."""
    if message.start != (502, b"Bad Gateway"):
        return False
    return method == "HEAD" or json.loads(message.body)["reason"] in ("upstream_malformed", "upstream_closed")


def check_response(relay, raw: bytes, method: str) -> bool:
    """Whether the request was forwarded, as it was understood; else its refusal was right."""
    relay.answer = raw
    got = relay.send(relay.with_ticket(f"{method} /x HTTP/1.1\r\nHost: a\r\n\r\n".encode()))
    asked = [method, "GET"]  # so one more response would be seen
    ours = our_responses(got, asked)
    peers = {"h11": h11_responses(got, asked)}
    if method != "HEAD":  # of which httptools cannot be told
        peers["llhttp"] = llhttp_reading(LlhttpResponses(), got)
    check_read_alike(ours, peers)
    read, said = ours.messages[0], final_said(raw, method)
    if is_refusal(read, method):
        assert said is None or said[1] or not is_complete(said[0])
        return False
    final, _ = said
    assert read.start == final.start
    assert read.is_whole == is_complete(final)
    assert read.body == final.body if read.is_whole else final.body.startswith(read.body)
    return read.is_whole


@given(st.randoms(use_true_random=False), st.sampled_from(["GET", "HEAD"]))
@settings(deadline=None, max_examples=int(300 * FACTOR) + 1)
def test_responses_that_hypothesis_makes(closing, rng, method):
    check_response(closing, responses(rng), method)


def test_mutated_responses(closing):
    real = REAL_RESPONSES + [answer.raw() for answer in ANSWERS if answer.verdict.read and len(answer.raw()) < 1000]
    counts = Counter()
    for seed in seeds(4000):
        rng = random.Random(seed)
        raw = mutated(rng, rng.choice(real) if rng.random() < 0.5 else responses(rng))
        with noted(seed, raw):
            counts[check_response(closing, raw, rng.choice(["GET", "GET", "HEAD"]))] += 1
    assert min(counts[False], counts[True]) > 0.15 * counts.total(), counts  # else nothing much is tested

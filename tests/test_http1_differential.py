"""Whatever our parser accepts, llhttp (by httptools) and h11 must accept too, and read the same.

Messages are made by a grammar from a seed, and mutated. Ours reads them first; the peers then read the same bytes and
have to see the same messages: start line, fields in order, body. Where a peer is stricter than we are stands in
LLHTTP_REFUSES and H11_REFUSES, each with examples that are tested. What only peers accept does not matter here.

FASTTICKET_FUZZ=10 tries ten times as many. The seed of a failure is in its message, and makes the same bytes again.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h11
import httptools
import pytest
from attack_corpus import ATTACKS

from fastticket.core.http1 import Dechunker, request_head, response_head

FACTOR = float(os.environ.get("FASTTICKET_FUZZ", "1"))

Fields = list[tuple[bytes, bytes]]


@dataclass
class Message:
    """As one parser read it. `start` is (method, target, host) or (status, reason)."""

    start: tuple = ()
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    is_whole: bool = False
    minor: int = 1
    raw: bytes = b""  # ours only: the bytes it came in
    head_size: int = 0


@dataclass
class Reading:
    """The messages of a connection, and how it ended: an error; closed by what a message said; or more may come."""

    messages: list[Message] = field(default_factory=list)
    error: str | None = None
    is_closed: bool = False


def plain(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Parsers differ in whether they leave white space around a value, and h11 spells the coding in lower case."""
    value = value.strip(b" \t")
    return (name, value.lower() if name.lower() == b"transfer-encoding" else value)


def target_and_host(target: bytes, fields: Fields) -> tuple[bytes, bytes]:
    """What a request asks for, and whom (RFC 9112, 3.2.2): worked out anew, as peers leave that to their callers."""
    absolute = re.fullmatch(rb"(?i:https?)://([^/?]+)(.*)", target)
    if absolute:
        return (absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]), absolute[1]
    return target, next((value for name, value in fields if name.lower() == b"host"), b"")


# ---------------------------------------------------------------------------------------------------------------- ours


def our_body(head: dict, message: Message, rest: bytes) -> int | None:
    """Read the body into the message. How many bytes it took, or None: malformed."""
    framing = head["framing"]
    if framing == "chunked":
        try:
            message.body, used, message.is_whole = Dechunker().feed(rest)
        except ValueError:
            return None
        return used
    size = {"none": 0, "length": head["content_length"], "close": len(rest)}[framing]
    message.body = rest[:size]
    message.is_whole = framing != "close" and len(message.body) == size
    return len(message.body)


def our_reading(raw: bytes, read_head: Callable[[bytes, int], tuple[dict | int, tuple]]) -> Reading:
    reading = Reading()
    while raw:
        head, start = read_head(raw, len(reading.messages))
        if not isinstance(head, dict):
            reading.error = str(head) if head else None
            break
        message = Message(start, [plain(name, value) for name, value, _ in head["fields"]], minor=head["minor"])
        used = our_body(head, message, raw[head["size"] :])
        if used is None:
            reading.error = "body"  # its head may have gone on, so the peers' is compared all the same
            message.raw, raw = raw, b""
        else:
            message.raw, raw = raw[: head["size"] + used], raw[head["size"] + used :]
        message.head_size = head["size"]
        reading.messages.append(message)
        if used is None:
            break
        reading.is_closed = (
            head["close"] or (head["minor"] == 0 and not head["keep_alive"]) or head["framing"] == "close"
        )
        if reading.is_closed or not message.is_whole:
            break
    return reading


def our_requests(raw: bytes) -> Reading:
    def read_head(raw: bytes, _: int) -> tuple[dict | int, tuple]:
        head = request_head(raw)
        return head, (head["method"], head["target"], head["host"]) if isinstance(head, dict) else ()

    return our_reading(raw, read_head)


def our_responses(raw: bytes, asked: list[str]) -> Reading:
    """Responses to requests with the methods `asked`; interim ones answer none of them."""
    finals = iter(asked)
    method = next(finals)

    def read_head(raw: bytes, _: int) -> tuple[dict | int, tuple]:
        nonlocal method
        head = response_head(raw, to_head=method == "HEAD")
        if not isinstance(head, dict):
            return head, ()
        if head["status"] >= 200:
            method = next(finals, "GET")
        return head, (head["status"], head["reason"])

    return our_reading(raw, read_head)


# -------------------------------------------------------------------------------------------------------------- llhttp


class LlhttpEvents:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.line = b""
        self.in_body = False

    def on_message_begin(self) -> None:
        self.messages.append(Message())
        self.line = b""
        self.in_body = False

    def on_url(self, part: bytes) -> None:
        self.line += part

    on_status = on_url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:  # else it is a trailer
            self.messages[-1].fields.append(plain(name, value))

    def on_headers_complete(self) -> None:
        self.in_body = True
        message = self.messages[-1]
        message.start = self.start_of(message)

    def on_body(self, part: bytes) -> None:
        self.messages[-1].body += part

    def on_message_complete(self) -> None:
        self.messages[-1].is_whole = True

    def start_of(self, message: Message) -> tuple:
        raise NotImplementedError


class LlhttpRequests(LlhttpEvents):
    def __init__(self) -> None:
        super().__init__()
        self.parser = httptools.HttpRequestParser(self)

    def start_of(self, message: Message) -> tuple:
        return (self.parser.get_method(), *target_and_host(self.line, message.fields))


class LlhttpResponses(LlhttpEvents):
    def __init__(self) -> None:
        super().__init__()
        self.parser = httptools.HttpResponseParser(self)

    def start_of(self, message: Message) -> tuple:
        return (self.parser.get_status_code(), self.line)


def llhttp_reading(events: LlhttpRequests | LlhttpResponses, raw: bytes) -> Reading:
    reading = Reading()
    try:
        events.parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        reading.error = "upgrade"
    except httptools.HttpParserError as error:
        reading.error = f"{type(error).__name__}: {error}"
    reading.messages = [message for message in events.messages if message.start]
    return reading


# ----------------------------------------------------------------------------------------------------------------- h11


def h11_fields(event: h11.Request | h11.Response) -> Fields:
    return [plain(name, value) for name, value in event.headers.raw_items()]


def h11_events(connection: h11.Connection, reading: Reading, goes_on: Iterator[bool]) -> None:
    """All that a connection has to say. `goes_on` does what comes between two messages, if it does."""
    while True:
        event = connection.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return
        if isinstance(event, h11.Request):
            target, host = target_and_host(event.target, h11_fields(event))
            reading.messages.append(Message((event.method, target, host), h11_fields(event)))
        elif isinstance(event, h11.Response | h11.InformationalResponse):
            start = (event.status_code, bytes(event.reason))
            reading.messages.append(Message(start, h11_fields(event), is_whole=event.status_code < 200))
        elif isinstance(event, h11.Data):
            reading.messages[-1].body += event.data
        elif isinstance(event, h11.EndOfMessage):
            reading.messages[-1].is_whole = True
            if not next(goes_on):
                reading.is_closed = True
                return
        else:
            return


def starts_next_cycle(connection: h11.Connection) -> bool:
    if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
        connection.start_next_cycle()
        return True
    return False


def h11_requests(raw: bytes) -> Reading:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=10**7)
    reading = Reading()

    def answers() -> Iterator[bool]:
        while True:
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            yield starts_next_cycle(connection)

    try:
        connection.receive_data(raw)
        h11_events(connection, reading, answers())
    except h11.RemoteProtocolError as error:
        reading.error = str(error)
    return reading


def h11_responses(raw: bytes, asked: list[str]) -> Reading:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**7)
    reading = Reading()

    def ask(method: str) -> None:
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())

    def asks() -> Iterator[bool]:
        for method in asked[1:]:
            if starts_next_cycle(connection):
                ask(method)
                yield True
            else:
                yield False

    try:
        ask(asked[0])
        connection.receive_data(raw)
        h11_events(connection, reading, asks())
    except h11.RemoteProtocolError as error:
        reading.error = str(error)
    return reading


# --------------------------------------------------------------------------- where peers are stricter than we are


@dataclass(frozen=True)
class Stricter:
    """A peer refuses `message`, or stops at it, and it does no harm that we do not."""

    why: str
    applies: Callable[[Message], bool]
    examples: list[bytes]


def values_of(message: Message, name: bytes) -> list[bytes]:
    return [value for field_name, value in message.fields if field_name.lower() == name]


def options_of(message: Message, name: bytes) -> set[bytes]:
    return {option.strip().lower() for value in values_of(message, name) for option in value.split(b",")}


def extras_of(message: Message) -> tuple[list[bytes], list[bytes]]:
    """The extensions of a chunked body, each with its `;`, and its trailer lines; or as many as have come."""
    extensions: list[bytes] = []
    rest = message.raw[message.head_size :] if values_of(message, b"transfer-encoding") else b""
    while line := re.match(rb"([0-9a-fA-F]+)([^\r]*)(\r\n)?", rest):
        extensions.append(line[2])
        size = int(line[1], 16)
        rest = rest[line.end() + (size + 2 if size else 0) :]
        if not size:
            return extensions, [trailer for trailer in rest.split(b"\r\n") if trailer]
    return extensions, []


def has_trailer(message: Message, *names: bytes) -> bool:
    return any(line.partition(b":")[0].lower() in names for line in extras_of(message)[1])


def request(*fields: str, line: str = "GET /x HTTP/1.1", body: str = "") -> bytes:
    return "\r\n".join([line, "Host: a", *fields, "", body]).encode("latin-1")


def response(*fields: str, line: str = "HTTP/1.1 200 OK", body: str = "") -> bytes:
    return "\r\n".join([line, *fields, "", body]).encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"
EXTENSION = re.compile(rb"(;[!#-'*+.^-z|~0-9A-Z-]+(=([!#-'*+.^-z|~0-9A-Z-]+|\"[^\"]*\"))?)*")
LLHTTP_METHODS = set(
    b"DELETE GET HEAD POST PUT OPTIONS PATCH QUERY COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    b"UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK "
    b"SOURCE".split()
)

EXTENSIONS = Stricter(
    "we only bound a chunk's extension and drop it: its inner grammar is of no consequence",
    lambda message: any(not EXTENSION.fullmatch(text) for text in extras_of(message)[0]),
    [request(CHUNKED, body=f"1{text}\r\na\r\n0\r\n\r\n") for text in (";", ';a"b"', ';a="b"c')],
)
FRAMING_TRAILERS = Stricter(
    "it reads framing in trailers; we drop all trailers",
    lambda message: has_trailer(message, b"content-length", b"transfer-encoding"),
    [
        request(CHUNKED, body="0\r\nContent-Length: x\r\n\r\n"),
        request(CHUNKED, body="0\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ],
)
LLHTTP_REFUSES = [
    Stricter(
        "it has a list of methods; we forward any token (RFC 9110, 9.1)",
        lambda message: message.start[0] not in LLHTTP_METHODS,
        [request(line="XGET /x HTTP/1.1"), request(line="get /x HTTP/1.1"), request(line="DESCRIBE /x HTTP/1.1")],
    ),
    Stricter(
        "it leaves the connection to another protocol; we strip what we do not speak and go on",
        lambda message: bool(b"upgrade" in options_of(message, b"connection") and values_of(message, b"upgrade")),
        [request("Connection: upgrade", "Upgrade: h2c", "Content-Length: 1", body="a")],
    ),
    Stricter(
        "it obeys Proxy-Connection, which is in no RFC; we drop it",
        lambda message: b"close" in options_of(message, b"proxy-connection"),
        [request("Proxy-Connection: close")],
    ),
    Stricter(
        "it obeys Connection in trailers; we drop all trailers",
        lambda message: has_trailer(message, b"connection", b"proxy-connection", b"upgrade"),
        [request(CHUNKED, body="0\r\nConnection: close\r\n\r\n")],
    ),
    Stricter(
        "it takes no tab after `chunked`; a value's outer white space means nothing (RFC 9112, 5)",
        lambda message: re.search(rb"(?i)\nTransfer-Encoding:[^\r]*\t[ \t]*\r", message.raw) is not None,
        [request(CHUNKED + "\t", body="0\r\n\r\n")],
    ),
    EXTENSIONS,
    FRAMING_TRAILERS,
]
H11_REFUSES = [
    Stricter(
        "it takes no empty line before a request (RFC 9112, 2.2 says we should)",
        lambda message: message.raw.startswith(b"\r\n"),
        [b"\r\n" + request(), b"\r\n\r\n" + request()],
    ),
    Stricter(
        "it closes after HTTP/1.0, keep-alive or not",
        lambda message: message.minor == 0,
        [request("Connection: keep-alive", line="GET /x HTTP/1.0")],
    ),
    Stricter(
        "it takes no Content-Length of more than 20 digits, though they be zeros",
        lambda message: any(len(value) > 20 for value in values_of(message, b"content-length")),
        [request("Content-Length: 000000000000000000001", body="a")],
    ),
    FRAMING_TRAILERS,
]
SWITCHED = Stricter(
    "nobody asked it for another protocol; the gateway refuses that one layer up",
    lambda message: message.start[0] == 101,
    [response(line="HTTP/1.1 101 Switching Protocols")],
)
UNKNOWN_INTERIM = Stricter(
    "it reads a body after 104 to 199; no 1xx has one (RFC 9112, 6.3), and the gateway sends its own fields or none",
    lambda message: message.start[0] in range(104, 200),
    [response("Content-Length: 1", line="HTTP/1.1 150 x")],
)
LLHTTP_RESPONSES_REFUSES = [*LLHTTP_REFUSES[1:], SWITCHED, UNKNOWN_INTERIM]
H11_RESPONSES_REFUSES = [*H11_REFUSES[1:], SWITCHED]


def is_excused(stricter: list[Stricter], messages: list[Message]) -> bool:
    return any(one.applies(message) for one in stricter for message in messages)


# ---------------------------------------------------------------------------------------------------------- comparison


def difference(ours: Reading, theirs: Reading, stricter: list[Stricter]) -> str | None:
    """What the peer reads differently. Where it is known to be stricter, nothing is compared from there on."""
    for number, mine in enumerate(ours.messages):
        around = ours.messages[max(0, number - 1) : number + 1]
        if number >= len(theirs.messages):
            return None if is_excused(stricter, around) else f"message {number} is missing; {theirs.error}"
        other = theirs.messages[number]
        if (mine.start, mine.fields) != (other.start, other.fields):
            return f"message {number}: {mine.start} {mine.fields} is to them {other.start} {other.fields}"
        if ours.error == "body" and number == len(ours.messages) - 1:
            return None
        if (mine.is_whole, mine.body) != (other.is_whole, other.body):
            ends = "a whole body" if mine.is_whole else "the beginning of a body"
            found = f"message {number}: {ends}, {mine.body!r}, is to them {other.body!r}; {theirs.error}"
            return None if is_excused(stricter, [mine]) else found
    if ours.error is None and not ours.is_closed and len(theirs.messages) > len(ours.messages):
        return f"they see one more: {theirs.messages[len(ours.messages)]}"
    return None


REQUEST_PEERS = {
    "llhttp": (lambda raw: llhttp_reading(LlhttpRequests(), raw), LLHTTP_REFUSES),
    "h11": (h11_requests, H11_REFUSES),
}
ONLY_GETS = ["GET"] * 30
RESPONSE_PEERS = {
    "llhttp": (lambda raw: llhttp_reading(LlhttpResponses(), raw), LLHTTP_RESPONSES_REFUSES),
    "h11": (lambda raw: h11_responses(raw, ONLY_GETS), H11_RESPONSES_REFUSES),
}


def check_request(raw: bytes, note: object = "") -> Reading:
    ours = our_requests(raw)
    for peer, (read, stricter) in REQUEST_PEERS.items() if ours.messages else ():
        found = difference(ours, read(raw), stricter)
        assert found is None, f"{peer}, {note}: {found}\n{raw!r}"
    return ours


def check_response(raw: bytes, note: object = "") -> Reading:
    ours = our_responses(raw, ONLY_GETS)
    for peer, (read, stricter) in RESPONSE_PEERS.items() if ours.messages else ():
        found = difference(ours, read(raw), stricter)
        assert found is None, f"{peer}, {note}: {found}\n{raw!r}"
    return ours


# ------------------------------------------------------------------------------------------------------------- grammar


GOOD_TARGETS = [
    *("/", "/x", "/a/b?c=d", "/%41%zz", "//b/x", "/a\\..\\b", '/"<>^`{|}', "/?a?b", "http://b/x", "HTTP://b:80?x"),
    *("https://[::1]/", "http://b"),
]
TARGETS = [*GOOD_TARGETS, *GOOD_TARGETS, *GOOD_TARGETS, "*", "/x#f", "http://u@b/", "x"]
METHODS = ["GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH", "QUERY", "get", "X"]
VERSIONS = ["HTTP/1.1"] * 20 + ["HTTP/1.0", "HTTP/1.2"]
FIELDS = [
    *("Accept: */*", "Cookie: a=b; t=c", "X-Empty:", "X-Bytes: \xc3\xa9\x80\xff", "x_y.z: 1", "X:\t a  b \t", "X:y:z"),
    *("Connection: keep-alive", "Connection: close", "Connection: , keep-alive ,X", "Proxy-Connection: keep-alive"),
    *("Upgrade: h2c", "Connection: upgrade", "Expect: 100-continue", "TE: trailers", "Keep-Alive: timeout=5"),
    *("Content_Length: 3", "Transfer.Encoding: chunked", "Content-Lengths: 1", "X-Forwarded-For: 1.2.3.4", "!#$%: &'*"),
]
LENGTHS = ["{}", "{}", "{}", "0{}", "00000000000000000000{}", "{}0", "{}, {}", "+{}", "{} ", "{};"]
CODINGS = ["chunked"] * 4 + ["Chunked", " chunked\t", "chunked, chunked", "gzip, chunked", "identity", "xchunked", ""]
DATA = [b"", b"a", b"hello", b"0\r\n\r\n", b"\r\n", b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n", bytes(range(256))]
CHUNK_EXTENSIONS = [""] * 20 + [";", ";a", ";a=b;c", ';a="b; c"', ";a==", " ;a", ";a b"]
TRAILERS = ["A: b", "C:", "Content-Length: 1", "X: \xff\t", "Connection: close", "bad", " fold"]
STATUSES = ["200 OK", "200", "200 ", "404 Not  Found", "204 No", "304 No", "100 Continue", "103 x", "500 \xff", "999 x"]
BREAKS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xa0",
    b"_",
]
BREAKS += [b"0", b"-", b"+", b"x", b'"', b"\r\n ", b"\r\n\r\n", b"\n\n", b"chunked", b"0\r\n\r\n", b"Host: a\r\n"]
BREAKS += [b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"HTTP/1.1", b"%00"]


def chunked_body(rng: random.Random) -> bytes:
    body = b""
    for _ in range(rng.randrange(4)):
        data = rng.choice(DATA[1:])
        size = rng.choice(["{:x}", "{:X}", "0{:x}", "00000000{:x}"]).format(len(data))
        body += f"{size}{rng.choice(CHUNK_EXTENSIONS)}\r\n".encode() + data + b"\r\n"
    trailers = rng.choices(TRAILERS[:3], k=rng.randrange(3)) if rng.random() < 0.3 else []
    if rng.random() < 0.05:
        trailers.append(rng.choice(TRAILERS))
    last = f"{rng.choice(['0', '0', '000'])}{rng.choice(CHUNK_EXTENSIONS)}"
    return body + "\r\n".join([last, *trailers, "", ""]).encode("latin-1")


def framed_body(rng: random.Random) -> tuple[list[str], bytes]:
    """Fields that say how a body ends, mostly rightly, and the body."""
    kind = rng.random()
    if kind < 0.4:
        return [], b""
    if kind < 0.65:
        body = rng.choice(DATA)
        length = rng.choice(LENGTHS) if rng.random() < 0.15 else "{}"
        return [rng.choice(["Content-Length: ", "content-length:"]) + length.format(len(body), len(body))], body
    coding = rng.choice(CODINGS) if rng.random() < 0.1 else "chunked"
    fields = [f"Transfer-Encoding: {coding}"]
    if rng.random() < 0.03:
        fields.append("Content-Length: 5")
    return fields, chunked_body(rng)


def one_message(rng: random.Random, start: str, fields: list[str]) -> bytes:
    framing, body = framed_body(rng)
    lines = [*fields, *rng.choices(FIELDS, k=rng.randrange(5)), *framing]
    rng.shuffle(lines)
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1") + body


def requests(rng: random.Random) -> bytes:
    raw = b"\r\n" * rng.choice([0] * 15 + [1, 2, 3])
    for _ in range(rng.choice([1, 1, 2, 3])):
        start = f"{rng.choice(METHODS)} {rng.choice(TARGETS)} {rng.choice(VERSIONS)}"
        raw += one_message(rng, start, ["Host: a"] * rng.choice([1] * 40 + [0, 2]))
    return raw


def responses(rng: random.Random) -> bytes:
    raw = b""
    for _ in range(rng.choice([1, 1, 2, 3])):
        raw += one_message(rng, f"{rng.choice(VERSIONS)} {rng.choice(STATUSES)}", ["Server: x"])
    return raw


# ------------------------------------------------------------------------------------------------------------ mutation


def flip_a_bit(rng: random.Random, raw: bytearray, at: int) -> None:
    raw[at] ^= 1 << rng.randrange(8)


def insert_break(rng: random.Random, raw: bytearray, at: int) -> None:
    raw[at:at] = rng.choice(BREAKS)


def replace_by_break(rng: random.Random, raw: bytearray, at: int) -> None:
    raw[at : at + rng.choice([1, 1, 2])] = rng.choice(BREAKS)


def delete(rng: random.Random, raw: bytearray, at: int) -> None:
    del raw[at : at + rng.choice([1, 1, 2, 8])]


def truncate(rng: random.Random, raw: bytearray, at: int) -> None:
    del raw[at:]


def repeat_line(rng: random.Random, raw: bytearray, at: int) -> None:
    start = raw.rfind(b"\n", 0, at) + 1
    end = raw.find(b"\n", at) + 1 or len(raw)
    raw[start:start] = raw[start:end]


def move_line(rng: random.Random, raw: bytearray, at: int) -> None:
    start = raw.rfind(b"\n", 0, at) + 1
    end = raw.find(b"\n", at) + 1 or len(raw)
    line = raw[start:end]
    del raw[start:end]
    to = raw.rfind(b"\n", 0, rng.randrange(len(raw) + 1)) + 1
    raw[to:to] = line


def change_a_line_end(rng: random.Random, raw: bytearray, at: int) -> None:
    place = raw.find(b"\r\n", at)
    if place >= 0:
        raw[place : place + 2] = rng.choice([b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n\t", b"\n\r", b"\x85", b"\0\r\n"])


MUTATIONS = [flip_a_bit, insert_break, insert_break, replace_by_break, delete, truncate, repeat_line, move_line]
MUTATIONS += [change_a_line_end, change_a_line_end]


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """Mostly by one change: with more of them, little is still accepted."""
    changed = bytearray(raw)
    for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 3])):
        if changed:
            rng.choice(MUTATIONS)(rng, changed, rng.randrange(len(changed)))
    return bytes(changed)


# --------------------------------------------------------------------------------------------------------------- tests


def seeds(count: int) -> range:
    return range(int(count * FACTOR))


def tally(counts: Counter, ours: Reading) -> None:
    counts["cases"] += 1
    counts["messages"] += len(ours.messages)
    counts["accepted"] += bool(ours.messages) and ours.error is None
    counts["refused"] += ours.error is not None
    counts["bodies"] += sum(message.is_whole and bool(message.body) for message in ours.messages)


def check_tally(counts: Counter) -> None:
    """Fuzzing that is nearly always refused, or never, would test nothing."""
    assert counts["accepted"] > counts["cases"] * 0.15, counts
    assert counts["refused"] > counts["cases"] * 0.15, counts
    assert counts["bodies"] > counts["cases"] * 0.1, counts


def test_requests_are_read_alike():
    counts: Counter = Counter()
    for seed in seeds(25000):
        rng = random.Random(seed)
        tally(counts, check_request(mutated(rng, requests(rng)), seed))
    check_tally(counts)


def test_responses_are_read_alike():
    counts: Counter = Counter()
    for seed in seeds(20000):
        rng = random.Random(seed)
        tally(counts, check_response(mutated(rng, responses(rng)), seed))
    check_tally(counts)


def test_responses_to_head_are_read_alike():
    """By h11 alone: httptools can not be told what was asked."""
    for seed in seeds(5000):
        rng = random.Random(seed)
        raw, asked = mutated(rng, responses(rng)), rng.choices(["GET", "HEAD"], k=30)
        ours = our_responses(raw, asked)
        found = difference(ours, h11_responses(raw, asked), H11_RESPONSES_REFUSES)
        assert found is None, f"{seed}: {found}\n{raw!r}"


def test_chunked_bodies_are_read_alike():
    counts: Counter = Counter()
    for seed in seeds(25000):
        rng = random.Random(seed)
        body = mutated(rng, chunked_body(rng)) + rng.choice([b"", b"", request()])
        tally(counts, check_request(request(CHUNKED) + body, seed))
    assert counts["bodies"] > counts["cases"] * 0.1, counts


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_attacks_that_pass_are_read_alike(attack):
    check_request(attack.raw(), attack.id)


@pytest.mark.parametrize(
    ("peer", "number"), [(peer, n) for peer, (_, s) in REQUEST_PEERS.items() for n in range(len(s))]
)
def test_peers_are_stricter_where_it_is_said(peer, number):
    """Else the list has grown old, and hides differences."""
    read, stricter = REQUEST_PEERS[peer]
    for example in stricter[number].examples:
        raw = example + request()
        ours, theirs = our_requests(raw), read(raw)
        assert ours.error is None
        assert len(ours.messages) == 2, example
        assert stricter[number].applies(ours.messages[0]), example
        assert difference(ours, theirs, []) is not None, example
        assert difference(ours, theirs, [stricter[number]]) is None, example


@pytest.mark.parametrize("peer", RESPONSE_PEERS)
def test_peers_read_interim_responses_otherwise(peer):
    read, stricter = RESPONSE_PEERS[peer]
    for one in (SWITCHED, UNKNOWN_INTERIM):
        raw = one.examples[0] + response("Content-Length: 0")
        ours, theirs = our_responses(raw, ONLY_GETS), read(raw)
        assert (difference(ours, theirs, []) is not None) == (one in stricter)
        assert difference(ours, theirs, stricter) is None

"""The same bytes as three parsers read them: ours, llhttp (by httptools), and h11; and what
differs.

Rule: what we accept, a peer must read the same. Where a peer is stricter than we are stands in
LLHTTP_REFUSES and H11_REFUSES, each with examples that test_http1_differential.py tests. What only
peers accept does not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h11
import httptools

from fastticket.dataplane.chunks import Dechunker
from fastticket.dataplane.http1 import request_head, response_head
from lab.attack_corpus import NO_HOST

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
    """The messages of a connection, and how it ended: an error; closed by what a message said; or
    more may come.
    """

    messages: list[Message] = field(default_factory=list)
    error: str | None = None
    is_closed: bool = False


def plain(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Parsers differ in whether they leave white space around a value, and h11 spells the coding in
    lower case.
    """
    value = value.strip(b" \t")
    return (name, value.lower() if name.lower() == b"transfer-encoding" else value)


def target_and_host(method: bytes, target: bytes, fields: Fields) -> tuple[bytes, bytes]:
    """The target and the host of a request (RFC 9112, 3.2.2 and 3.2.4): worked out here, since
    peers leave that to their callers.
    """
    absolute = re.fullmatch(rb"(?i:https?)://([^/?]+)(.*)", target)
    if absolute:
        root = b"*" if method == b"OPTIONS" and not absolute[2] else b"/"
        target, host = (absolute[2] if absolute[2][:1] == b"/" else root + absolute[2]), absolute[1]
    else:
        host = next((value for name, value in fields if name.lower() == b"host"), NO_HOST.encode())
    return target, host.removesuffix(b":")


# --------------------------------------------------------------------------------------------- ours


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


# ------------------------------------------------------------------------------------------- llhttp


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
        method = self.parser.get_method()
        return (method, *target_and_host(method, self.line, message.fields))


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


# ---------------------------------------------------------------------------------------------- h11


def h11_fields(event: h11.Request | h11.Response) -> Fields:
    return [plain(name, value) for name, value in event.headers.raw_items()]


def h11_events(connection: h11.Connection, reading: Reading, goes_on: Iterator[bool]) -> None:
    """All messages of a connection. `goes_on` does what comes between two of them, if it does."""
    while True:
        event = connection.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            return
        if isinstance(event, h11.Request):
            target, host = target_and_host(event.method, event.target, h11_fields(event))
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


# ------------------------------------------------------------- where peers are stricter than we are


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
    """The extensions of a chunked body, each with its `;`, and its trailer lines; or as many as
    have come.
    """
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
    [request(CHUNKED, body=f"1{text}\r\na\r\n0\r\n\r\n") for text in (";", ';a"b"', ';a="b"c', " ;a", "; a")],
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
    Stricter(
        "it takes no white space before a chunk's extension (RFC 9112, 7.1.1 has it); both lines end at the same place",
        lambda message: any(text.startswith((b" ", b"\t")) for text in extras_of(message)[0]),
        [request(CHUNKED, body=f"1{text};a\r\na\r\n0\r\n\r\n") for text in (" ", "\t", " \t ")],
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


# --------------------------------------------------------------------------------------- comparison


def difference(ours: Reading, theirs: Reading, stricter: list[Stricter]) -> str | None:
    """The first thing that the peer reads differently. Where it is known to be stricter, nothing is
    compared from there on.
    """
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

"""Where a fuzzer begins: the attacks of tests/attack_corpus.py and a few ordinary messages, as inputs of http1.c."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from attack_corpus import ATTACKS, COOKIE  # noqa: E402

BYTES_MAX = 9 * 1024  # more than the longest target; what only a longer input shows is for the unit tests
SPLIT = bytes([5, 2])  # a body's first piece, and one less than the others
NAME = bytes([len(COOKIE)]) + COOKIE.encode()


class Mode(IntEnum):
    """As in http1.c."""

    REQUEST = 0
    RESPONSE = 1
    RESPONSE_TO_HEAD = 2
    BODY = 3
    PATH = 4
    COOKIE = 5


BROWSER = (
    b"GET /api/items/7?page=2 HTTP/1.1\r\nHost: shop.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Connection: keep-alive\r\nCookie: theme=dark; t=AbC-_0.9\r\nX-Bytes: \xc3\xa9\xff\r\n\r\n"
)
WEBSOCKET = (
    b"GET /chat HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LONG_TARGETS = [b"GET /" + b"u" * size + b" HTTP/1.1\r\nHost: a\r\n\r\n" for size in (8191, 8192)]
FULL_HEADS = [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X:\r\n" * fields + b"\r\n" for fields in (511, 512)]
METHODS = [
    b"%s /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" % method
    for method in (b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE", b"QUERY")
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nServer: origin/1.0\r\nDate: Sat, 01 Aug 2026 12:00:00 GMT\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 404 Not Found \xff\r\nSet-Cookie: a=b\r\nX-Ticket-Login: alice\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 101\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 304 \r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    *(b"HTTP/1.1 200 OK\r\n" + b"X:\r\n" * fields + b"\r\n" for fields in (512, 513)),
]
BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b'00a;name;n="q;v"\r\n0123456789\r\n000\r\nTrailer: 1\r\nOther:\r\n\r\nGET',
    b"ffffffffffffff\r\nnot all of it",
    *(b"1;" + b"e" * size + b"\r\na\r\n0\r\n\r\n" for size in (200, 253, 254, 255, 256)),
    b"1;more\r\na\r\n" * 600 + b"0\r\n\r\n",
    *(b"0\r\nTrailer: " + b"v" * size + b"\r\n\r\n" for size in (4000, 4082, 4083, 4084)),
]
PATHS = [
    b"/",
    b"/a/b/",
    b"/a%20b/%7Euser",
    b"/a/../b",
    b"/a//b",
    b"/%2e",
    b"/..a/.b./...",
    b"*",
    b"/.",
    b"/%3b",
    b"/%25",
]
COOKIES = [b"a=b; t=1; t=2 ;\tt", b't="x"', b"t=; t==\t"]


def inputs() -> Iterator[tuple[Mode, bytes]]:
    for raw in [*(attack.raw() for attack in ATTACKS), BROWSER, WEBSOCKET, *LONG_TARGETS, *FULL_HEADS, *METHODS]:
        yield Mode.REQUEST, raw
        head, _, body = raw.partition(b"\r\n\r\n")
        if b"chunked" in head:
            yield Mode.BODY, SPLIT + body
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"cookie:"):
                yield Mode.COOKIE, NAME + line[len("cookie:") :]
    for raw in RESPONSES:
        yield Mode.RESPONSE, raw
        yield Mode.RESPONSE_TO_HEAD, raw
    for body in BODIES:
        yield Mode.BODY, SPLIT + body
    for path in PATHS:
        yield Mode.PATH, path
    for value in COOKIES:
        yield Mode.COOKIE, NAME + value


def plant(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (mode, data) in enumerate(inputs()):
        if len(data) < BYTES_MAX:
            (folder / f"{number:03}-{mode.name.lower()}").write_bytes(bytes([mode]) + data)

"""The inputs that each fuzzer begins with: the attacks of tests/lab/attack_corpus.py, a few
ordinary messages, and inputs of the unit tests.
"""
# ruff: noqa: RUF001

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from lab.attack_corpus import ATTACKS, COOKIE  # noqa: E402

VECTORS = json.loads((HERE.parent / "tests" / "lab" / "vectors.json").read_text("utf-8"))
BYTES_MAX = 9 * 1024  # more than the longest target; what only a longer input shows is for the unit tests
SPLIT = bytes([5, 2])  # a body's first piece, and one less than the others
NAME = bytes([len(COOKIE)]) + COOKIE.encode()


class Mode(IntEnum):
    """As in http1.c."""

    REQUEST = 0
    RESPONSE = 1
    RESPONSE_TO_HEAD = 2


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
    b'0000000000000005 \t; a = "q\\"v" ;b\r\nhello\r\n0000000000000000\r\n\r\n',
    *(b"1" + b" " * size + b";a\r\na\r\n0\r\n\r\n" for size in (251, 252, 253)),
    *(b"1;" + b"e" * size + b"\r\na\r\n0\r\n\r\n" for size in (200, 253, 254, 255, 256)),
    b"1;more\r\na\r\n" * 600 + b"0\r\n\r\n",
    *(b"0\r\nTrailer: " + b"v" * size + b"\r\n\r\n" for size in (4000, 4082, 4083, 4084)),
]
PATHS = [
    *(b"/", b"/a/b/", b"/a%20b/%7Euser", b"/a/../b", b"/a//b", b"/%2e", b"/..a/.b./...", b"*", b"/.", b"/%3b", b"/%25"),
    *(
        "/%C3%A9",
        "/文.png",
        "/100%25-x",
        "/a;v=1/b",
        "/what%3F#",
        "/ハリー・ポッター",
        "/·",
        "/..文",
        "/é\u0301\u200c",
        "/ａ／．％",
    ),
    *("/%25%32%65", "/%E4%BD%A0admin", "/&#x2f;", "/%C0%AF", "/%ED%A0%80", "/%F4%90%80%80", "/новости/2024"),
]
ROUTES = [b"/admin", b"/a", b"/public/private/x", b"/ss"]
TICKETS = [vector["ticket"].encode() for kind in ("accepted", "refused") for vector in VECTORS[kind]]
NAMES = ["alice", "Zoë", "张三", "🎫", " a", "a ", "a\x7f", "x" * 190, "x" * 191, "\xff"]
HEADERS = [
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\nGET",
    b"PROXY TCP6 ::1 fe80::1 80 443\r\n",
    *(
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 x\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4",
    ),
    *(
        b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest
        for command, family in (
            (0x20, 0),
            (0x21, 0x11),
            (0x21, 0x21),
            (0x21, 0),
            (0x21, 0x31),
            (0x11, 0x11),
            (0x2F, 0x11),
        )
        for rest in (b"", b"\x01\x02\x03\x04" * 3, b"\x01" * 36, b"\x02" * 40 + b"\x04\0\x02ab")
    ),
]
ADDRESSES = [
    b"1.2.3.4",
    b"1.2.3.4:80",
    b"::1",
    b"[::1]:65535",
    b"::ffff:1.2.3.4",
    b"[fe80::1",
    b"1.2.3.4:",
    b"01.2.3.4",
    b"1::2::3",
]
COOKIES = [b"a=b; t=1; t=2 ;\tt", b't="x"', b"t=; t==\t"]


REQUESTS = [*(attack.raw() for attack in ATTACKS), BROWSER, WEBSOCKET, *LONG_TARGETS, *FULL_HEADS, *METHODS]


def of_http1() -> Iterator[tuple[int, bytes]]:
    for raw in REQUESTS:
        yield Mode.REQUEST, raw
    for raw in RESPONSES:
        yield Mode.RESPONSE, raw
        yield Mode.RESPONSE_TO_HEAD, raw


def of_chunks() -> Iterator[tuple[int, bytes]]:
    for raw in REQUESTS:
        head, _, body = raw.partition(b"\r\n\r\n")
        if b"chunked" in head:
            yield 0, SPLIT + body
    for body in BODIES:
        yield 0, SPLIT + body


def of_cookiefields() -> Iterator[tuple[int, bytes]]:
    for raw in REQUESTS:
        for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            if line.lower().startswith(b"cookie:"):
                yield 0, NAME + line[len("cookie:") :]
    for value in COOKIES:
        yield 0, NAME + value


def of_paths() -> Iterator[tuple[int, bytes]]:
    targets = [raw.split(b" ")[1] for raw in (attack.raw() for attack in ATTACKS) if raw.count(b" ") > 1]
    for path in [*PATHS, *targets]:
        raw = path if isinstance(path, bytes) else quote(path, safe="/%;#&").encode()
        yield 0, raw
        for route in ROUTES:
            yield 1, bytes([len(route)]) + route + raw


def of_ticket() -> Iterator[tuple[int, bytes]]:
    for text in TICKETS:
        yield 0, text
    for name in NAMES:
        raw = name.encode("latin-1" if name == "\xff" else "utf-8")
        yield 1, bytes(33) + raw
        yield 2, raw


def of_clients() -> Iterator[tuple[int, bytes]]:
    for header in HEADERS:
        yield 0, header
    for address in ADDRESSES:
        yield 1, address


INPUTS = {
    "http1": of_http1,
    "chunks": of_chunks,
    "cookiefields": of_cookiefields,
    "paths": of_paths,
    "ticket": of_ticket,
    "clients": of_clients,
}


def plant(name: str, folder: Path) -> None:
    """Write the inputs that a harness begins with, a file each: the mode, and what it reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (mode, data) in enumerate(INPUTS[name]()):
        if len(data) < BYTES_MAX:
            (folder / f"{number:03}-{int(mode)}").write_bytes(bytes([mode]) + data)

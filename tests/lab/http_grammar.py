"""Messages made by a grammar from a random generator, real ones, and mutations of both.

Rule: most of a message is well formed. What is nearly always refused says nothing of how the rest
is read.

FASTTICKET_FUZZ=10 tries ten times as many.
"""

from __future__ import annotations

import os
import random

FACTOR = float(os.environ.get("FASTTICKET_FUZZ", "1"))


def seeds(count: int) -> range:
    return range(int(count * FACTOR))


# ------------------------------------------------------------------------------------------ grammar


GOOD_TARGETS = [
    *("/", "/x", "/a/b?c=d", "/%41%zz", "//b/x", "/a\\..\\b", '/"<>^`{|}', "/?a?b", "http://b/x", "HTTP://b:80?x"),
    *("https://[::1]/", "http://b", "http://b:", "http://[1::2:3]:/x"),
]
TARGETS = [*GOOD_TARGETS, *GOOD_TARGETS, *GOOD_TARGETS, "*", "/x#f", "http://u@b/", "x", "http://[1::2::3]/"]
METHODS = ["GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH", "QUERY", "get", "X"]
VERSIONS = ["HTTP/1.1"] * 20 + ["HTTP/1.0", "HTTP/1.2"]
FIELDS = [
    *("Accept: */*", "Cookie: a=b; t=c", "X-Empty:", "X-Bytes: \xc3\xa9\x80\xff", "x_y.z: 1", "X:\t a  b \t", "X:y:z"),
    *("Connection: keep-alive; timeout=5", "Connection: close; a", "Connection: keep-alive; a, X"),
    *("Connection: keep-alive", "Connection: close", "Connection: , keep-alive ,X", "Proxy-Connection: keep-alive"),
    *("Upgrade: h2c", "Connection: upgrade", "Expect: 100-continue", "TE: trailers", "Keep-Alive: timeout=5"),
    *("Content_Length: 3", "Transfer.Encoding: chunked", "Content-Lengths: 1", "X-Forwarded-For: 1.2.3.4", "!#$%: &'*"),
]
LENGTHS = ["{}", "{}", "{}", "0{}", "00000000000000000000{}", "{}0", "{}, {}", "+{}", "{} ", "{};"]
CODINGS = ["chunked"] * 4 + ["Chunked", " chunked\t", "chunked, chunked", "gzip, chunked", "identity", "xchunked", ""]
DATA = [b"", b"a", b"hello", b"0\r\n\r\n", b"\r\n", b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n", bytes(range(256))]
CHUNK_EXTENSIONS = [""] * 20 + [
    ";",
    ";a",
    ";a=b;c",
    ';a="b; c"',
    ";a==",
    " ;a",
    ";a b",
    "; a",
    " ; a = b",
    "\t;a ",
    " ",
]
CHUNK_EXTENSIONS += [';a="\\""', ';a="\\']
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
        size = rng.choice(["{:x}", "{:X}", "0{:x}", "00000000{:x}", "{:016x}", "{:017x}"]).format(len(data))
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
        host = rng.choice(["Host: a"] * 20 + ["Host: a:", "Host: [::1]:", "Host: [1:::2]"])
        without = start.endswith("1.0") and rng.random() < 0.5
        raw += one_message(rng, start, [] if without else [host] * rng.choice([1] * 40 + [0, 2]))
    return raw


def responses(rng: random.Random) -> bytes:
    raw = b""
    for _ in range(rng.choice([1, 1, 2, 3])):
        raw += one_message(rng, f"{rng.choice(VERSIONS)} {rng.choice(STATUSES)}", ["Server: x"])
    return raw


# ----------------------------------------------------------------------------------------- mutation


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


# ---------------------------------------------------------------------------------------- real ones


def lines(*text: str, body: bytes = b"") -> bytes:
    return "\r\n".join([*text, "", ""]).encode("latin-1") + body


REAL_REQUESTS = [  # as a browser, curl, Python, Go and a health check send them
    lines(
        "GET /orders/2024?sort=-date&page=2 HTTP/1.1",
        "Host: shop.example.org",
        "Connection: keep-alive",
        'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24"',
        "Upgrade-Insecure-Requests: 1",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0",
        "Accept: text/html,application/xhtml+xml;q=0.9,image/avif,*/*;q=0.8",
        "Referer: https://shop.example.org/orders",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Cookie: theme=dark; _ga=GA1.2.3.4",
    ),
    lines(
        "POST /api/v1/items HTTP/1.1",
        "Host: 127.0.0.1:8080",
        "User-Agent: curl/8.9.1",
        "Accept: */*",
        "Content-Type: application/json",
        "Content-Length: 16",
        body=b'{"name": "caf\xc3"}',
    ),
    lines(
        "PUT /files/a%20b.txt HTTP/1.1",
        "Host: files.example.org:443",
        "User-Agent: Go-http-client/1.1",
        "Transfer-Encoding: chunked",
        "Accept-Encoding: gzip",
        body=b"10\r\n0123456789abcdef\r\n3\r\n\r\n!\r\n0\r\n\r\n",
    ),
    lines(
        "POST /upload HTTP/1.1",
        "Host: a",
        "User-Agent: python-requests/2.32.3",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "Expect: 100-continue",
        "Content-Length: 44",
        "Content-Type: multipart/form-data; boundary=b",
        body=b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b",
    ),
    lines("HEAD /health HTTP/1.0", "Host: 10.0.0.1", "User-Agent: check/1.0", "Connection: close"),
]
REAL_RESPONSES = [  # as nginx, gunicorn, Node, Go and an old CGI send them
    lines(
        "HTTP/1.1 200 OK",
        "Server: nginx/1.26.2",
        "Date: Thu, 05 Sep 2024 10:00:00 GMT",
        "Content-Type: text/html; charset=utf-8",
        "Content-Length: 13",
        "Last-Modified: Thu, 05 Sep 2024 09:00:00 GMT",
        "Connection: keep-alive",
        'ETag: "66d97c10-d"',
        "Accept-Ranges: bytes",
        body=b"<p>Hello!</p>",
    ),
    lines(
        "HTTP/1.1 302 FOUND",
        "Server: gunicorn",
        "Connection: close",
        "Location: /login",
        "Set-Cookie: a=b; HttpOnly; Path=/",
        "Set-Cookie: c=d; SameSite=Lax",
        "Content-Length: 0",
    ),
    lines(
        "HTTP/1.1 200 OK",
        "X-Powered-By: Express",
        "Content-Type: application/json",
        "Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "Transfer-Encoding: chunked",
        body=b'd\r\n{"items": []}\r\n1\r\n\n\r\n0\r\n\r\n',
    ),
    lines("HTTP/1.1 304 Not Modified", "Etag: W/x", "Vary: Accept-Encoding", "Date: Thu, 05 Sep 2024 10:00:00 GMT"),
    lines("HTTP/1.0 404 Not Found", "Content-Type: text/plain", body=b"no such page\n"),
]

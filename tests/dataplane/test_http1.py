"""Message heads, from the outside: raw bytes in, what was understood out."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.attack_corpus import ATTACKS, COOKIE, IDENTITY, NO_HOST, NOT_V6, V6, Attack, Seen

from fastticket.dataplane.chunks import Dechunker
from fastticket.dataplane.cookiefields import cookies_named
from fastticket.dataplane.fieldnames import KNOWN, Kind, Names
from fastticket.dataplane.http1 import request_head, response_head

NAMES = Names(identity=IDENTITY)
LENGTH = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"
GOES_ON_AS_IT_IS = {Kind.OTHER, Kind.COOKIE, Kind.AUTHORIZATION, Kind.ACCEPT, Kind.WEBSOCKET_KEY}
GOES_ON_AS_IT_IS |= {Kind.AUTHENTICATE, Kind.SET_COOKIE}
ODD = "!#$%&'*+.^_`|~"  # token characters, but letters, digits and "-"


def normal(name: bytes) -> bytes:
    return re.sub(rb"[^a-z0-9]", b"-", name.lower())


def head_of(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def get(*fields: str, line: str = "GET /x HTTP/1.1", host: str | None = "a") -> bytes:
    return head_of(line, *([] if host is None else [f"Host: {host}"]), *fields)


def understood(raw: bytes, names: Names | None = NAMES) -> dict:
    head = request_head(raw, names=names)
    assert isinstance(head, dict), head
    return head


def answer(*fields: str, line: str = "HTTP/1.1 200 OK", to_head: bool = False) -> dict | int:
    return response_head(head_of(line, *fields), to_head=to_head)


def kind_of(name: str, names: Names = NAMES) -> Kind:
    """As a field of a response, where "1" is a fine value for all but Transfer-Encoding."""
    head = response_head(head_of("HTTP/1.1 200 OK", f"{name}: 1"), names=names)
    assert isinstance(head, dict), name
    return Kind(head["fields"][0][2])


# -------------------------------------------------------------------------------- the attack corpus


def forwarded_fields(head: dict) -> list[tuple[bytes, bytes]]:
    """What a gateway sends on: nothing that it has to drop or to say itself."""
    nominated = {normal(name) for name in head["nominated"]}
    return [
        (name, value)
        for name, value, kind in head["fields"]
        if kind in GOES_ON_AS_IT_IS and normal(name) not in nominated
    ]


def is_persistent(head: dict) -> bool:
    return not head["close"] and (head["minor"] == 1 or head["keep_alive"])


def body_of(head: dict, rest: bytes) -> tuple[bytes, bytes]:
    """The body, which must be all there, and what follows. ValueError: malformed."""
    if head["framing"] == "chunked":
        body, used, done = Dechunker().feed(rest)
        assert done
        return body, rest[used:]
    size = head["content_length"] or 0
    assert len(rest) >= size
    return rest[:size], rest[size:]


def read_connection(raw: bytes) -> tuple[list[tuple[dict, bytes]], tuple[int, str] | None, bool]:
    """The requests that are understood, the refusal that ended it, and whether the connection
    closes without one.
    """
    requests = []
    while raw:
        head = request_head(raw, names=NAMES)
        if not isinstance(head, dict):
            return requests, (-head, "head"), False
        try:
            body, raw = body_of(head, raw[head["size"] :])
        except ValueError:
            return requests, (400, "body"), False
        requests.append((head, body))
        if not is_persistent(head):
            return requests, None, True
    return requests, None, False


def check_seen(seen: Seen, head: dict, body: bytes) -> None:
    assert head["method"].decode() == seen.method
    assert head["target"].decode() == seen.target
    assert head["host"].decode() == seen.host
    assert body.decode("latin-1") == seen.body
    fields = [(name.decode(), value.decode("latin-1")) for name, value in forwarded_fields(head)]
    for name, value in (text.split(": ") for text in seen.has):
        assert (name.lower(), value) in [(n.lower(), v) for n, v in fields]
    for name, value in (text.split(": ") for text in seen.lacks):
        assert (normal(name.encode()), value) not in [(normal(n.encode()), v) for n, v in fields]


FOR_THE_PARSER = [attack for attack in ATTACKS if attack.verdict.by != "gateway"]
FOR_THE_GATEWAY = [attack for attack in ATTACKS if attack.verdict.by == "gateway"]


def test_corpus_is_complete():
    ids = [attack.id for attack in ATTACKS]
    assert len(ids) == len(set(ids))
    assert {name for name in ids if name.isdigit()} == {f"{number:02}" for number in range(1, 142)}


@pytest.mark.parametrize("more", [(), ("Cookie: t=1", "X-More: 1")], ids=["as is", "with more fields"])
@pytest.mark.parametrize("attack", FOR_THE_PARSER, ids=lambda attack: attack.id)
def test_attack(attack: Attack, more: tuple[str, ...]):
    requests, refusal, closes = read_connection(attack.raw(*more))
    if attack.verdict.statuses:
        assert refusal is not None
        assert refusal[0] in attack.verdict.statuses
        assert refusal[1] == attack.verdict.by
    else:
        assert refusal is None
    assert closes == attack.verdict.closes
    assert len(requests) == len(attack.verdict.seen)
    for seen, (head, body) in zip(attack.verdict.seen, requests, strict=True):
        check_seen(seen, head, body)


@pytest.mark.parametrize("attack", FOR_THE_GATEWAY, ids=lambda attack: attack.id)
def test_attack_above_the_parser(attack: Attack):
    """The parser passes these on, with what the gateway needs to refuse them."""
    head = understood(attack.raw())
    cookies = [value for _, value, kind in head["fields"] if kind == Kind.COOKIE]
    if cookies:
        assert sum(cookies_named(value, COOKIE.encode())[0] for value in cookies) == 2
    else:
        assert head["size"] > 16_384 or len(head["target"]) > 8192 or len(head["fields"]) > 128


# -------------------------------------------------------------------------- every field of a result


def test_ordinary_request():
    raw = (
        b"POST /a/b?c=d&e HTTP/1.1\r\n"
        b"Host: example.org:8080\r\n"
        b"User-Agent:curl/8\r\n"
        b"X-Empty:\r\n"
        b"accept: \t text/html, */*;q=0.1\t \r\n"
        b"Cookie: a=b; t=c\r\n"
        b"Content-Length: 5\r\n"
        b"Connection: keep-alive, X-Hop\r\n"
        b"X-Hop: 1\r\n"
        b"X-Bytes: \xc3\xa9\xff\r\n"
        b"\r\n"
    )
    assert request_head(raw + b"hello") == {
        "size": len(raw),
        "minor": 1,
        "framing": "length",
        "content_length": 5,
        "close": False,
        "keep_alive": True,
        "fields": [
            (b"Host", b"example.org:8080", Kind.HOST),
            (b"User-Agent", b"curl/8", Kind.OTHER),
            (b"X-Empty", b"", Kind.OTHER),
            (b"accept", b"text/html, */*;q=0.1", Kind.ACCEPT),
            (b"Cookie", b"a=b; t=c", Kind.COOKIE),
            (b"Content-Length", b"5", Kind.CONTENT_LENGTH),
            (b"Connection", b"keep-alive, X-Hop", Kind.CONNECTION),
            (b"X-Hop", b"1", Kind.OTHER),
            (b"X-Bytes", b"\xc3\xa9\xff", Kind.OTHER),
        ],
        "nominated": [b"X-Hop"],
        "method": b"POST",
        "target": b"/a/b?c=d&e",
        "path": b"/a/b",
        "host": b"example.org:8080",
        "expect_continue": False,
        "websocket": False,
        "upgrade_to": b"",
    }


def test_smallest_request():
    raw = b"A / HTTP/1.0\r\nHost:a\r\n\r\n"
    assert request_head(raw) == {
        "size": len(raw),
        "minor": 0,
        "framing": "none",
        "content_length": None,
        "close": False,
        "keep_alive": False,
        "fields": [(b"Host", b"a", Kind.HOST)],
        "nominated": [],
        "method": b"A",
        "target": b"/",
        "path": b"/",
        "host": b"a",
        "expect_continue": False,
        "websocket": False,
        "upgrade_to": b"",
    }


def test_ordinary_response():
    raw = (
        b"HTTP/1.1 404 Not Found \xff\r\n"
        b"Server: x\r\n"
        b"Content-Length: 3\r\n"
        b"Set-Cookie: a=b\r\n"
        b"Set-Cookie: c=d\r\n"
        b"X-Ticket-Login: alice\r\n"
        b"Connection: close\r\n"
        b"\r\n"
    )
    assert response_head(raw + b"abc") == {
        "size": len(raw),
        "minor": 1,
        "framing": "length",
        "content_length": 3,
        "close": True,
        "keep_alive": False,
        "fields": [
            (b"Server", b"x", Kind.OTHER),
            (b"Content-Length", b"3", Kind.CONTENT_LENGTH),
            (b"Set-Cookie", b"a=b", Kind.SET_COOKIE),
            (b"Set-Cookie", b"c=d", Kind.SET_COOKIE),
            (b"X-Ticket-Login", b"alice", Kind.TICKET_LOGIN),
            (b"Connection", b"close", Kind.CONNECTION),
        ],
        "nominated": [],
        "status": 404,
        "reason": b"Not Found \xff",
    }


@pytest.mark.parametrize("as_buffer", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(as_buffer):
    assert understood(as_buffer(get()))["host"] == b"a"
    assert request_head(as_buffer(b"")) == response_head(as_buffer(b"")) == 0


@pytest.mark.parametrize("not_bytes", [None, "GET"])
def test_only_bytes_are_read(not_bytes):
    for read in (request_head, response_head, Dechunker().feed):
        with pytest.raises(TypeError):
            read(not_bytes)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY", "M-SEARCH", ODD]
)
def test_methods(method):
    assert understood(get(line=f"{method} /x HTTP/1.1"))["method"].decode() == method


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
@pytest.mark.parametrize("target", ["/x", "a:443", "http://a/x"])
def test_methods_of_tunnels_and_echoes(method, target):
    assert request_head(get(line=f"{method} {target} HTTP/1.1")) == -405


@pytest.mark.parametrize("code", range(256))
def test_which_bytes_may_be_where(code):
    byte = chr(code)
    is_alphanumeric = byte.isascii() and byte.isalnum()
    is_token = is_alphanumeric or byte in ODD + "-"
    is_text = 32 <= code <= 126 or code >= 128 or byte == "\t"
    is_target = 33 <= code <= 126 and byte != "#"
    is_host = is_alphanumeric or byte in "-._~:"
    assert isinstance(request_head(get(line=f"G{byte}T /x HTTP/1.1")), dict) == is_token
    assert isinstance(request_head(get(line=f"GET /x{byte}y HTTP/1.1")), dict) == is_target
    assert isinstance(request_head(get(host=f"a{byte}1")), dict) == is_host
    assert isinstance(request_head(get(f"X{byte}Y: 1")), dict) == (is_token or byte == ":")
    assert isinstance(request_head(get(f"X: a{byte}b")), dict) == is_text
    assert isinstance(response_head(head_of(f"HTTP/1.1 200 O{byte}K")), dict) == is_text


# ------------------------------------------------------------------------------------------- limits


def test_limit_of_fields():
    fields = [f"X{i}: {i}" for i in range(512)]
    assert len(understood(get(*fields[:511]))["fields"]) == 512
    assert request_head(get(*fields)) == -431
    assert len(answer(*fields)["fields"]) == 512
    assert answer(*fields, "X: y") == -502


def test_limit_of_fields_is_known_before_the_head_ends():
    lines = get(*(f"X{i}: {i}" for i in range(511)))[:-2]
    assert request_head(lines) == 0
    assert request_head(lines + b"Y") == -431


@pytest.mark.parametrize("prefix", ["/", "http://b/", "/?"])
def test_limit_of_target(prefix):
    longest = prefix + "u" * (65536 - len(prefix))
    assert understood(get(line=f"GET {longest} HTTP/1.1"))["size"] > 65536
    assert request_head(get(line=f"GET {longest}u HTTP/1.1")) == -414
    assert request_head(f"GET {longest}".encode()) == 0
    assert request_head(f"GET {longest}u".encode()) == -414


def test_limit_of_method():
    assert understood(get(line="G" * 32 + " /x HTTP/1.1"))["method"] == b"G" * 32
    assert request_head(get(line="G" * 33 + " /x HTTP/1.1")) == -400
    assert request_head(b"G" * 32) == 0
    assert request_head(b"G" * 33) == -400


def test_limit_of_field_name():
    assert understood(get("n" * 65535 + ": 1"))["fields"][1][1] == b"1"
    assert request_head(get("n" * 65536 + ": 1")) == -400


def test_limit_of_nominated_names():
    names = [f"x{i}" for i in range(9)]
    eight = "Connection: close, upgrade, keep-alive, " + ", ".join(names[:8])
    assert understood(get(eight))["nominated"] == [name.encode() for name in names[:8]]
    assert request_head(get(eight + ", x8")) == -400
    assert request_head(get(eight, "Connection: x8")) == -400
    assert answer(eight + ", x8") == -502


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 + 1, 2**53 + 1, 2**56 - 1, 2**56, (2**56 - 1) * 10 + 9])
@pytest.mark.parametrize("zeros", ["", "0", "0" * 40])
def test_content_length(length, zeros):
    head = understood(get(f"Content-Length: {zeros}{length}"))
    assert (head["framing"], head["content_length"]) == ("length", length)
    assert answer(f"Content-Length: {zeros}{length}")["content_length"] == length


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("base", [2**56 * 10 + 2, 2**60, 2**63, 2**64, 2**64 * 10, 2**65, 2**128])
def test_content_length_that_does_not_fit(base, offset):
    assert request_head(get(f"Content-Length: {base + offset}")) == -400
    assert request_head(get(f"Content-Length: 0{base + offset}")) == -400
    assert answer(f"Content-Length: {base + offset}") == -502


# ------------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("sent", "target", "path", "host"),
    [
        ("/", "/", "/", "a"),
        ("/a/b?c/d?e", "/a/b?c/d?e", "/a/b", "a"),
        ("/?", "/?", "/", "a"),
        ("/*", "/*", "/*", "a"),
        ("//b/x", "//b/x", "//b/x", "a"),
        ("/http://b/x", "/http://b/x", "/http://b/x", "a"),
        ("/%zz%", "/%zz%", "/%zz%", "a"),
        ("/%0", "/%0", "/%0", "a"),
        ("/%01%10", "/%01%10", "/%01%10", "a"),
        ("/x?%00", "/x?%00", "/x", "a"),
        ('/\\"<>[]^`{|}', '/\\"<>[]^`{|}', '/\\"<>[]^`{|}', "a"),
        ("http://b", "/", "/", "b"),
        ("http://b/", "/", "/", "b"),
        ("http://b?x/y", "/?x/y", "/", "b"),
        ("HTTPS://B:443//x?y", "//x?y", "//x", "B:443"),
        ("http://[2001:db8::1]:80/x", "/x", "/x", "[2001:db8::1]:80"),
        ("http://b/http://c/", "/http://c/", "/http://c/", "b"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_target(method, sent, target, path, host):
    if method == "OPTIONS" and sent == "http://b":  # RFC 9112, 3.2.4
        target = path = "*"
    head = understood(get(line=f"{method} {sent} HTTP/1.1"))
    assert (head["target"].decode(), head["path"].decode(), head["host"].decode()) == (target, path, host)


def test_target_star():
    head = understood(get(line="OPTIONS * HTTP/1.1"))
    assert (head["target"], head["path"], head["host"]) == (b"*", b"*", b"a")


@pytest.mark.parametrize(
    "target",
    [
        *("x", "*", "**", "?x", "%2fx", "a:80", "\\x", "..", "/x#", "#", "/\xe9", "/%00", "/a%00b"),
        *("http://b/%00", "http", "http:", "http:/", "http://", "http:///", "http://?x", "http:b/x"),
        *("http:/b/x", "://b/x", "x://b", "ftp://b/x", "httpx://b/x", "htt://b/x", "ws://b/x", "http//b/x"),
        *(
            " http://b/x",
            "http://u@b/x",
            "http://:/x",
            "http://b:1:2/x",
            "http://b::/x",
            "http://b:65536/x",
            "http://[::1/x",
        ),
        *("http://[]/x", "http://b\\/x", "http://b#/x"),
    ],
)
def test_target_refused(target):
    assert request_head(get(line=f"GET {target} HTTP/1.1")) == -400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /x HTTP/1.2", 505),
        ("GET /x HTTP/1.9", 505),
        ("GET /x HTTP/0.9", 400),
        ("GET /x HTTP/2.0", 505),
        ("GET /x HTTP/3", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET /x HTTP/1", 400),
        ("GET /x HTTP/1.", 400),
        ("GET /x HTTP/1.x", 400),
        ("GET /x HTTP/1.11", 400),
        ("GET /x HTTP/1,1", 400),
        ("GET /x HTTP/x.1", 400),
        ("GET /x HTTP1.1", 400),
        ("GET /x Http/1.1", 400),
        ("GET /x  HTTP/1.1", 400),
        ("GET /x HTTP/1.1 ", 400),
        ("GET /x ", 400),
        ("GET /x", 400),
        ("GET ", 400),
        ("GET", 400),
        (" /x HTTP/1.1", 400),
    ],
)
def test_request_line_refused(line, status):
    assert request_head(get(line=line)) == -status


# --------------------------------------------------------------------------------------------- Host

HOSTS = [
    *("a", "example.org", "A-b_c~d.", "127.0.0.1", "a:0", "a:80", "a:00080", "a:65535", "[::1]"),
    *("[::1]:443", "[2001:DB8::ffff:1.2.3.4]:65535", "h:", "127.0.0.1:", "[::1]:"),
    *(f"[{literal}]" for literal in V6),
]
NOT_HOSTS = [
    *(
        "",
        ":",
        "::",
        ":80",
        "a::",
        "[::1]::",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:8o",
        "a:-1",
        "a: 80",
        "a:80:80",
        "a::80",
    ),
    *("a b", "a\tb", "u@a", "a/b", "a?b", "a#b", "a,b", "a, b", "a;b", "a%41", "a\\b", "a\xe9", '"a"', "a=b"),
    *("a!b", "*", "<a>", "::1", "[", "[]", "[::1", "::1]", "[::1]a", "[::1]:x", "[::1]:65536"),
    *("[[::1]]", "[g::1]", "[fe80::1%25en0]", "a[::1]", "[::1 ]"),
    *(f"[{literal}]" for literal in NOT_V6),
]


@pytest.mark.parametrize("host", HOSTS)
def test_host(host):
    """An empty port says nothing, and does not go on."""
    assert understood(get(host=host))["host"].decode() == host.removesuffix(":")
    assert understood(get(line=f"GET http://{host}/x HTTP/1.1", host="b"))["host"].decode() == host.removesuffix(":")


@pytest.mark.parametrize("host", NOT_HOSTS)
def test_host_refused(host):
    assert request_head(get(host=host)) == -400
    assert request_head(get(host=host, line="GET http://a/x HTTP/1.1")) == -400
    if not set("/?") & set(host):
        assert request_head(get(line=f"GET http://{host}/x HTTP/1.1")) == -400


def is_v6(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return "%" not in text and bool(ipaddress.IPv6Address(text).packed)
    return False


@given(
    st.one_of(
        st.ip_addresses(v=6).map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded),
        st.lists(
            st.sampled_from(["", ":", "::", "0", "1:", "ffff", "12345", "a.b", "1.2.3.4", "1", ":1"]), max_size=12
        ).map("".join),
        st.text(alphabet="01f:.", max_size=24),
    )
)
@settings(deadline=None, max_examples=3000)
def test_addresses_between_brackets_are_those_that_ipaddress_knows(text):
    assert isinstance(request_head(get(host=f"[{text}]")), dict) == is_v6(text), text


@pytest.mark.parametrize(("text", "is_one"), [*((text, True) for text in V6), *((text, False) for text in NOT_V6)])
def test_ipaddress_knows_what_is_listed(text, is_one):
    assert is_v6(text) == is_one


@pytest.mark.parametrize(
    "line", ["GET /x HTTP/1.0", "GET /x HTTP/1.1", "GET http://a/x HTTP/1.1", "OPTIONS * HTTP/1.1"]
)
def test_exactly_one_host(line):
    """But that HTTP/1.0 does without: then NO_HOST is what was understood."""
    assert isinstance(request_head(get(line=line)), dict)
    if line.endswith("1.0"):
        assert understood(get(line=line, host=None))["host"] == NO_HOST.encode()
    else:
        assert request_head(get(line=line, host=None)) == -400
    assert request_head(get("Host: a", line=line)) == -400
    assert request_head(get("X: y", "HOST: b", line=line)) == -400


# --------------------------------------------------------------------------- framing and Connection


@pytest.mark.parametrize(
    "value", ["", " ", "+1", "-1", "1 1", "1,1", "1, 1", "0x1", "1.0", "1e1", "x", "1x", "\xb2", "1\xa0"]
)
def test_content_length_refused(value):
    assert request_head(get(f"Content-Length: {value}")) == -400
    assert answer(f"Content-Length: {value}") == -502


@pytest.mark.parametrize("value", ["chunked", "CHUNKED", "\tChunKed \t"])
def test_chunked(value):
    head = understood(get(f"Transfer-Encoding: {value}"))
    assert (head["framing"], head["content_length"]) == ("chunked", None)
    assert answer(f"transfer-encoding: {value}")["framing"] == "chunked"


@pytest.mark.parametrize(
    "value",
    [
        *("", "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ",chunked"),
        *("chunked;", "chunked;q=1", '"chunked"', "chunke", "chunkedd", "xchunked", "\xa0chunked"),
        *("chun ked", "0"),
    ],
)
def test_codings_refused(value):
    assert request_head(get(f"Transfer-Encoding: {value}")) == -501
    assert answer(f"Transfer-Encoding: {value}") == -502


FRAMING_LINES = ["Content-Length: 1", "Content-Length: 2", "content-LENGTH:0", CHUNKED, CHUNKED.upper()]


@pytest.mark.parametrize("fields", list(itertools.product(FRAMING_LINES, repeat=2)), ids="|".join)
def test_framing_only_once(fields):
    assert request_head(get(*fields)) == -400
    assert request_head(get(fields[0], "X: y", fields[1])) == -400
    assert answer(*fields) == -502


def test_coding_is_of_version_1_1():
    assert request_head(get(CHUNKED, line="GET /x HTTP/1.0")) == -400
    assert answer(CHUNKED, line="HTTP/1.0 200 OK") == -502


@pytest.mark.parametrize(
    ("values", "close", "keep_alive", "nominated"),
    [
        ((), False, False, []),
        (("",), False, False, []),
        ((", ,\t,",), False, False, []),
        (("close",), True, False, []),
        (("CLOSE",), True, False, []),
        (("Keep-Alive",), False, True, []),
        (("keep-alive,close",), True, True, []),
        (("keep-alive", "close"), True, True, []),
        ((" ,close\t , ,",), True, False, []),
        (("closed, xclose, clos",), False, False, ["closed", "xclose", "clos"]),
        (("keep_alive",), False, False, ["keep_alive"]),
        (("X-a, X_B", "x.c"), False, False, ["X-a", "X_B", "x.c"]),
        (("x, x",), False, False, ["x", "x"]),
        (("Upgrade, HTTP2-Settings",), False, False, ["HTTP2-Settings"]),
        (("keep-alive; timeout=5",), False, False, []),
        (("Keep-Alive;timeout=5\t; max=9;a , close",), True, False, []),
        (("keep-alive; close", "keep-alive"), False, True, []),
        (("x, keep-alive ; a, y",), False, False, ["x", "y"]),
        (
            ("cookie, Content-Lengt, content-length-, host-",),
            False,
            False,
            ["cookie", "Content-Lengt", "content-length-", "host-"],
        ),
    ],
)
def test_connection(values, close, keep_alive, nominated):
    fields = [f"Connection: {value}" for value in values]
    for head in (understood(get(*fields)), answer(*fields)):
        assert (head["close"], head["keep_alive"]) == (close, keep_alive)
        assert head["nominated"] == [name.encode() for name in nominated]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "close x",
            "close; x",
            '"close"',
            "close=1",
            "a, b c",
            "(close)",
            "\x80",
            "close, \xe9",
            "a/b",
            ";",
            "x; a=b",
        ),
        *("keep-alive;", "keep-alive; ", "keep-alive;;a", "keep-alive; =5", "keep-alive; a=", "keep-alive; a b"),
        *("keep-alive; a =5", 'keep-alive; a="5"', "keep-alive; a=5 6", "keep-alive; a=5/6", "keep-alive=5"),
        *("keep-alive; a=5; , close", "keep-alive a; b", "upgrade; a"),
    ],
)
def test_connection_refused(value):
    assert request_head(get(f"Connection: {value}")) == -400
    assert answer(f"Connection: {value}") == -502


def test_an_option_with_parameters_is_none():
    """As llhttp and h11 read it: else we would keep open what they take for closed."""
    assert not understood(get("Connection: keep-alive; timeout=5", line="GET /x HTTP/1.0"))["keep_alive"]


def odd_spellings(name: str) -> set[str]:
    """Each non-alphanumeric replaced by every other token character: one at a time, and all of them
    at once.
    """
    gaps = [i for i, c in enumerate(name) if not c.isalnum()]
    return {name[:i] + c + name[i + 1 :] for i in gaps for c in ODD} | {name.replace("-", c) for c in ODD if gaps}


@pytest.mark.parametrize("framing", ["Content-Length", "Transfer-Encoding", "Host"])
def test_nobody_nominates_framing(framing):
    """A field nominated in any spelling goes away, and the body of a request without its framing is
    another request.
    """
    for name in {framing, framing.lower(), framing.upper(), *odd_spellings(framing)}:
        assert request_head(get(f"Connection: {name}")) == -400
        assert request_head(get(f"Connection: close, x ,\t{name.swapcase()},")) == -400
        assert answer(f"Connection: {name}") == -502


# ----------------------------------------------------------------------------- Expect and websocket


def test_expect():
    assert understood(get("Expect: 100-continue"))["expect_continue"]
    assert understood(get("eXPECT:\t100-CONTINUE "))["expect_continue"]
    assert not understood(get("Expect: 100-continue", line="GET /x HTTP/1.0"))["expect_continue"]
    assert not understood(get("X-Expect: 100-continue"))["expect_continue"]


@pytest.mark.parametrize(
    "value", ["", "100", "100-continu", "100-continue;", "100-continue, 100-continue", "x", "100 continue"]
)
def test_expect_refused(value):
    assert request_head(get(f"Expect: {value}")) == -417
    assert request_head(get("Expect: 100-continue", f"Expect: {value}")) == -417


def test_expect_twice():
    assert request_head(get("Expect: 100-continue", "Expect: 100-continue")) == -417


UPGRADE = ("Connection: keep-alive, Upgrade", "Upgrade: WebSocket")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


def test_websocket():
    assert understood(get(*UPGRADE, KEY))["websocket"]
    assert understood(get(*UPGRADE, "Upgrade: h2c", KEY))["websocket"]
    assert not understood(get(UPGRADE[0], KEY))["websocket"]
    assert not understood(get(UPGRADE[1], KEY))["websocket"]
    assert not understood(get(UPGRADE[0], "Upgrade: h2c"))["websocket"]
    assert not understood(get(UPGRADE[0], "Upgrade: websocket, h2c", KEY))["websocket"]
    assert not understood(get(KEY, KEY))["websocket"]


@pytest.mark.parametrize(
    "raw",
    [
        get(*UPGRADE),
        get(*UPGRADE, KEY, KEY),
        get(*UPGRADE, KEY.replace("-", "_")),
        get(*UPGRADE, KEY, line="POST /x HTTP/1.1"),
        get(*UPGRADE, KEY, line="get /x HTTP/1.1"),
        get(*UPGRADE, KEY, line="GET /x HTTP/1.0"),
        get(*UPGRADE, KEY, "Content-Length: 0"),
        get(*UPGRADE, KEY, CHUNKED),
    ],
)
def test_websocket_refused(raw):
    assert request_head(raw) == -400


# ------------------------------------------------------------------------- names by normal spelling

KINDS = {
    "Host": Kind.HOST,
    "Content-Length": Kind.CONTENT_LENGTH,
    "Transfer-Encoding": Kind.TRANSFER_ENCODING,
    "Connection": Kind.CONNECTION,
    "Keep-Alive": Kind.KEEP_ALIVE,
    "Proxy-Connection": Kind.HOP,
    "Proxy-Authorization": Kind.HOP,
    "Proxy-Authenticate": Kind.HOP,
    "Proxy": Kind.HOP,
    "TE": Kind.HOP,
    "Trailer": Kind.HOP,
    "Upgrade": Kind.UPGRADE,
    "Expect": Kind.EXPECT,
    "Cookie": Kind.COOKIE,
    "Authorization": Kind.AUTHORIZATION,
    "WWW-Authenticate": Kind.AUTHENTICATE,
    "Set-Cookie": Kind.SET_COOKIE,
    "Accept": Kind.ACCEPT,
    "Sec-WebSocket-Key": Kind.WEBSOCKET_KEY,
    "Forwarded": Kind.FORWARDED,
    **dict.fromkeys(
        ["X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Forwarded-Server", "X-Forwarded-Ssl"],
        Kind.TRUSTED_ONLY,
    ),
    **dict.fromkeys(["X-Client-IP", "X-Real-IP", "True-Client-IP"], Kind.TRUSTED_ONLY),
    **dict.fromkeys(["X-Original-URL", "X-Rewrite-URL"], Kind.HOP),
    "X-Forwarded-For": Kind.FORWARDED_FOR,
    "X-Forwarded-Proto": Kind.FORWARDED_PROTO,
    "X-Forwarded-Host": Kind.FORWARDED_HOST,
    "X-Ticket-Login": Kind.TICKET_LOGIN,
    "X-Ticket-Logout": Kind.TICKET_LOGOUT,
    "X-Ticket-Remember": Kind.TICKET_REMEMBER,
    "X-Ticket-Rotate": Kind.TICKET_ROTATE,
    "X-Forwarded-User": Kind.IDENTITY,
    "X-User-2-Name-": Kind.IDENTITY,
    "Remote": Kind.IDENTITY,
}
OURS = Names(identity=["X-Forwarded-User", "x-user-2-name-", "REMOTE"])
SPOKEN = {name for name in KINDS if name != "Transfer-Encoding"}  # its value is not "1" where kind_of() uses it


def test_every_known_name_is_tested():
    assert KNOWN.keys() | {"x-forwarded-user", "x-user-2-name-", "remote"} == {name.lower() for name in KINDS}
    assert understood(get(CHUNKED))["fields"][1][2] == Kind.TRANSFER_ENCODING


@pytest.mark.parametrize("name", sorted(SPOKEN))
def test_letter_case_means_nothing(name):
    mixed = "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(name))
    for spelling in (name, name.lower(), name.upper(), name.swapcase(), mixed):
        assert kind_of(spelling, OURS) == KINDS[name], spelling


@pytest.mark.parametrize("name", sorted(KINDS))
def test_odd_spellings_are_dropped(name):
    for spelling in odd_spellings(name):
        for cased in (spelling, spelling.lower(), spelling.upper()):
            assert kind_of(cased, OURS) == Kind.DROP, cased


@pytest.mark.parametrize("name", sorted(KINDS))
def test_names_that_are_not_quite_known(name):
    known = {normal(name.encode()) for name in KINDS}
    shorter = [name[:i] + name[i + 1 :] for i in range(len(name))]
    longer = [name[:i] + c + name[i:] for i in range(len(name) + 1) for c in ODD + "-x"]
    others = [other for other in (*shorter, *longer) if normal(other.encode()) not in known]
    assert len(others) > len(name)
    for other in others:
        assert kind_of(other, OURS) == Kind.OTHER, other


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_no_spelling_of_a_known_name_is_another(data):
    name = data.draw(st.sampled_from(sorted(KINDS)))
    choices = [[c.lower(), c.upper()] if c.isalnum() else list("-" + ODD) for c in name]
    spelling = "".join(data.draw(st.sampled_from(several)) for several in choices)
    is_plain = not set(spelling) & set(ODD)
    if name not in SPOKEN and is_plain:
        return
    assert kind_of(spelling, OURS) == (KINDS[name] if is_plain else Kind.DROP)


def test_odd_names_that_mean_nothing_go_on():
    for name in ("X_Other", "a.b", ODD, "Content__Length", "ContentLength", "X_Forwarded_Users", "-", "_"):
        assert kind_of(name, OURS) == Kind.OTHER, name


def test_identity_in_odd_spelling_is_only_dropped():
    names = Names(identity=["Remote_User"])
    assert kind_of("Remote-User", names) == Kind.IDENTITY
    assert kind_of("Remote_User", names) == Kind.DROP


def test_long_names():
    names = Names(identity=["x" * 46 + "-"])
    assert kind_of("X" * 46 + "-", names) == Kind.IDENTITY
    assert kind_of("X" * 46 + "_", names) == Kind.DROP
    assert kind_of("x" * 46 + "--", names) == kind_of("x" * 46, names) == Kind.OTHER


@pytest.mark.parametrize("count", [1, 64 - len(KNOWN)])
def test_many_identity_names(count):
    names = Names(identity=[f"x-identity-{i}" for i in range(count)])
    assert all(kind_of(f"X-Identity-{i}", names) == Kind.IDENTITY for i in range(count))
    assert all(kind_of(f"X_Identity-{i}", names) == Kind.DROP for i in range(count))
    assert kind_of(f"X-Identity-{count}", names) == Kind.OTHER


@pytest.mark.parametrize(
    "identity",
    [
        *([""], ["a b"], ["a:"], ["é"], ["\0"], ["a\n"], ["x" * 48]),
        *(["Host"], ["content_length"], ["X.Forwarded.For"], ["x-user", "X_USER"]),
        [f"x{i}" for i in range(65 - len(KNOWN))],
    ],
)
def test_identity_names_refused(identity):
    with pytest.raises(ValueError):
        Names(identity=identity)


def test_without_names_of_its_own_a_head_knows_the_common_ones():
    head = understood(get("X-Forwarded-User: me", "Cookie: a=b"), names=None)
    assert [kind for _, _, kind in head["fields"]] == [Kind.HOST, Kind.OTHER, Kind.COOKIE]


# ---------------------------------------------------------------------------------- lines of a head

BAD_LINES = [
    *("X : y", "X\t: y", " X: y", "\tX: y", ": y", ":", " ", "X", "X y", "X;: y", "(X): y", "X\xe9: y"),
    *("X\0: y", "X: \0", "X: \x01", "X: \x08", "X: \x0b", "X: \x0c", "X: \x1f", "X: \x7f", "X: a\rb"),
    *("X: a\nb", "X: a\r", "X: a\n", "X\n: a", "X: a\r\n b", "X: a\r\n\tb", "X:\r\n y", "X: a\r\r\nY: b"),
    *("\rX: y", "\nX: y", "X\r\n: y"),
]


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines(line, where):
    lines = {"first": [line, "Host: a"], "middle": ["Host: a", line, "Z: 1"], "last": ["Host: a", line]}[where]
    assert request_head(head_of("GET /x HTTP/1.1", *lines)) == -400
    assert response_head(head_of("HTTP/1.1 200 OK", *lines)) == -502


@pytest.mark.parametrize("end", ["\n\n", "\r\n\n", "\n\r\n", "\r\r", "\r\n\r\r", "\r\n\rx", "\r\r\n\r\n", "\n\r\n\r"])
def test_lines_end_with_cr_lf(end):
    for line, refused in (("GET /x HTTP/1.1\r\nHost: a", -400), ("HTTP/1.1 200 OK\r\nX: a", -502)):
        read = request_head if refused == -400 else response_head
        assert read(f"{line}{end}".encode()) == refused
        assert read(f"{line[:-9]}{end}Host: a\r\n\r\n".encode()) == refused


def test_empty_lines_before_a_request():
    for empty_lines, size in (("\r\n", 2), ("\r\n\r\n", 4)):
        head = understood(empty_lines.encode() + get())
        assert (head["size"], head["method"], head["host"]) == (size + len(get()), b"GET", b"a")
        assert request_head(empty_lines.encode()) == 0
    for junk in ("\r\n\r\n\r\n", "\n", "\r", "\r\n\n", "\r\n\r", "\r\r\n", " ", "\0"):
        assert request_head(junk.encode() + get()) == -400
    assert response_head(b"\r\nHTTP/1.1 200 OK\r\n\r\n") == -502


# ---------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize(
    ("line", "minor", "status", "reason"),
    [
        ("HTTP/1.1 200 OK", 1, 200, "OK"),
        ("HTTP/1.0 200 OK", 0, 200, "OK"),
        ("HTTP/1.1 200 ", 1, 200, ""),
        ("HTTP/1.1 200", 1, 200, ""),
        ("HTTP/1.1 200  two  spaces\t", 1, 200, " two  spaces\t"),
        ("HTTP/1.1 100 x", 1, 100, "x"),
        ("HTTP/1.1 999 \xe9", 1, 999, "\xe9"),
    ],
)
def test_status_line(line, minor, status, reason):
    head = answer(line=line)
    assert (head["minor"], head["status"], head["reason"].decode("latin-1")) == (minor, status, reason)


@pytest.mark.parametrize(
    "line",
    [
        *("HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 OK", "HTTP/1.1 000 OK", "HTTP/1.1 -20 OK"),
        *("HTTP/1.1 2x0 OK", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", "HTTP/1.1 200OK"),
        *("HTTP/1.1 +200 OK", "HTTP/1.1200 OK", "HTTP/1.2 200 OK", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK"),
        *("HTTP/2 200 OK........", "HTTP/1.10 200 OK", "HTTP/1. 200 OK", "http/1.1 200 OK", "HTTPS/1.1 200 OK"),
        *(" HTTP/1.1 200 OK", "ICY 200 OK............", "GET /x HTTP/1.1", "200 OK", "HTTP/1.1 200 O\0K"),
        *("HTTP/1.1 200 O\x7fK", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 O\nK", "HTTP/1.1 200\n"),
        *("HTTP/1.1 200\r", ""),
    ],
)
def test_status_line_refused(line):
    assert response_head(head_of(line, "Content-Length: 0")) == -502


STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n", re.DOTALL)


@given(
    st.one_of(
        st.binary(max_size=16),
        st.tuples(st.integers(0, 14), st.binary(max_size=3)).map(lambda cut: b"HTTP/1.1 200\r\n"[: cut[0]] + cut[1]),
        st.tuples(st.integers(0, 14), st.binary(max_size=3)).map(lambda cut: b"HTTP/1.0 404 x\r\n"[: cut[0]] + cut[1]),
    )
)
@settings(deadline=None, max_examples=3000)
def test_a_status_line_that_can_not_become_one_is_known_at_once(start):
    """Whatever could still come: a server that says `HTTP/1.1` and waits is no reason to wait for
    it.
    """
    if whole := STATUS_LINE.match(start):
        start = whole[0]  # what follows is no part of it
    can_become = is_start_of_status_line(start)
    assert (response_head(start) == -502) == (not can_become), start


def is_start_of_status_line(start: bytes) -> bool:
    """Whether some bytes after it make a status line, the slow way: by trying."""
    rest = b"HTTP/1.1 200 \r\n"
    tries = [start + rest[size:] for size in range(len(rest) + 1)] + [start + b"00 \r\n", start + b"0 \r\n"]
    return any(STATUS_LINE.match(tried) and tried.startswith(start) for tried in tries)


@pytest.mark.parametrize(
    "start", ["HTTP/1.1\r\n\r\n", "HTTP/1.1 \n\n", "HTTP/1.1\r", "HTTP/1.1 0", "\0", "HTTP/1.1 20\r"]
)
def test_some_of_them(start):
    assert response_head(start.encode()) == -502


@pytest.mark.parametrize("status", [100, 101, 103, 199, 204, 304])
@pytest.mark.parametrize("fields", [(), (LENGTH,), (CHUNKED,)])
def test_statuses_without_a_body(status, fields):
    for to_head in (False, True):
        assert answer(*fields, line=f"HTTP/1.1 {status} x", to_head=to_head)["framing"] == "none"


@pytest.mark.parametrize("status", [200, 201, 203, 205, 206, 301, 303, 305, 400, 500, 999])
def test_statuses_with_a_body(status):
    line = f"HTTP/1.1 {status} x"
    for fields, framing in (((), "close"), ((LENGTH,), "length"), ((CHUNKED,), "chunked"), (("X: y",), "close")):
        assert answer(*fields, line=line)["framing"] == framing
        assert answer(*fields, line=line, to_head=True)["framing"] == "none"


def test_length_of_a_body_that_is_not_sent_is_still_known():
    assert answer(LENGTH, line="HTTP/1.1 304 x")["content_length"] == 5
    assert answer(LENGTH, to_head=True)["content_length"] == 5
    assert answer("Content-Length: 0")["framing"] == "length"


@pytest.mark.parametrize("line", ["HTTP/1.1 200 OK", "HTTP/1.1 204 No", "HTTP/1.1 304 No", "HTTP/1.1 100 Continue"])
@pytest.mark.parametrize("to_head", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        (LENGTH, LENGTH),
        (LENGTH, "Content-Length: 6"),
        ("Content-Length: 5, 5",),
        ("Content-Length: x",),
        (LENGTH, CHUNKED),
        (CHUNKED, LENGTH),
        (CHUNKED, CHUNKED),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: identity",),
        ("X: a\r\n b",),
        ("X: \0",),
        ("X: a\rb",),
        ("X: a\nb",),
        ("X : a",),
        ("Connection: Content-Length",),
    ],
)
def test_response_refused(line, to_head, fields):
    """Even where there is no body: the next reader might not know that."""
    assert answer(*fields, line=line, to_head=to_head) == -502


def test_request_rules_are_not_for_responses():
    head = answer("Host: a/b", "Host: b", "Expect: x", "Upgrade: websocket", "Connection: upgrade", LENGTH)
    assert head["framing"] == "length"


# ------------------------------------------------------------------------------- one byte at a time

REQUESTS = [
    get(),
    get("Transfer-Encoding: chunked", "X:", "Y: a b\t", line="POST http://b:80?x HTTP/1.1"),
    get(*UPGRADE, KEY, "Cookie: t=1; u=2"),
    get("Connection: close, x", "Content-Length: 10", "Expect: 100-continue", line="PUT /%41 HTTP/1.0"),
    b"\r\n\r\n" + get(line="OPTIONS * HTTP/1.1", host="[::1]:80"),
    *(attack.raw() for attack in ATTACKS if len(attack.raw()) < 999),
    *(head_of("GET /x HTTP/1.1", "Host: a", line) for line in BAD_LINES),
]
RESPONSES = [
    head_of("HTTP/1.1 200 OK", "Content-Length: 2", "Set-Cookie: a=b"),
    head_of("HTTP/1.0 404", "X:"),
    head_of("HTTP/1.1 204 ", "Connection: close , x"),
    head_of("HTTP/1.1 200 OK", LENGTH, CHUNKED),
    *(head_of("HTTP/1.1 200 OK", "X: a", line) for line in BAD_LINES),
]
LATER = (b"\r\n", b"\n", b"\0", b" x", b"GET /x HTTP/1.1\r\n\r\n", b"\xff" * 99)


def check_prefixes(read, raw: bytes) -> None:
    """A prefix is incomplete until the head ends or is refused; from there on, more bytes change
    nothing.
    """
    result = 0
    for size in range(len(raw) + 1):
        now = read(raw[:size])
        if result == 0:
            result = now
            assert not isinstance(now, dict) or now["size"] == size
        assert now == result
    if result != 0:
        for more in LATER:
            assert read(raw + more) == result


@pytest.mark.parametrize("raw", REQUESTS)
def test_request_one_byte_at_a_time(raw):
    check_prefixes(request_head, raw)


@pytest.mark.parametrize("raw", RESPONSES)
def test_response_one_byte_at_a_time(raw):
    check_prefixes(response_head, raw)


HEAD_PIECES = [
    *("GET", " ", "/", "http://b", "HTTP/1.1", "\r\n", "\r", "\n", "Host: a", "Content-Length: 3", ":", "\t"),
    *("X", "%00", "*"),
]


@given(st.lists(st.sampled_from(HEAD_PIECES), max_size=14))
@settings(deadline=None, max_examples=400)
def test_any_pieces_one_byte_at_a_time(pieces):
    check_prefixes(request_head, "".join(pieces).encode())
    check_prefixes(request_head, b"GET / HTTP/1.1\r\nHost: a\r\n" + "".join(pieces).encode())
    check_prefixes(response_head, b"HTTP/1.1 200" + "".join(pieces).encode())

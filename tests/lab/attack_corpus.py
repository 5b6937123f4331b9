"""Raw requests that an attacker would send, and what has to become of each.

`ATTACKS` is used twice: against the parser (test_http1.py) and over real sockets against the
gateway (attack_runs.py). What is not refused is forwarded *rewritten from what was understood*:
`Seen` says how the service behind must read it.

How to use it over sockets
- The gateway's ticket cookie is named COOKIE, and IDENTITY are the fields that only the gateway may
  set.
- `attack.raw()` has no ticket; `attack.raw("Cookie: t=...")` puts field lines into every request
  meant to get through.
- The service has seen `verdict.seen` as complete requests, in order, and nothing more; after a
  refusal the connection closes.
- A refusal `by` "head" is known before anything of that request is forwarded. One `by` "body" may
  come when its head has gone on: the service has then an incomplete request. One `by` "gateway"
  comes from a rule or a limit above the parser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

IDENTITY = ("X-Forwarded-User",)
COOKIE = "t"

Layer = Literal["head", "body", "gateway"]


@dataclass(frozen=True)
class Seen:
    """One request as the service must read it.

    `has` and `lacks` are field lines, `name: value`. `has` are to arrive as they are (names in any
    case). A field that is called like one of `lacks`, if everything but letters and digits counts
    as `-`, and has its value, must not arrive.
    """

    method: str = "GET"
    target: str = "/x"
    host: str = "a"
    body: str = ""
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """First the requests that are `seen`, in order; then, if there are `statuses`, a refusal with
    one of them.
    """

    seen: tuple[Seen, ...] = ()
    statuses: frozenset[int] = frozenset()
    by: Layer = "head"
    closes: bool = False  # without a refusal: the connection closes after the answers, and what follows is ignored
    to_head: bool = False  # what is refused is a HEAD: the refusal has no content (RFC 9110, 9.3.2)

    def __str__(self) -> str:
        """The statuses that a client sees."""
        refusal = " or ".join(str(status) for status in sorted(self.statuses))
        return ", ".join(["200"] * len(self.seen) + [refusal] * bool(refusal))


@dataclass(frozen=True)
class Attack:
    id: str
    group: str
    template: str
    verdict: Verdict

    def raw(self, *more_fields: str) -> bytes:
        return self.template.replace(MORE, "".join(f"{line}\r\n" for line in more_fields)).encode("latin-1")


# ----------------------------------------------------------------------------------------- requests

MORE = "<more>"
CHUNKED = "Transfer-Encoding: chunked"
END = "0\r\n\r\n"  # of a chunked body


def request(line: str, *fields: str, body: str = "", host: str | None = "a") -> str:
    lines = [line]
    if host is not None:
        lines.append(f"Host: {host}")
    return "\r\n".join(lines) + "\r\n" + MORE + "".join(f"{field}\r\n" for field in fields) + "\r\n" + body


def line(text: str) -> str:
    return request(text)


def get(*fields: str, body: str = "", host: str | None = "a") -> str:
    return request("GET /x HTTP/1.1", *fields, body=body, host=host)


def nth(number: int) -> str:
    """An ordinary request that comes after another one on the connection."""
    return line(f"GET /{number} HTTP/1.1")


def post(*fields: str, body: str = "", host: str | None = "a") -> str:
    return request("POST /x HTTP/1.1", *fields, body=body, host=host)


def chunks(body: str) -> str:
    return post(CHUNKED, body=body)


HIDING = line("GET /smug HTTP/1.1")  # hides in a body, if a reader mistakes where that ends
HIDDEN = HIDING.replace(MORE, "")  # the same, where its size matters


# ----------------------------------------------------------------------------------------- verdicts


def no(*statuses: int, by: Layer = "head", after: tuple[Seen, ...] = ()) -> Verdict:
    return Verdict(seen=after, statuses=frozenset(statuses), by=by)


def to_head(refusal: Verdict) -> Verdict:
    return replace(refusal, to_head=True)


def yes(*seen: Seen, closes: bool = False) -> Verdict:
    return Verdict(seen=seen, closes=closes)


def sees(target: str = "/x", **rest) -> Verdict:
    return yes(Seen(target=target, **rest))


NO_HOST = "localhost"
# Of what stands between brackets (RFC 3986, 3.2.2; RFC 4291, 2.2).
NOT_V6 = (
    *("1::2::3", "::::", "12345::1", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8"),
    *(":::", "1:::2", ":1", ":1::2", "1:", "::1:", "1::2:", ":", "g::1", "::1%1", "::1.2.3", "::1.2.3.4.5"),
    *("::1.2.3.256", "::01.2.3.4", "::1.2.3.4:5", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4", "::1..2.3", "1.2.3.4", "v1.a"),
)
V6 = (
    *("::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "FE80::a:B"),
    *("::1.2.3.4", "::ffff:255.255.255.255", "1:2:3:4:5:6:0.0.0.0", "0000:00:0:0::0001"),
)
BAD = no(400)
BAD_BODY = no(400, by="body")
BAD_CODING = no(400, 501)
BAD_VERSION = no(400, 505)
BAD_METHOD = no(405)
BAD_EXPECT = no(417)
POSTED = Seen("POST", body="ab")
SMUGGLED = Seen(target="/smug")
AS_IS = yes(Seen())


ATTACKS: list[Attack] = []


def group(name: str, *cases: tuple[str, str, Verdict]) -> None:
    ATTACKS.extend(Attack(case[0], name, case[1], case[2]) for case in cases)


# ------------------------------------------------------------------------------------------ framing

group(
    "Content-Length",
    ("01", post("Content-Length: 1", "Content-Length: 2", body="ab"), BAD),
    ("02", post("Content-Length: 2", "Content-Length: 2", body="ab"), BAD),
    ("03", post("Content-Length: 2, 2", body="ab"), BAD),
    ("04", post("Content-Length: 1, 2", body="ab"), BAD),
    ("05", post("Content-Length: +2", body="ab"), BAD),
    ("06", post("Content-Length: -0"), BAD),
    ("07", post("Content-Length: 0x2", body="ab"), BAD),
    ("08", post("Content-Length: 1_0", body="0123456789"), BAD),
    ("09", post("Content-Length: 1 0", body="0123456789"), BAD),
    ("10", post("Content-Length: "), BAD),
    ("11", post("Content-Length: ", "Content-Length: 2", body="ab"), BAD),
    ("12", post("Content-Length: 2Z", body="ab"), BAD),
    ("13", post("Content-Length: 18446744073709551618", body="ab"), BAD),  # 2**64 + 2
    ("14", post("Content-Length: 002", body="ab"), yes(Seen("POST", body="ab", lacks=("Content-Length: 002",)))),
    ("15", post("Content-Length: \xb2", body="ab"), BAD),
    ("16", post("Content-Length : 2", body="ab"), BAD),
    (
        "17",
        post("Content_Length: 2", body=HIDING),
        yes(Seen("POST", lacks=("Content-Length: 2",)), SMUGGLED),
    ),
    ("cl-folded", post("Content-Length:\r\n 2", body="ab"), BAD),
    ("cl-folded-after", post("Content-Length: 2\r\n\t0", body="ab"), BAD),
    ("cl-vertical-tab", post("Content-Length:\x0b2", body="ab"), BAD),
    ("cl-form-feed-after", post("Content-Length: 2\x0c", body="ab"), BAD),
    ("cl-no-break-space", post("Content-Length:\xa02", body="ab"), BAD),
    ("cl-utf8-digit", post("Content-Length: \xd9\xa2", body="ab"), BAD),
    ("cl-fullwidth-digit", post("Content-Length: \xef\xbc\x92", body="ab"), BAD),
    ("cl-fraction", post("Content-Length: 2.0", body="ab"), BAD),
    ("cl-exponent", post("Content-Length: 2e0", body="ab"), BAD),
    ("cl-parameter", post("Content-Length: 2;a=b", body="ab"), BAD),
    ("cl-quoted", post('Content-Length: "2"', body="ab"), BAD),
    ("cl-empty-element", post("Content-Length: 2,", body="ab"), BAD),
    ("cl-2-63", post("Content-Length: 9223372036854775808", body="ab"), BAD),
    ("cl-2-64-minus-1", post("Content-Length: 18446744073709551615", body="ab"), BAD),
    ("cl-2-128-plus-2", post("Content-Length: 340282366920938463463374607431768211458", body="ab"), BAD),
    ("cl-other-case-twice", post("content-length: 2", "CONTENT-LENGTH: 2", body="ab"), BAD),
    ("cl-tab-before-colon", post("Content-Length\t: 2", body="ab"), BAD),
    ("cl-nul-in-name", post("Content-Length\0: 2", body="ab"), BAD),
    ("cl-tabs-around", post("Content-Length:\t2\t", body="ab"), yes(POSTED)),
    ("cl-and-odd-spelling", post("Content_Length: 9", "Content-Length: 2", body="ab"), yes(POSTED)),
)

group(
    "Transfer-Encoding",
    ("18", post("Content-Length: 5", CHUNKED, body=END), BAD),
    ("19", post(CHUNKED, "Content-Length: 35", body=END + HIDDEN), BAD),
    ("20", post(CHUNKED, CHUNKED, body=END), BAD),
    ("21", post("Transfer-Encoding: chunked, chunked", body=END), BAD_CODING),
    ("22", post("Transfer-Encoding: chunked, gzip", body=END), BAD_CODING),
    ("23", post("Transfer-Encoding: gzip, chunked", body=END), BAD_CODING),
    ("24", post("Transfer-Encoding: identity"), BAD_CODING),
    ("25", post("Transfer-Encoding: xchunked", body=END), BAD_CODING),
    ("26", post("Transfer-Encoding: ,chunked", body=END), BAD_CODING),
    ("27", post("Transfer-Encoding: chunked,", body=END), BAD_CODING),
    ("28", post("Transfer-Encoding: "), BAD_CODING),
    ("29", post("Transfer-Encoding: chunked;a=b", body=END), BAD_CODING),
    ("30", post("Transfer-Encoding: \x0bchunked", body=END), BAD),
    ("31", post("Transfer-Encoding: \xa0chunked", body=END), BAD_CODING),
    ("32", post("Transfer-Encoding: chunked\0", body=END), BAD),
    ("33", post('Transfer-Encoding: "chunked"', body=END), BAD_CODING),
    ("34", post("Transfer-Encoding : chunked", body=END), BAD),
    (
        "35",
        post("Transfer_Encoding: chunked", "Content-Length: 5", body=END),
        yes(Seen("POST", body=END, lacks=("Transfer-Encoding: chunked",))),
    ),
    ("36", post("Transfer-Encoding:\r\n chunked", body=END), BAD),
    ("37", post("Transfer-\r\nEncoding: chunked", "Content-Length: 5", body=END), BAD),
    ("38", request("POST /x HTTP/1.0", CHUNKED, body=END), BAD),
    ("39", post("Foo: bar\rTransfer-Encoding: chunked", body=END), BAD),
    ("40", post("Foo: bar\nTransfer-Encoding: chunked", body=END), BAD),
    ("te-identity-then-chunked", post("Transfer-Encoding: identity", CHUNKED, body=END), BAD_CODING),
    ("te-chunked-then-identity", post(CHUNKED, "Transfer-Encoding: identity", body=END), BAD_CODING),
    ("te-empty-then-chunked", post("Transfer-Encoding:", CHUNKED, body=END), BAD_CODING),
    ("te-kelvin-sign", post("Transfer-Encoding: chun\xe2\x84\xaaed", body=END), BAD_CODING),
    ("te-form-feed-after", post("Transfer-Encoding: chunked\x0c", body=END), BAD),
    ("te-space-inside", post("Transfer-Encoding: chunk ed", body=END), BAD_CODING),
    ("te-zero-length", post("Content-Length: 0", CHUNKED, body=END), BAD),
    ("te-old-version-keep-alive", request("POST /x HTTP/1.0", CHUNKED, "Connection: keep-alive", body=END), BAD),
    ("te-odd-twice", post("Transfer.Encoding: x", "transfer+encoding: y", "Content-Length: 2", body="ab"), yes(POSTED)),
    ("te-other-case", post("tRANSFER-eNCODING:\tChunkeD\t", body="2\r\nab\r\n" + END), yes(POSTED)),
)

group(
    "chunked body",
    ("41", chunks("2\nab\r\n" + END), BAD_BODY),
    ("42", chunks("2\rab\r\n" + END), BAD_BODY),
    ("43", chunks("2\r\nab\n" + END), BAD_BODY),
    ("44", chunks("2\r\nabXX" + END), BAD_BODY),
    ("45", chunks("2\r\nab" + END), BAD_BODY),
    ("46", chunks("2\r\nabcd\r\n" + END), BAD_BODY),
    ("47", chunks("2;\nxx\r\nab\r\n" + END), BAD_BODY),
    ("48", chunks("2;\rxx\r\nab\r\n" + END), BAD_BODY),
    ("49", chunks('2;a="\r\nab\r\n' + END), BAD_BODY),
    ("50", chunks("2;\r\nab\r\n" + END), yes(POSTED)),
    ("51", chunks("2;a\0b\r\nab\r\n" + END), BAD_BODY),
    ("52", chunks("2;" + "e" * 65536 + "\r\nab\r\n" + END), BAD_BODY),
    ("53", chunks("2 \r\nab\r\n" + END), BAD_BODY),
    ("54", chunks(" 2\r\nab\r\n" + END), BAD_BODY),
    ("55", chunks("0x2\r\nab\r\n" + END), BAD_BODY),
    ("56", chunks("+2\r\nab\r\n" + END), BAD_BODY),
    ("57", chunks("-2\r\nab\r\n" + END), BAD_BODY),
    ("58", chunks("0_2\r\nab\r\n" + END), BAD_BODY),
    ("59", chunks("2z\r\nab\r\n" + END), BAD_BODY),
    ("60", chunks("10000000000000002\r\nab\r\n" + END), BAD_BODY),  # 2**64 + 2
    ("61", chunks("\r\nab\r\n" + END), BAD_BODY),
    ("62", chunks("2\r\nab\r\n0\n\r\n"), BAD_BODY),
    ("63", chunks("2\r\nab\r\n0\r\n\n"), BAD_BODY),
    ("64", chunks("2\r\nab\r\n0\r\nXX" + HIDDEN), BAD_BODY),
    (
        "65",
        chunks("2\r\nab\r\n0\r\nContent-Length: 5\r\nX-Forwarded-User: evil\r\n\r\n"),
        yes(Seen("POST", body="ab", lacks=("X-Forwarded-User: evil", "Content-Length: 5"))),
    ),
    ("66", chunks("2\r\nab\r\n0\r\nbad trailer\r\n\r\n"), BAD_BODY),
    ("67", chunks("2\r\nab\r\n0" + "0" * 40 + "\r\n\r\n"), BAD_BODY),
    ("chunk-all-ones", chunks("ffffffffffffffff\r\nab\r\n" + END), BAD_BODY),
    ("chunk-16-digits", chunks("0000000000000002\r\nab\r\n" + "0" * 16 + "\r\n\r\n"), yes(POSTED)),
    ("chunk-17-digits", chunks("00000000000000002\r\nab\r\n" + END), BAD_BODY),
    ("chunk-16-digits-too-large", chunks("1000000000000002\r\nab\r\n" + END), BAD_BODY),  # 2**60 + 2
    ("chunk-16-digits-of-the-last", chunks("2\r\nab\r\n" + "0" * 17 + "\r\n\r\n"), BAD_BODY),
    ("chunk-tab-after-size", chunks("2\t\r\nab\r\n" + END), BAD_BODY),
    # White space where RFC 9112, 7.1.1 has it, around ";" and "=". The extension is dropped, and
    # the body framed anew.
    ("chunk-space-before-extension", chunks("2 ;a\r\nab\r\n" + END), yes(POSTED)),
    ("chunk-space-after-semicolon", chunks("2; a\r\nab\r\n0; b\r\n\r\n"), yes(POSTED)),
    ("chunk-space-around-all", chunks('2 \t;\ta = b ; c="d e"\r\nab\r\n0 ; x\r\n\r\n'), yes(POSTED)),
    ("chunk-quoted-pair", chunks('2; a="\\"\\\\;"\r\nab\r\n' + END), yes(POSTED)),
    ("chunk-space-ends-extension", chunks("2;a \r\nab\r\n" + END), BAD_BODY),
    ("chunk-space-for-extension", chunks("2; \r\nab\r\n" + END), BAD_BODY),
    ("chunk-space-inside-name", chunks("2;a b\r\nab\r\n" + END), BAD_BODY),
    ("chunk-space-then-digit", chunks("2 2\r\nab\r\n" + END), BAD_BODY),
    ("chunk-space-then-lf", chunks("2 \nab\r\n" + END), BAD_BODY),
    ("chunk-space-then-lf-in-extension", chunks("2;a =\nab\r\n" + END), BAD_BODY),
    ("chunk-vertical-tab-before-extension", chunks("2\x0b;a\r\nab\r\n" + END), BAD_BODY),
    ("chunk-no-break-space-before-extension", chunks("2\xa0;a\r\nab\r\n" + END), BAD_BODY),
    ("chunk-spaces-without-end", chunks("2" + " " * 65536 + ";a\r\nab\r\n" + END), BAD_BODY),
    ("chunk-quoted-pair-of-cr", chunks('2;a="\\\r\n"\r\nab\r\n' + END), BAD_BODY),
    ("chunk-cr-cr-lf", chunks("2\r\r\nab\r\n" + END), BAD_BODY),
    ("chunk-lf-in-quoted-extension", chunks('2;a="\n"\r\nab\r\n' + END), BAD_BODY),
    ("chunk-cr-lf-in-quoted-extension", chunks('2;a="\r\n"\r\nab\r\n' + END), BAD_BODY),
    ("chunk-escape-in-quoted-extension", chunks('2;a="\\"\r\nab\r\n' + END), BAD_BODY),
    ("chunk-extension-lf-only", chunks("2;a\nab\r\n" + END), BAD_BODY),
    ("chunk-lf-before-data-end", chunks("2\r\nab\n\r\n" + END), BAD_BODY),
    ("chunk-cr-for-data-end", chunks("2\r\nab\r0" + END), BAD_BODY),
    ("chunk-data-longer-than-said", chunks("2\r\nabc\r\n" + END), BAD_BODY),
    ("chunk-utf8-digit", chunks("\xef\xbc\x92\r\nab\r\n" + END), BAD_BODY),
    ("chunk-last-extension-lf", chunks("2\r\nab\r\n0;a\n\r\n"), BAD_BODY),
    ("chunk-request-for-trailer", chunks("2\r\nab\r\n0\r\n" + HIDDEN), BAD_BODY),
    ("chunk-trailer-folded", chunks("2\r\nab\r\n0\r\nA: b\r\n c\r\n\r\n"), BAD_BODY),
    ("chunk-trailer-bare-lf", chunks("2\r\nab\r\n0\r\nA: b\n\r\n"), BAD_BODY),
    ("chunk-trailer-bare-cr", chunks("2\r\nab\r\n0\r\nA: b\rC: d\r\n\r\n"), BAD_BODY),
    ("chunk-trailer-nul", chunks("2\r\nab\r\n0\r\nA: \0\r\n\r\n"), BAD_BODY),
    ("chunk-trailer-space-before-colon", chunks("2\r\nab\r\n0\r\nA : b\r\n\r\n"), BAD_BODY),
    ("chunk-trailer-without-name", chunks("2\r\nab\r\n0\r\n: b\r\n\r\n"), BAD_BODY),
    ("chunk-trailers-without-end", chunks("2\r\nab\r\n0\r\n" + "A: b\r\n" * 20000 + "\r\n"), BAD_BODY),
    ("chunk-extension-dropped", chunks('2;a=b;c="d; e"\r\nab\r\n' + END), yes(POSTED)),
    ("chunk-crlf-before-next", chunks("2\r\nab\r\n" + END + "\r\n" + nth(2)), yes(POSTED, Seen(target="/2"))),
)

# ------------------------------------------------------------------------------------ lines, fields

group(
    "lines",
    ("68", "GET /x HTTP/1.1\nHost: a\n\n", BAD),
    ("69", "GET /x HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BAD),
    ("70", "GET /x HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", BAD),
    ("71", "GET /x HTTP/1.1\rHost: a\r\r", BAD),
    ("72", "GET /x HTTP/1.1\r\nHost: a\r\n\rX", BAD),
    ("73", "GET /x HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", BAD),
    ("74", "GET /x HTTP/1.1\r\nX: a\r\n b\r\nHost: a\r\n\r\n", BAD),
    ("75", get("X: a\0b"), BAD),
    ("76", get("X: a\x07b"), BAD),
    ("77", get("X : a"), BAD),
    ("78", get(": a"), BAD),
    ("79", get("nocolon"), BAD),
    ("80", get("X[]: a"), BAD),
    ("81", get("X\xef: a"), BAD),
    ("82", get("X\0Y: a"), BAD),
    ("83", get("X\x85: a"), BAD),
    ("line-lf-ends-head", "GET /x HTTP/1.1\r\nHost: a\r\n\n", BAD),
    ("line-cr-cr-lf-ends-head", "GET /x HTTP/1.1\r\nHost: a\r\n\r\r\n", BAD),
    ("line-lf-after-request-line", "GET /x HTTP/1.1\nHost: a\r\n\r\n", BAD),
    ("line-lf-cr", "GET /x HTTP/1.1\n\rHost: a\n\r\n\r", BAD),
    ("line-tab-first", "GET /x HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n", BAD),
    ("line-tab-folds", get("X: a\r\n\tb"), BAD),
    ("line-only-space", get(" "), BAD),
    ("line-delete-in-value", get("X: a\x7fb"), BAD),
    ("line-escape-in-value", get("X: \x1b[2J"), BAD),
    ("line-lf-first", "\n" + get(), BAD),
    ("line-cr-first", "\r" + get(), BAD),
    ("line-nul-first", "\0" + get(), BAD),
    ("line-space-first", " " + get(), BAD),
    ("line-three-empty-first", "\r\n\r\n\r\n" + get(), BAD),
    ("line-byte-order-mark", "\xef\xbb\xbf" + get(), BAD),
)

group(
    "request line",
    ("84", line("GET  /x HTTP/1.1"), BAD),
    ("85", line("GET\t/x\tHTTP/1.1"), BAD),
    ("86", line("GET /a b HTTP/1.1"), BAD),
    ("87", "GET /x\r\n\r\n", BAD),
    ("88", line("GET /x HTTP/1.32"), BAD_VERSION),
    ("89", line("GET /x HTTP/2.0"), BAD_VERSION),
    ("90", line("GET /x HTTP/01.1"), BAD),
    ("91", line("GET /x http/1.1"), BAD),
    ("92", line("GET /x HTTP/1.1 "), BAD),
    ("93", line('G=":<>" /x HTTP/1.1'), BAD),
    ("94", line("get /x HTTP/1.1"), sees(method="get")),  # methods are case-sensitive
    ("95", line("GET x HTTP/1.1"), BAD),
    ("96", line("GET * HTTP/1.1"), BAD),
    ("97", line("GET a:80 HTTP/1.1"), BAD),
    ("98", line("GET /x#f HTTP/1.1"), BAD),
    ("99", line("GET /\xc0\xaf HTTP/1.1"), BAD),
    ("100", line("GET /\0 HTTP/1.1"), BAD),
    ("101", line("GET /x\x7f HTTP/1.1"), BAD),
    ("102", line("CONNECT a:443 HTTP/1.1"), BAD_METHOD),
    ("103", line("TRACE /x HTTP/1.1"), BAD_METHOD),
    # Forwarded as they are: routing looks at the normalised path, and these have none.
    ("104", line("GET /a\\..\\b HTTP/1.1"), sees("/a\\..\\b")),
    ("105", line("GET /a/..%2fb HTTP/1.1"), sees("/a/..%2fb")),
    ("106", line("GET /a//../b/./c HTTP/1.1"), sees("/a//../b/./c")),
    ("107", line("GET /%00 HTTP/1.1"), BAD),
    ("108", line("GET /" + "u" * 100000 + " HTTP/1.1"), no(414, 431)),
    ("target-nul-further-on", line("GET /a/%2500/%00b HTTP/1.1"), BAD),
    ("target-nul-absolute", line("GET http://a/%00 HTTP/1.1"), BAD),
    ("target-line-break-escaped", line("GET /x%0d%0aSet-Cookie:%20a=b HTTP/1.1"), sees("/x%0d%0aSet-Cookie:%20a=b")),
    ("target-two-slashes", line("GET //evil/x HTTP/1.1"), sees("//evil/x")),
    ("target-question-mark-only", line("GET ?x HTTP/1.1"), BAD),
    ("target-missing", line("GET  HTTP/1.1"), BAD),
    ("target-escape-byte", line("GET /\x1b HTTP/1.1"), BAD),
    ("target-fragment-in-query", line("GET /x?a#b HTTP/1.1"), BAD),
    ("target-star-and-more", line("OPTIONS *x HTTP/1.1"), BAD),
    ("target-star-path", line("OPTIONS */x HTTP/1.1"), BAD),
    ("target-star", line("OPTIONS * HTTP/1.1"), sees("*", method="OPTIONS")),
    ("target-utf8-in-query", line("GET /x?q=\xc3\xa9 HTTP/1.1"), BAD),
    # The last proxy of a chain sends "*" (RFC 9112, 3.2.4).
    ("target-star-absolute", line("OPTIONS http://b HTTP/1.1"), sees("*", method="OPTIONS", host="b")),
    ("target-star-absolute-port", line("OPTIONS https://b:8001 HTTP/1.1"), sees("*", method="OPTIONS", host="b:8001")),
    ("target-root-absolute", line("OPTIONS http://b/ HTTP/1.1"), sees("/", method="OPTIONS", host="b")),
    ("target-query-absolute", line("OPTIONS http://b?x HTTP/1.1"), sees("/?x", method="OPTIONS", host="b")),
    ("target-bare-query-mark", line("OPTIONS http://b? HTTP/1.1"), sees("/?", method="OPTIONS", host="b")),
    ("connect-other-case", line("connect a:443 HTTP/1.1"), BAD),
    ("connect-path", line("CONNECT /x HTTP/1.1"), BAD_METHOD),
    ("trace-max-forwards", request("TRACE http://a/x HTTP/1.1", "Max-Forwards: 0"), BAD_METHOD),
    ("method-33-bytes", line("G" * 33 + " /x HTTP/1.1"), BAD),
    ("method-nul", line("GE\0T /x HTTP/1.1"), BAD),
    ("method-space-inside", line("GET GET /x HTTP/1.1"), BAD),
    ("version-http2-preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD_VERSION),
    ("version-1.2", line("GET /x HTTP/1.2"), BAD_VERSION),
    ("version-1", line("GET /x HTTP/1"), BAD),
    ("version-1.10", line("GET /x HTTP/1.10"), BAD),
    ("version-tab-after", line("GET /x HTTP/1.1\t"), BAD),
    ("version-https", line("GET /x HTTPS/1.1"), BAD),
    ("tls-hello", "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + "\0" * 40 + "\r\n\r\n", BAD),
)

group(
    "Host",
    ("109", get(host=None), BAD),
    ("110", get("Host: a"), BAD),
    ("111", get("Host: b"), BAD),
    ("112", get(host="a, b"), BAD),
    ("113", get(host="u@a"), BAD),
    ("114", get(host="a/b"), BAD),
    ("115", get(host=""), BAD),
    ("116", get(host="a:99999"), BAD),
    ("117", get(host="a\0.b"), BAD),
    ("118", line("GET http://b/x HTTP/1.1"), sees(host="b", lacks=("Host: a",))),
    ("119", line("GET http://u@a/x HTTP/1.1"), BAD),
    ("120", line("GET ftp://a/x HTTP/1.1"), BAD),
    ("host-other-case-twice", get("hOST: a"), BAD),
    ("host-empty-and-real", get("Host:"), BAD),
    ("host-blank-inside", get(host="a b"), BAD),
    ("host-tab-inside", get(host="a\tb"), BAD),
    ("host-escape", get(host="a%00"), BAD),
    ("host-port-only", get(host=":80"), BAD),
    ("host-port-sign", get(host="a:+80"), BAD),
    ("host-two-ports", get(host="a:80:80"), BAD),
    ("host-bracket-open", get(host="[::1"), BAD),
    ("host-bracket-then-name", get(host="[::1].evil"), BAD),
    ("host-bracket-empty", get(host="[]"), BAD),
    ("host-obs-text", get(host="a\xff"), BAD),
    ("host-backslash", get(host="a\\b"), BAD),
    ("host-query", get(host="a?b"), BAD),
    ("host-only-in-target", request("GET http://b/x HTTP/1.1", host=None), BAD),
    ("host-bad-beside-target", request("GET http://b/x HTTP/1.1", host="a/b"), BAD),
    # HTTP/1.0 knows no Host. What has none is routed and forwarded as if it had said NO_HOST.
    ("host-old-version-without", request("GET /x HTTP/1.0", host=None), yes(Seen(host=NO_HOST), closes=True)),
    (
        "host-old-version-check",  # HAProxy's health check, if it is not told another
        request("OPTIONS / HTTP/1.0", host=None),
        yes(Seen("OPTIONS", "/", host=NO_HOST), closes=True),
    ),
    (
        "host-old-version-keeps",
        request("GET /x HTTP/1.0", "Connection: keep-alive", host=None) + nth(2),
        yes(Seen(host=NO_HOST), Seen(target="/2")),
    ),
    (
        "host-old-version-absolute",
        request("GET http://b/x HTTP/1.0", host=None),
        yes(Seen(host="b"), closes=True),
    ),
    ("host-old-version-empty", request("GET /x HTTP/1.0", host=""), BAD),
    ("host-old-version-two", request("GET /x HTTP/1.0", "Host: b"), BAD),
    ("host-old-version-nominated", request("GET /x HTTP/1.0", "Connection: host", host=None), BAD),
    # An empty port is the default one (RFC 3986, 6.2.3), and goes on as none.
    ("host-empty-port", get(host="h:"), sees(host="h")),
    ("host-empty-port-v6", get(host="[::1]:"), sees(host="[::1]")),
    ("host-empty-port-only", get(host=":"), BAD),
    ("host-empty-port-twice", get(host="h::"), BAD),
    ("absolute-empty-port", line("GET http://h:/x HTTP/1.1"), sees(host="h")),
    ("absolute-empty-port-only", line("GET http://:/x HTTP/1.1"), BAD),
    *((f"host-v6-bad-{n}", get(host=f"[{literal}]"), BAD) for n, literal in enumerate(NOT_V6, 1)),
    *((f"absolute-v6-bad-{n}", line(f"GET http://[{v6}]/x HTTP/1.1"), BAD) for n, v6 in enumerate(NOT_V6[:4], 1)),
    *((f"host-v6-{n}", get(host=f"[{literal}]:80"), sees(host=f"[{literal}]:80")) for n, literal in enumerate(V6, 1)),
    ("absolute-bad-port", line("GET http://b:99999/x HTTP/1.1"), BAD),
    ("absolute-no-authority", line("GET http:///x HTTP/1.1"), BAD),
    ("absolute-one-slash", line("GET http:/x HTTP/1.1"), BAD),
    ("absolute-no-slashes", line("GET http:x HTTP/1.1"), BAD),
    ("absolute-backslash", line("GET http://b\\@a/x HTTP/1.1"), BAD),
    ("absolute-javascript", line("GET javascript:alert(1) HTTP/1.1"), BAD),
    ("absolute-without-path", line("GET http://b HTTP/1.1"), sees("/", host="b")),
    ("absolute-query-only", line("GET HTTP://b:8080?x HTTP/1.1"), sees("/?x", host="b:8080")),
)

# ---------------------------------------------------- hop by hop, identity, several on a connection

group(
    "hop by hop",
    (
        "121",
        get("Connection: close, X-Forwarded-User", "X-Forwarded-User: me"),
        yes(Seen(lacks=("X-Forwarded-User: me",)), closes=True),
    ),
    ("122", get("Connection: close, Content-Length", "Content-Length: 2", body="ab"), BAD),
    ("123", get("X_Forwarded_User: evil"), sees(lacks=("X-Forwarded-User: evil",))),
    (
        "124",
        get("X-Forwarded_User: evil", "X-Forwarded-User: me"),
        sees(lacks=("X-Forwarded-User: evil", "X-Forwarded-User: me")),
    ),
    ("125", get("X.Forwarded.User: evil"), sees(lacks=("X-Forwarded-User: evil",))),
    (
        "126",
        get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        sees(lacks=("HTTP2-Settings: AAMAAABk", "Upgrade: h2c")),
    ),
    ("127", get("Upgrade: websocket", "Connection: Upgrade"), BAD),
    ("128", post("Expect: 100-continue", "Content-Length: 2", body="ab"), yes(POSTED)),
    ("129", post("Expect: y 100-continue", "Content-Length: 2", body="ab"), BAD_EXPECT),
    ("130", get(f"Content-Length: {len(HIDDEN)}", body=HIDDEN), sees(body=HIDDEN)),
    ("131", get(CHUNKED, body=END + HIDING), yes(Seen(), SMUGGLED)),
    ("132", request("OPTIONS /x HTTP/1.1", CHUNKED, body="2\r\nab\r\n" + END), sees(method="OPTIONS", body="ab")),
    ("133", get("Connection: close", body=HIDDEN), yes(Seen(), closes=True)),
    (
        "134",
        get("Content-Length: 0", body="X" + HIDING),
        yes(Seen(), Seen("XGET", "/smug")),
    ),
    ("135", get("Cookie: t=1", "Cookie: t=2"), no(400, by="gateway")),
    ("136", get(*(f"X{i}: y" for i in range(2000))), no(431)),
    ("137", get("X: " + "v" * 100000), no(431, by="gateway")),
    ("138", get("Proxy: http://evil/"), sees(lacks=("Proxy: http://evil/",))),
    ("139", request("GET /x HTTP/1.0", "Content-Length: 2", body="ab"), yes(Seen(body="ab"), closes=True)),
    ("140", "\r\n\r\n" + get(), AS_IS),
    ("141", get() * 3, yes(Seen(), Seen(), Seen())),
    # Nominated fields are found by their normal spelling, so framing nominated in any spelling is
    # refused.
    ("nominate-content_length", post("Connection: Content_Length", "Content-Length: 2", body="ab"), BAD),
    ("nominate-transfer.encoding", post("Connection: transfer.encoding", CHUNKED, body=END), BAD),
    ("nominate-content-length-case", post("Connection: CONTENT-LENGTH", "Content-Length: 2", body="ab"), BAD),
    ("nominate-transfer-encoding", post("Connection: x,\ttransfer-encoding", CHUNKED, body=END), BAD),
    ("nominate-host", get("Connection: host"), BAD),
    (
        "nominate-identity-odd",
        get("Connection: x_forwarded_user", "X-Forwarded-User: me"),
        sees(lacks=("X-Forwarded-User: me",)),
    ),
    ("nominate-ninth", get("Connection: a, b, c, d, e, f, g, h, i"), BAD),
    (
        "nominate-in-two-fields",
        get("Connection: A1", "connection: B2", "a1: 1", "b2: 2"),
        sees(lacks=("A1: 1", "B2: 2")),
    ),
    ("connection-not-a-list", get("Connection: close x"), BAD),
    # No token, so no option: it says nothing, and neither do its parameters.
    (
        "connection-keep-alive-parameter",
        get("Connection: keep-alive; timeout=5") + nth(2),
        yes(Seen(), Seen(target="/2")),
    ),
    (
        "connection-keep-alive-parameters",
        get("Connection: Keep-Alive ;timeout=5; max=9 , X-A", "X-A: 1"),
        sees(lacks=("X-A: 1",)),
    ),
    (
        "connection-keep-alive-parameter-close",
        get("Connection: keep-alive; timeout=5, close") + nth(2),
        yes(Seen(), closes=True),
    ),
    (
        "connection-keep-alive-parameter-old-version",  # others do not take it for keep-alive there: it is not either
        request("GET /x HTTP/1.0", "Connection: keep-alive; timeout=5") + nth(2),
        yes(Seen(), closes=True),
    ),
    ("connection-close-parameter", get("Connection: close; x"), BAD),
    ("connection-nominated-parameter", get("Connection: X-A; x"), BAD),
    ("connection-framing-after-parameter", post("Connection: keep-alive; a, content-length", "Content-Length: 2"), BAD),
    ("connection-framing-as-parameter", post("Connection: content-length; a", "Content-Length: 2", body="ab"), BAD),
    ("connection-parameter-quoted", get('Connection: keep-alive; timeout="5, close"'), BAD),
    ("connection-parameter-empty", get("Connection: keep-alive;"), BAD),
    ("connection-parameter-without-value", get("Connection: keep-alive; timeout="), BAD),
    ("connection-parameter-space-inside", get("Connection: keep-alive; timeout 5"), BAD),
    ("connection-quoted", get('Connection: "close"'), BAD),
    ("connection-vertical-tab", get("Connection: close\x0b"), BAD),
    (
        "keep-alive-te-trailer",
        get("Keep-Alive: 9", "TE: trailers", "Trailer: X"),
        sees(lacks=("Keep-Alive: 9", "TE: trailers", "Trailer: X")),
    ),
    ("proxy-credentials", get("Proxy-Authorization: Basic eA=="), sees(lacks=("Proxy-Authorization: Basic eA==",))),
    ("proxy-odd", get("Proxy_Connection: keep-alive"), sees(lacks=("Proxy-Connection: keep-alive",))),
    ("expect-twice", post("Expect: 100-continue", "Expect: 100-continue", "Content-Length: 2", body="ab"), BAD_EXPECT),
    ("expect-list", post("Expect: 100-continue, x", "Content-Length: 2", body="ab"), BAD_EXPECT),
    ("expect-empty", post("Expect:", "Content-Length: 2", body="ab"), BAD_EXPECT),
    ("expect-odd", get("Expect: 100-continue", "E_x: y"), sees(has=("E_x: y",))),
    ("cookie-in-one-field", get("Cookie: t=1; a=b; t=2"), no(400, by="gateway")),
    ("cookie-same-twice", get("Cookie: t=1", "cookie: t=1"), no(400, by="gateway")),
    ("cookie-inside-quotes", get('Cookie: a="x; t=1"; t=2'), no(400, by="gateway")),
)

group(
    "identity",
    ("identity-plain", get("X-Forwarded-User: evil"), sees(lacks=("X-Forwarded-User: evil",))),
    ("identity-case", get("x-forwarded-USER: evil"), sees(lacks=("X-Forwarded-User: evil",))),
    ("identity-mixed", get("x~forwarded!user: evil"), sees(lacks=("X-Forwarded-User: evil",))),
    ("identity-space", get("X-Forwarded-User : evil"), BAD),
    ("identity-folded-into", get("X:\r\n\tX-Forwarded-User: evil"), BAD),
    ("identity-hidden-by-cr", get("X: y\rX-Forwarded-User: evil"), BAD),
    ("identity-hidden-by-lf", get("X: y\nX-Forwarded-User: evil"), BAD),
    (
        "identity-longer-is-another",
        get("X-Forwarded-User-: ok", "X-Forwarded-Use: ok"),
        sees(has=("X-Forwarded-Use: ok",)),
    ),
    ("forwarding-odd", get("X_Forwarded_For: 6.6.6.6"), sees(lacks=("X-Forwarded-For: 6.6.6.6",))),
    ("forwarding-odd-proto", get("X-Forwarded_Proto: evil"), sees(lacks=("X-Forwarded-Proto: evil",))),
    ("other-odd-is-forwarded", get("X_Other.Name: y"), sees(has=("X_Other.Name: y",))),
    ("ticket-login-from-client", get("X-Ticket-Login: root"), sees(lacks=("X-Ticket-Login: root",))),
)


def head(*fields: str, line: str = "HEAD /x HTTP/1.1", body: str = "", host: str | None = "a") -> str:
    return request(line, *fields, body=body, host=host)


group(
    "HEAD refused",
    ("head-400", head("X : a"), to_head(BAD)),
    ("head-400-two-hosts", head("Host: b"), to_head(BAD)),
    ("head-400-empty-line-first", "\r\n" + head("X : a"), to_head(BAD)),
    ("head-400-version", head(line="HEAD /x HTTP/1.x"), to_head(BAD)),
    ("head-400-target", head(line="HEAD /%00 HTTP/1.1"), to_head(BAD)),
    ("head-400-body", head(CHUNKED, body="xyz\r\n"), to_head(BAD_BODY)),
    ("head-400-tickets", head("Cookie: t=1", "Cookie: t=2"), to_head(no(400, by="gateway"))),
    ("head-400-after-another", get() + head("X : a"), to_head(no(400, after=(Seen(),)))),
    ("head-414", head(line="HEAD /" + "u" * 9000 + " HTTP/1.1"), to_head(no(414, by="gateway"))),
    ("head-417", head("Expect: x"), to_head(BAD_EXPECT)),
    ("head-431-fields", head(*(f"X{i}: y" for i in range(200))), to_head(no(431, by="gateway"))),
    ("head-431-size", head("X: " + "v" * 20000), to_head(no(431, by="gateway"))),
    ("head-501", head("Transfer-Encoding: gzip"), to_head(no(501))),
    ("head-505", head(line="HEAD /x HTTP/1.9"), to_head(no(505))),
    ("head-other-case", head("X : a", line="head /x HTTP/1.1"), BAD),  # it is another method
)

WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

group(
    "websocket",
    ("ws-two-keys", get(*WEBSOCKET, KEY, KEY), BAD),
    ("ws-key-odd", get(*WEBSOCKET, "Sec_WebSocket_Key: dGhlIHNhbXBsZSBub25jZQ=="), BAD),
    ("ws-post", post(*WEBSOCKET, KEY), BAD),
    ("ws-with-body", get(*WEBSOCKET, KEY, "Content-Length: 2", body="ab"), BAD),
    ("ws-chunked", get(*WEBSOCKET, KEY, CHUNKED, body=END), BAD),
    ("ws-old-version", request("GET /x HTTP/1.0", *WEBSOCKET, KEY), BAD),
    # A service that got both could choose h2c, and its 101 would open a tunnel past every check.
    ("ws-and-h2c", get(*WEBSOCKET, "Upgrade: h2c", KEY), sees(lacks=("Upgrade: h2c",))),
    (
        "ws-in-a-list",
        get("Connection: Upgrade", "Upgrade: h2c, websocket", KEY),
        sees(lacks=("Upgrade: h2c, websocket",)),
    ),
    ("ws-not-connection", get("Upgrade: websocket", KEY), sees(lacks=("Upgrade: websocket",))),
    ("ws-upgrade-odd", get("Connection: Upgrade", "Up_grade: websocket", KEY), sees(has=("Up_grade: websocket",))),
)

group(
    "several on a connection",
    ("then-bad", get() + "GET /2 HTTP/1.1\nHost: a\n\n", no(400, after=(Seen(),))),
    ("then-no-host", get() + request("GET /2 HTTP/1.1", host=None), no(400, after=(Seen(),))),
    ("length-too-short", post("Content-Length: 2", body="abGARBAGE\r\n\r\n"), no(400, after=(POSTED,))),
    ("old-version-closes", request("GET /x HTTP/1.0") + nth(2), yes(Seen(), closes=True)),
    (
        "old-version-keeps",
        request("GET /x HTTP/1.0", "Connection: keep-alive") + nth(2),
        yes(Seen(), Seen(target="/2")),
    ),
    ("close-in-a-list", get("Connection: keep-alive, ,CLOSE") + nth(2), yes(Seen(), closes=True)),
    ("proxy-connection-does-not-close", get("Proxy-Connection: close") + nth(2), yes(Seen(), Seen(target="/2"))),
    (
        "head-with-body",
        request("HEAD /x HTTP/1.1", "Content-Length: 2", body="ab") + nth(2),
        yes(Seen("HEAD", body="ab"), Seen(target="/2")),
    ),
)

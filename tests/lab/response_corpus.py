"""Raw responses that a broken or hostile service would send, and what has to become of each.

Rule: what cannot be read in exactly one way is answered 502, or, if its head has gone on already,
the client's connection is cut before the response is complete. Only a service that has said exactly
one response, and no byte more, is asked again over the same connection. `ANSWERS` is sent over real
sockets by response_runs.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Read:
    """A response as the client must read it. Of `has` and `lacks`, field lines, all must arrive,
    and none.
    """

    status: int = 200
    body: str = "ok"
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """How it may end for the client, and whether the next request goes over the same connection."""

    read: Read | None = None
    may_refuse: bool = False  # 502
    may_cut: bool = False  # closed before the response is complete
    is_kept: bool = False

    def __str__(self) -> str:
        ways = [f"{self.read.status}"] if self.read else []
        ways += ["502"] * self.may_refuse + ["cut"] * self.may_cut
        return " or ".join(ways) + (", kept" if self.is_kept else ", not kept")


@dataclass(frozen=True)
class Answer:
    """The service's answer to one request, and what it does then."""

    id: str
    group: str
    text: str
    verdict: Verdict
    method: str = "GET"  # of the request
    later: str = ""  # is said when the client has the response
    ends: bool = False  # the service closes

    def raw(self) -> bytes:
        return self.text.encode("latin-1")


# ---------------------------------------------------------------------------------------- responses

CHUNKED = "Transfer-Encoding: chunked"
LENGTH = "Content-Length: 2"
END = "0\r\n\r\n"  # of a chunked body
CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n"
HIDING = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"  # is the next response to who mistakes where this one ends


def response(*fields: str, line: str = "HTTP/1.1 200 OK", body: str = "") -> str:
    return "\r\n".join([line, *fields, "", body])


def ok(*fields: str) -> str:
    """Well framed, with more fields."""
    return response(*fields, LENGTH, body="ok")


def started(line: str) -> str:
    return response(LENGTH, line=line, body="ok")


def chunks(body: str, *fields: str) -> str:
    return response(CHUNKED, *fields, body=body)


# ----------------------------------------------------------------------------------------- verdicts

BAD = Verdict(may_refuse=True)
BROKEN = Verdict(may_refuse=True, may_cut=True)


def yes(**read) -> Verdict:
    return Verdict(Read(**read), is_kept=True)


def once(**read) -> Verdict:
    """Good, but the connection is not used again."""
    return Verdict(Read(**read))


def excess(**read) -> Verdict:
    """There is more than the response: it is refused if that is seen in time."""
    return Verdict(Read(**read), may_refuse=True)


GOOD = yes()

ANSWERS: list[Answer] = []


def group(name: str, *cases: tuple) -> None:
    """Each case is id, text, verdict and, if need be, a dict of the rest."""
    for case_id, text, verdict, *rest in cases:
        ANSWERS.append(Answer(case_id, name, text, verdict, **(rest[0] if rest else {})))


ENDS = {"ends": True}
TO_HEAD = {"method": "HEAD"}

# ----------------------------------------------------------------------------------------- the head

group(
    "status line",
    ("line-none", "", BAD, ENDS),
    ("line-garbage", "garbage\r\n\r\n", BAD),
    ("line-request", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("line-tls", "\x15\x03\x01\0\x02\x02\x0a", BAD),
    ("line-icy", started("ICY 200 OK"), BAD),
    ("line-no-version", started("200 OK"), BAD),
    ("line-version-0.9", started("HTTP/0.9 200 OK"), BAD),
    ("line-version-1.2", started("HTTP/1.2 200 OK"), BAD),
    ("line-version-1.10", started("HTTP/1.10 200 OK"), BAD),
    ("line-version-2", started("HTTP/2 200 OK"), BAD),
    ("line-version-lower-case", started("http/1.1 200 OK"), BAD),
    ("line-version-https", started("HTTPS/1.1 200 OK"), BAD),
    ("line-space-first", started(" HTTP/1.1 200 OK"), BAD),
    ("line-empty-first", "\r\n" + ok(), BAD),
    ("line-byte-order-mark", "\xef\xbb\xbf" + ok(), BAD),
    ("line-two-spaces", started("HTTP/1.1  200 OK"), BAD),
    ("line-tab", started("HTTP/1.1\t200 OK"), BAD),
    ("line-no-status", started("HTTP/1.1 OK"), BAD),
    ("line-status-000", started("HTTP/1.1 000 OK"), BAD),
    ("line-status-099", started("HTTP/1.1 099 OK"), BAD),
    ("line-status-two-digits", started("HTTP/1.1 20 OK"), BAD),
    ("line-status-four-digits", started("HTTP/1.1 2000 OK"), BAD),
    ("line-status-sign", started("HTTP/1.1 +20 OK"), BAD),
    ("line-status-letter", started("HTTP/1.1 2x0 OK"), BAD),
    ("line-status-and-reason", started("HTTP/1.1 200OK"), BAD),
    ("line-reason-nul", started("HTTP/1.1 200 O\0K"), BAD),
    ("line-reason-cr", started("HTTP/1.1 200 O\rX: K"), BAD),
    ("line-reason-lf", started("HTTP/1.1 200 O\nX: K"), BAD),
    ("line-reason-delete", started("HTTP/1.1 200 O\x7fK"), BAD),
    ("line-lf", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", BAD),
    ("line-cr-cr-lf", "HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok", BAD),
    # It says nothing more and does not close: what cannot become a status line any more is known
    # at once.
    ("line-version-alone", "HTTP/1.1\r\n\r\n", BAD),
    ("line-version-alone-lf", "HTTP/1.1 \n\n", BAD),
    ("line-version-and-space", "HTTP/1.1 \r\n", BAD),
    ("line-version-cut-short", "HTTP/1.\r\n", BAD),
    ("line-word", "OK\r\n", BAD),
    ("line-nul", "\0", BAD),
    ("line-empty", "\r\n", BAD),
    ("line-0xx", "HTTP/1.1 0", BAD),
    ("line-one-digit", "HTTP/1.1 2\r\n", BAD),
    ("line-two-digits", "HTTP/1.0 20\r\n", BAD),
    ("line-two-digits-space", "HTTP/1.1 20 ", BAD),
    ("line-version-1.2-cut-short", "HTTP/1.2", BAD),
    ("line-tab-cut-short", "HTTP/1.1\t", BAD),
    ("line-status-then-lf", "HTTP/1.1 200\n", BAD),
    ("line-status-then-cr", "HTTP/1.1 200\r\r", BAD),
    ("line-after-100", CONTINUE + "HTTP/1.1\r\n\r\n", BAD),
    ("line-alone", "HTTP/1.1 200 OK", BAD, ENDS),
    ("line-no-reason", started("HTTP/1.1 200"), GOOD),
    ("line-empty-reason", started("HTTP/1.1 200 "), GOOD),
    ("line-obs-text", started("HTTP/1.1 200 \xe9"), GOOD),
    ("line-status-999", started("HTTP/1.1 999 ?"), yes(status=999)),
)

group(
    "fields",
    ("field-folded", ok("X: a\r\n b"), BAD),
    ("field-folded-tab", ok("X: a\r\n\tb"), BAD),
    ("field-folded-empty", ok("X:\r\n y"), BAD),
    ("field-space-first", ok(" X: y"), BAD),
    ("field-nul", ok("X: a\0b"), BAD),
    ("field-nul-in-name", ok("X\0Y: a"), BAD),
    ("field-cr", ok("X: a\rContent-Length: 9"), BAD),
    ("field-lf", ok("X: a\nContent-Length: 9"), BAD),
    ("field-cr-at-end", ok("X: a\r"), BAD),
    ("field-control", ok("X: a\x08b"), BAD),
    ("field-delete", ok("X: a\x7fb"), BAD),
    ("field-escape", ok("X: \x1b[2J"), BAD),
    ("field-space-before-colon", ok("X : y"), BAD),
    ("field-no-name", ok(": y"), BAD),
    ("field-no-colon", ok("nocolon"), BAD),
    ("field-name-not-a-token", ok("X(): y"), BAD),
    ("field-name-obs-text", ok("X\xe9: y"), BAD),
    ("field-only-space", ok(" "), BAD),
    ("head-ends-lf-lf", "HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok", BAD),
    ("head-ends-cr-lf-lf", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok", BAD),
    ("head-ends-cr-lf-cr", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\rok", BAD),
    ("head-too-large", ok("X: " + "v" * 40000), BAD),
    ("head-too-large-and-endless", "HTTP/1.1 200 OK\r\nX: " + "v" * 40000, BAD),
    ("head-too-many-fields", ok(*(f"X{n}: y" for n in range(512))), BAD),
    ("head-many-fields", ok(*(f"X{n}: y" for n in range(511))), yes(has=("X0: y", "X510: y"))),
    ("head-cut-short", "HTTP/1.1 200 OK\r\nContent-Le", BAD, ENDS),
    ("head-without-its-end", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", BAD, ENDS),
    ("connection-nominates-length", ok("Connection: Content-Length"), BAD),
    ("connection-nominates-length-oddly", ok("Connection: close, content_length"), BAD),
    ("connection-nominates-coding", chunks(END, "Connection: transfer-encoding"), BAD),
    ("connection-not-a-list", ok("Connection: close x"), BAD),
    ("connection-nominates-nine", ok("Connection: a, b, c, d, e, f, g, h, i"), BAD),
    ("field-obs-text", ok("X: caf\xe9"), yes(has=("X: caf\xe9",))),
    ("field-empty", ok("X:"), yes(has=("X: ",))),
    ("field-twice", ok("X: 1", "X: 2"), yes(has=("X: 1", "X: 2"))),
    ("field-white-space-around", ok("X:\t y \t"), yes(has=("X: y",))),
    ("hop-by-hop", ok("Connection: X-Hop", "X-Hop: 1", "Keep-Alive: 5"), yes(lacks=("X-Hop: 1", "Keep-Alive: 5"))),
    ("upgrade-offered", ok("Connection: upgrade", "Upgrade: h2c"), yes(lacks=("Upgrade: h2c",))),
    ("login-not-for-this-route", ok("X-Ticket-Login: eve"), yes(lacks=("X-Ticket-Login: eve",))),
    ("logout-odd-value", ok("X-Ticket-Logout: all"), BAD),
    ("logout-odd-spelling", ok("X_Ticket_Logout: session"), BAD),
    ("logout-and-rotate", ok("X-Ticket-Logout: session", "X-Ticket-Rotate: 1"), BAD),
    ("rotate-odd-value", ok("X-Ticket-Rotate: yes"), BAD),
    ("cookie-ours", ok("Set-Cookie: ticket=x; Path=/"), yes(lacks=("Set-Cookie: ticket=x; Path=/",))),
    ("cookie-ours-after-white-space", ok("Set-Cookie: \t ticket \t=x"), yes(lacks=("Set-Cookie: ticket \t=x",))),
    ("cookie-ours-without-a-name", ok("Set-Cookie: =ticket=x"), yes(lacks=("Set-Cookie: =ticket=x",))),
    (
        "cookie-of-theirs",
        ok("Set-Cookie: tickets=x", "Set-Cookie: Ticket=x"),
        yes(has=("Set-Cookie: tickets=x", "Set-Cookie: Ticket=x")),
    ),
    ("login-odd", ok("X_Ticket_Login: eve"), yes(lacks=("X_Ticket_Login: eve",))),
    ("connection-close", ok("Connection: close"), once(lacks=("Connection: close",))),
    ("connection-keep-alive-parameter", ok("Connection: keep-alive; timeout=5"), GOOD),
    (
        "version-1.0-keep-alive-parameter",
        response("Connection: keep-alive; timeout=5", LENGTH, line="HTTP/1.0 200 OK", body="ok"),
        once(),
    ),
    ("version-1.0", started("HTTP/1.0 200 OK"), once()),
    ("version-1.0-keep-alive", response("Connection: keep-alive", LENGTH, line="HTTP/1.0 200 OK", body="ok"), GOOD),
)

# ------------------------------------------------------------------------------------------ framing

group(
    "Content-Length",
    ("length-twice", response(LENGTH, LENGTH, body="ok"), BAD),
    ("length-differing", response(LENGTH, "Content-Length: 1", body="ok"), BAD),
    ("length-other-case-twice", response(LENGTH, "content-length: 2", body="ok"), BAD),
    ("length-list", response("Content-Length: 2, 2", body="ok"), BAD),
    ("length-list-differing", response("Content-Length: 2, 1", body="ok"), BAD),
    ("length-plus", response("Content-Length: +2", body="ok"), BAD),
    ("length-minus", response("Content-Length: -2", body="ok"), BAD),
    ("length-hexadecimal", response("Content-Length: 0x2", body="ok"), BAD),
    ("length-space-inside", response("Content-Length: 0 2", body="ok"), BAD),
    ("length-fraction", response("Content-Length: 2.0", body="ok"), BAD),
    ("length-empty", response("Content-Length:", body="ok"), BAD),
    ("length-word", response("Content-Length: two", body="ok"), BAD),
    ("length-2-63", response("Content-Length: 9223372036854775808", body="ok"), BAD),
    ("length-2-64-plus-2", response("Content-Length: 18446744073709551618", body="ok"), BAD),
    ("length-no-break-space", response("Content-Length:\xa02", body="ok"), BAD),
    ("length-vertical-tab", response("Content-Length:\x0b2", body="ok"), BAD),
    ("length-space-before-colon", response("Content-Length : 2", body="ok"), BAD),
    ("length-folded", response("Content-Length:\r\n 2", body="ok"), BAD),
    ("length-bad-to-head", response("Content-Length: 2, 2"), BAD, TO_HEAD),
    ("length-bad-without-a-body", response(LENGTH, LENGTH, line="HTTP/1.1 304 Not Modified"), BAD),
    ("length-and-odd-spelling", response("Content_Length: 9", LENGTH, body="ok"), yes(lacks=("Content_Length: 9",))),
    ("length-zeros-first", response("Content-Length: 002", body="ok"), yes(has=("Content-Length: 2",))),
    ("length-tabs-around", response("Content-Length:\t2\t", body="ok"), yes(has=("Content-Length: 2",))),
    ("length-zero", response("Content-Length: 0"), yes(body="")),
)

group(
    "Transfer-Encoding",
    ("coding-gzip-chunked", response("Transfer-Encoding: gzip, chunked", body=END), BAD),
    ("coding-chunked-gzip", response("Transfer-Encoding: chunked, gzip", body=END), BAD),
    ("coding-chunked-chunked", response("Transfer-Encoding: chunked, chunked", body=END), BAD),
    ("coding-gzip", response("Transfer-Encoding: gzip", body="ok"), BAD, ENDS),
    ("coding-identity", response("Transfer-Encoding: identity", body="ok"), BAD, ENDS),
    ("coding-unknown", response("Transfer-Encoding: xchunked", body=END), BAD),
    ("coding-empty", response("Transfer-Encoding:", body=END), BAD),
    ("coding-parameter", response("Transfer-Encoding: chunked;a=b", body=END), BAD),
    ("coding-quoted", response('Transfer-Encoding: "chunked"', body=END), BAD),
    ("coding-vertical-tab", response("Transfer-Encoding: \x0bchunked", body=END), BAD),
    ("coding-nul", response("Transfer-Encoding: chunked\0", body=END), BAD),
    ("coding-space-before-colon", response("Transfer-Encoding : chunked", body=END), BAD),
    ("coding-twice", chunks(END, CHUNKED), BAD),
    ("coding-and-identity", chunks(END, "Transfer-Encoding: identity"), BAD),
    ("coding-and-length", chunks(END, "Content-Length: 5"), BAD),
    ("coding-after-length", response("Content-Length: 5", CHUNKED, body=END), BAD),
    ("coding-version-1.0", response(CHUNKED, line="HTTP/1.0 200 OK", body=END), BAD),
    ("coding-bad-without-a-body", response("Transfer-Encoding: gzip", line="HTTP/1.1 204 No Content"), BAD),
    ("coding-bad-to-head", response(CHUNKED, LENGTH), BAD, TO_HEAD),
    ("coding-odd-beside-length", ok("Transfer_Encoding: chunked"), yes(lacks=("Transfer_Encoding: chunked",))),
    ("coding-other-case", response("tRANSFER-eNCODING: ChunkeD", body="2\r\nok\r\n" + END), GOOD),
)

group(
    "chunked body",
    ("chunk-size-word", chunks("zz\r\nok\r\n" + END), BROKEN),
    ("chunk-size-empty", chunks("\r\nok\r\n" + END), BROKEN),
    ("chunk-size-0x", chunks("0x2\r\nok\r\n" + END), BROKEN),
    ("chunk-size-sign", chunks("+2\r\nok\r\n" + END), BROKEN),
    ("chunk-size-minus", chunks("-2\r\nok\r\n" + END), BROKEN),
    ("chunk-size-space-before", chunks(" 2\r\nok\r\n" + END), BROKEN),
    ("chunk-size-space-after", chunks("2 \r\nok\r\n" + END), BROKEN),
    ("chunk-size-2-64-plus-2", chunks("10000000000000002\r\nok\r\n" + END), BROKEN),
    ("chunk-size-17-digits", chunks("00000000000000002\r\nok\r\n" + END), BROKEN),
    ("chunk-size-lf", chunks("2\nok\r\n" + END), BROKEN),
    ("chunk-size-cr", chunks("2\rok\r\n" + END), BROKEN),
    ("chunk-extension-lf", chunks("2;a\nok\r\n" + END), BROKEN),
    ("chunk-extension-nul", chunks("2;a\0\r\nok\r\n" + END), BROKEN),
    ("chunk-extension-long", chunks("2;" + "e" * 300 + "\r\nok\r\n" + END), BROKEN),
    ("chunk-data-too-long", chunks("2\r\nokay\r\n" + END), BROKEN),
    ("chunk-data-without-end", chunks("2\r\nok" + END), BROKEN),
    ("chunk-data-cr", chunks("2\r\nok\r0" + END), BROKEN),
    ("chunk-data-lf", chunks("2\r\nok\n" + END), BROKEN),
    ("chunk-last-lf", chunks("2\r\nok\r\n0\n\r\n"), BROKEN),
    ("chunk-end-lf", chunks("2\r\nok\r\n0\r\n\n"), BROKEN),
    ("chunk-trailer-malformed", chunks("2\r\nok\r\n0\r\nbad trailer\r\n\r\n"), BROKEN),
    ("chunk-trailer-folded", chunks("2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n"), BROKEN),
    ("chunk-trailer-nul", chunks("2\r\nok\r\n0\r\nA: \0\r\n\r\n"), BROKEN),
    ("chunk-trailers-too-long", chunks("2\r\nok\r\n0\r\n" + "A: b\r\n" * 1000 + "\r\n"), BROKEN),
    ("chunk-response-for-trailer", chunks("2\r\nok\r\n0\r\n" + HIDING), BROKEN),
    ("chunk-none-and-closed", chunks(""), BROKEN, ENDS),
    ("chunk-cut-short", chunks("5\r\nok"), BROKEN, ENDS),
    ("chunk-last-missing", chunks("2\r\nok\r\n"), BROKEN, ENDS),
    ("chunk-end-missing", chunks("2\r\nok\r\n0\r\n"), BROKEN, ENDS),
    ("chunk-trailer-cut-short", chunks("2\r\nok\r\n0\r\nA: b\r\n"), BROKEN, ENDS),
    ("chunk-two", chunks("1\r\no\r\n1\r\nk\r\n" + END), GOOD),
    ("chunk-none", chunks(END), yes(body="")),
    ("chunk-capital-digit", chunks("A\r\n0123456789\r\n" + END), yes(body="0123456789")),
    ("chunk-extension-space", chunks('2 ; a = "b;c"\r\nok\r\n0 ; last\r\n\r\n'), GOOD),
    ("chunk-16-digits", chunks("0000000000000002\r\nok\r\n" + "0" * 16 + "\r\n\r\n"), GOOD),
    ("chunk-extension", chunks('2;a="b;c"\r\nok\r\n0;last\r\n\r\n'), GOOD),
    (
        "chunk-trailers",
        chunks("2\r\nok\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n\r\n"),
        yes(lacks=("Content-Length: 9", "Set-Cookie: a=b")),
    ),
    ("chunk-looks-like-an-end", chunks("7\r\nok\r\n0\r\n\r\n" + END), yes(body="ok\r\n0\r\n")),
)

# ------------------------------------------------------------------------------------------ the end

group(
    "end",
    ("past-length", ok() + "!", excess()),
    ("past-length-crlf", ok() + "\r\n", excess()),
    ("past-length-response", ok() + HIDING, excess()),
    ("past-length-zero", response("Content-Length: 0") + HIDING, excess(body="")),
    ("past-chunked", chunks("2\r\nok\r\n" + END) + "!", excess()),
    ("past-chunked-response", chunks("2\r\nok\r\n" + END) + HIDING, excess()),
    ("past-204", response(line="HTTP/1.1 204 No Content") + HIDING, excess(status=204, body="")),
    ("past-204-length", response(LENGTH, line="HTTP/1.1 204 No Content", body="ok"), excess(status=204, body="")),
    ("past-204-chunked", response(CHUNKED, line="HTTP/1.1 204 No Content", body=END), excess(status=204, body="")),
    ("past-304-length", response(LENGTH, line="HTTP/1.1 304 Not Modified", body="ok"), excess(status=304, body="")),
    ("past-head", response(LENGTH, body="ok"), excess(body=""), TO_HEAD),
    ("past-head-chunked", chunks("2\r\nok\r\n" + END), excess(body=""), TO_HEAD),
    ("past-head-without-framing", response(body="ok"), excess(body=""), {**TO_HEAD, **ENDS}),
    ("eof-before-body", response(LENGTH), BROKEN, ENDS),
    ("eof-in-body", response("Content-Length: 3", body="ok"), BROKEN, ENDS),
    ("eof-in-large-body", response("Content-Length: 100000", body="x" * 99999), BROKEN, ENDS),
    ("eof-after-body", ok(), once(), ENDS),
    ("eof-ends-body", response(body="ok"), once(), ENDS),
    ("eof-ends-empty-body", response(), once(body=""), ENDS),
    ("eof-ends-body-of-1.0", response(line="HTTP/1.0 200 OK", body="ok"), once(), ENDS),
    ("eof-ends-what-looks-like-two", response(body="ok" + HIDING), once(body="ok" + HIDING), ENDS),
    ("head-with-length", response("Content-Length: 500"), yes(body="", has=("Content-Length: 500",)), TO_HEAD),
    ("head-with-chunked", response(CHUNKED), yes(body=""), TO_HEAD),
    ("head-without-framing", response(), yes(body=""), TO_HEAD),
    ("204", response(line="HTTP/1.1 204 No Content"), yes(status=204, body="")),
    ("304", response("ETag: x", line="HTTP/1.1 304 Not Modified"), yes(status=304, body="", has=("ETag: x",))),
    ("304-length", response(LENGTH, line="HTTP/1.1 304 Not Modified"), yes(status=304, body="")),
)

group(
    "interim",
    ("101-not-asked", response("Upgrade: websocket", "Connection: Upgrade", line="HTTP/1.1 101 x"), BAD),
    ("101-not-asked-h2c", response("Upgrade: h2c", "Connection: Upgrade", line="HTTP/1.1 101 x", body="PRI"), BAD),
    ("101-after-100", CONTINUE + response("Upgrade: websocket", line="HTTP/1.1 101 x"), BAD),
    ("interim-with-body", response(LENGTH, line="HTTP/1.1 103 Early Hints", body="ok") + ok(), BAD),
    ("interim-malformed", response("X : y", line="HTTP/1.1 103 Early Hints") + ok(), BAD),
    ("interim-bad-length", response(LENGTH, LENGTH, line="HTTP/1.1 100 Continue") + ok(), BAD),
    ("interim-then-garbage", CONTINUE + "garbage\r\n\r\n", BAD),
    ("interim-then-bad", CONTINUE + response(LENGTH, CHUNKED, body=END), BAD),
    ("interim-then-eof", CONTINUE, BAD, ENDS),
    ("interim-then-past-end", CONTINUE + ok() + HIDING, excess()),
    ("100", CONTINUE + ok(), GOOD),
    ("100-many", CONTINUE * 5 + ok(), GOOD),
    ("103", response("Link: x", line="HTTP/1.1 103 Early Hints") + ok(), yes(lacks=("Link: x",))),
    ("199", response(line="HTTP/1.1 199 ?") + chunks("2\r\nok\r\n" + END), GOOD),
)

group(
    "idle",
    ("idle-response", ok(), once(), {"later": HIDING}),
    ("idle-408", ok(), once(), {"later": "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", **ENDS}),
    ("idle-crlf", ok(), once(), {"later": "\r\n"}),
    ("idle-byte", chunks("2\r\nok\r\n" + END), once(), {"later": "\0"}),
    ("idle-chunk", chunks("2\r\nok\r\n" + END), once(), {"later": END}),
    ("idle-after-204", response(line="HTTP/1.1 204 No Content"), once(status=204, body=""), {"later": HIDING}),
    ("idle-after-head", response(LENGTH), once(body=""), {**TO_HEAD, "later": "ok"}),
    ("idle-interim", ok(), once(), {"later": CONTINUE}),
)

"""Chunked bodies, in one piece and in many."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.attack_corpus import ATTACKS

from fastticket.dataplane.chunks import Dechunker


def dechunk(parts: list[bytes]) -> tuple[bytes, int, bool] | None:
    """What comes of a body that arrives in these parts: data, bytes used, whether it is complete;
    None: malformed.
    """
    dechunker, data, used, done = Dechunker(), b"", 0, False
    for part in parts:
        try:
            more, count, done = dechunker.feed(part)
        except ValueError:
            return None
        assert done or count == len(part)
        data, used = data + more, used + count
    return data, used, done


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("2\r\nab\r\n0\r\n\r\n", "ab"),
        ("1\r\na\r\n1\r\nb\r\n3\r\ncde\r\n0\r\n\r\n", "abcde"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n" * 5),
        ("00f\r\n" + "x" * 15 + "\r\n0\r\n\r\n", "x" * 15),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("2;\r\nab\r\n0;\r\n\r\n", "ab"),
        ('2;a;b=c;d="e f;\xe9"\r\nab\r\n0;last\r\n\r\n', "ab"),
        ("2 ;a\r\nab\r\n0\t; b\r\n\r\n", "ab"),
        ('2 ; a = b\t;c\t=\t"d \te" ; f\r\nab\r\n0\r\n\r\n', "ab"),
        ('2;a="\\"\\\\"\r\nab\r\n0\r\n\r\n', "ab"),
        ('2;a="\\;\\ \\\t\\\xff"\r\nab\r\n0\r\n\r\n', "ab"),
        ("0000000000000002\r\nab\r\n0000000000000000\r\n\r\n", "ab"),
        ("0\r\nA: b\r\nC:\r\nD: \te\xff\r\n\r\n", ""),
        ("1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n", "a"),
    ],
)
def test_chunks(body, data):
    raw = body.encode("latin-1")
    assert Dechunker().feed(raw) == (data.encode("latin-1"), len(raw), True)
    assert Dechunker().feed(raw + b"GET") == (data.encode("latin-1"), len(raw), True)
    assert dechunk([raw, b"GET"]) == (data.encode("latin-1"), len(raw), True)


def test_chunks_of_large_size():
    size = 3_000_001
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    assert Dechunker().feed(body) == (b"x" * size, len(body), True)
    assert dechunk([body[i : i + 65536] for i in range(0, len(body), 65536)]) == (b"x" * size, len(body), True)


@pytest.mark.parametrize(
    "body",
    [
        *("\r\n", "\n", ";a\r\n", "g\r\n", "x", " 1\r\n", "+1\r\n", "-1\r\n", "0x1\r\n", "1 \r\n", "1\t\r\n"),
        *("1 \r\n", "1 1\r\n", "1 a;\r\n", "1 \n", "1\x0b;a\r\n", "1\xa0;a\r\n", "1;a \r\n", "1; \r\n"),
        *("1;a = \r\n", '1;a="b" \r\n', '1;a= "b" c\r\n', '1;a="\\\r\n', '1;a="\\\n"\r\n', '1;a="\\\0"\r\n'),
        *("1;a\\b\r\n", "1 ;\x0ba\r\n", "1; a b=c\r\n", "1;a=b c\r\n"),
        *("1,\r\n", "1\n", "1\rx", "1\r\r\n", "1\r\na\n", "1\r\na\rx", "1\r\nab", "1\r\n\r\n\r\n0"),
        *("1\r\na1\r\n", "1\r\na\r\n\r\n", "1.0\r\n", "1;\n", "1;\rx", "1;a\n", "1;a b\r\n"),
        *('1;a="b\r\n', '1;a="b\n"\r\n', '1;a="\\"\r\n', "1;\0\r\n", "1;a=(\r\n", "1;a\xe9\r\n"),
        *('1;a="\x7f"\r\n', "1;\t\r\n", "1;a,b\r\n", "0\n", "0\r\n\n", "0\r\n\rx", "0\r\n\r\r"),
        *("0\r\n A: b\r\n", "0\r\nA b\r\n", "0\r\nA\r\n", "0\r\n: b\r\n", "0\r\nA : b\r\n", "0\r\nA: b\n"),
        *("0\r\nA: b\rC", "0\r\nA: \0\r\n", "0\r\nA: \x7f\r\n", "0\r\nA: b\r\n c\r\n", "0\r\n\xe9: b\r\n"),
        *("\xb2\r\n", "00000000000000000", "1000000000000000", "ffffffffffffffff", "10000000000000002\r\n"),
        *("f000000000000000", "00000000000000001\r\n", "0000000000000001 1"),
    ],
)
def test_chunks_refused(body):
    raw = body.encode("latin-1")
    for chunks_before in (b"", b"1\r\na\r\n", b"1;x\r\na\r\nF\r\n0123456789abcde\r\n"):
        assert dechunk([chunks_before + raw]) is None
        assert dechunk([chunks_before, raw]) is None
        assert dechunk([chunks_before + raw[:-1], raw[-1:]]) is None


def test_limit_of_chunk_digits():
    assert dechunk([b"00000000000000a\r\n"]) == (b"", 17, False)
    assert dechunk([b"fffffffffffffff\r\nab"]) == (b"ab", 19, False)
    assert dechunk([b"000000000000000a\r\n"]) == (b"", 18, False)
    assert dechunk([b"0fffffffffffffff\r\nab"]) == (b"ab", 20, False)
    assert dechunk([b"00000000000000000"]) is None
    assert dechunk([b"1000000000000000"]) is None  # 2**60


def test_limit_of_chunk_lines():
    """256 bytes with the CR, for each line anew."""
    line = b"2;" + b"e" * 253 + b"\r\nab\r\n"
    assert dechunk([line * 100 + b"0\r\n\r\n"]) == (b"ab" * 100, len(line) * 100 + 5, True)
    assert dechunk([line[:255]]) == (b"", 255, False)
    assert dechunk([b"2;" + b"e" * 254 + b"\r"]) is None
    assert dechunk([b'2;a="' + b" " * 252]) is None
    assert dechunk([b"2" + b" " * 255]) == (b"", 256, False)
    assert dechunk([b"2" + b" " * 256]) is None
    assert dechunk([b"2" + b"\t" * 252 + b";a\r\nab\r\n0\r\n\r\n"]) == (b"ab", 266, True)
    assert dechunk([b"2\r\nab\r\n2;", *[b"e"] * 255]) is None


def test_limit_of_trailers():
    """4096 bytes with the empty line, however many trailers."""
    longest = b"A: " + b"b" * 4089 + b"\r\n"
    assert dechunk([b"0\r\n" + longest + b"\r\n"]) == (b"", 4099, True)
    assert dechunk([b"0\r\nb" + longest + b"\r\n"]) is None
    assert dechunk([b"0\r\n" + b"A: b\r\n" * 682 + b"\r\n"]) == (b"", 4097, True)
    assert dechunk([b"0\r\n" + b"A: b\r\n" * 683]) is None
    assert dechunk([b"1\r\na\r\n0\r\n", *[b"n"] * 4097]) is None


CHUNKED_BODIES = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\nnext",
    b'5;a="b;c"\r\nhello\r\n0;x\r\nA: b\r\nC: d\r\n\r\n\r\n',
    b"003\r\n\r\n\r\r\n00\r\n\r\n0\r\n\r\n",
    b"1\r\na\r\n1\r\nb\r\n0\r\nX\r\n\r\n",
    b"1\r\nab\r\n0\r\n\r\n",
    *(
        attack.raw().partition(b"\r\n\r\n")[2]
        for attack in ATTACKS
        if attack.group == "chunked body" and len(attack.raw()) < 999
    ),
]


@pytest.mark.parametrize("body", CHUNKED_BODIES)
def test_where_a_chunked_body_is_split_changes_nothing(body):
    whole = dechunk([body])
    assert dechunk([body[i : i + 1] for i in range(len(body))]) == whole
    assert dechunk([part for i in range(len(body)) for part in (body[i : i + 1], b"")]) == whole
    for i in range(len(body)):
        assert dechunk([body[:i], body[i:]]) == whole


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.sampled_from(["", ";", ';a="\t"']), st.data())
@settings(deadline=None, max_examples=200)
def test_chunks_in_any_parts(datas, extension, data):
    raw = b"".join(b"%x%s\r\n%s\r\n" % (len(d), extension.encode(), d) for d in datas) + b"0\r\nT: v\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    parts = [raw[start:end] for start, end in itertools.pairwise([0, *cuts, len(raw)])]
    assert dechunk([*parts, b"rest"]) == (b"".join(datas), len(raw), True)


def test_feeding_does_not_change_what_was_fed():
    body = b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    copy = bytes(bytearray(body))
    Dechunker().feed(body)
    assert body == copy

"""Values from elsewhere: the few of Java, JSON, msgpack; and bytes that are none of them."""

import json
import pickle

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab.old_systems import java_integer, java_long, java_text

from fastticket.moving.sources import WHY
from fastticket.moving.sources.flask_session import read_content
from fastticket.moving.sources.javavalues import read_java
from fastticket.moving.sources.spring import authenticated_in, identifier_in, number_of, value_of
from fastticket.moving.sources.values import (
    DEPTH_MAX,
    VALUE_BYTES_MAX,
    LeftBehind,
    Unreadable,
    attributes_of,
    principal_in,
    read_json,
    read_msgpack,
)
from fastticket.sessions.attributes import RESERVED

# As redis-cli has printed them from Spring Boot 2.7 (HGETALL of a session): a published dump.
LONG = (
    rb"\xac\xed\x00\x05sr\x00\x0ejava.lang.Long;\x8b\xe4\x90\xcc\x8f#\xdf\x02\x00\x01J\x00\x05valuexr\x00\x10"
    rb"java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\x00\x00xp\x00\x00\x01\x84\x9a\xd7\x80\xdd"
)
INTEGER = (
    rb"\xac\xed\x00\x05sr\x00\x11java.lang.Integer\x12\xe2\xa0\xa4\xf7\x81\x878\x02\x00\x01I\x00\x05valuexr\x00\x10"
    rb"java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\x00\x00xp\x00\x00\a\b"
)
STRING = rb"\xac\xed\x00\x05t\x00\bjameszou"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(min_size=1, max_size=60).filter(lambda name: not name.startswith(RESERVED))
readers = pytest.mark.parametrize("read", [read_java, read_json, read_msgpack, read_content, value_of, number_of])


def bytes_of(dump):
    """What redis-cli shows, as bytes."""
    return dump.decode().encode().decode("unicode_escape").encode("latin-1")


def reason_of(read, data):
    """Why it is not read; None: it is."""
    try:
        read(data)
    except Unreadable as error:
        return error.reason
    return None


def test_what_a_published_dump_of_spring_session_shows_is_what_tests_write():
    assert bytes_of(LONG) == java_long(1669045125341)
    assert bytes_of(INTEGER) == java_integer(1800)
    assert bytes_of(STRING) == java_text("jameszou")


def test_what_a_published_dump_of_spring_session_shows_is_read():
    """creationTime, maxInactiveInterval (30 minutes) and a text."""
    assert read_java(bytes_of(LONG)) == 1669045125341
    assert read_java(bytes_of(INTEGER)) == 1800
    assert read_java(bytes_of(STRING)) == "jameszou"
    assert number_of(b"1669045125341") == number_of(b'["java.lang.Long",1669045125341]') == 1669045125341


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_a_long_of_java_is_read_as_it_was_written(number):
    assert read_java(java_long(number)) == number


@pytest.mark.parametrize("text", ["", "alice", "Zoë", "日本"])
def test_a_text_of_java_is_read_as_it_was_written(text):
    assert read_java(java_text(text)) == text


def test_java_writes_zero_and_what_is_above_its_chars_in_a_way_of_its_own():
    assert read_java(b"\xac\xed\x00\x05t\x00\x08\xc0\x80\xed\xa0\xbd\xed\xb8\x80") == "\0😀"
    with pytest.raises(Unreadable):
        read_java(b"\xac\xed\x00\x05t\x00\x03\xed\xa0\xbd")  # half of it


@pytest.mark.parametrize(
    "data",
    [
        bytes_of(LONG) + b"\0",
        bytes_of(LONG)[:-1],
        bytes_of(LONG).replace(b"Long;\x8b", b"Long;\x8c"),
        b"\xac\xed\x00\x05sr\x00\x11java.util.HashMap\x05\x07\xda\xc1\xc3\x16`\xd1",
        b"\xac\xed\x00\x05t\x00\x05alic",
        b"\xac\xed\x00\x05",
    ],
    ids=["more", "less", "another version", "another class", "cut", "nothing"],
)
def test_of_java_nothing_else_is_read(data):
    with pytest.raises(Unreadable, match="java_serialized"):
        read_java(data)


@readers
@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"\xac\xed\x00\x05|\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"[" * 200_000)
@example(b"\x91" * 200_000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\x81\x90\x00")
@example(b"9" * 5000)
@example(b'{"a":NaN}')
@example(b"\xc1")
def test_foreign_bytes_give_a_value_or_a_reason(read, data):
    assert reason_of(read, data) in {None, *WHY}


@readers
@settings(deadline=None)
@given(st.binary(max_size=60))
def test_so_do_those_that_begin_rightly(read, data):
    for beginning in (b"\xac\xed\x00\x05sr\x00", b"\xac\xed\x00\x05t", b"{", b"\x82\xa1a", bytes_of(LONG)[:-8]):
        assert reason_of(read, beginning + data) in {None, *WHY}


@readers
def test_nothing_large_is_read(read):
    with pytest.raises(Unreadable):
        read(b'{"a":"' + b"x" * VALUE_BYTES_MAX + b'"}')


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, json_values, max_size=5))
def test_what_json_and_msgpack_say_moves_as_it_is(content):
    for data in (json.dumps(content).encode(), msgpack.packb(content)):
        found = attributes_of(read_content(data), LeftBehind())
        assert {name: json.loads(value) for name, value in found.items()} == content


def test_levels_are_counted():
    inner = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    assert read_json(inner.encode()) is not None
    with pytest.raises(Unreadable, match="too_deep"):
        read_json(f"[{inner}]".encode())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_pickled_is_known_and_not_read(protocol):
    class Bomb:
        def __reduce__(self):
            return print, ("read!",)

    with pytest.raises(Unreadable, match="pickled"):
        read_content(pickle.dumps({"a": 1, "b": print}, protocol))


def test_pickles_first_protocols_are_not_read_either():
    for protocol in (0, 1):
        with pytest.raises(Unreadable):
            read_content(pickle.dumps({"a": print}, protocol))


def test_what_json_does_not_have_is_left_behind():
    left = LeftBehind()
    content = {
        "good": [1, "two"],
        "bytes": b"\x00",
        "keys": {1: 2},
        "nan": float("nan"),
        "_fastticket.x": 1,
        "": 1,
        "n" * 256: 1,
        7: 1,
        "time": msgpack.Timestamp(1, 0),
        "half": "\ud800",
    }
    assert attributes_of(content, left) == {"good": b'[1,"two"]'}
    assert left == {
        ("bytes", "not_in_json"): 1,
        ("keys", "not_in_json"): 1,
        ("nan", "not_in_json"): 1,
        ("_fastticket.x", "reserved_name"): 1,
        ("", "bad_name"): 1,
        ("n" * 255, "bad_name"): 1,
        ("7", "name_is_no_text"): 1,
        ("time", "not_in_json"): 1,
        ("half", "not_in_json"): 1,
    }


def test_names_that_are_left_behind_are_bounded():
    left = LeftBehind()
    for number in range(1000):
        left.note(f"name{number}", "not_in_json")
    assert len(left) == 101
    assert left.total() == 1000


@pytest.mark.parametrize(
    ("content", "principal"),
    [
        ({"user": "alice"}, "alice"),
        ({"user": 42}, "42"),
        ({"user": {"name": "alice"}}, "alice"),
        ({"user.name": "alice"}, "alice"),
        ({"user": None}, None),
        ({"user": {"id": 1}}, None),
        ({}, None),
    ],
)
def test_an_attribute_names_the_principal(content, principal):
    names = ("user.name",) if not isinstance(content.get("user"), str | int) else ("user",)
    assert principal_in(content, names) == principal


@pytest.mark.parametrize("value", ["", " alice", "a\nb", "x" * 191, True, 1.5, [], {}, b"alice", "\ud800", 10**200])
def test_what_is_no_principal_is_refused(value):
    with pytest.raises(Unreadable, match="bad_principal"):
        principal_in({"user": value}, ("user",))


def test_a_security_context_counts_if_it_says_authenticated():
    user = {"authenticated": True, "principal": {"username": "alice"}}
    assert authenticated_in({"authentication": user}) == "alice"
    assert authenticated_in({"authentication": {"authenticated": True, "principal": "bob"}}) == "bob"
    assert authenticated_in({"authentication": user | {"authenticated": False}}) is None
    assert authenticated_in({"authentication": user | {"authenticated": "true"}}) is None
    assert authenticated_in("alice") is None


@settings(deadline=None)
@given(st.text(max_size=100))
@example("YQ=")
@example("/w==")
def test_a_cookie_of_spring_is_base64_or_nothing(cookie):
    assert isinstance(identifier_in(cookie), str)

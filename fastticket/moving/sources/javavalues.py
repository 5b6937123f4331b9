"""Values that a JVM has serialized, read by what the Java Object Serialization Specification says
of three classes: `java.lang.Long`, `java.lang.Integer` and `java.lang.String`.

Rules of this file
- Nothing else is read, and no class is looked up: a stream of another class is Unreadable. What a
  stream of any class can do to a JVM, none can do here.
- A stream is compared with the one form that the JVM writes; the number is its last bytes.
"""

from __future__ import annotations

from fastticket.moving.sources.values import VALUE_BYTES_MAX, Unreadable

STREAM = b"\xac\xed\x00\x05"  # STREAM_MAGIC, STREAM_VERSION
_OBJECT_OF_CLASS, _STRING, _LONG_STRING = b"sr", b"t", b"|"
# Each: the length of the class' name, the name, its serialVersionUID, flags, and one field `value`;
# then its superclass.
_LONG = b"\x00\x0ejava.lang.Long" + bytes.fromhex("3b8be490cc8f23df") + b"\x02\x00\x01J\x00\x05valuex"
_INTEGER = b"\x00\x11java.lang.Integer" + bytes.fromhex("12e2a0a4f7818738") + b"\x02\x00\x01I\x00\x05valuex"
_NUMBER = _OBJECT_OF_CLASS[1:] + b"\x00\x10java.lang.Number" + bytes.fromhex("86ac951d0b94e08b") + b"\x02\x00\x00xp"
_FORMS = (
    (STREAM + _OBJECT_OF_CLASS + _LONG + _NUMBER, 8),
    (STREAM + _OBJECT_OF_CLASS + _INTEGER + _NUMBER, 4),
)


def is_java(data: bytes) -> bool:
    """Whether these bytes begin as a JVM's serialized value."""
    return data.startswith(STREAM)


def read_java(data: bytes) -> int | str:
    """The Long, Integer or String of a stream. Unreadable: it is something else, or has more."""
    if data.startswith(STREAM + _STRING):
        return _text(data, len(STREAM) + 1, 2)
    if data.startswith(STREAM + _LONG_STRING):
        return _text(data, len(STREAM) + 1, 8)
    for form, size in _FORMS:
        if data.startswith(form) and len(data) == len(form) + size:
            return int.from_bytes(data[-size:], "big", signed=True)
    raise Unreadable("java_serialized")


def _text(data: bytes, at: int, length_bytes: int) -> str:
    size = int.from_bytes(data[at : at + length_bytes], "big")
    encoded = data[at + length_bytes :]
    if size != len(encoded) or size > VALUE_BYTES_MAX:
        raise Unreadable("java_serialized")
    try:
        return _from_modified_utf8(encoded)
    except ValueError:
        raise Unreadable("java_serialized") from None


def _from_modified_utf8(encoded: bytes) -> str:
    """Modified UTF-8 (JVM specification, 4.4.7): 0 in two bytes; what is above U+FFFF as two
    surrogates of three bytes each. ValueError.
    """
    text = encoded.replace(b"\xc0\x80", b"\x00").decode("utf-8", "surrogatepass")
    return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be")

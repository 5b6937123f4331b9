r"""Properties files, read as `java.util.Properties.load` does.

Only CR, LF and CRLF end a line; Unicode's other line ends are ordinary characters. A comment (`#`,
`!`) is always one line. Any other line that ends in an odd number of backslashes continues in the
next. White space after a value belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

WHITE = " \t\f"
LINE_END = re.compile(r"\r\n|\r|\n")
NAME_AND_VALUE = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
ESCAPE = re.compile(r"\\(?:u(.{0,4})|(.))", re.DOTALL)
HEX = re.compile(r"[0-9a-fA-F]{4}")
PLAIN = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class MalformedProperties(ValueError):  # noqa: N818 -- it says what is so
    r"""A `\u` without four hexadecimal digits: Java reads nothing of such a file."""


def read_properties(text: str) -> dict[str, str]:
    """The properties of a text; of several with one name, the last. MalformedProperties, with the
    number of the line.
    """
    found = {}
    for number, line in _logical_lines(text):
        split = NAME_AND_VALUE.fullmatch(line)
        assert split  # noqa: S101 -- it matches everything: no line ends in a backslash that escapes nothing
        found[_unescape(split[1], number)] = _unescape(split[2], number)
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines after continuation, without comments and blank lines, each with the number of its
    last natural line.
    """
    begun, is_cut = "", False
    number = 0
    for number, natural in enumerate(LINE_END.split(text), 1):
        line = natural.lstrip(WHITE)
        is_cut = False
        if not begun and (not line or line[0] in "#!"):
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            begun, is_cut = begun + line[:-1], True
        else:
            yield number, begun + line
            begun = ""
    if begun or is_cut:  # a last line of only a backslash is a property with an empty name
        yield number, begun


def _unescape(text: str, number: int) -> str:
    def plain(escape: re.Match[str]) -> str:
        if escape[1] is None:
            return PLAIN.get(escape[2], escape[2])
        if not HEX.fullmatch(escape[1]):
            raise MalformedProperties(f"line {number}: malformed \\uXXXX: four hexadecimal digits belong there")
        return chr(int(escape[1], 16))

    return _whole(ESCAPE.sub(plain, text))


def _whole(text: str) -> str:
    """Joins surrogate pairs (UTF-16) that two escapes have written, as Java does."""
    return text if text.isascii() else text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")

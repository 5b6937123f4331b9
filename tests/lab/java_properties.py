r"""What `java.util.Properties.load(Reader)` makes of a text: written from its documentation, one
character at a time.

It is the oracle of test_properties.py, which asks a real Java the same where there is one (`JAVA`
is its program): each text goes in as hexadecimal UTF-16 on a line, and the pairs come back so.
"""

#: Texts, and what Java reads in them.
KNOWN_TEXTS = [
    ("# a\u2028b=c", {}),
    ("a=b\vc", {"a": "b\vc"}),
    ("a=b\fc", {"a": "b\fc"}),
    ("a=b\x85c\x1cd", {"a": "b\x85c\x1cd"}),
    ("# D:\\logs\\\na=b", {"a": "b"}),
    (" ! D:\\\n  a=b", {"a": "b"}),
    ("a=b\\\rc", {"a": "bc"}),
    ("a=b\\\r\n c\\\n\td", {"a": "bcd"}),
    ("a=b\rc=d", {"a": "b", "c": "d"}),
    ("a=b\\\n#c", {"a": "b#c"}),
    ("a=b\\\n\nc=d", {"a": "b", "c": "d"}),
    ("a=b\\", {"a": "b"}),
    ("\\\n# a\nb=c", {"b": "c"}),
    ("\ufeffa=b", {"\ufeffa": "b"}),
    ("a = b ", {"a": "b "}),
    ("a\\:b\\=c\\ d = e", {"a:b=c d": "e"}),
    ("a : = b", {"a": "= b"}),
    ("=b", {"": "b"}),
    ("a=\\uD834\\uDD1E", {"a": "𝄞"}),
    ('a=\\q\\"', {"a": 'q"'}),
    ("a:b", {"a": "b"}),
    ("a b", {"a": "b"}),
    ("a", {"a": ""}),
    ("a==b", {"a": "=b"}),
    ("a=\\u00e9\\t\\\\", {"a": "é\t\\"}),
    ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
    ("# a=b\n ! c=d\n\n", {}),
    ("a=1\na=2", {"a": "2"}),
    ("a=b#c", {"a": "b#c"}),
]

WHITE = " \t\f"
ENDS = "\r\n"

JAVA = """
import java.io.*;
import java.util.*;

public class Twin {
    static String text(String hex) {
        StringBuilder built = new StringBuilder();
        for (int i = 0; i < hex.length(); i += 4) built.append((char) Integer.parseInt(hex.substring(i, i + 4), 16));
        return built.toString();
    }

    static String hex(String text) {
        StringBuilder built = new StringBuilder();
        for (char c : text.toCharArray()) built.append(String.format("%04x", (int) c));
        return built.toString();
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            Properties properties = new Properties();
            StringBuilder out = new StringBuilder();
            try {
                properties.load(new StringReader(text(line)));
                for (String name : new TreeSet<>(properties.stringPropertyNames()))
                    out.append(hex(name)).append('=').append(hex(properties.getProperty(name))).append(' ');
            } catch (IllegalArgumentException error) {
                out.append("malformed");
            }
            System.out.println(out);
        }
    }
}
"""


class Malformed(Exception):  # noqa: N818
    r"""A `\\u` without four hexadecimal digits."""


def natural_lines(text):
    r"""The lines as CR, LF and CRLF end them, and nothing else does."""
    lines, line, i = [], "", 0
    while i < len(text):
        if text[i] in ENDS:
            i += 2 if text[i : i + 2] == "\r\n" else 1
            lines.append(line)
            line = ""
        else:
            line += text[i]
            i += 1
    return [*lines, line]


def goes_on(line):
    """Whether an odd number of backslashes ends it."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def logical_lines(text):
    """Comments and blank lines are natural lines; others go on where a backslash ends them."""
    logical = ""  # what there is so far of one that goes on
    is_cut = False  # the last natural line is one that would go on
    for natural in natural_lines(text):
        line = natural.lstrip(WHITE)
        is_cut = goes_on(line) and not (not logical and line[0] in "#!")
        if not logical and (not line or line[0] in "#!"):
            continue
        if goes_on(line):
            logical += line[:-1]
        else:
            yield logical + line
            logical = ""
    if logical or is_cut:
        yield logical


def unescaped(text):
    out, i = "", 0
    while i < len(text):
        if text[i] != "\\":
            out += text[i]
            i += 1
        elif text[i + 1 : i + 2] == "u":
            digits = text[i + 2 : i + 6]
            if len(digits) < 4 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                raise Malformed
            out += chr(int(digits, 16))
            i += 6
        else:
            escaped = text[i + 1 : i + 2]
            out += {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(escaped, escaped)
            i += 2
    return out.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # two halves are one character


def load(text):
    """The pairs. Malformed."""
    found = {}
    for line in logical_lines(text):
        end, escapes = 0, False
        while end < len(line) and (escapes or line[end] not in WHITE + "=:"):
            escapes = line[end] == "\\" and not escapes
            end += 1
        start = end
        has_separator = False
        while start < len(line) and (line[start] in WHITE or (line[start] in "=:" and not has_separator)):
            has_separator |= line[start] in "=:"
            start += 1
        found[unescaped(line[:end])] = unescaped(line[start:])
    return found

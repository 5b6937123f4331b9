r"""Properties files are read as java.util.Properties does, and nothing in them opens what Java
leaves closed.

Rule: `java_properties.load` is the judge, and a real Java judges that, where there is one.
"""

import shutil
import subprocess

import pytest
from conftest import BOUND_S
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab.http_grammar import FACTOR
from lab.java_properties import JAVA, KNOWN_TEXTS, Malformed, load

from fastticket.errors import ConfigError
from fastticket.gateway.linkis import Around, load_linkis
from fastticket.gateway.properties import MalformedProperties, read_properties

PIECES = [
    *("a", "b", "=", ":", " ", "\t", "\f", "#", "!", "\\", "\\\\", "\n", "\r", "\r\n", "\\\n", "\\\r", "\\\r\n"),
    *("\u2028", "\u2029", "\x85", "\v", "\x1c", "\x1e", "\xa0", "\ufeff", "é", "文", "\0"),
    *("\\u0041", "\\u12", "\\u00e", "\\uD834", "\\u", "\\U0041", "\\t", "\\n", "\\=", "\\ ", "\\#", "0", "\\u000a"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def ours(text):
    try:
        return read_properties(text)
    except MalformedProperties:
        return None


def javas(text):
    try:
        return load(text)
    except Malformed:
        return None


@pytest.mark.parametrize(("text", "expected"), KNOWN_TEXTS)
def test_what_java_says_of(text, expected):
    assert ours(text) == javas(text) == expected


@pytest.mark.parametrize(
    "text", ["a=\\u12", "a=\\u00g0", "\\u123=b", "a=\\u+041", "a=\\u 041", "a=\\u", "a=\\u\\\n0041x"]
)
def test_an_escape_that_is_none(text):
    if text != "a=\\u\\\n0041x":  # its line goes on, so that it is one
        assert javas(text) is None
        with pytest.raises(MalformedProperties, match=r"line 1: malformed \\uXXXX"):
            read_properties(text)
    else:
        assert ours(text) == javas(text) == {"a": "Ax"}


def test_the_line_of_an_escape_that_is_none():
    with pytest.raises(MalformedProperties, match="line 5: "):
        read_properties("# \\u12\na=b\\\r\nc\rd=\\\n \\u12\n")


@given(TEXTS)
@example("\\\n\n#a")
@example("\\\n \\\n!")
@example("\t=\\ \n \\")
@settings(deadline=None, max_examples=int(3000 * FACTOR) + 1)
def test_it_is_read_as_the_twin_does(text):
    assert ours(text) == javas(text)


def test_it_is_read_as_a_real_java_does(tmp_path):
    """Which judges the twin, too: of two that err alike neither would be noticed."""
    if not (java := shutil.which("java")):
        pytest.skip("there is no Java here")
    texts = [text for text, _ in KNOWN_TEXTS] + ["\t=\\ \n \\", "\\", "\\\n", "\\\n\\", "#\\", ":a\nb\n \\\n"]

    @given(TEXTS)
    @settings(deadline=None, max_examples=1500, database=None)
    def collect(text):
        texts.append(text)

    collect()
    program = tmp_path / "Twin.java"
    program.write_text(JAVA)
    lines = "".join(text.encode("utf-16-be", "surrogatepass").hex() + "\n" for text in texts)
    run = subprocess.run(
        [java, program], input=lines, stdout=subprocess.PIPE, text=True, check=True, timeout=6 * BOUND_S
    )
    answers = run.stdout.split("\n")[:-1]
    assert len(answers) == len(texts) > 1000
    for text, answer in zip(texts, answers, strict=True):
        expected = None if answer == "malformed" else {plain(k): plain(v) for k, _, v in pairs(answer)}
        assert javas(text) == ours(text), text
        assert named(ours(text), text) == named(expected, text), text


def named(found, text):
    """The values but one: a backslash with nothing after it is a line with an empty name and value
    to Java, which replaces an earlier value of that name.
    """
    ends_in_one = text.rstrip(" \t\f\r\n").endswith("\\")
    return found and {name: value for name, value in found.items() if name or (value and not ends_in_one)}


def pairs(answer):
    return [pair.partition("=") for pair in answer.split()]


def plain(digits):
    return bytes.fromhex(digits).decode("utf-16-be", "surrogatepass")


# ------------------------------------------------------------------------------- as a configuration


def configuration(tmp_path, text):
    path = tmp_path / "linkis.properties"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_linkis([path], Around(["127.0.0.1:0"], ["127.0.0.1:9001"], "keys.toml"))


PASS = "wds.linkis.gateway.conf.url.pass.auth"
REDIS = "linkis.session.redis."


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1d", "\x1e"])
def test_a_comment_opens_nothing(tmp_path, end):
    assert "/admin" not in {route.path for route in configuration(tmp_path, f"# a{end}{PASS}=/admin").route}


def test_a_comment_swallows_nothing(tmp_path):
    config = configuration(tmp_path, f"# D:\\logs\\\n{REDIS}cache.enabled=true\n")
    assert config.store.url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(("written", "quoted"), [("a\vb", "a%0Bb"), ("a\x85b", "a%C2%85b"), ("ab ", "ab%20")])
def test_a_password_is_whole(tmp_path, written, quoted):
    config = configuration(tmp_path, f"{REDIS}cache.enabled=true\n{REDIS}password={written}\n")
    assert config.store.url == f"redis://:{quoted}@127.0.0.1:6379/0"


def test_white_space_that_java_keeps_is_named(tmp_path, caplog):
    config = configuration(tmp_path, f"{REDIS}cache.enabled=true \n{REDIS}port=6380\t\n{REDIS}password=hush \n")
    assert config.store.url == "redis://:hush%20@127.0.0.1:6380/0"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/linkis.properties: {REDIS}password: ends in white space, which Java takes for a part of it"
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{REDIS}password=a\\u12\n", r"linkis\.properties: line 1: malformed \\uXXXX"),
        (f"\ufeff{REDIS}cache.enabled=true\n", r"begins with a byte order mark, .* takes .* Linkis does not see"),
        (f"\ufeff{PASS}=/a\n", r"begins with a byte order mark"),
        ("a=b\n".encode("utf-16"), "is UTF-16"),
        (f"{REDIS}password=\\uD834\n", r"password: has half a character"),
    ],
)
def test_what_is_refused(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        configuration(tmp_path, text)


def test_a_mark_before_a_comment_is_a_name_that_nobody_knows(tmp_path, caplog):
    config = configuration(tmp_path, f"\ufeff# about {PASS}=/admin\n{PASS}=/a\n")
    assert {"/a"} <= {route.path for route in config.route}
    assert "/admin" not in {route.path for route in config.route}
    assert "byte order mark" in caplog.text

"""Which paths are plain: that no reader, through up to three decodings, takes one for a path of
another route.

Rule: `is_plain` is what dataplane/routes.pyx makes of paths.pyx: the path is not ambiguous, and no
other route is one that it may be under. What the gateway does with it, test_gateway_paths.py asks
from the outside.
"""
# ruff: noqa: RUF001

import codecs
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import BOUND_S
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab.http_grammar import FACTOR
from lab.path_corpus import AFTER, BEFORE, LAYOUTS, SLASHES
from lab.path_readers import DECODINGS, decoded, deep_readings

from fastticket.dataplane.paths import RUNS, kind_of_character, may_be_under, readable_path, routing_path

ROUTES = {name: list(layout) for name, layout in LAYOUTS.items()} | {
    "a site": ["/", "/admin", "/api/v1", "/login", "/static", "/2", "/a"],
    "deep": ["/", "/public", "/public/private/x", "/public/a.b"],
}


def route_of(path, routes):
    """The longest that the path is or is below."""
    above = [route for route in routes if f"{path}/".startswith(f"{route.rstrip('/')}/")]
    return max(above, key=len) if above else None


def is_plain(path, routes):
    """The reading of a path as it comes, in ASCII."""
    raw = path.encode()
    return readable_path(raw) is not None and not any(may_be_under(raw, route) for route in routes)


def found(path, routes):
    return route_of(readable_path(path.encode())[0].decode("latin-1"), routes)


def without_empty_segments(reading):
    return re.sub("/+", "/", reading)


# -------------------------------------------------------------------------------- what is as before


@pytest.mark.parametrize(
    ("path", "normal_path"),
    [
        ("/", "/"),
        ("/login", "/login"),
        ("/a/b/", "/a/b/"),
        ("/%6cogi%6E", "/login"),
        ("/a%20b%2Bc", "/a b+c"),
        ("/%3D%26", "/=&"),
        ("/%7e%41%5a%30", "/~AZ0"),
        ("/...", "/..."),
        ("/.a/..b/c./d../...", "/.a/..b/c./d../..."),
        ("/a.b/c", "/a.b/c"),
        ("/a%2eb/%2ec/d%2e", "/a.b/.c/d."),
        ("/:@!$&'()*+,=", "/:@!$&'()*+,="),
        ("*", "*"),
    ],
)
def test_paths_that_every_reader_sees_alike(path, normal_path):
    assert routing_path(path.encode()) == normal_path.encode()
    assert readable_path(path.encode()) == (normal_path.encode(), -1)


AMBIGUOUS = [
    *("//", "//a", "/a//b", "/a//", "/a///b", "/.", "/..", "/./", "/../", "/a/.", "/a/..", "/a/./b", "/a/../b"),
    *("/../a", "/a\\b", "\\", "/\\", "/a/..\\b", "/;", "/a/;x=1/b", "/..;/a", "/.;a", "/a/..;x=1/b", "/%3B", "/a&;"),
    *("/a%2fb", "/a%2Fb", "/%2f", "/a%5cb", "/a%5Cb", "/%2e", "/%2e%2e", "/%2E./a", "/.%2e/a", "/%2e%3b/a"),
    *(
        "/%252e",
        "/%2525",
        "/%",
        "/a%",
        "/%4",
        "/%4g",
        "/%g4",
        "/%%41",
        "/% 1",
        "/%25%32%65",
        "/%25%C3%A92e",
        "/%25u002f",
    ),
    *(
        "/%-1",
        "/%x1",
        "/%u0041",
        "/%00",
        "/%0a",
        "/%0d%0a",
        "/%1f",
        "/%7f",
        "/%80",
        "/%c0%af",
        "/%e9",
        "/%ff",
        "/a%ffb",
    ),
    *("/%e0%80%af", "/%c1%9c", "/%ed%a0%80", "/%f4%90%80%80", "/%f8%88%80%80%80", "/%c3", "/%c3a", "/%e6%96", "/%a9"),
    *("/%ef%bc%8f", "/%ef%bc%8e", "/%ef%bc%bc", "/%ef%bc%85", "/%e2%80%a6", "/%e2%81%84", "/%e2%88%95", "/%cd%be"),
    *(
        "/..%c3%a9",
        "/%e6%96%87..",
        "/%e3%83%bb",
        "/.%c2%b7",
        "/%c2%b7%c2%b7/a",
        "/..%3f",
        "/.%23/a",
        "/.%25",
        "/%26%23x2f%3b",
        "/..a%cc%81/x",
        "/%25g%cc%812e",
    ),
]


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_the_ambiguous(path):
    assert readable_path(path.encode()) is routing_path(path.encode()) is None
    assert readable_path(b"/x" + path.encode()) is None or not path.startswith("/")


@pytest.mark.parametrize("code", range(256))
def test_each_escape(code):
    character = chr(code)
    is_refused = code < 0x20 or code >= 0x7F or character in "/\\"
    is_odd = character in "%;?#"
    for path, start in ((f"/a%{code:02x}b", 1), (f"/A%{code:02X}", 1)):
        read = readable_path(path.encode())
        if character == "%" and path.endswith("b"):
            assert read is None  # with the next letter it could be an escape
        elif is_refused:
            assert read is None
        else:
            assert read == (decoded(path).encode(), start if is_odd else -1)
            assert routing_path(path.encode()) == (None if is_odd else decoded(path).encode())


# ---------------------------------------------------------------------------------------- odd paths


@pytest.mark.parametrize(
    ("path", "routes", "expected"),
    [
        ("/public/%C3%A9", ["/", "/public"], True),
        ("/static/文.png", ["/", "/static"], True),
        ("/public/100%25", ["/", "/public"], True),
        ("/public/100%25-ный", ["/", "/public"], True),
        ("/public/a;v=1", ["/", "/public"], True),
        ("/public/a;v=1/b;c", ["/", "/public"], True),
        ("/public/what%3F", ["/", "/public"], True),
        ("/public/c%23/1", ["/", "/public"], True),
        ("/новости/2024", ["/", "/admin"], True),
        ("/größe", ["/", "/admin", "/login"], True),
        ("/café/menü", ["/", "/admin"], True),
        ("/日本語", ["/", "/admin"], True),
        ("/ハリー・ポッター", ["/", "/admin"], True),
        ("/blog;jsessionid=1/x", ["/", "/admin"], True),
        ("/admin;jsessionid=1", ["/", "/admin"], False),
        ("/admin%3Bx", ["/", "/admin"], False),
        ("/admin%3F", ["/", "/admin"], False),
        ("/admin%23/x", ["/", "/admin"], False),
        ("/admin%25", ["/", "/admin"], False),
        ("/adminé", ["/", "/admin"], False),
        ("/admin文", ["/", "/admin"], False),
        ("/admin文x", ["/", "/admin"], False),
        ("/admin;文x", ["/", "/admin"], False),
        ("/ad文min", ["/", "/admin"], False),
        ("/admín", ["/", "/admin"], False),
        ("/ａｄｍｉｎ", ["/", "/admin"], False),
        ("/adm\u200cin", ["/", "/admin"], False),
        ("/p\u03012", ["/", "/2"], False),  # p and the accent become one, which somebody leaves out
        ("/adminx\u0301", ["/", "/admin"], False),
        ("/文/admin", ["/", "/admin"], False),
        ("/文/admin", ["/"], True),
        ("/文/adminx", ["/", "/admin"], True),
        ("/é", ["/", "/api"], True),
        ("/é", ["/", "/e"], False),
        ("/ä", ["/", "/ae"], False),
        ("/ß", ["/", "/ss"], False),
        ("/№", ["/", "/No"], False),
        ("/２", ["/", "/2"], False),
        ("/文", ["/", "/a"], False),  # to who takes it for Latin-1: æ
        ("/文", ["/", "/api"], True),
        ("/public/é/x", ["/", "/public", "/public/x"], False),
        ("/public/é/x", ["/", "/public", "/other/x"], True),
        ("/文" * 200, ["/", "/admin"], False),  # it is too long to be compared
        ("/public/" + "文" * 900, ["/", "/public", "/admin"], True),  # it need not be
        ("/文", ["/", "/" + "a" * 70], False),
    ],
)
def test_which_are_plain(path, routes, expected):
    assert is_plain(quote(path, safe="/%;"), routes) is expected


PIECES = [
    *(
        "/",
        "/",
        "/",
        "private",
        "open",
        "not",
        "admin",
        "api",
        "v1",
        "login",
        "static",
        "public",
        "x",
        "a",
        "2",
        "p",
        "priv",
        "ate",
    ),
    *(
        "é",
        "í",
        "ß",
        "ﬁ",
        "文",
        "河",
        "новости",
        "한",
        "ا",
        "ก",
        "・",
        "·",
        "\u200c",
        "\u0301",
        "ａ",
        "／",
        "．",
        "？",
        "；",
        "％",
        "…",
    ),
    *("¼", "½", "²", "α", "ı", "\u212a", "ー", "、", "\u3000", "\xa0", "🎫", "🅰", "٣"),
    *(
        "%25",
        "%3B",
        "%3F",
        "%23",
        "%2E",
        ".",
        "..",
        ";",
        ";v=1",
        "%2F",
        "%5C",
        "%20",
        "-",
        "%C3",
        "%A9",
        "%BD",
        "%E9",
        "&",
        "#x2f",
    ),
]


def encoded(piece):
    return quote(piece, safe="/%;:@!$&'()*+,=~")


PATHS = st.lists(st.sampled_from(PIECES).map(encoded), min_size=1, max_size=7).map(lambda parts: "/" + "".join(parts))


def check(path, depth=3):
    """Whether it is plain somewhere; AssertionError: some reader takes it for a path of another
    route.
    """
    layouts = [routes for routes in ROUTES.values() if is_plain(path, routes)]
    if layouts:
        readings = {without_empty_segments(reading) for reading in deep_readings(path, depth)}
        for routes in layouts:
            here = found(path, routes)
            others = {reading for reading in readings if route_of(reading, routes) != here}
            assert not {each for each in others if each.startswith("/")}, (path, here, others)
    return bool(layouts)


def test_there_are_seventeen_decodings():
    assert len({step.__name__ for step in DECODINGS}) == 18


@given(PATHS)
@example("/%E4%BD%A0admin")
@example("/public/a%2eb")
@example("/priv%C2%BDate")
@example("/p%CC%812")
@example("/public/..a%CC%81/..a%CC%81/private")
@settings(deadline=None, max_examples=int(400 * FACTOR) + 1)
def test_no_reader_three_decodings_deep_takes_a_plain_path_for_another_route_s(path):
    check(path)


def test_no_spelling_of_a_protected_path_is_plain_and_open():
    """Those of test_gateway_paths.py."""
    plain = sum(
        check(f"{before}{slash}private{after.partition('?')[0].partition('#')[0]}", depth=2)
        for before in BEFORE
        if before.startswith("/") or not before
        for slash in SLASHES
        for after in AFTER
    )
    assert plain > 20


# --------------------------------------------------------------------------------------- characters

ALLOWED = [chr(code) for first, last, _ in RUNS for code in range(first, last + 1)]
STRUCTURE = set("/\\%\0")


def forms(character):
    """All normal forms and cases of a character."""
    normal = {unicodedata.normalize(form, character) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    return normal | {change(each) for each in normal | {character} for change in (str.casefold, str.upper, str.lower)}


def ascii_of(texts):
    return {character for text in texts for character in text if character < "\x80"}


def test_the_runs_are_in_order():
    ends = [end for first, last, _ in RUNS for end in (first, last)]
    assert ends == sorted(ends)
    assert all(first <= last for first, last, _ in RUNS)


def test_no_character_is_a_slash_or_an_escape_to_unicode():
    for character in ALLOWED:
        assert not ascii_of(forms(character)) & STRUCTURE, hex(ord(character))
        if "." in ascii_of(forms(character)):
            assert kind_of_character(ord(character)) in ("dot", "refused"), hex(ord(character))


def test_solid_characters_are_nothing_of_ascii_to_unicode():
    for character in ALLOWED:
        if kind_of_character(ord(character)) == "solid":
            assert not ascii_of(forms(character)), hex(ord(character))
            assert unicodedata.category(character) in ("Lo", "Ll", "Lu", "Lm", "So", "Sk", "Cn"), hex(ord(character))


def test_letters_become_two_of_ascii_at_most_and_signs_become_signs():
    for character in ALLOWED:
        kind = kind_of_character(ord(character))
        if kind == "letter":
            assert all(sum(c < "\x80" for c in form) <= 2 for form in forms(character)), hex(ord(character))
        elif kind in ("sign", "dot"):
            assert not any(c.isalpha() for c in ascii_of(forms(character))), hex(ord(character))


def test_transliteration_makes_no_slash_of_them():
    """glibc's, which many programs use."""
    if not (iconv := shutil.which("iconv")):
        pytest.skip("there is no iconv")
    text = "\n".join(character for character in ALLOWED if unicodedata.category(character) not in ("Cn", "Cs"))
    command = [iconv, "-c", "-f", "UTF-8", "-t", "ASCII//TRANSLIT"]
    written = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, timeout=BOUND_S, check=False).stdout
    lines = written.decode().split("\n")
    assert len(lines) == text.count("\n") + 1
    for character, line in zip(text.split("\n"), lines, strict=True):
        assert not set(line) & STRUCTURE, (hex(ord(character)), line)
        assert "." not in line or kind_of_character(ord(character)) == "dot", (hex(ord(character)), line)
        if kind_of_character(ord(character)) == "solid":
            assert line in ("?", ""), (hex(ord(character)), line)


@pytest.mark.parametrize(
    "encoding", ["cp932", "cp936", "cp949", "cp950", "shift_jis", "gbk", "big5", "euc_jp", "cp1252", "cp1251"]
)
def test_no_encoding_swallows_a_slash(encoding):
    """To who takes UTF-8 for another encoding, the slash after a character is one."""
    for character in ALLOWED[::7]:
        read = f"{character}/x/".encode().decode(encoding, "replace")
        assert read.endswith("/x/"), (hex(ord(character)), read)


@pytest.mark.parametrize(
    ("character", "kind"),
    [
        ("é", "letter"),
        ("文", "solid"),
        ("я", "solid"),
        ("“", "sign"),
        ("·", "dot"),
        ("・", "dot"),
        ("／", "refused"),
        ("…", "refused"),
    ],
)
def test_kinds(character, kind):
    assert kind_of_character(ord(character)) == kind


def test_only_well_formed_utf_8_is_read():
    """By Python's decoder, for every first byte and what could follow."""
    for first in range(0x80, 0x100):
        for rest in (
            b"",
            b"\x80",
            b"\xbf",
            b"\x80\x80",
            b"\x83\xa9",
            b"\xbf\xbf",
            b"\x9f\xbf",
            b"\xa0\x80",
            b"\x90\x80\x80",
            b"\x8f\xbf\xbf",
            b"a",
        ):
            raw = bytes([first]) + rest
            read = readable_path(b"/x" + "".join(f"%{byte:02X}" for byte in raw).encode())
            if read is not None:
                assert codecs.decode(raw, "utf-8")


# ---------------------------------------------------------------------------------------- real URLs

LISTED = [
    line
    for line in (Path(__file__).parents[1] / "lab" / "real_urls.txt").read_text("utf-8").splitlines()
    if line[:1] not in ("", "#")
]
SITE = ["/", "/admin", "/login", "/account", "/api/private"]


def as_sent(url):
    """As a browser writes a path: UTF-8, percent-encoded; what is encoded already stays."""
    return quote(url.partition("?")[0], safe="/%;:@!$&'()*+,=~[]|^")


def count(urls, judge):
    return sum(judge(as_sent(url)) for url in urls)


def was_plain(path):
    """By the rule before: no escape beyond ASCII, none of `. % ; ? #`, and no `;`."""
    read = readable_path(path.encode())
    return read is not None and read[1] == -1 and "%2e" not in path.lower() and path.isascii()


def test_real_urls_that_are_not_english():
    assert len(LISTED) >= 200
    lost = [url for url in LISTED if not is_plain(as_sent(url), SITE)]
    below = [f"/public{url}" for url in LISTED]
    assert count(LISTED, was_plain) < 40
    assert count(LISTED, lambda path: is_plain(path, SITE)) >= 0.95 * len(LISTED), lost
    assert count(below, lambda path: is_plain(path, ["/", "/public"])) >= 0.95 * len(LISTED)


if __name__ == "__main__":
    before, now = count(LISTED, was_plain), count(LISTED, lambda path: is_plain(path, SITE))
    strict = [url for url in LISTED if not is_plain(as_sent(url), SITE)]
    print(f"{len(LISTED)} URLs: {before} were plain, {now} are; strict stay\n", *strict, sep="\n", file=sys.stdout)

"""Readings of a path: every one that any service, or several in a row, could come to.

Rule: a step is something that a known server, framework or proxy does. They may be taken in any
order and any number of times, as hops behind each other do. None of STEPS makes a path longer, so
there is an end to it. Some of DECODINGS do, so these are taken so many deep. A path is a string of
bytes (Latin-1).
"""
# ruff: noqa: RUF001, RUF002

import re
import unicodedata
from urllib.parse import unquote_to_bytes

OVERLONG = {  # UTF-8 that is none, and full-width forms, to who is not strict
    "\xc0\xaf": "/",
    "\xe0\x80\xaf": "/",
    "\xc0\xae": ".",
    "\xe0\x80\xae": ".",
    "\xc1\x9c": "\\",
    "\xef\xbc\x8f": "/",
    "\xef\xbc\x8e": ".",
}


def decoded(path):
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")


def with_unicode_escapes(path):
    """`%u002f`, of IIS."""
    return re.sub(r"%u00([0-9a-fA-F]{2})", lambda escape: chr(int(escape[1], 16)), path)


def with_overlong(path):
    for sequence, meant in OVERLONG.items():
        path = path.replace(sequence, meant)
    return path


def with_slashes(path):
    return path.replace("\\", "/")


def without_parameters(path):
    """`;jsessionid=...`, of Java."""
    return re.sub(r";[^/]*", "", path)


def with_slashes_merged(path):
    return re.sub(r"/+", "/", path)


def without_dots(path):
    """RFC 3986, 5.2.4."""
    kept = []
    segments = path.split("/")[1:] or [path]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    is_folder = segments[-1] in (".", "..")
    return "/" + "/".join(kept) + ("/" if is_folder and kept else "")


def up_to_nul(path):
    """To who keeps it as a C string."""
    return path.partition("\0")[0]


STEPS = [
    *(decoded, with_unicode_escapes, with_overlong, with_slashes, without_parameters, with_slashes_merged),
    *(without_dots, up_to_nul),
]


def before_query(path):
    """To who decodes before he looks for the query: CVE-2024-38474."""
    return re.split("[?#]", path)[0]


def of_text(change):
    """A step of who reads UTF-8; what is none stays as it is."""

    def step(path):
        text = path.encode("latin-1").decode("utf-8", "surrogateescape")
        return change(text).encode("utf-8", "surrogateescape").decode("latin-1")

    step.__name__ = change.__name__
    return step


@of_text
def as_nfkc(text):
    return unicodedata.normalize("NFKC", text)


@of_text
def without_marks(text):
    """Accents and the like, as accent-insensitive comparisons do."""
    return "".join(
        each for each in unicodedata.normalize("NFKD", text) if not unicodedata.category(each).startswith("M")
    )


@of_text
def without_ignorable(text):
    """A file system such as HFS+ ignores characters that are not visible."""
    return re.sub("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]", "", text)


@of_text
def with_case_folded(text):
    """Case folding beyond ASCII: long s, the Kelvin sign, sharp s, dotless i."""
    return re.sub("[^\0-\x7f]", lambda each: each[0].casefold().replace("ı", "i"), text)


BEST_FIT = dict(  # of Windows' code pages: what is in the tables of Unicode another way, or not at all
    pair.split(" ")
    for pair in (
        *(
            "Γ G",
            "Θ T",
            "Σ S",
            "Φ F",
            "Ω O",
            "α a",
            "δ d",
            "ε e",
            "π p",
            "σ s",
            "τ t",
            "φ f",
            "һ h",
            "ħ h",
            "ł l",
            "ø o",
        ),
        *(
            "đ d",
            "ð d",
            "þ t",
            "æ a",
            "œ o",
            "ß s",
            "ı i",
            "ĸ k",
            "ŋ n",
            "ŧ t",
            "‐ -",
            "‑ -",
            "– -",
            "— -",
            "― -",
            "− -",
        ),
        *(
            "ー -",
            "‘ '",
            "’ '",
            "‚ '",
            '“ "',
            '” "',
            '„ "',
            "« <",
            "» >",
            "〈 <",
            "《 <",
            "「 [",
            "【 [",
            "〔 [",
            "、 ,",
            "。 .",
        ),
        *("・ .", "· .", "٪ %", "؛ ;", "؟ ?", "۔ .", "; ;", "⁄ /", "∕ /", "÷ /", "¥ \\", "₩ \\", "∖ \\", "… .", "‥ ."),
    )
)


@of_text
def as_best_fit(text):
    """A reader whose code page lacks a character: é is e, α is a, a wide form is the narrow one."""

    def fit(each):
        plain = [c for c in unicodedata.normalize("NFKD", each[0]) if c < "\x80"]
        return BEST_FIT.get(each[0], plain[0] if plain else each[0])

    return re.sub("[^\0-\x7f]", fit, text)


@of_text
def as_ascii_alone(text):
    """`errors="ignore"`."""
    return text.encode("ascii", "ignore").decode()


@of_text
def as_ascii_with_question_marks(text):
    """`errors="replace"`."""
    return text.encode("ascii", "replace").decode()


@of_text
def up_to_the_first_beyond_ascii(text):
    return re.split("[^\0-\x7f]", text)[0]


def as_latin_1(path):
    """To who takes the bytes for Latin-1, and writes that as UTF-8."""
    return path if path.isascii() else path.encode("latin-1").decode("latin-1").encode().decode("latin-1")


DECODINGS = [
    *(*STEPS, before_query, as_nfkc, without_marks, without_ignorable, with_case_folded, as_best_fit, as_ascii_alone),
    *(as_ascii_with_question_marks, up_to_the_first_beyond_ascii, as_latin_1),
]


def deep_readings(path, depth=3, steps=DECODINGS):
    """All results of up to `depth` decodings, one after the other."""
    found = {with_unreserved(path)}
    new = set(found)
    for _ in range(depth):
        new = {step(read) for read in new for step in steps} - found
        found |= new
    return found


def with_unreserved(path):
    """RFC 3986, 6.2.2.2: an escape of one of these is the same to everybody."""
    return re.sub(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])", lambda e: decoded(e[0]), path)


def readings(path, steps=STEPS):
    found = {with_unreserved(path)}
    new = list(found)
    while new:
        read = new.pop()
        others = {step(read) for step in steps} - found
        found |= others
        new += others
    return found

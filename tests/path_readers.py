"""What services make of a path: every reading that any of them, or several in a row, could come to.

Rule: a step is something that a known server, framework or proxy does. They may be taken in any order and any number of
times, as hops behind each other do. None makes a path longer, so there is an end to it.
"""

import re
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

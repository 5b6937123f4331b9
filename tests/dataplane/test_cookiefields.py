"""Cookies by name in the fields Cookie and Set-Cookie."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastticket.dataplane.cookiefields import cookies_named, gives_cookie


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", (0, "")),
        ("t", (0, "")),
        ("t=", (0, "")),
        ("t=1", (1, "1")),
        (" \t;; t=1\t ;", (1, "1")),
        ("a=b;t=1", (1, "1")),
        ("a=b; t=1; c=d", (1, "1")),
        ("t=1; t=2", (2, "2")),
        ("t=1;t=1;t=", (2, "1")),
        ("t=; t=1; t=\t", (1, "1")),
        ("T=1; tt=2; xt=3; t", (0, "")),
        ("at=1; t=2; t2=3", (1, "2")),
        ("a=t=1", (0, "")),
        ("t=a=b==", (1, "a=b==")),
        ('t="a b"', (1, '"a b"')),
        ('a="x; t=1"', (1, '1"')),
        ("a=1, t=2", (0, "")),
        ("t =1", (0, "")),
        ("t= 1", (1, " 1")),
        ("t==", (1, "=")),
        ("=; =t; t=\xff", (1, "\xff")),
    ],
)
def test_cookies_named(value, expected):
    assert cookies_named(value.encode("latin-1"), b"t") == (expected[0], expected[1].encode("latin-1"))


def test_cookie_with_a_long_name():
    assert cookies_named(b"__Host-ticket=1; Host-ticket=2; __Host-ticke=3", b"__Host-ticket") == (1, b"1")
    assert cookies_named(b"__Host-", b"__Host-ticket") == (0, b"")


@given(st.lists(st.tuples(st.sampled_from(["t", "a", "tt"]), st.text("abc=\" '", max_size=4)), max_size=6), st.data())
@settings(deadline=None, max_examples=200)
def test_cookies_are_all_found(pairs, data):
    gaps = [data.draw(st.sampled_from([";", "; ", " ;", ";;", ";\t"])) for _ in pairs]
    value = "".join(f"{name}={text}{gap}" for (name, text), gap in zip(pairs, gaps, strict=True))
    named = [text.rstrip(" ") for name, text in pairs if name == "t" and text.strip(" ")]
    assert cookies_named(value.encode(), b"t") == (len(named), named[-1].encode() if named else b"")


@pytest.mark.parametrize(
    ("value", "is_given"),
    [
        ("ticket=x", True),
        ("ticket=", True),
        ("ticket=; Max-Age=0", True),
        ("\t ticket \t= x; Path=/", True),
        ("=ticket=x", True),
        (" = ticket=x", True),
        ("=ticket=", True),
        ("ticket", False),
        ("=ticket", False),
        ("==ticket=x", False),
        ("Ticket=x", False),
        ("tickets=x", False),
        ("ticke=x", False),
        ('"ticket"=x', False),
        ("a=b; ticket=x", False),
        ("a=ticket=x", False),
        (";ticket=x", False),
        ("", False),
        ("=", False),
        (";", False),
    ],
)
def test_which_cookie_a_browser_would_keep(value, is_given):
    assert gives_cookie(value.encode(), b"ticket") == is_given

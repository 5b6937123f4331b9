"""Cookies by name in the fields Cookie and Set-Cookie: what the gateway does, for tests and
tools.
"""

def cookies_named(value: bytes, name: bytes) -> tuple[int, bytes]:
    """How many cookies of that name a Cookie field's value has, and the last one's value (RFC 6265,
    4.2.1). The caller refuses more than one: readers differ in which they take.
    """

def without_cookies(value: bytes, name: bytes) -> bytes:
    """A Cookie field's value without the cookies of that name; the others stay as they are, byte
    for byte. Empty if no other is left.
    """

def gives_cookie(value: bytes, name: bytes) -> bool:
    """Whether a browser that reads this value of Set-Cookie sends a cookie of that name
    afterwards.
    """

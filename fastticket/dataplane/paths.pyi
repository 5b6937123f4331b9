"""Request paths as the services behind the gateway read them, for routing."""

#: (first, last, kind): the characters beyond ASCII that a path may have without being ambiguous.
RUNS: list[tuple[int, int, str]]

def routing_path(path: bytes) -> bytes | None:
    """The decoded path, if every reader sees the same; None: the path is ambiguous or odd."""

def readable_path(path: bytes) -> tuple[bytes, int] | None:
    """The decoded path, and where its first odd segment begins, or -1; None: it is ambiguous."""

def may_be_under(path: bytes, route: str) -> bool:
    """Whether a reader could take an odd path for a path of a route that it is not under."""

def kind_of_character(code: int) -> str:
    """The kind of a character beyond ASCII: "solid", "letter", "sign", "dot" or "refused"."""

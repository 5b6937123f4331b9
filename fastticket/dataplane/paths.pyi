"""Request paths as everyone behind us would read them, for routing."""

#: (first, last, kind) of the characters that may be in a path that is not ambiguous.
RUNS: list[tuple[int, int, str]]

def routing_path(path: bytes) -> bytes | None:
    """Decoded, of a path that every reader sees alike; None: it is ambiguous, or odd."""

def readable_path(path: bytes) -> tuple[bytes, int] | None:
    """Decoded, and where its first odd segment begins, or -1; None: it is ambiguous."""

def may_be_under(path: bytes, route: str) -> bool:
    """Whether a reader could take an odd path for one of a route that it is not under."""

def kind_of_character(code: int) -> str:
    """What readers make of one beyond ASCII: "solid", "letter", "sign", "dot" or "refused"."""

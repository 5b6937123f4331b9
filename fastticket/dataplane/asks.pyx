# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""What the data plane asks the control plane, as a record with named fields."""

from typing import NamedTuple


class Where(NamedTuple):
    host: str
    is_https: bool


class Ask(NamedTuple):
    kind: AskKind
    handle: int
    tickets: str
    is_use: bool = False
    route: int = 0
    path: bytes = b""
    cookies: bytes = b""
    principal: bytes = b""
    details: dict = {}
    where: Where = Where("", False)
    server: int = 0
    trace: str = ""

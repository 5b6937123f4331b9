"""What a request says about its sender, whichever framework received it."""

from __future__ import annotations

from typing import NamedTuple

USER_AGENT_CHARS_MAX = 200  # of those that a login records


class Visitor(NamedTuple):
    """What is known of a request; empty where nothing is known.

    `cookies`, `host`, `user_agent`: the values of the fields Cookie, Host and User-Agent.
    `address`: the client's IP address, as the server names it. `is_https`: see `is_by_https`.
    `path`: as the client sent it, or decoded.
    """

    cookies: str = ""
    host: str = ""
    address: str = ""
    user_agent: str = ""
    is_https: bool = False
    path: str = "/"

    @property
    def details(self) -> dict[str, str]:
        """What a login records: `address`, and `user_agent` with its printable characters, at most
        USER_AGENT_CHARS_MAX. Without those that are empty.
        """
        agent = "".join(character for character in self.user_agent if character.isprintable())
        details = {"address": self.address, "user_agent": agent[:USER_AGENT_CHARS_MAX]}
        return {name: value for name, value in details.items() if value}


def is_by_https(has_tls: bool, *origins: str) -> bool:
    """Whether the client used https: the server says so, or a field Origin does (RFC 6454), where
    TLS ends at a proxy of which the server knows nothing.
    """
    return has_tls or "https:" in [origin[:6] for origin in origins]

"""The cookie that carries a ticket (RFC 6265): found in a request as the gateway finds it, and the Set-Cookie values of a response.

Beside it, with the same attributes, the one that says which version of the session's attributes a client has seen (fastticket/seen.py).
"""

from __future__ import annotations

import ipaddress
import re

DOMAIN_LABELS_MIN = 2  # fewer would be a cookie for a whole top-level domain
LABEL = re.compile(r"[A-Za-z0-9-]+")  # nothing else of a client's Host gets into a Set-Cookie
OUTER = " \t"
SEEN = "-seen"  # what the second cookie's name ends with


class TicketCookie:
    """`domain_level` 0: for the host alone; else for all hosts that share so many labels at the end of their names."""

    def __init__(self, name: str = "ticket", *, is_secure: bool = True, domain_level: int = 0) -> None:
        self.name = name
        self.seen_name = name + SEEN
        self._attributes = f"; Path=/; HttpOnly; SameSite=Lax{'; Secure' if is_secure else ''}"
        self._domain_level = domain_level

    def find(self, cookies: str) -> str:
        """The ticket in the value of a Cookie field; empty: there is none, or several, so nobody knows which is meant."""
        found = _values_of(self.name, cookies)
        return found[0] if len(found) == 1 else ""

    def find_seen(self, cookies: str) -> list[str]:
        """The values of the other cookie."""
        return _values_of(self.seen_name, cookies)

    def set(self, ticket: str, host: str, *, max_age_s: int | None = None) -> str:
        """The Set-Cookie value that gives a ticket to a client which asked for this Host. `max_age_s`: it outlives the browser."""
        return self._field(self.name, ticket, host, max_age_s)

    def clear(self, host: str) -> str:
        """The value that takes it away again."""
        return self._field(self.name, "", host, 0)

    def set_seen(self, version: str, host: str, *, max_age_s: int | None = None) -> str:
        """The Set-Cookie value of the other cookie; empty: it is taken away."""
        return self._field(self.seen_name, version, host, max_age_s if version else 0)

    def _field(self, name: str, value: str, host: str, max_age_s: int | None) -> str:
        domain = parent_domain(host, self._domain_level)
        age = "" if max_age_s is None else f"; Max-Age={max_age_s}"
        return f"{name}={value}{self._attributes}{f'; Domain={domain}' if domain else ''}{age}"


def _values_of(name: str, cookies: str) -> list[str]:
    begins = f"{name}="
    if begins not in cookies:
        return []
    parts = [part.strip(OUTER) for part in cookies.split(";")]
    return [part.removeprefix(begins) for part in parts if part.startswith(begins)]


def parent_domain(host: str, level: int) -> str:
    """The last `level` labels of a Host's name; empty if that is no domain to set a cookie for."""
    name = host.partition(":")[0].rstrip(".")
    labels = name.split(".")[-level:] if level else []
    if len(labels) < DOMAIN_LABELS_MIN or not all(map(LABEL.fullmatch, labels)) or _is_address(name):
        return ""
    return ".".join(labels)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

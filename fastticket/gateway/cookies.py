"""The Set-Cookie lines of a ticket (RFC 6265)."""

from __future__ import annotations

import ipaddress

DOMAIN_LABELS_MIN = 2  # fewer would be a cookie for a whole top-level domain


class TicketCookie:
    """`domain_level` 0: for the host alone; else for all hosts that share so many labels at the end of their names."""

    def __init__(self, name: str, *, is_secure: bool, domain_level: int) -> None:
        self._name = name
        self._attributes = f"; Path=/; HttpOnly; SameSite=Lax{'; Secure' if is_secure else ''}"
        self._domain_level = domain_level

    def set(self, ticket: str, host: str) -> bytes:
        """The line that gives a ticket to a client which asked for this Host."""
        return f"Set-Cookie: {self._name}={ticket}{self._attributes}{self._domain(host)}\r\n".encode()

    def clear(self, host: str) -> bytes:
        """The line that takes it away again."""
        return f"Set-Cookie: {self._name}={self._attributes}{self._domain(host)}; Max-Age=0\r\n".encode()

    def _domain(self, host: str) -> str:
        domain = parent_domain(host, self._domain_level)
        return f"; Domain={domain}" if domain else ""


def parent_domain(host: str, level: int) -> str:
    """The last `level` labels of a Host's name; empty if that is no domain to set a cookie for."""
    name = host.partition(":")[0].rstrip(".")
    labels = name.split(".")[-level:] if level else []
    if len(labels) < DOMAIN_LABELS_MIN or not all(labels) or _is_address(name):
        return ""
    return ".".join(labels)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

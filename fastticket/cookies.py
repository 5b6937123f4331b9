"""The cookie that carries a ticket (RFC 6265): found in a request as the gateway finds it, and the Set-Cookie values of a response."""

from __future__ import annotations

import ipaddress
import re

DOMAIN_LABELS_MIN = 2  # fewer would be a cookie for a whole top-level domain
LABEL = re.compile(r"[A-Za-z0-9-]+")  # nothing else of a client's Host gets into a Set-Cookie
OUTER = " \t"


class TicketCookie:
    """`domain_level` 0: for the host alone; else for all hosts that share so many labels at the end of their names."""

    def __init__(self, name: str = "ticket", *, is_secure: bool = True, domain_level: int = 0) -> None:
        self.name = name
        self._attributes = f"; Path=/; HttpOnly; SameSite=Lax{'; Secure' if is_secure else ''}"
        self._domain_level = domain_level

    def find(self, cookies: str) -> str:
        """The ticket in the value of a Cookie field; empty: there is none, or several, so nobody knows which is meant."""
        begins = f"{self.name}="
        parts = [part.strip(OUTER) for part in cookies.split(";")]
        found = [part.removeprefix(begins) for part in parts if part.startswith(begins)]
        return found[0] if len(found) == 1 else ""

    def set(self, ticket: str, host: str, *, max_age_s: int | None = None) -> str:
        """The Set-Cookie value that gives a ticket to a client which asked for this Host. `max_age_s`: it outlives the browser."""
        age = "" if max_age_s is None else f"; Max-Age={max_age_s}"
        return f"{self.name}={ticket}{self._attributes}{self._domain(host)}{age}"

    def clear(self, host: str) -> str:
        """The value that takes it away again."""
        return f"{self.name}={self._attributes}{self._domain(host)}; Max-Age=0"

    def _domain(self, host: str) -> str:
        domain = parent_domain(host, self._domain_level)
        return f"; Domain={domain}" if domain else ""


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

"""Tokens of programs: a request that names a token and a user in the fields `Token-Code` and
`Token-User`, as clients of Apache Linkis do, is that user's, without a session.

A token says which users it may stand for, from which addresses, and until when. The tokens stand in
a file, which is TOML, or what Linkis' table `linkis_mg_gateway_auth_token` looks like as CSV. Of a
code only its digest is kept, and no message has one.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastticket.errors import ConfigError
from fastticket.tomlfile import read_toml

log = logging.getLogger("fastticket.gateway")

ANY = "*"
TOKENS_MAX = 10_000
LISTED_MAX = 10_000  # users or addresses of one token
FILE_BYTES_MAX = 16 * 1024 * 1024
CODE_CHARS_MIN = 8
NEVER = -1  # Linkis' elapse_day of a token that does not expire
NULLS = ("", "NULL", r"\N")  # of a table as CSV
COLUMNS = ("token_name", "legal_users", "legal_hosts", "create_time", "elapse_day")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Token:
    """`digest`: of the code. `users`, `hosts`: None is any. `ends_s`: since the epoch; None: it
    does not end.
    """

    name: str
    digest: bytes
    users: frozenset[str] | None
    hosts: tuple[Network, ...] | None
    ends_s: float | None

    @property
    def id(self) -> bytes:
        """8 bytes, by which a gateway finds it again. It admits nobody."""
        return hashlib.sha256(self.digest).digest()[:8]

    def speaks_for(self, user: str, now_s: float) -> bool:
        """Whether it admits a user, from one address at least."""
        is_over = self.ends_s is not None and now_s >= self.ends_s
        return not is_over and (self.users is None or user in self.users)

    def refusal(self, user: str, address: str, now_s: float) -> str:
        """Why a user at an address may not use it; "": he may. `address` "": it is not known."""
        if self.ends_s is not None and now_s >= self.ends_s:
            return "expired"
        if self.users is not None and user not in self.users:
            return "user"
        return "" if self.hosts is None or self._is_from(address) else "address"

    def _is_from(self, address: str) -> bool:
        return bool(address) and any(ipaddress.ip_address(address) in host for host in self.hosts or ())


class Tokens:
    """The tokens of a file. ConfigError: two have one code."""

    def __init__(self, tokens: Iterable[Token], source: str = "tokens") -> None:
        self._by_digest: dict[bytes, Token] = {}
        for token in tokens:
            if other := self._by_digest.get(token.digest):
                raise ConfigError(f"{source}: {token.name}: has the code of {other.name}")
            self._by_digest[token.digest] = token
        if len(self._by_digest) > TOKENS_MAX:
            raise ConfigError(f"{source}: has more than {TOKENS_MAX} tokens")
        self._by_id = {token.id: token for token in self._by_digest.values()}

    def __len__(self) -> int:
        return len(self._by_digest)

    @property
    def have_hosts(self) -> bool:
        """Whether one is for some addresses only."""
        return any(token.hosts is not None for token in self._by_digest.values())

    def find(self, code: bytes) -> Token | None:
        """The token with a code. What is compared is a digest, in constant time: how long it takes
        tells nothing of a code.
        """
        digest = digest_of(code)
        token = self._by_digest.get(digest)
        return token if token and hmac.compare_digest(token.digest, digest) else None

    def of_id(self, token_id: bytes) -> Token | None:
        """The token with an id."""
        return self._by_id.get(token_id)


def digest_of(code: bytes) -> bytes:
    """What is kept of a code."""
    return hashlib.sha256(code).digest()


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file: CSV if it is named so, else TOML. ConfigError, without a code."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{path}: has more than {FILE_BYTES_MAX} bytes")
        found = _of_csv(path) if path.suffix == ".csv" else _of_toml(path)
        return Tokens(found, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


# --- TOML


def _of_toml(path: Path) -> Iterator[Token]:
    table = read_toml(path)
    entries = table.get("token", [])
    if not isinstance(entries, list) or set(table) - {"token"}:
        raise ConfigError(f"{path}: a file of tokens holds [[token]] tables and nothing else")
    for number, entry in enumerate(entries, 1):
        yield _token(entry, f"{path}: [[token]] number {number}")


def _token(entry: Any, where: str) -> Token:
    if not isinstance(entry, dict) or set(entry) - {"expires"} != {"name", "code", "users", "hosts"}:
        raise ConfigError(f"{where}: must have name, code, users and hosts, it may have expires, and nothing else")
    name, code, expires = entry["name"], entry["code"], entry.get("expires")
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 64:
        raise ConfigError(f"{where}: name: must have 1 to 64 printable characters; it stands in logs")
    if not isinstance(code, str) or not code.isascii() or not code.isprintable() or len(code) < CODE_CHARS_MIN:
        raise ConfigError(f"{where}: code: must have {CODE_CHARS_MIN} characters or more, all of printable ASCII")
    if expires is not None and (not isinstance(expires, datetime.datetime) or expires.tzinfo is None):
        raise ConfigError(f"{where}: expires: must be a time with an offset, such as 2027-01-31T00:00:00Z")
    users = _listed(entry["users"], f"{where}: users")
    hosts = _listed(entry["hosts"], f"{where}: hosts")
    try:
        networks = None if ANY in hosts else tuple(ipaddress.ip_network(host) for host in hosts)
    except ValueError as error:
        raise ConfigError(f"{where}: hosts: {error}") from None
    return Token(
        name,
        digest_of(code.encode()),
        None if ANY in users else frozenset(users),
        networks,
        expires.timestamp() if expires else None,
    )


def _listed(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or len(value) > LISTED_MAX:
        raise ConfigError(f'{where}: must be a list of at most {LISTED_MAX} strings; "*" is any')
    return value


# --- Linkis' table


def _of_csv(path: Path) -> Iterator[Token]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise ConfigError(f"{path}: has no column {missing[0]}: export it with the names of the columns")
            for row in rows:
                where = f"{path}: line {rows.line_num}"
                if None in row or None in row.values():
                    raise ConfigError(f"{where}: has another number of values than there are columns")
                if token := _token_of_row(row, where):
                    yield token
        except csv.Error as error:
            raise ConfigError(f"{path}: line {rows.line_num}: {error}") from None


def _token_of_row(row: Mapping[str, str], where: str) -> Token | None:
    """None, with a warning: its code is not there."""
    if row.get("token_sign", "") not in NULLS or row["token_name"] in NULLS:
        log.warning("%s: is left out: the table has no code of it, or one that Linkis' RSA key has sealed", where)
        return None
    ends_s = _ends_s(row, where)
    networks = []
    hosts = _values(row["legal_hosts"])
    for host in [] if ANY in hosts else hosts:
        try:
            networks.append(ipaddress.ip_network(ipaddress.ip_address(host)))
        except ValueError:
            log.warning("%s: legal_hosts: %s is no address: it admits nobody, as in Linkis", where, host)
    users = _values(row["legal_users"])
    return Token(
        f"linkis token {row['id']}"
        if row.get("id", "") not in NULLS
        else f"linkis token of {where.rpartition(': ')[2]}",
        digest_of(row["token_name"].encode()),
        None if ANY in users else frozenset(users),
        None if ANY in hosts else tuple(networks),
        ends_s,
    )


def _values(text: str) -> list[str]:
    return [] if text in NULLS else text.split(",")


def _ends_s(row: Mapping[str, str], where: str) -> float | None:
    """When a token ends, by Linkis' rule: so many days after it was made, by the local time."""
    try:
        days = 0 if row["elapse_day"] in NULLS else int(row["elapse_day"])
        if days == NEVER:
            return None
        return datetime.datetime.fromisoformat(row["create_time"]).timestamp() + days * 86_400
    except (ValueError, OverflowError):
        raise ConfigError(f"{where}: create_time and elapse_day: must be a time and a number of days") from None

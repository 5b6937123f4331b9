"""Writing key files: a new ring, another key. Reading them is `Keyring.from_file`."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from fastticket.core.ticket import read_keys
from fastticket.errors import ConfigError

HEADER = "# fastticket key ring, oldest key first; the last one signs. Keep it secret.\n"


def key_file_text(keys: Iterable[tuple[int, bytes]]) -> str:
    """A key file with these (id, secret) pairs, oldest first."""
    tables = (f'\n[[key]]\nid = {key_id}\nsecret = "{_encode(secret)}"\n' for key_id, secret in keys)
    return HEADER + "".join(tables)


def new_ring() -> list[tuple[int, bytes]]:
    """One fresh key."""
    return [(1, secrets.token_bytes(32))]


def create_key_file(path: Path) -> None:
    """A new ring in a new file, readable by its owner only. ConfigError: it is there already."""
    try:
        _write(path, key_file_text(new_ring()), os.O_EXCL)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; a key file is not overwritten") from None


def rotate_key_file(path: Path) -> int:
    """Add a fresh newest key, atomically. Its id. ConfigError."""
    keys = read_keys(path)
    taken = {key_id for key_id, _ in keys}
    free = [key_id for key_id in ((keys[-1][0] + step) % 256 for step in range(1, 257)) if key_id not in taken]
    if not free:
        raise ConfigError(f"{path}: every key id is taken; remove old keys first")
    temporary = path.with_name(f".{path.name}.new")
    try:
        _write(temporary, key_file_text([*keys, (free[0], secrets.token_bytes(32))]), os.O_TRUNC)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return free[0]


def _write(path: Path, text: str, flag: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _encode(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")

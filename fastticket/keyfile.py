"""Key files: reading a ring, making one, and the three changes that roll a key through a fleet.

A key file is TOML: `[[key]]` tables of an `id`, a `secret` (base64url) and, if it is known, when
the key was `created`. The last key signs, each verifies. So a key that only verifies stands before
the last, and a file means the same to every version of fastticket.

A comment remembers the highest id that ever was in the file, once its key has gone: a new key never
gets an id of which old tickets may still be about. Versions that do not know the comment drop it.

A file is replaced, not written over: a gateway that reads it meanwhile has the old ring or the new
one. The new file has the owner, the mode and the extended attributes (access lists) of the old one,
even if another user makes the change.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from fastticket.core.ticket import checked_keys, decode_secret
from fastticket.errors import ConfigError
from fastticket.tomlfile import read_toml

HEADER = "# fastticket key ring: the last key signs, each verifies. Keep it secret. To change it: fastticket keys.\n"
HIGHEST = "# The highest id that a key has had here: "
IDS = 256
LOCK_TIMEOUT_S = 5.0
LOCK_RETRY_S = 0.05


class KeyFileBusy(ConfigError):  # noqa: N818
    """Somebody else changes the file, and has not ended in time. Nothing has changed."""


class Key(NamedTuple):
    """One key of a ring."""

    id: int
    secret: bytes
    created: datetime.datetime | None = None  #: None: it is not known


# ------------------------------------------------------------------------------- reading


def read_keys(path: str | os.PathLike[str]) -> list[tuple[int, bytes]]:
    """The `(id, secret)` pairs of a key file, the one that signs last: what `Keyring` takes.
    ConfigError, which names the file and what is wrong in it, and shows no secret.
    """
    return [(key.id, key.secret) for key in read_ring(path)]


def read_ring(path: str | os.PathLike[str]) -> list[Key]:
    """The keys of a file, the one that signs last. ConfigError."""
    table = read_toml(path, "make it with `fastticket keygen`")
    entries = table.get("key")
    if not isinstance(entries, list) or set(table) != {"key"}:
        raise ConfigError(f"{path}: a key file holds [[key]] tables and nothing else")
    keys = [_key_of(entry, f"{path}: [[key]] number {number}") for number, entry in enumerate(entries, 1)]
    checked_keys([(key.id, key.secret) for key in keys], path)
    return keys


def _key_of(entry: object, where: str) -> Key:
    """A key by its table. ConfigError."""
    if (
        not isinstance(entry, dict)
        or set(entry) - {"created"} != {"id", "secret"}
        or not isinstance(entry["secret"], str)
    ):
        raise ConfigError(f"{where} must have an id and a secret, it may have created, and nothing else")
    created = entry.get("created")
    if created is not None and (not isinstance(created, datetime.datetime) or created.tzinfo is None):
        raise ConfigError(f"{where}: created must be a time like 2026-01-31T12:00:00Z")
    return Key(entry["id"], decode_secret(entry["secret"], where), created)


# ------------------------------------------------------------------------------- writing


def key_file_text(keys: Iterable[tuple[int, bytes] | Key], highest: int = -1) -> str:
    """A key file with these keys, the one that signs last. `highest`: the highest id that a key has
    had in it.
    """
    ring = [Key(*key) for key in keys]
    remembered = f"{HIGHEST}{highest}\n" if highest > max(key.id for key in ring) else ""
    return HEADER + remembered + "".join(map(_table, ring))


def _table(key: Key) -> str:
    created = f"created = {key.created.isoformat().replace('+00:00', 'Z')}\n" if key.created else ""
    secret = base64.urlsafe_b64encode(key.secret).decode().rstrip("=")
    return f'\n[[key]]\nid = {key.id}\nsecret = "{secret}"\n{created}'


def new_ring() -> list[Key]:
    """The keys of a new ring: one random key, id 1."""
    return [_new_key(1)]


def _new_key(key_id: int) -> Key:
    return Key(key_id, secrets.token_bytes(32), datetime.datetime.now(datetime.UTC).replace(microsecond=0))


def create_key_file(path: Path) -> None:
    """Make a file with a new ring, readable by its owner only. ConfigError: the file is there
    already, or cannot be made.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            _write(file, key_file_text(new_ring()))
    except FileExistsError as error:
        raise ConfigError(f"{path}: {error.strerror}; a key file is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def add_key(path: Path, key_id: int | None = None, *, patience_s: float = LOCK_TIMEOUT_S) -> int:
    """Add a random key that only verifies. Its id is `key_id`, or the next free one after the
    highest that a key has had in the file, from 0 again after 255; it is returned. `patience_s`:
    how long to wait for somebody else who changes the file. ConfigError.
    """
    with _changing(path, patience_s) as keys:
        taken = {key.id for key in keys}
        highest = max(_remembered(path), *taken)
        free = [number for step in range(1, IDS + 1) if (number := (highest + step) % IDS) not in taken]
        if key_id in taken:
            raise ConfigError(f"{path}: key id {key_id} is taken; leave --id out, or name one that never signed")
        if key_id is None and not free:
            raise ConfigError(f"{path}: every key id is taken; retire old keys first")
        added = free[0] if key_id is None else key_id
        keys.insert(-1, _new_key(added))
    return added


def add_keys_of(path: Path, others: Iterable[Key]) -> list[int]:
    """Add the keys that another gateway's ring has and this one has not, to verify only. Their ids.
    ConfigError.
    """
    with _changing(path) as keys:
        here = {key.id: key.secret for key in keys}
        for key in others:
            if here.get(key.id, key.secret) != key.secret:
                raise ConfigError(f"{path}: key {key.id} is another one here; the rings are not of one fleet")
        fresh = [key for key in others if key.id not in here]
        keys[-1:-1] = fresh
    return [key.id for key in fresh]


def promote_key(path: Path, key_id: int, *, patience_s: float = LOCK_TIMEOUT_S) -> None:
    """Let a key sign from now on; the key that signed before only verifies. `patience_s`: as for
    `add_key`. ConfigError.
    """
    with _changing(path, patience_s) as keys:
        keys.append(keys.pop(_place_of(path, keys, key_id)))


def retire_key(path: Path, key_id: int, *, patience_s: float = LOCK_TIMEOUT_S) -> None:
    """Remove a key that does not sign. `patience_s`: as for `add_key`. ConfigError."""
    with _changing(path, patience_s) as keys:
        place = _place_of(path, keys, key_id)
        refuse_signing(path, keys, key_id)
        del keys[place]


def refuse_signing(path: Path, keys: list[Key], key_id: int) -> None:
    """ConfigError if the key is the one that signs."""
    if keys[-1].id == key_id:
        raise ConfigError(f"{path}: key {key_id} signs; promote another one, on every gateway, before it retires")


def _place_of(path: Path, keys: list[Key], key_id: int) -> int:
    """Where a key stands in the ring. ConfigError: it has none of that id."""
    for place, key in enumerate(keys):
        if key.id == key_id:
            return place
    raise ConfigError(f"{path}: there is no key {key_id}; the ring has: {', '.join(str(key.id) for key in keys)}")


@contextlib.contextmanager
def _changing(path: Path, patience_s: float = LOCK_TIMEOUT_S) -> Iterator[list[Key]]:
    """The keys of a file, for the caller to change; the file is replaced if it did. One process at
    a time. ConfigError: nothing has changed.
    """
    try:
        path = path.resolve()  # a link stays one
        with _locked(path.parent, patience_s):
            keys = read_ring(path)
            before = list(keys)
            yield keys
            if keys != before:
                highest = max(_remembered(path), *(key.id for key in before))
                _replace(path, key_file_text(keys, highest))
    except OSError as error:
        kind = KeyFileBusy if isinstance(error, TimeoutError) else ConfigError
        raise kind(f"{path}: {error.strerror}; nothing has changed") from None


def _remembered(path: Path) -> int:
    """The highest id that a key has had in the file, if its key has gone; else -1. OSError."""
    found = re.search(rf"^{HIGHEST}(\d{{1,3}})$", path.read_text(), re.MULTILINE)
    return int(found[1]) if found else -1


@contextlib.contextmanager
def _locked(folder: Path, patience_s: float) -> Iterator[None]:
    """Hold the lock of a file's folder: the file itself is replaced. TimeoutError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    give_up_at_s = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at_s:
                    raise TimeoutError(errno.ETIMEDOUT, "somebody else changes it, and does not end") from None
            time.sleep(LOCK_RETRY_S)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, text: str) -> None:
    """Replace a file, whole or not at all, even if the power fails. OSError: nothing has
    changed.
    """
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            _make_alike(fd, path)
            _write(file, text)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _make_alike(fd: int, path: Path) -> None:
    """Give a new file the owner, access lists and mode of the old one. OSError: that is not
    allowed, because the file is another user's, say.
    """
    status, made = os.stat(path), os.fstat(fd)
    if (status.st_uid, status.st_gid) != (made.st_uid, made.st_gid):
        os.fchown(fd, status.st_uid, status.st_gid)
    for name in os.listxattr(path):
        with contextlib.suppress(PermissionError):  # a label of the system, which goes by the folder
            os.setxattr(fd, name, os.getxattr(path, name))
    os.fchmod(fd, stat.S_IMODE(status.st_mode))


def _write(file: TextIO, text: str) -> None:
    """Write to the disk, not only to its cache."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())

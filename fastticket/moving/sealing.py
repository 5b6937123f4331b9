"""Pieces of a file, sealed: AES-256-GCM for each (NIST SP 800-38D), so that a file of any size is
written and read in bounded memory.

    file     segment, segment, …          one for each run that has written to it
    segment  MAGIC, salt (16), piece, …   its key: HKDF-SHA-256 (RFC 5869) of secret and salt
    piece    length (4), ciphertext       its nonce: its number in the segment

A number is used once under a key: a run that continues another's file begins a segment of its own,
because it may write another piece in the place of one that was cut off. That no piece is missing,
and that all are in order, the checksum in the text says (moving/dump.py).

Needs `cryptography`: the extra `migration`.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fastticket.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"FTSEAL1\n"
SALT_BYTES = 16
SECRET_BYTES_MIN = 32
PIECE_BYTES_MAX = 1 << 28
LENGTH = struct.Struct(">I")


def read_secret(path: Path) -> bytes:
    """The secret of a key file: at least 32 bytes in base64. ConfigError."""
    try:
        secret = base64.b64decode(path.read_bytes().strip().replace(b"-", b"+").replace(b"_", b"/") + b"==")
    except OSError as error:
        raise ConfigError(f"key file {path}: {error.strerror}") from None
    except binascii.Error:
        secret = b""
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"key file {path}: it must have {SECRET_BYTES_MIN} random bytes or more, in base64; "
            "`openssl rand -base64 32` prints some"
        )
    return secret


class Sealer:
    """Seals the pieces of one segment. `start` is what stands before them."""

    def __init__(self, secret: bytes) -> None:
        salt = os.urandom(SALT_BYTES)
        self.start = MAGIC + salt
        self._cipher = _cipher(secret, salt)
        self._number = 0

    def seal(self, text: bytes) -> bytes:
        """The next piece."""
        sealed = self._cipher.encrypt(_nonce(self._number), text, None)
        self._number += 1
        return LENGTH.pack(len(sealed)) + sealed


def is_sealed(file: BinaryIO) -> bool:
    """Whether a file begins as a sealed one. It is read from the beginning."""
    file.seek(0)
    return file.read(len(MAGIC)) == MAGIC


def opened(file: BinaryIO, secret: bytes) -> Iterator[tuple[bytes, int]]:
    """(text, where it ends in the file) of each whole piece. ConfigError: another secret, or the
    file was changed.
    """
    from cryptography.exceptions import InvalidTag

    file.seek(0)
    cipher, number = None, 0
    while len(head := file.read(LENGTH.size)) == LENGTH.size:
        if head == MAGIC[: LENGTH.size]:
            salt = file.read(len(MAGIC) - LENGTH.size + SALT_BYTES)[-SALT_BYTES:]
            if len(salt) < SALT_BYTES:
                return
            cipher, number = _cipher(secret, salt), 0
            continue
        (size,) = LENGTH.unpack(head)
        if cipher is None or size > PIECE_BYTES_MAX:
            raise ConfigError("it is damaged")
        sealed = file.read(size)
        if len(sealed) < size:
            return
        try:
            text = cipher.decrypt(_nonce(number), sealed, None)
        except InvalidTag:
            raise ConfigError("it is damaged, or was sealed with another key file") from None
        number += 1
        yield text, file.tell()


def _cipher(secret: bytes, salt: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise ConfigError("a sealed file needs cryptography: pip install 'fastticket[migration]'") from None
    return AESGCM(HKDF(SHA256(), 32, salt, b"fastticket/dump/1").derive(secret))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")

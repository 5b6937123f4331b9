"""Apache Linkis' tickets, which are the value of its cookie and the field of its Redis hash.

    text       header ("bfs_"), user name, a suffix where one is configured, ",", login in ms
    des        base64 of DES-ECB, PKCS5, of the text, with CR LF after each 76 characters. The key
               is the first 8 bytes of base64(wds.linkis.crypt.key). Linkis up to 1.8.0
    des-raw    the same under the first 8 bytes of the crypt key itself: what later versions fall
               back to, or write where v2 is switched off. They cannot read the first kind, nor one
               of these that happens to begin with 0x02, as those of one user in 256: such a ticket
               is sealed as the next kind, which they all read
    aes-gcm    base64 of 0x02, IV (12 bytes), ciphertext, tag (16). AES-256-GCM; the key is
               PBKDF2-HMAC-SHA-256(crypt key, "linkis-ticket-v2", 10,000 rounds)

Tickets that a gateway makes for services (`seal_minted`) have a login with a 0 before it, which is
the same time to Linkis: so everybody can tell them from those of a browser, at any time. With two
of them it was made for a program's token: there is no session that it goes with.

A ticket proves little: DES has no signature, its key is 56 bits, and most installations have the
key that everybody knows. So a ticket counts only if the hash has it, whatever the format.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import textwrap
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastticket.moving.formats import Refused

TicketFormat = Literal["des", "des-raw", "aes-gcm"]

DEFAULT_CRYPT_KEY = "bdp-for-server"
DEFAULT_HEADER = "bfs_"
LINE_CHARS = 76
TICKET_CHARS_MAX = 1024  # of a user name of 190 bytes, the longest principal, 340
LOGIN_DIGITS_MAX = 15
USER_BYTES_MAX = 190
DES_BYTES = 8  # of a block and of a key
KEY_FILLER = b"X"  # after a key that is shorter
VERSION_2 = b"\x02"
IV_BYTES, TAG_BYTES = 12, 16
SALT, ROUNDS, AES_KEY_BYTES = b"linkis-ticket-v2", 10_000, 32
LOGIN = re.compile(rf"[0-9]{{1,{LOGIN_DIGITS_MAX}}}")


class OpenedTicket(NamedTuple):
    """What a ticket says, and nothing vouches for."""

    user: str
    login_ms: int  #: since the epoch, by the clock of the gateway that made it
    format: TicketFormat
    is_minted: bool = False  #: a gateway of ours made it, for services: it is in no browser
    is_of_token: bool = False  #: and it goes with no session


class LinkisTickets:
    """Opens and seals the tickets of one installation."""

    def __init__(
        self, crypt_key: str = DEFAULT_CRYPT_KEY, *, header: str = DEFAULT_HEADER, user_suffix: str = ""
    ) -> None:
        """`crypt_key`: wds.linkis.crypt.key; `header`: wds.linkis.ticket.header; `user_suffix`:
        linkis.username.suffix.name, if linkis.username.suffix.enable is true. ValueError: the key
        is empty.
        """
        if not crypt_key:
            raise ValueError("wds.linkis.crypt.key is empty: no ticket can be made under it")
        raw = crypt_key.encode()
        self._des = {"des": _des(base64.b64encode(raw)), "des-raw": _des(raw)}
        self._gcm_key = hashlib.pbkdf2_hmac("sha256", raw, SALT, ROUNDS, AES_KEY_BYTES)
        self._gcm = AESGCM(self._gcm_key)
        self._header = header
        self._user_suffix = user_suffix

    def open(self, ticket: str) -> OpenedTicket | Refused:
        """What a ticket says, with or without line breaks in it; or `malformed`: no base64 of such
        a ticket; `forged`: of another key or installation, or made up. Raises nothing.
        """
        sealed = _decoded(ticket)
        if sealed is None:
            return Refused("malformed")
        if sealed[:1] == VERSION_2 and len(sealed) > 1 + IV_BYTES + TAG_BYTES:
            try:
                text = self._gcm.decrypt(sealed[1 : 1 + IV_BYTES], sealed[1 + IV_BYTES :], None)
            except InvalidTag:
                pass
            else:
                return self._read(text, "aes-gcm") or Refused("forged")
        if len(sealed) % DES_BYTES == 0:
            for kind in ("des", "des-raw"):
                opened = self._read(_unpadded(_run(self._des[kind].decryptor(), sealed)), kind)
                if opened:
                    return opened
        return Refused("forged")

    def seal(self, user: str, login_ms: int, kind: TicketFormat) -> str:
        """A ticket as Linkis writes it, line breaks included. ValueError: no Linkis could read it
        as this user's.
        """
        return self._sealed(user, str(login_ms), kind, os.urandom(IV_BYTES))

    def seal_minted(self, user: str, login_ms: int, kind: TicketFormat, *, is_of_token: bool = False) -> str:
        """A ticket for services, the same whoever makes it for a session. ValueError, as `seal`."""
        login = f"{'00' if is_of_token else '0'}{login_ms}"
        iv = hmac.digest(self._gcm_key, f"{user},{login}".encode(), hashlib.sha256)[:IV_BYTES]  # a text's own
        return self._sealed(user, login, kind, iv)

    def _sealed(self, user: str, login: str, kind: TicketFormat, iv: bytes) -> str:
        text = f"{self._header}{user}{self._user_suffix},{login}".encode()
        if not self._read(text, kind):
            raise ValueError("a user of a Linkis ticket has 1 to 190 bytes, and its login is a time in ms")
        if kind == "aes-gcm":
            return base64.b64encode(VERSION_2 + iv + self._gcm.encrypt(iv, text, None)).decode()
        padding = DES_BYTES - len(text) % DES_BYTES
        sealed = _run(self._des[kind].encryptor(), text + bytes([padding]) * padding)
        if kind == "des-raw" and sealed[:1] == VERSION_2:
            return self._sealed(user, login, "aes-gcm", iv)
        return broken(base64.b64encode(sealed).decode())

    def _read(self, text: bytes, kind: TicketFormat) -> OpenedTicket | None:
        try:
            whole = text.decode()
        except UnicodeDecodeError:
            return None
        user, comma, login = whole.removeprefix(self._header).rpartition(",")
        user = user.removesuffix(self._user_suffix)
        if not whole.startswith(self._header) or not comma or not LOGIN.fullmatch(login):
            return None
        if not 0 < len(user.encode()) <= USER_BYTES_MAX:
            return None
        is_minted = login.startswith("0") and len(login) > 1
        return OpenedTicket(user, int(login), kind, is_minted, is_of_token=is_minted and login.startswith("00"))


def unbroken(ticket: str) -> str:
    """A ticket without line breaks, as a cookie has it: what its session is known by."""
    return ticket.replace("\r\n", "")


def broken(ticket: str) -> str:
    """A ticket of DES with CR LF after each 76 characters, as Linkis' hash has it."""
    return "\r\n".join(textwrap.wrap(ticket, LINE_CHARS))


def hash_fields(ticket: str) -> list[str]:
    """The fields under which the hash may have a ticket: one, or two if it is long: a cookie cannot
    have the line breaks that the hash has.
    """
    whole = unbroken(ticket)
    return list(dict.fromkeys([whole, broken(whole)]))


def _decoded(ticket: str) -> bytes | None:
    """None: not the canonical base64 of anything; so no two texts are one ticket."""
    whole = unbroken(ticket)
    if not 0 < len(ticket) <= TICKET_CHARS_MAX or not whole.isascii() or ticket not in (whole, broken(whole)):
        return None
    try:
        sealed = base64.b64decode(whole, validate=True)
    except (binascii.Error, ValueError):
        return None
    return sealed if sealed and base64.b64encode(sealed).decode() == whole else None


def _des(key: bytes) -> Cipher[modes.ECB]:
    """DES as three times DES with one key, which is the same."""
    return Cipher(TripleDES(key.ljust(DES_BYTES, KEY_FILLER)[:DES_BYTES] * 3), modes.ECB())  # noqa: S305 -- Linkis'


def _run(context: CipherContext, data: bytes) -> bytes:
    return context.update(data) + context.finalize()


def _unpadded(text: bytes) -> bytes:
    """Without PKCS5; empty: it is not padded so."""
    padding = text[-1]
    return text[:-padding] if 1 <= padding <= DES_BYTES and text.endswith(bytes([padding]) * padding) else b""

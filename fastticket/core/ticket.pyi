"""The ticket: wire format 1, the key ring, mint and verify. The specification is
docs/reference/ticket-format.md.

Times are store time in milliseconds since the epoch (`_ms`), durations are whole seconds (`_s`).
One thread at a time uses a ring.
"""

from collections.abc import Iterable
from os import PathLike
from typing import Self, final

from fastticket.errors import Verdict

SESSION_ID_TEXT_CHARS: int
"""Characters of a session id as text."""

def check_principal(principal: str) -> None:
    """InvalidPrincipal, which says why, unless a ticket can carry this principal: 1 to 190 bytes of
    UTF-8 (RFC 3629), without C0 controls, DEL, or a space at either end. TypeError: not a str.
    """

@final
class Keyring:
    """The keys that tickets are signed with: 1 to 256 of them, oldest first. The last one signs,
    each verifies.

    A key is `(id, secret)`: an id from 0 to 255, and at least 32 bytes from a good random source.
    The signing key is derived from the secret and the audience by HKDF-SHA-256 (RFC 5869), so rings
    of different audiences refuse each other's tickets. Raises ConfigError for ids and secrets
    outside these bounds, an id that is there twice, and an empty ring; its message never shows a
    secret. Tickets of `accept_audiences`, at most 8, are good here, too: for the time of a change
    of the audience (docs/how-to/move-store.md).

    A ring cannot be pickled: each process reads its secrets itself.
    """

    def __new__(
        cls, keys: Iterable[tuple[int, bytes]], audience: str = "default", accept_audiences: Iterable[str] = ()
    ) -> Self: ...
    @classmethod
    def generate(cls, audience: str = "default") -> Keyring:
        """A ring of one new random key, id 1. It is nowhere else: for tests and single
        processes.
        """

    @classmethod
    def from_file(
        cls, path: str | PathLike[str], audience: str = "default", accept_audiences: Iterable[str] = ()
    ) -> Keyring:
        """The ring in a key file (docs/reference/ticket-format.md). ConfigError, which names the
        file and what is wrong in it, and shows no secret.
        """

    @classmethod
    def from_env(
        cls, name: str = "FASTTICKET_KEYS", audience: str = "default", accept_audiences: Iterable[str] = ()
    ) -> Keyring:
        """The ring in an environment variable: `id:secret,id:secret`, oldest first, secrets in
        base64url.

        Raises ConfigError, which names the variable and the item, and shows no secret.
        """

    @property
    def audience(self) -> str:
        """The audience of the tickets. Fixed when the ring is made."""

    @property
    def accept_audiences(self) -> tuple[str, ...]:
        """Other audiences whose tickets are good here."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The key ids, oldest first; the last one signs."""

    @property
    def uses(self) -> dict[int, int]:
        """For each key id, the good signatures verified under the key since it came into this ring.
        A ticket that is then refused as expired counts; a ticket that a near cache holds is not
        verified again, and does not count.
        """

    def replace(self, keys: Iterable[tuple[int, bytes]]) -> set[int]:
        """Replace the keys, all or nothing. A key that stays keeps its `uses`.

        Returns the ids whose key left the ring, those with another secret now included: what was
        verified under them must be forgotten. ConfigError: the ring is as it was.
        """

    def mint(
        self,
        principal: str,
        issued_at_ms: int,
        idle_timeout_s: int = 0,
        absolute_lifetime_s: int = 0,
        session_id: bytes | None = None,
    ) -> str:
        """A ticket, signed with the newest key: 88 to 340 characters of base64url (RFC 4648,
        section 5), no padding.

        `principal` is 1 to 190 bytes of UTF-8 (RFC 3629), without C0 controls, DEL, or a space at
        either end; else InvalidPrincipal. `issued_at_ms` is below 2**48. The durations are below
        2**32; 0 means none. `session_id` is 16 bytes, by default from the system's random source.
        ValueError and TypeError for values outside these bounds.
        """

    def verify(self, ticket: str | bytes, now_ms: int) -> Ticket | Verdict:
        """The ticket, if it is authentic and `now_ms` is before its absolute deadline. Else a falsy
        verdict, the first that applies in the order of docs/reference/ticket-format.md: MALFORMED,
        UNKNOWN_KEY, BAD_SIGNATURE (HMAC-SHA-256, RFC 2104) or EXPIRED.

        A bad ticket raises nothing. TypeError: `ticket` is neither str nor bytes. The idle timeout
        is not judged: only the store and the near cache know when a session was last used.
        """

@final
class Ticket:
    """The fields of an authentic ticket. Only `Keyring.verify` makes one; it can neither be changed
    nor pickled.
    """

    @property
    def raw(self) -> bytes:
        """All of it, decoded, tag included: 66 to 255 bytes. As good as the ticket: never log
        it.
        """

    @property
    def key_id(self) -> int:
        """The id of the key that signed it."""

    @property
    def session_id(self) -> str:
        """16 random bytes as 22 characters of base64url. See `decode_session_id`."""

    @property
    def issued_at_ms(self) -> int:
        """Login, store time, ms since the epoch."""

    @property
    def idle_timeout_s(self) -> int:
        """For how long the session may be unused; 0: for all its life."""

    @property
    def absolute_lifetime_s(self) -> int:
        """For how long the session lives, used or not; 0: without end."""

    @property
    def absolute_deadline_ms(self) -> int:
        """The first millisecond, store time, at which the session is over; 2**53 - 1 where nothing
        ends it.
        """

    def idle_deadline_ms(self, used_at_ms: int, slack_ms: int = 0) -> int:
        """The idle deadline after a use at `used_at_ms`, plus `slack_ms`, but never past the
        absolute deadline.
        """

    @property
    def principal(self) -> str:
        """The owner of the session."""

def encode_session_id(session_id: bytes) -> str:
    """16 bytes as 22 characters of base64url without padding. ValueError for another size."""

def decode_session_id(text: str | bytes) -> bytes:
    """The inverse of `encode_session_id`. ValueError: it would not have written this text."""

def checked_keys(keys: Iterable[tuple[int, bytes]], where: str | PathLike[str]) -> list[tuple[int, bytes]]:
    """The `(id, secret)` pairs, if a ring can have them: ids from 0 to 255, each once, secrets of
    at least 32 bytes, one key or more. Else ConfigError; `where` begins its message.
    """

def decode_secret(text: str, where: str) -> bytes:
    """A secret as it is written in files and variables, base64url with or without padding.
    ConfigError; `where` begins its message, which does not show the text.
    """

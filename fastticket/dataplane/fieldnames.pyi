"""Which field names mean something to the gateway."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Literal, Self, final

class Kind(IntEnum):
    """What a field means to the gateway, by its name."""

    OTHER = 0
    DROP = 1
    HOST = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    HOP = 6
    UPGRADE = 7
    EXPECT = 8
    COOKIE = 9
    AUTHORIZATION = 10
    ACCEPT = 11
    WEBSOCKET_KEY = 12
    TRUSTED_ONLY = 13
    FORWARDED_FOR = 14
    FORWARDED_PROTO = 15
    FORWARDED_HOST = 16
    IDENTITY = 17
    TICKET_LOGIN = 18
    TICKET_LOGOUT = 19
    TICKET_REMEMBER = 20
    TICKET_ROTATE = 21
    FORWARDED = 22
    REQUEST_ID = 23
    NO_USE = 24
    LIFETIME = 25
    KEEP_ALIVE = 26
    TOKEN_CODE = 27
    TOKEN_USER = 28
    AUTHENTICATE = 29
    SET_COOKIE = 30
    TOKEN_CODE_SHOWN = 31
    TOKEN_USER_SHOWN = 32

KNOWN: dict[str, int]
"""Names that mean something to every gateway, in normal spelling, and the number of their `Kind`.
"""

@final
class Names:
    """The names of `KNOWN` and those of one configuration: `identity`, which no client can send to
    a service; `dropped`, which never go on, in whatever direction; the field with a request id
    (`request_id`), the one that says that a request is no use of its session (`no_use`), and the
    one that asks for the session's remaining lifetime (`lifetime`). An empty name: there is no such
    field. `tokens`: Token-Code and Token-User have a meaning, and are "withheld" from applications,
    or "shown" to them. Those that are withheld can be `identity`, too.

    A name is found by its *normal spelling*: lower case, and `-` for every character but letters
    and digits. A name that is known, in any other spelling than its own (`X_Forwarded_User`), is
    DROP: a service behind the gateway could take it for the real one.

    ValueError: a name is empty, longer than 47 bytes, no token, already has a meaning, or there are
    too many (64 with those of `KNOWN`).
    """

    def __new__(
        cls,
        identity: Iterable[str] = (),
        request_id: str = "",
        *,
        no_use: str = "",
        lifetime: str = "",
        dropped: Iterable[str] = (),
        tokens: Literal["", "withheld", "shown"] = "",
    ) -> Self: ...

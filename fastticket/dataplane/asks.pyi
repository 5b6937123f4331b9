"""What the data plane asks the control plane, as a record with named fields."""

import enum
from collections.abc import Mapping
from typing import NamedTuple

class AskKind(enum.IntEnum):
    """What is asked, and how it is answered (methods of `Proxy`).

    AUTHENTICATE, AUTHENTICATE_STRONG (the store decides), AUTHENTICATE_LATEST (as the store has it,
    if that answers): `admit` or `refuse`. EXEMPTION, whether `path` needs no ticket on `route`:
    `exempt`. STILL_ALIVE, whether the session of a stream, tunnel or upload goes on: `vouch`.
    SEVERAL, which fields clear the cookies of several tickets: `doubt`. EXCHANGE, whether the
    cookie of another system is good for a ticket, and TOKEN, whether a program's token admits it:
    `exchanged` or `refuse`. MINT, for the ticket of another system that the upstream wants:
    `minted` or `refuse`. LOGIN, LOGIN_REMEMBERED, LOGOUT, LOGOUT_EVERYWHERE, ROTATE and SUPERSEDED
    (the upstream sets that cookie), for a response that waits: `relay` or `fail`.
    """

    AUTHENTICATE = 0
    AUTHENTICATE_STRONG = 1
    AUTHENTICATE_LATEST = 2
    EXEMPTION = 3
    STILL_ALIVE = 4
    SEVERAL = 5
    EXCHANGE = 6
    TOKEN = 7
    MINT = 8
    LOGIN = 9
    LOGIN_REMEMBERED = 10
    LOGOUT = 11
    LOGOUT_EVERYWHERE = 12
    ROTATE = 13
    SUPERSEDED = 14

class Where(NamedTuple):
    """What decides about a request's cookies."""

    host: str  #: its Host; empty if that is longer than 100 bytes
    is_https: bool  #: it came by https, as a trusted proxy says

class Ask(NamedTuple):
    """One question. Fields that its kind does not need keep their defaults."""

    kind: AskKind
    handle: int  #: of the connection and the question: what the answer is given for
    tickets: str  #: the request's ticket, several with spaces between, or empty
    is_use: bool = False  #: of the session: AUTHENTICATE to AUTHENTICATE_LATEST, EXCHANGE, STILL_ALIVE
    route: int = 0  #: EXEMPTION, EXCHANGE, MINT: the route's number
    path: bytes = b""  #: EXEMPTION: in its normal form; SEVERAL, TOKEN: as it came
    #: SEVERAL, and where other systems' cookies are exchanged EXCHANGE, AUTHENTICATE to
    #: AUTHENTICATE_LATEST and, as far as they are still there, all changes: all that may hold a
    #: ticket, as a Cookie field; TOKEN: the token's code
    cookies: bytes = b""
    principal: bytes = b""  #: LOGIN, LOGIN_REMEMBERED: as the application names it; TOKEN: as the program does;
    #: SUPERSEDED: the Set-Cookie
    details: Mapping[str, str] = ...  #: LOGIN, LOGIN_REMEMBERED: what to record with the login; TOKEN: `address`
    where: Where = ...  #: SEVERAL, EXCHANGE and all changes
    server: int = 0  #: all changes: whose response waits, for `Upstreams.suits`
    #: With `tells_traces`, the request's field `traceparent`, as far as it is still there; not for
    #: STILL_ALIVE
    trace: str = ""

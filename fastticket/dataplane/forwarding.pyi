"""Heads written anew, in both directions: what goes on, what is added, and what is withheld."""

from collections.abc import Iterable, Sequence
from typing import Literal, Self, final

from fastticket.core.check import Checker
from fastticket.dataplane.clients import Networks
from fastticket.dataplane.fieldnames import Names
from fastticket.dataplane.minted import MintedTickets

@final
class Forwarding:
    """What a `Proxy` is configured to write into heads. It does no I/O."""

    names: Names
    trusted: Networks
    minted: MintedTickets

    def __new__(
        cls,
        checker: Checker | None,
        *,
        cookie: str = "ticket",
        old_cookies: Sequence[str] = (),
        minted_cookie: str = "",
        login_sign: str = "",
        identity_field: str = "X-Forwarded-User",
        escapes_identity: bool = False,
        request_id_field: str = "",
        login_url: str = "",
        next_parameter: str = "",
        no_use_field: str = "",
        lifetime_field: str = "",
        dropped_fields: Iterable[str] = (),
        removed_fields: Sequence[str] = (),
        forwards_ticket: bool = False,
        trusted: Networks | None = None,
        writes_forwarded: bool = False,
        upgrades: Iterable[str] = ("websocket",),
        tokens: Literal["", "withheld", "shown"] = "",
    ) -> Self:
        """`checker`: needed for `lifetime_field` alone. `old_cookies`: names of other systems'
        cookies that are exchanged for tickets, at most 8. `login_sign`: further members of the
        body of a 401, as `, "status": -1`. `minted_cookie`: the one in which upstreams get a ticket
        of another system. `escapes_identity`: the identity field in
        percent-encoding; else its bytes are UTF-8. `trusted`: whose X-Forwarded-*, request id and
        PROXY header are believed. `request_id_field`: the field that gets a request id, "" for
        none. `next_parameter`: of `login_url`, for where the client wanted to go. `no_use_field`,
        `lifetime_field`: by which a client says that a request is no use of its session, and asks
        how long that still lives. `dropped_fields`: never forwarded. `removed_fields`: taken out of
        requests, as `identity_field` is; Authorization may be one, without `forwards_ticket`.
        `forwards_ticket`: whether upstreams see it. `upgrades`: protocols that clients may change
        to. `tokens`: as `Names` takes it. ValueError: a field name that has a meaning of its own,
        or more than 8 protocols to upgrade to.
        """

    def forward_request(
        self,
        raw: bytes,
        *,
        peer: str = "",
        is_trusted: bool = False,
        principal: str | None = None,
        request_fields: bytes = b"",
        is_searched: bool = True,
    ) -> bytes:
        """A request as an upstream gets it. `raw`: its head and all of its body.

        `peer`: the address of the connection, "" of a Unix socket; `is_trusted`: it is a proxy of
        ours. `principal`: of the ticket that was admitted; None: it is forwarded without one.
        `request_fields`: lines that the route adds. `is_searched`: tickets are looked for first, as
        on routes that need one. ValueError: the head cannot be read.
        """

    def forward_response(
        self,
        raw: bytes,
        *,
        logs_in: bool = False,
        is_plain: bool = True,
        principal: str | None = None,
        fields: bytes = b"",
        response_fields: bytes = b"",
        closes: bool = False,
        minor: int = 1,
    ) -> tuple[bytes, int]:
        """A response to a GET as the client gets it, and how many cookies of the ticket's name were
        dropped.

        `logs_in`, `response_fields`: of the route. `is_plain`: the request's path is. `fields`:
        lines of the control plane. `closes`: the connection closes after it. `minor`: of the
        client's HTTP version. ValueError: the head cannot be read.
        """

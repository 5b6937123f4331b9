"""What a WebSession asks of a ticket cache, so that one class serves both of them.

    fastticket.TicketCache        its methods are awaited
    fastticket.sync.TicketCache   its methods block the calling thread, and return the result

Neither is imported here: an asyncio application does not load the thread of `fastticket.sync`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Coroutine, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from fastticket.core.check import Session
from fastticket.sessions.attributes import Changes, Serializer
from fastticket.stores.contract import Position, StoredAttributes

T = TypeVar("T")


class Entries(Protocol):
    """Values by name, as far as a session's mapping needs them. A `dict` is one."""

    def __getitem__(self, name: str, /) -> Any: ...

    def __setitem__(self, name: str, value: Any, /) -> None: ...

    def __delitem__(self, name: str, /) -> None: ...

    def __contains__(self, name: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...


class SessionAttributes(Entries, Protocol):
    """The attributes of one session: `fastticket.Attributes`, or `fastticket.sync.Attributes`."""

    @property
    def is_loaded(self) -> bool:
        """Whether they were read from the store."""

    @property
    def version(self) -> Position | None:
        """Which version was read or written last. None: neither was done."""

    def hold(self, stored: StoredAttributes) -> None:
        """Take these for what the store has."""

    def update(self, values: Mapping[str, Any], /) -> None:
        """As of a dictionary."""

    def changes(self) -> Changes:
        """What `save` would write. BadAttribute."""

    def load(self) -> object:
        """Read them. TicketRefused, StoreUnavailable."""

    def save(self) -> Awaitable[bool] | bool:
        """Write what changed. Whether anything did. BadAttribute, AttributesTooLarge,
        TicketRefused, StoreUnavailable.
        """


class SessionCache(Protocol):
    """A ticket cache. The methods are described at `fastticket.TicketCache`."""

    @property
    def serializer(self) -> Serializer:
        """How attributes become bytes."""

    @property
    def remember_lifetime_s(self) -> int:
        """How long a remembered session lasts, in s."""

    def remembered_s(self, ticket: str, /) -> int | None:
        """The Max-Age of a ticket's cookie, in s; None: the cookie goes with the browser."""

    def authenticate(self, ticket: str, /) -> Awaitable[Session] | Session:
        """The session of a ticket. TicketRefused, StoreUnavailable."""

    def login(
        self, principal: str, /, *, remember: bool = ..., details: Mapping[str, str] = ...
    ) -> Awaitable[str] | str:
        """Begin a session: its ticket. InvalidPrincipal, TooManySessions, StoreUnavailable."""

    def rotate(self, ticket: str, /) -> Awaitable[str] | str:
        """Another ticket for the same session. TicketRefused, StoreUnavailable."""

    def logout(self, ticket: str, /) -> Awaitable[bool] | bool:
        """End the session of a ticket. TicketRefused, StoreUnavailable."""

    def logout_everywhere(self, principal: str, /, *, keep: Session | None = ...) -> Awaitable[int] | int:
        """End all sessions of a principal but `keep`: how many. StoreUnavailable."""

    def attributes(self, session: Session, /, *, seen: Position = ...) -> SessionAttributes:
        """The attributes of a session, of version `seen` or later; not read yet."""


async def result_of(value: Awaitable[T] | T) -> T:
    """The result of a call to either cache; that of a thread cache is there already."""
    return await value if inspect.isawaitable(value) else value


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a WebSession on `fastticket.sync.TicketCache`, without an event loop.

    The cache blocks inside of its calls, so the coroutine never suspends. RuntimeError: it does,
    because the cache is one for asyncio.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("it waits for an event loop: give it a fastticket.sync.TicketCache")

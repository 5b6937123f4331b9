"""The methods of a `dict`, for a session whose principal is one entry among its attributes.

Rules of this file
- A session is a `dict` to `isinstance` (json and pydantic ask), and all methods of a `dict` are
  here. The `dict` beneath holds one value that nothing can serialize: code in C that reads it past
  the methods (orjson) fails, and does not find an empty session.
- The entry `principal_key` is never stored as an attribute. Setting it logs in; None, `del`, `pop`
  and `clear` log out; `popitem` does not.
- Attributes whose names begin with RESERVED are an integration's own, and are not iterated over.
- Several tickets in one request make its visitor anonymous. Logging out such a visitor is not
  without effect: it ends the sessions of all of them.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Self, cast

from fastticket.sessions.attributes import RESERVED
from fastticket.web.caches import Entries

if TYPE_CHECKING:
    _Mapping = MutableMapping[str, Any]
else:

    class _Mapping(MutableMapping, dict):
        """Its methods are a MutableMapping's."""


class NotByItsMethods:
    """The value that code finds which reads a session's `dict` past its methods: give it
    `dict(session)`.
    """


class SessionMapping(_Mapping):
    """A session as a `dict`. Subclasses know the principal, and where the attributes are."""

    def __init__(self, principal_key: str) -> None:
        self._principal_key = principal_key
        self._principal: str | None = None
        dict.__setitem__(cast("dict[str, Any]", self), "by its methods", NotByItsMethods())

    # --- what subclasses have

    @property
    @abstractmethod
    def principal(self) -> str | None:
        """The principal that is logged in. None: nobody is."""

    @abstractmethod
    def login(self, principal: str, *, remember: bool = False) -> None:
        """Begin a new session."""

    @abstractmethod
    def logout(self) -> None:
        """End the session."""

    @property
    @abstractmethod
    def _has_several_tickets(self) -> bool:
        """Whether the visitor is anonymous because its request brought several tickets."""

    @abstractmethod
    def _readable(self) -> Entries:
        """The attributes, read. NotLoaded, StoreUnavailable."""

    @abstractmethod
    def _writable(self) -> Entries:
        """The attributes, read or not."""

    # --- the methods of a dict

    def __getitem__(self, name: str) -> Any:
        if name == self._principal_key:
            if self.principal is None:
                raise KeyError(name)
            return self._principal
        return self._readable()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name != self._principal_key:
            self._writable()[name] = value
        elif value is None and self._has_several_tickets:
            self.logout()
        elif value == self.principal:
            return
        elif value is None:
            self.logout()
        else:
            self.login(value)

    def __delitem__(self, name: str) -> None:
        if name != self._principal_key:
            del self._readable()[name]
        elif self.principal is None:
            raise KeyError(name)
        else:
            self.logout()

    def __contains__(self, name: object) -> bool:
        return self.principal is not None if name == self._principal_key else name in self._readable()

    def __iter__(self) -> Iterator[str]:
        names = [name for name in self._readable() if self._is_shown(name)]
        return iter(names if self._principal is None else [self._principal_key, *names])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __or__(self, other: Any) -> dict[str, Any]:
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'anonymous' if self._principal is None else 'logged in'}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of the principal and the attributes."""
        return dict(self)

    __copy__ = copy

    def pop(self, name: str, *default: Any) -> Any:
        """As of a dictionary. Popping the principal logs out, as many applications do it."""
        if name == self._principal_key and self._has_several_tickets:
            self.logout()
        return super().pop(name, *default)

    def popitem(self) -> tuple[str, Any]:
        """Remove the last attribute: its name and value. KeyError: there is none; the principal's
        entry is never removed.
        """
        names = [name for name in self if name != self._principal_key]
        if not names:
            raise KeyError("popitem(): there are no attributes in the session")
        return names[-1], self.pop(names[-1])

    def clear(self) -> None:
        """Log out, which removes all attributes."""
        self.logout()

    def update(self, *others: Any, **named: Any) -> None:
        """As of a dictionary. A principal among the values is logged in first, so the attributes
        among them are the new session's.
        """
        values: dict[str, Any] = dict(*others, **named)
        if self._principal_key in values:
            self[self._principal_key] = values.pop(self._principal_key)
        for name, value in values.items():
            self[name] = value

    def _is_shown(self, name: str) -> bool:
        return name != self._principal_key and not name.startswith(RESERVED)

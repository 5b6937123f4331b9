"""The attributes of a ticket's session as Django's session shows them: without what is other
projects', and with the notes of a login.

Rules of this file
- Django's notes are there when asked for by name, and in no iteration. Where this project has none,
  they are those of the principal's user; what is set of them is kept.
- A session that turns out to be over when it is read is an empty one, as with every engine. What
  was set before that moves along.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Protocol

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY

from fastticket.django.logins import NOTES, Note, note_names
from fastticket.errors import StoreUnavailable, TicketRefused
from fastticket.sessions.attributes import RESERVED
from fastticket.sync import Attributes

DERIVED = frozenset(NOTES)


class Owner(Protocol):
    """What is asked of the session."""

    _is_verifying: bool

    def _derived(self) -> Note:
        """What a login would have noted of the user in this project; empty: it has no such user."""

    def _note_failure(self) -> None:
        """The store has failed."""

    def _end_unseen(self, data: MutableMapping[str, Any]) -> None:
        """The session is over, and this is what there is now."""


class SharedData(MutableMapping[str, Any]):
    """See above. Reading asks the store, the first time: StoreUnavailable."""

    def __init__(self, attributes: Attributes, owner: Owner) -> None:
        self.attributes = attributes
        self.is_hash_renewed = False  # by update_session_auth_hash(): the password has changed
        self._is_login_noted = False  # by login(), of a user who was logged in: it notes the hash, too, but last
        self._owner = owner
        self._data: MutableMapping[str, Any] = attributes
        self._set: Note | None = None  # the note, since it was changed

    def __getitem__(self, name: str) -> Any:
        return self._notes()[name] if name in DERIVED else self.read()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in DERIVED:
            self._write_note(self._notes() | {name: value})
            self._look_for_new_password(name)
        else:
            self._data[name] = value

    def __delitem__(self, name: str) -> None:
        if name in DERIVED:
            notes = dict(self._notes())
            del notes[name]
            self._write_note(notes)
        else:
            del self.read()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._notes() if name in DERIVED else name in self.read()

    def __iter__(self) -> Iterator[str]:
        """Without attributes of other applications that are called as Django's notes are: here
        nobody can read them.
        """
        return (name for name in self.read() if not is_hidden(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def read(self) -> MutableMapping[str, Any]:
        """The attributes, read; or what there is in place of them."""
        if self._data is self.attributes and not self.attributes.is_loaded:
            try:
                self.attributes.load()
            except StoreUnavailable:
                self._owner._note_failure()
                raise
            except TicketRefused:
                data = {name: value for name, value in self.attributes.unsaved.items() if not is_hidden(name)}
                self._data = data
                self._owner._end_unseen(data)
        return self._data

    def note(self) -> Note | None:
        """What this project keeps of a login. None: nothing, the session began elsewhere."""
        if self._set is not None:
            return self._set
        held = self.read()
        return next((held[name] for name in note_names() if isinstance(held.get(name), dict)), None)

    def _notes(self) -> Note:
        note = self.note()
        return self._owner._derived() if note is None else note

    def _write_note(self, note: Note) -> None:
        self._set = note
        if self._data is self.attributes:
            self.attributes[next(iter(note_names()))] = note

    def _look_for_new_password(self, name: str) -> None:
        if name == SESSION_KEY:
            self._is_login_noted = True
        elif name == HASH_SESSION_KEY:
            self.is_hash_renewed |= not self._is_login_noted and not self._owner._is_verifying
            self._is_login_noted = False


def is_hidden(name: str) -> bool:
    """Whether an attribute is none of the application's."""
    return name in DERIVED or name.startswith(RESERVED)

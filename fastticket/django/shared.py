"""The attributes of a ticket's session, as the content of Django's session: without those of other
projects, and with the note of the login.

Rules of this file
- Django's note keys are there when asked for by name, and in no iteration. Where this project has
  noted nothing, their values are those of the principal's user here; what is set of them is kept.
- A session from elsewhere has, in the place of the note, the hash of the password with which this
  project first saw it (fastticket/django/passwords.py).
- A session that turns out to be over when it is read is an empty one, as with every engine. What
  was set before that moves into the anonymous session.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Protocol

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY

from fastticket.django.logins import NOTE_KEYS, Note, note_names
from fastticket.errors import StoreUnavailable, TicketRefused
from fastticket.sessions.attributes import RESERVED
from fastticket.sync import Attributes

FIRST_SEEN = "first_seen"  # the key of that hash


class Owner(Protocol):
    """What is asked of the SessionStore whose content it is."""

    @property
    def _is_verifying(self) -> bool:
        """Whether Django's `get_user` is checking the note."""

    def _derived_note(self) -> Note:
        """What a login would have noted of the principal's user; empty: this project has none."""

    def _note_failure(self) -> None:
        """The store has failed."""

    def _become_anonymous(self, data: MutableMapping[str, Any]) -> None:
        """The session is over, and `data` is its content from now on."""


class SharedData(MutableMapping[str, Any]):
    """See above. The first reading asks the store: StoreUnavailable."""

    def __init__(self, attributes: Attributes, owner: Owner) -> None:
        self.attributes = attributes
        self.is_hash_renewed = False  # by update_session_auth_hash(): the password has changed
        self._is_login_noted = False  # by login() of a user who was logged in; it sets the hash last
        self._owner = owner
        self._data: MutableMapping[str, Any] = attributes
        self._new_note: Note | None = None  # once the note was changed

    def __getitem__(self, name: str) -> Any:
        return self._note_or_derived()[name] if name in NOTE_KEYS else self.read()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in NOTE_KEYS:
            self._write_note(self._note_or_derived() | {name: value})
            self._look_for_new_password(name)
        else:
            self._data[name] = value

    def __delitem__(self, name: str) -> None:
        if name in NOTE_KEYS:
            note = dict(self._note_or_derived())
            del note[name]
            self._write_note(note)
        else:
            del self.read()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._note_or_derived() if name in NOTE_KEYS else name in self.read()

    def __iter__(self) -> Iterator[str]:
        """Without other applications' attributes that have the names of Django's note keys: nothing
        here can read them.
        """
        return (name for name in self.read() if not is_hidden(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def read(self) -> MutableMapping[str, Any]:
        """The attributes, read; or the content that replaced them, if the session is over.
        StoreUnavailable.
        """
        if self._data is self.attributes and not self.attributes.is_loaded:
            try:
                self.attributes.load()
            except StoreUnavailable:
                self._owner._note_failure()
                raise
            except TicketRefused:
                data = {name: value for name, value in self.attributes.unsaved.items() if not is_hidden(name)}
                self._data = data
                self._owner._become_anonymous(data)
        return self._data

    def note(self) -> Note | None:
        """What this project has noted of the login. None: nothing, the session began elsewhere.
        StoreUnavailable.
        """
        if self._new_note is not None:
            return self._new_note
        held = self._held_note()
        return None if FIRST_SEEN in held else held or None

    def first_seen(self) -> str | None:
        """The hash of the password with which this project has first seen a session from elsewhere.
        None: it has not, or the login was here. StoreUnavailable.
        """
        return self._held_note().get(FIRST_SEEN)

    def see_first(self, password_hash: str) -> bool:
        """Keep this hash when the session is saved. Whether nothing else would be written."""
        is_alone = not self.attributes.changes()
        self.attributes[next(iter(note_names()))] = {FIRST_SEEN: password_hash}
        return is_alone

    def _held_note(self) -> Note:
        held = self.read()
        return next((held[name] for name in note_names() if isinstance(held.get(name), dict)), {})

    def _note_or_derived(self) -> Note:
        note = self.note()
        return self._owner._derived_note() if note is None else note

    def _write_note(self, note: Note) -> None:
        self._new_note = note
        if self._data is self.attributes:
            self.attributes[next(iter(note_names()))] = note

    def _look_for_new_password(self, name: str) -> None:
        """A hash that is set without a login before it is that of a new password."""
        if name == SESSION_KEY:
            self._is_login_noted = True
        elif name == HASH_SESSION_KEY:
            self.is_hash_renewed |= not self._is_login_noted and not self._owner._is_verifying
            self._is_login_noted = False


def is_hidden(name: str) -> bool:
    """Whether an attribute is not one of the application's own."""
    return name in NOTE_KEYS or name.startswith(RESERVED)

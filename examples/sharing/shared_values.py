"""The interceptor example, which keeps values, too: in the session's attributes, where every application finds them.

python shared_values.py DESCRIPTOR NAME KEY-FILE STORE-URL

    /set-session?sessionVal=x    stores x in the session
    /get-session                 answers it

As in values.py, but for where sessions are, and that only who is logged in has one.
"""

from __future__ import annotations

import sys

from application import serve
from users import Users

import fastticket
from fastticket.sync import Attributes, TicketCache

NEAR_BYTES = 10_000_000


class SharedValues(Users):
    """Its sessions are those of the gateways: the same keys, the same store."""

    sessions: TicketCache

    def get(self, path: str, query: dict[str, str]) -> None:
        try:
            if path == "/set-session":
                self.set_value(query["sessionVal"])
            elif path == "/get-session":
                self.get_value()
            else:
                super().get(path, query)
        except fastticket.FastticketError as error:  # the session has just ended, the store is away
            self.answer(error.status, error.reason)

    def set_value(self, value: str) -> None:
        with self.attributes() as attributes:
            attributes["sessionVal"] = value
        self.answer(200, value)

    def get_value(self) -> None:
        value = self.attributes().get("sessionVal")
        self.answer(404 if value is None else 200, value or "no value in this session")

    def attributes(self) -> Attributes:
        """The gateway has noted the use of the session already."""
        return self.sessions.attributes(self.sessions.authenticate(self.cookie("ticket"), touch=False))


if __name__ == "__main__":
    descriptor, SharedValues.name, key_file, store_url = sys.argv[1:]
    SharedValues.keys = fastticket.Keyring.from_file(key_file)
    store = fastticket.open_store(store_url)
    SharedValues.sessions = TicketCache(store, SharedValues.keys, near_attributes_bytes=NEAR_BYTES)
    serve(SharedValues, int(descriptor))

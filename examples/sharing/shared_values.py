"""The interceptor example with values: they are in the session's attributes, where every
application finds them.

python shared_values.py DESCRIPTOR NAME KEY-FILE STORE-URL

    /set-session?sessionVal=x    stores x in the session
    /get-session                 answers it

It differs from values.py in where sessions are kept, and in that only a logged-in user has one. A
cookie of its own holds the version of the values that a browser has seen, so a browser finds what
it set, whichever application it asks next. In a web framework, the middleware does that.
"""

from __future__ import annotations

import sys

from application import serve
from users import Users

import fastticket
from fastticket.sync import Attributes, TicketCache
from fastticket.web.readyourwrites import SeenVersion

NEAR_BYTES = 10_000_000
COOKIE = fastticket.TicketCookie(is_secure=False)


class SharedValues(Users):
    """An application whose sessions are the gateways': the same keys, the same store."""

    sessions: TicketCache
    seen: SeenVersion

    def get(self, path: str, query: dict[str, str]) -> None:
        self.seen = SeenVersion(COOKIE.find_seen(self.headers.get("Cookie", "")))
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
        attributes = self.attributes()
        attributes["sessionVal"] = value
        attributes.save()
        self.seen.wrote(attributes.version)
        self.answer_and_tell(200, value)

    def get_value(self) -> None:
        attributes = self.attributes()
        value = attributes.get("sessionVal")
        self.seen.read(attributes.version)
        self.answer_and_tell(404 if value is None else 200, value or "no value in this session")

    def attributes(self) -> Attributes:
        """The session's attributes. The gateway has counted the use of the session already."""
        session = self.sessions.authenticate(self.cookie("ticket"), touch=False)
        return self.sessions.attributes(session, seen=self.seen.version)

    def answer_and_tell(self, status: int, text: str) -> None:
        news = self.seen.news
        cookie = {} if news is None else {"Set-Cookie": COOKIE.set_seen(news, "")[0], "Cache-Control": "no-store"}
        self.answer(status, text, cookie)


if __name__ == "__main__":
    descriptor, SharedValues.name, key_file, store_url = sys.argv[1:]
    SharedValues.keys = fastticket.Keyring.from_file(key_file)
    store = fastticket.open_store(store_url)
    SharedValues.sessions = TicketCache(store, SharedValues.keys, near_attributes_bytes=NEAR_BYTES)
    serve(SharedValues, int(descriptor))

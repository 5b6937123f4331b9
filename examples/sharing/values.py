"""The classic application: `/set-session?sessionVal=x` stores x in the session, `/get-session`
answers it.

python values.py DESCRIPTOR NAME [REPLICATION-DESCRIPTOR [PORT ...]]

Sessions are in this process's memory: only here, or, with a socket for replication, with copies in
each of the other processes.
"""

from __future__ import annotations

import json
import secrets
import sys

from application import Application, serve
from replicas import Replicas


class Values(Application):
    """A session is an id and one value."""

    sessions: dict[str, str]

    def get(self, path: str, query: dict[str, str]) -> None:
        session_id = self.cookie("SESSION")
        if path == "/set-session":
            session_id = session_id or secrets.token_urlsafe(16)
            self.sessions[session_id] = query["sessionVal"]
            self.answer(200, query["sessionVal"], {"Set-Cookie": f"SESSION={session_id}; Path=/; HttpOnly"})
        elif path == "/counters":
            self.answer(200, json.dumps(self.sessions.counters()))
        elif session_id in self.sessions:
            self.answer(200, self.sessions[session_id])
        else:
            self.answer(404, "no such session here")


if __name__ == "__main__":
    descriptor, Values.name, *replication = sys.argv[1:]
    Values.sessions = Replicas(*map(int, replication)) if replication else {}
    serve(Values, int(descriptor))

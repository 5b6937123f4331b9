"""The demo's desk: what its page shows beside the applications, and what can be ended there.

    figures         of the gateway, from its admin listener
    sessions        of the user, from the store. One that is ended is refused by the gateway at once
    second session  a second browser of the same user, which the desk plays: it asks the gateway
                    whenever the page looks, and on until it is refused when it is ended

Rule of this file: of sessions, a user sees and ends his own.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fastticket.commands.admin import AdminError, read_metrics
from fastticket.commands.demo_application import Answering
from fastticket.core.ticket import Keyring, Ticket
from fastticket.errors import FastticketError
from fastticket.gateway.addresses import Address
from fastticket.stores import open_store
from fastticket.sync import TicketCache

PROGRAM = "the second session"  # as which it logs in
ANSWERS_MAX = 12  # of a second session, the latest
SECONDS_MAX = 20  # second sessions, of as many users
BOUND_S = 5.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
#: Asked on every request, a store gets these: a read of the session, and its deadline moved.
COMMANDS_OF_ASKING = 2


class Second:
    """A second session of a user: a client of the gateway with a ticket of its own."""

    def __init__(self, gateway: Address, user: str, keys: Keyring) -> None:
        self._gateway = (ANY_ADDRESS.get(gateway.host, gateway.host), gateway.port)
        form = b"user=" + "".join(f"%{byte:02X}" for byte in user.encode()).encode()
        answer = self._request("POST", "/login", {"User-Agent": PROGRAM}, form)
        self._cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        ticket = keys.verify(self._cookie.partition("=")[2], 0)
        if not isinstance(ticket, Ticket):
            raise ConnectionError(f"the login of the second session was answered with {answer.status}")
        self.id = ticket.session_id
        self.answers: deque[int] = deque(maxlen=ANSWERS_MAX)

    def ask(self) -> int:
        """Ask once who it is; the status."""
        status = self._request("GET", "/whoami", {"Cookie": self._cookie}).status
        self.answers.append(status)
        return status

    def is_over(self) -> bool:
        """Whether all that is shown of it is that it was refused."""
        return list(self.answers) == [http.client.UNAUTHORIZED] * ANSWERS_MAX

    def ask_until_refused(self) -> dict[str, Any]:
        """Ask again and again; how long it was admitted."""
        began_s, admitted = time.monotonic(), 0
        while time.monotonic() < began_s + BOUND_S and self.ask() != http.client.UNAUTHORIZED:
            admitted += 1
        return {"admitted": admitted, "after_ms": round((time.monotonic() - began_s) * 1000, 1)}

    def _request(self, method: str, path: str, fields: dict[str, str], body: bytes = b"") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(*self._gateway, timeout=BOUND_S)
        try:
            connection.request(method, path, body or None, {"Host": "localhost", **fields})
            answer = connection.getresponse()
            answer.read()
            return answer
        finally:
            connection.close()


class DeskServer(ThreadingHTTPServer):
    """Listens on a free port; what the desk knows. Its cache opens itself in the process that
    serves.
    """

    def __init__(self, gateway: Address, admin: str, store: str, key_file: Path) -> None:
        super().__init__(("127.0.0.1", 0), Desk)
        self._gateway = gateway
        self._admin = admin
        self._keys = Keyring.from_file(key_file)
        self._cache = TicketCache(open_store(store), self._keys)
        self._seconds: dict[str, Second] = {}
        self._lock = threading.Lock()  # a second session asks one thing after the other

    def state(self, user: str) -> dict[str, Any]:
        """What the page shows. The second session asks once for it."""
        with self._lock:
            second = self._seconds.get(user)
            if second and second.is_over():
                second = None
                del self._seconds[user]
            if second:
                second.ask()
            shown = {"id": second.id, "answers": list(second.answers)} if second else None
        sessions = [
            {
                "id": session.id,
                "program": session.details.get("user_agent", ""),
                "begun_ms": session.created_ms,
            }
            for session in self._cache.sessions(user)
        ]
        return {"user": user, "sessions": sessions, "second": shown, **self._figures()}

    def begin_second(self, user: str) -> dict[str, Any]:
        """A second session in the place of the one before."""
        second = Second(self._gateway, user, self._keys)
        second.ask()
        with self._lock:
            before = self._seconds.pop(user, None)
            self._seconds[user] = second
            while len(self._seconds) > SECONDS_MAX:
                del self._seconds[next(iter(self._seconds))]
        if before:
            self._cache.revoke(before.id, user)
        return {"id": second.id}

    def end(self, user: str, session_id: str) -> dict[str, Any]:
        """End a session of the user; of the second one, how long it was admitted after that."""
        with self._lock:
            ended = self._cache.revoke(session_id, user)
            second = self._seconds.get(user)
            is_second = second is not None and second.id == session_id
            return {"ended": ended, "refused": second.ask_until_refused() if second and is_second else None}

    def _figures(self) -> dict[str, int]:
        """Requests with a good ticket, and what the gateway has sent to its store."""
        samples = {(sample.name, sample.labels.get("verdict")): int(sample.value) for sample in self._metrics()}
        requests = samples.get(("fastticket_requests_total", "admitted"), 0)
        commands = samples.get(("fastticket_store_exchanges_total", None), 0)
        return {"requests": requests, "commands": commands, "commands_of_asking": COMMANDS_OF_ASKING * requests}

    def _metrics(self) -> Any:
        try:
            return read_metrics(self._admin)
        except AdminError:
            return ()


class Desk(Answering):
    """The desk's pages, below `path_of_all`."""

    path_of_all = "/desk"

    def do_GET(self) -> None:  # noqa: N802 -- the name that http.server calls
        """What the page shows. Who is logged out learns that, and it is no error."""
        user = self.user()
        if self.path != f"{self.path_of_all}/state":
            self.answer_json(404, {"error": "there is no such page"})
        elif not user:
            self.answer_json(200, {"user": ""})
        else:
            self._answer_by(lambda desk: desk.state(user))

    def do_POST(self) -> None:  # noqa: N802
        """Begin a second session, or end a session."""
        user = self.user()
        try:
            session_id = self.form().get("id", "")
        except ValueError as error:
            self.answer_json(400, {"error": str(error)})
            return
        if not user:
            self.answer_json(403, {"error": "nobody is logged in"})
        elif self.path == f"{self.path_of_all}/second":
            self._answer_by(lambda desk: desk.begin_second(user))
        elif self.path == f"{self.path_of_all}/end":
            self._answer_by(lambda desk: desk.end(user, session_id))
        else:
            self.answer_json(404, {"error": "there is no such page"})

    def _answer_by(self, act: Callable[[DeskServer], dict[str, Any]]) -> None:
        try:
            found = act(self.server)  # type: ignore[arg-type]
        except (OSError, http.client.HTTPException, FastticketError) as error:
            self.answer_json(503, {"error": str(error)})
        else:
            self.answer_json(200, found)

"""What operators ask of a worker: sessions, events, draining a server. The admin listener, in the
supervisor, sends each as an Inquiry, and waits a bounded time for what is Told.

Each inquiry is a task of its own: a method of `Inquiries` whose name is the inquiry's, with the
inquiry's arguments. It returns plain values.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastticket.errors import FastticketError, InvalidPrincipal, StoreUnavailable, TicketRefused, TooManySessions
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.control import DrainServers, Inquiry, Told
from fastticket.gateway.register import Register
from fastticket.gateway.services import Services
from fastticket.sessions.administration import Administration, Details, Issued
from fastticket.sessions.events import EventStream
from fastticket.sessions.ticketcache import TicketCache
from fastticket.stores.contract import NEVER_MS
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

EVENTS_MAX = 200  # in one answer
TASKS_MAX = 128  # under way at a time, those that nobody waits for any more included
#: Error of the session's room -> slug. The first that fits counts.
SLUGS: tuple[tuple[type[Exception], str], ...] = (
    (InvalidPrincipal, "invalid_principal"),
    (TooManySessions, "too_many_sessions"),
    (TicketRefused, "no_such_session"),
    (StoreUnavailable, "store_unavailable"),
    (ValueError, "bad_request"),
)


class Inquiries:
    """Answers by what a worker has. `drained`: the servers that are, for every service to see once
    `follow_drains` is called; `tell` sends an answer.
    """

    def __init__(
        self,
        cache: TicketCache,
        services: Services,
        drained: set[tuple[str, str]],
        follow_drains: Callable[[], None],
        register: Register,
        tell: Callable[[Told | DrainServers], None],
    ) -> None:
        self._cache = cache
        self._services = services
        self._drained = drained
        self._follow_drains = follow_drains
        self._register = register
        self._administration = Administration(cache)
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, inquiry: Inquiry) -> None:
        """Answer an inquiry soon."""
        if len(self._tasks) >= TASKS_MAX:
            self._tell(Told(inquiry.number, refusal="busy"))
            return
        task = asyncio.create_task(self._answer(inquiry), name=f"fastticket-inquiry-{inquiry.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Answer no more."""
        await end(*self._tasks)

    async def _answer(self, inquiry: Inquiry) -> None:
        try:
            told = await self._told(inquiry)
        except asyncio.CancelledError:
            self._tell(Told(inquiry.number, refusal="no_worker", message="the worker ends; a change may be done"))
            raise
        self._tell(told)

    async def _told(self, inquiry: Inquiry) -> Told:
        try:
            async with asyncio.timeout(inquiry.timeout_s):
                answer = await getattr(self, inquiry.name)(**inquiry.arguments)
            return Told(inquiry.number, answer)
        except TimeoutError:
            return Told(inquiry.number, refusal="store_unavailable", message=f"no answer in {inquiry.timeout_s:g} s")
        except Refused as error:
            return Told(inquiry.number, refusal=error.reason, message=str(error))
        except Exception as error:
            slug = next((slug for kind, slug in SLUGS if isinstance(error, kind)), "failed")
            if slug == "failed":
                log.exception("an operator's inquiry %s has failed", inquiry.name)
            is_ours = isinstance(error, FastticketError | ValueError)
            return Told(inquiry.number, refusal=slug, message=str(error) if is_ours else "")

    # --- sessions

    async def sessions_of(self, principal: str, values: bool) -> list[dict[str, Any]]:
        """The live sessions of a principal."""
        return [_session(each, values) for each in await self._administration.of(principal)]

    async def session(self, session_id: str, principal: str, values: bool) -> dict[str, Any]:
        """One live session. Refused."""
        owner = principal or await self._administration.owner_of(session_id)
        found = await self._administration.find(session_id, owner) if owner else None
        if not found:
            raise Refused("no_such_session")
        return _session(found, values)

    async def scan(self, cursor: str, count: int, values: bool) -> dict[str, Any]:
        """Some of all live sessions, and the cursor to go on from."""
        following, found = await self._administration.scan(cursor, count)
        return {"sessions": [_session(each, values) for each in found], "cursor": following}

    async def count(self) -> int:
        """How many sessions live."""
        return await self._administration.count()

    async def end_session(self, session_id: str, principal: str) -> str:
        """End one; whose it was. Refused."""
        owner = principal or await self._administration.owner_of(session_id)
        if not owner or not await self._administration.end(session_id, owner):
            raise Refused("no_such_session")
        return owner

    async def end_of_principal(self, principal: str, but: str) -> int:
        """End all of a principal's, or all but one; how many. Refused: it has not that one."""
        if but and not await self._administration.find(but, principal):
            raise Refused("no_such_session", "the session that is to stay is none of this principal's")
        return len(await self._administration.end_of(principal, but))

    async def end_all(self, patience_s: float) -> dict[str, Any]:
        """End every session, for so long; how many, and whether that were all."""
        ended, is_complete = await self._administration.end_all(patience_s)
        return {"ended": ended, "is_complete": is_complete}

    async def issue(self, principal: str, options: Mapping[str, Any]) -> dict[str, str]:
        """Begin a session; its ticket and id."""
        return _issued(await self._administration.issue(principal, **options))

    async def rotate(self, session_id: str, principal: str) -> dict[str, str]:
        """Another ticket for a session; that and its new id. Refused."""
        owner = principal or await self._administration.owner_of(session_id)
        issued = await self._administration.rotate(session_id, owner) if owner else None
        if not issued:
            raise Refused("no_such_session")
        return _issued(issued)

    # --- upstreams

    async def drain_server(self, upstream: str, server: str, is_drained: bool) -> list[tuple[str, str]]:
        """Drain a server, or put it back in. Returns all that are drained now. Refused."""
        pair, group = (upstream, server), self._services.present.upstreams.group_of(upstream)
        if pair not in self._drained and not (group and group.knows(server)):
            raise Refused("no_such_server")
        if is_drained and group and not group.has_left(self._drained | {pair}):
            raise Refused("last_server")
        (self._drained.add if is_drained else self._drained.discard)(pair)
        self._follow_drains()
        self._tell(DrainServers(frozenset(self._drained)))  # also if nobody waits for the answer any more
        return sorted(self._drained)

    # --- the fleet

    async def gateways(self) -> dict[str, Any]:
        """The gateways that the store knows."""
        return await self._register.view()

    # --- events

    async def events(self, position: str | None, kinds: list[str], patience_s: float) -> dict[str, Any]:
        """The events after a position, as soon as there are some, at most EVENTS_MAX; none if
        nothing happens for so long. Without a position: the position of now.
        """
        stream = self._cache.events(position, kinds)
        found: list[dict[str, Any]] = []
        if position is None:
            await stream.start()
        else:
            try:
                async with asyncio.timeout(patience_s):
                    found.append((await anext(stream))._asdict())
                await self._take_ready(stream, found)
            except TimeoutError:
                pass
        return {"events": found, "position": stream.position}

    @staticmethod
    async def _take_ready(stream: EventStream, found: list[dict[str, Any]]) -> None:
        """Take those that were read already, as well."""
        while len(found) < EVENTS_MAX and (event := stream.ready()):
            found.append(event._asdict())


def _session(details: Details, values: bool) -> dict[str, Any]:
    """As the document describes it."""
    session, attributes = details
    return {
        "id": session.id,
        "principal": session.principal,
        "created_ms": session.created_ms,
        "last_access_ms": session.last_access_ms,
        "idle_deadline_ms": _deadline(session.idle_deadline_ms),
        "absolute_deadline_ms": _deadline(session.absolute_deadline_ms),
        "details": dict(session.details),
        "attributes": [
            {"name": name, "bytes": len(data), **(_value(data) if values else {})}
            for name, data in sorted(attributes.items())
        ],
    }


def _issued(issued: Issued) -> dict[str, str]:
    return {"ticket": issued.ticket, "id": issued.session_id, "principal": issued.principal}


def _deadline(at_ms: int) -> int | None:
    return None if at_ms >= NEVER_MS else at_ms


def _value(data: bytes) -> Mapping[str, Any]:
    """What an application has serialized as JSON; else its bytes."""
    try:
        return {"value": json.loads(data, parse_constant=_refuse_constant)}
    except ValueError:
        return {"base64": base64.b64encode(data).decode()}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")

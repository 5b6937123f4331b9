"""The commands of operators, straight on a store: `sessions`, `revoke`, `events`. No gateway has to
run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from fastticket.commands import terminal
from fastticket.core.ticket import SESSION_ID_TEXT_CHARS, Keyring, Ticket
from fastticket.errors import ConfigError, StoreUnavailable, TicketRefused
from fastticket.gateway.config import Config
from fastticket.stores import without_password
from fastticket.stores.contract import Event, Position, Request, Store, StoredSession

FOLLOW_INTERVAL_S = 0.5
HISTORY_MAX = 1000  # of each shard
YEAR_2020_MS = 1_577_836_800_000


@contextlib.asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Store]:
    """A configuration's store, opened and closed again; it is not made. Says which one it was:
    "none" is an answer of this one only.
    """
    store = config.open_store(creates=False)
    shown = without_password(config.store.url)
    try:
        await store.open()
        print(f"fastticket: asking {shown}", file=sys.stderr)
        yield store
    finally:
        await store.aclose()


async def list_sessions(config: Config, principal: str, as_json: bool) -> int:
    """Print a principal's live sessions, the one that idles out first at the top."""
    async with opened(config) as store:
        sessions = await store.sessions(principal)
    if as_json:
        _print_json([_session_values(session) for session in sessions])
    else:
        for session in sessions:
            values = _session_values(session)
            print(f"{session.id}  idle at {values['idle_deadline']}  ends at {values['absolute_deadline']}")
        if not sessions:
            print(f"fastticket: {principal} has no session there", file=sys.stderr)
    return 0


async def revoke(config: Config, options: argparse.Namespace) -> int:
    """End the session of a ticket, or that of an id, or all of a user. 1: there was none."""
    session_id, principal = _target(options, config.keyring)
    async with opened(config) as store:
        if session_id is None:
            ended = list(await store.revoke_all(principal))
        else:
            ended = [session_id] if await store.revoke(session_id, principal) else []
    if options.json:
        _print_json({"principal": principal, "ended": ended})
    else:
        print(f"{len(ended)} session{'' if len(ended) == 1 else 's'} of {principal} ended")
    return 0 if ended else 1


def _target(options: argparse.Namespace, keys: Callable[[], Keyring]) -> tuple[str | None, str]:
    """(session id or None for all, principal)"""
    text: str | None = options.ticket_or_id
    if text is None or len(text) == SESSION_ID_TEXT_CHARS:
        if not options.user:
            raise ConfigError(
                "revoke: a session id needs --user, too: the store looks for it among that user's sessions"
            )
        return text, options.user
    if options.user:
        raise ConfigError("revoke: a ticket says whose it is; leave out --user")
    ticket = keys().verify(text, 0)  # an expired one is as good: what it names shall be over
    if not isinstance(ticket, Ticket):
        raise TicketRefused(ticket)
    return ticket.session_id, ticket.principal


async def print_events(config: Config, follow: bool, as_json: bool) -> int:
    """Print the lifecycle log, as far as the store has it; with `follow`, what comes, until SIGINT
    or SIGTERM.
    """
    async with opened(config) as store:
        histories = [await store.history(shard, HISTORY_MAX) for shard in range(store.shards)]
        for event in sorted((event for history in histories for event in history), key=lambda event: event.position):
            _print_event(event, as_json)
        if follow:
            await _follow(store, [history[-1].position if history else None for history in histories], as_json)
    return 0


async def _follow(store: Store, positions: list[Position | None], as_json: bool) -> None:
    stop, ring = asyncio.Event(), asyncio.Event()

    def end() -> None:
        stop.set()
        ring.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    store.on_doorbell(lambda _, changed: None if changed else ring.set())  # those are many: they can wait
    while not stop.is_set():
        await _print_news(store, positions, as_json)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ring.wait(), FOLLOW_INTERVAL_S)
        ring.clear()


async def _print_news(store: Store, positions: list[Position | None], as_json: bool) -> None:
    """What came after the positions, which move on."""
    requests = {shard: Request(position) for shard, position in enumerate(positions)}
    news: list[Event] = []
    for shard, reply in (await store.exchange(requests)).items():
        if isinstance(reply, StoreUnavailable):
            print(f"fastticket: {reply}", file=sys.stderr)
            continue
        if reply.gap:
            print(f"fastticket: shard {shard}: entries are missing here", file=sys.stderr)
        positions[shard] = reply.position
        news += reply.events
    for event in sorted(news, key=lambda event: event.position):
        _print_event(event, as_json)


def _print_event(event: Event, as_json: bool) -> None:
    position = f"{event.position[0]}-{event.position[1]}"
    # Redis' positions begin with the time, SQLite's are numbers.
    at = iso(event.position[0]) if event.position[0] > YEAR_2020_MS else None
    if as_json:
        values = {"position": position, "at": at, "kind": event.kind}
        print(
            terminal.json_text({**values, "session_id": event.session_id, "principal": event.principal}),
            flush=True,
        )
    else:
        print(f"{at or position}  {event.kind:8} {event.session_id}  {event.principal}", flush=True)


def _session_values(session: StoredSession) -> Mapping[str, Any]:
    return {
        "id": session.id,
        "principal": session.principal,
        "created": iso(session.created_ms),
        "idle_deadline": iso(session.idle_deadline_ms),
        "absolute_deadline": iso(session.absolute_deadline_ms),
        "details": dict(session.details),
    }


def _print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    print(terminal.json_text(value, indent=2))


def iso(at_ms: int) -> str:
    """ISO 8601, UTC; far beyond what a calendar knows, in ms."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03}Z"
    except (OverflowError, ValueError):
        return f"{at_ms} ms"

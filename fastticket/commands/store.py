"""Operators' commands that work on a store, without a gateway: `sessions`, `revoke`, `events`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from fastticket.commands import terminal
from fastticket.commands.progress import progress
from fastticket.core.ticket import SESSION_ID_TEXT_CHARS, Keyring, Ticket
from fastticket.errors import ConfigError, StoreUnavailable, TicketRefused
from fastticket.gateway.exitcodes import FAILED
from fastticket.gateway.settings import Config
from fastticket.sessions.administration import Administration
from fastticket.sessions.events import LOST, LogFollower, Place, Read
from fastticket.sessions.ticketcache import TicketCache
from fastticket.stores import without_password
from fastticket.stores.contract import NEVER_MS, Event, Store, StoredSession, is_canary
from fastticket.stores.looking import open_to_look

FOLLOW_INTERVAL_S = 0.5
HISTORY_MAX = 1000  # of each shard
PAGE_SESSIONS = 1000  # of a list of all
ENDED_THERE = frozenset({"linkis", "spring", "starsessions"})  # that say whose their sessions are, and when they began
YEAR_2020_MS = 1_577_836_800_000


@contextlib.asynccontextmanager
async def opened(config: Config, *, creates: bool = False) -> AsyncIterator[Store]:
    """A configuration's store, opened, and closed at the end; without `creates` it must be there.
    Prints which store is asked: "no such session" is true of that one only.
    """
    store = config.open_store(creates=creates)
    try:
        await store.open()
        _say_which(config)
        yield store
    finally:
        await store.aclose()


def to_look(config: Config) -> contextlib.AbstractAsyncContextManager[Store]:
    """As `opened`, for what only reads: without the store's mirror, which has to answer nothing."""
    return opened(dataclasses.replace(config, store=dataclasses.replace(config.store, mirror_url="")))


@contextlib.asynccontextmanager
async def to_try(config: Config) -> AsyncIterator[Store]:
    """As `to_look`, for a dry run: a store that is not there yet is as one without sessions."""
    truth = dataclasses.replace(config, store=dataclasses.replace(config.store, mirror_url=""))
    store = await open_to_look(lambda creates: truth.open_store(creates=creates))
    try:
        _say_which(config)
        yield store
    finally:
        await store.aclose()


def _say_which(config: Config) -> None:
    print(f"fastticket: asking {without_password(config.store.url)}", file=sys.stderr)


async def list_sessions(config: Config, options: argparse.Namespace) -> int:
    """Print live sessions: a principal's, the one with the earliest idle deadline first, or all, in
    no order. With --count, how many.
    """
    async with to_look(config) as store:
        if options.count:
            _print_count(await store.count() if options.all else len(await store.sessions(options.user)), options.json)
        elif options.all:
            await _print_all(store, options.json)
        else:
            _print_of(options.user, await store.sessions(options.user), options.json)
    return 0


def _print_count(count: int, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"count": count})
    else:
        print(count)


def _print_of(principal: str, sessions: Sequence[StoredSession], as_json: bool) -> None:
    if as_json:
        terminal.print_json([session_values(session) for session in sessions])
        return
    for session in sessions:
        print(f"{session.id}  {_deadlines(session)}")
    if not sessions:
        print(f"fastticket: {principal} has no session there", file=sys.stderr)


async def _print_all(store: Store, as_json: bool) -> None:
    """Page by page, however many there are. A bar on the terminal where the list goes elsewhere."""
    total = None if sys.stdout.isatty() else await store.count()
    showing = contextlib.nullcontext(lambda _: None) if total is None else progress("sessions", "sessions", total)
    cursor, is_first = "", True
    with showing as advance:
        while True:
            cursor, sessions = await store.scan(cursor, PAGE_SESSIONS)
            for session in sessions:
                if as_json:
                    print("[\n" if is_first else ",\n", terminal.json_text(session_values(session)), sep="", end="")
                else:
                    print(f"{session.id}  {_deadlines(session)}  {session.principal}")
                is_first = False
            advance(len(sessions))
            if not cursor:
                break
    if as_json:
        print("[]" if is_first else "\n]")


def _deadlines(session: StoredSession) -> str:
    values = session_values(session)
    return f"idle at {values['idle_deadline'] or 'no time'}  ends at {values['absolute_deadline'] or 'no time'}"


async def revoke(config: Config, options: argparse.Namespace) -> int:
    """End the session of a ticket, or the one with an id, or all of a user. Returns the exit code;
    1: there was none, and no other system has any that would end by it.
    """
    session_id, principal = _target(options, config.keyring)
    sources = [each.source for each in config.migration] if session_id is None else []
    async with opened(config) as store:
        if session_id is None:
            ended = list(await store.revoke_all(principal, reason="revoked"))
        else:
            ended = [session_id] if await store.revoke(session_id, principal, "revoked") else []
    _print_ended(principal, ended, options.json)
    if not options.json:
        for source in sources:
            what = (
                "the gateways end those there, too" if source in ENDED_THERE else "none of before comes here any more"
            )
            print(f"of {principal}'s sessions at {source} that nobody has brought yet: {what}")
    return 0 if ended or sources else 1


async def revoke_all_but(config: Config, options: argparse.Namespace) -> int:
    """End all sessions of a user but the one with an id. Returns the exit code; 1: that one is none
    of the user's, and nothing has ended, or there was no other.
    """
    async with _administering(config) as administration:
        if not await administration.find(options.but, options.user):
            print(f"fastticket: nothing has ended: {options.but} is no session of {options.user}", file=sys.stderr)
            return FAILED
        ended = list(await administration.end_of(options.user, options.but))
    _print_ended(options.user, ended, options.json)
    return 0 if ended else FAILED


async def revoke_everybody(config: Config, as_json: bool) -> int:
    """End all sessions there are. Returns the exit code; 1: some of them may come back."""
    async with _administering(config) as administration:
        ended, is_complete = await administration.end_all(math.inf)
    if as_json:
        terminal.print_json({"ended": ended, "is_complete": is_complete})
    else:
        print(f"{ended} session{'' if ended == 1 else 's'} ended")
    if not is_complete:
        print("fastticket: the store has just lost data, which may come back: do it again in a moment", file=sys.stderr)
    return 0 if is_complete else FAILED


@contextlib.asynccontextmanager
async def _administering(config: Config) -> AsyncIterator[Administration]:
    """What the admin API does with a configuration's store, as `opened` has it. The cache that it
    works on reads and makes no ticket, so that its key is nobody's.
    """
    settings = config.store
    cache = TicketCache(
        config.open_store(creates=False),
        Keyring([(1, os.urandom(32))]),
        lease_ms=settings.lease_ms,
        restore_from_cache=settings.restore_from_cache,
    )
    async with cache:
        _say_which(config)
        yield Administration(cache)


def _print_ended(principal: str, ended: Sequence[str], as_json: bool) -> None:
    if as_json:
        terminal.print_json({"principal": principal, "ended": ended})
    else:
        print(f"{len(ended)} session{'' if len(ended) == 1 else 's'} of {principal} ended")


def _target(options: argparse.Namespace, keys: Callable[[], Keyring]) -> tuple[str | None, str]:
    """(session id, principal); None for the id: all of the principal's sessions. ConfigError,
    TicketRefused.
    """
    text: str | None = options.ticket_or_id
    if text is None or len(text) == SESSION_ID_TEXT_CHARS:
        if not options.user:
            raise ConfigError(
                "revoke: a session id needs --user, too: the store looks for it among that user's sessions"
            )
        return text, options.user
    if options.user:
        raise ConfigError("revoke: a ticket says whose it is; leave out --user")
    ticket = keys().verify(text, 0)  # at time 0, so an expired ticket names its session, too
    if not isinstance(ticket, Ticket):
        raise TicketRefused(ticket)
    return ticket.session_id, ticket.principal


async def print_events(config: Config, follow: bool, as_json: bool) -> int:
    """Print the lifecycle log, as far as the store has it; with `follow`, go on with what comes,
    until SIGINT or SIGTERM.
    """
    async with to_look(config) as store:
        follower = LogFollower(store, {})
        await _print_begun(store, follower, as_json)
        if follow:
            await _follow(store, follower, as_json)
    return 0


async def _print_begun(store: Store, follower: LogFollower, as_json: bool) -> None:
    """What is in the logs that were empty until now, or were not looked into yet. A follower would
    begin an empty log with an entry of its own, and who looks writes nothing.
    """
    unread = [shard for shard in range(store.shards) if shard not in follower.places]
    histories = await asyncio.gather(*(store.history(shard, HISTORY_MAX) for shard in unread))
    found = {shard: history for shard, history in zip(unread, histories, strict=True) if history}
    follower.places |= {shard: Place(history[-1].position) for shard, history in found.items()}
    _print_events([event for history in found.values() for event in history], as_json)


async def _follow(store: Store, follower: LogFollower, as_json: bool) -> None:
    stop, ring = asyncio.Event(), asyncio.Event()

    def end() -> None:
        stop.set()
        ring.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    store.on_doorbell(lambda _, changed: None if changed else ring.set())  # changes are many: they can wait
    while not stop.is_set():
        await _print_news(store, follower, as_json)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ring.wait(), FOLLOW_INTERVAL_S)
        ring.clear()


async def _print_news(store: Store, follower: LogFollower, as_json: bool) -> None:
    """What has come since the last time, page by page."""
    with contextlib.suppress(StoreUnavailable):  # which `failed` says, too
        await _print_begun(store, follower, as_json)
    has_more = bool(follower.places)
    while has_more:
        reads: deque[Read] = deque()
        has_more = await follower.look(reads)
        for shard, _, event in reads:
            if event.kind == LOST:
                print(f"fastticket: shard {shard}: entries are missing here", file=sys.stderr)
        _print_events([event for _, _, event in reads if event.kind != LOST], as_json)
    for error in follower.failed.values():
        print(f"fastticket: {error}", file=sys.stderr)


def _print_events(events: Iterable[Event], as_json: bool) -> None:
    """Oldest first, a line each."""
    of_users = (event for event in events if not is_canary(event.principal))
    for event in sorted(of_users, key=lambda event: event.position):
        values = event_values(event)
        if as_json:
            print(terminal.json_text(values), flush=True)
        else:
            more = [event.reason, event.successor_id and f"now {event.successor_id}"]
            line = f"{values['at'] or values['position']}  {event.kind:8} {event.session_id}  {event.principal}"
            print("  ".join([line, *filter(None, more)]), flush=True)


def event_values(event: Event) -> Mapping[str, Any]:
    """As --json shows it."""
    entry_ms, number = event.position
    # Redis' positions begin with the time, SQLite's are numbers.
    at = iso(entry_ms) if entry_ms > YEAR_2020_MS else None
    return event._asdict() | {"position": f"{entry_ms}-{number}", "at": at}


def session_values(session: StoredSession) -> Mapping[str, Any]:
    """As --json shows it."""
    return {
        "id": session.id,
        "principal": session.principal,
        "created": iso(session.created_ms),
        "idle_deadline": iso_deadline(session.idle_deadline_ms),
        "absolute_deadline": iso_deadline(session.absolute_deadline_ms),
        "details": dict(session.details),
    }


def iso_deadline(at_ms: int) -> str | None:
    """As `iso`; None: it never comes."""
    return iso(at_ms) if at_ms < NEVER_MS else None


def iso(at_ms: int) -> str:
    """ISO 8601, UTC; in ms if it lies beyond the calendar's end."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03}Z"
    except (OverflowError, ValueError):
        return f"{at_ms} ms"

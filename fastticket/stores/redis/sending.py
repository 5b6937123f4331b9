"""Sending commands to the servers that have their slots, and again where a slot has moved.

    Sender.run   a script in each of several shards: one pipeline a server
    Sender.ask   one command about one slot, for what is not a script

A redirection or a lost connection is answered by sending again: every script allows that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from fastticket.errors import NotConfirmed, StoreBusy, StoreUnavailable
from fastticket.stores.redis.address import Address, Command, slot_of
from fastticket.stores.redis.cluster import Cluster
from fastticket.stores.redis.errors import shortened, text_with_code
from fastticket.stores.redis.layout import key
from fastticket.stores.redis.scripts import Script, ScriptCall, call_of
from fastticket.stores.redis.servers import Server
from fastticket.stores.redis.topology import Topology, make_topology
from fastticket.stores.usage import Traffic

log = logging.getLogger("fastticket.redis")

ATTEMPTS = 6  # while a Cluster moves slots or elects a primary
ATTEMPT_PAUSE_S = 0.01  # doubled each time
#: Replies after which the command is sent again, later or to another server.
REDIRECTIONS = (MovedError, AskError, TryAgainError, ClusterDownError)


class Sender:
    """`on_change(shards)`: another server than before serves these shards; called before any reply
    of it is handed out.
    """

    def __init__(self, address: Address, on_change: Callable[[Collection[int]], None]) -> None:
        self.mismatch = ""  #: why this store must not be used any more; then every script is StoreUnavailable
        self.slots = [slot_of(key(shard, "live")) for shard in range(address.shards)]
        self.traffic = Traffic()
        self._address = address
        self._on_change = on_change
        self._topology: Topology | None = None
        self._serving: list[Server | None] = [None] * address.shards

    def open(self) -> None:
        """Connections are made when they are needed."""
        self._topology = make_topology(self._address, self._on_server_change, traffic=self.traffic)

    def detach(self) -> Topology | None:
        """Send nothing any more. The topology is for the caller to close; None: already
        detached.
        """
        topology, self._topology = self._topology, None
        return topology

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._topology is not None

    @property
    def topology(self) -> Topology:
        """StoreUnavailable: not open."""
        if self._topology is None:
            raise StoreUnavailable("the redis store is not open")
        return self._topology

    # --- scripts

    async def run(self, calls: Mapping[int, ScriptCall], *, confirm: bool = False) -> dict[int, Any]:
        """Run a script in each of some shards; what it returned, or StoreUnavailable. `confirm`:
        wait for a replica, if that is configured.
        """
        if self.mismatch:
            return dict.fromkeys(calls, StoreUnavailable(self.mismatch))
        answers: dict[int, Any] = {}
        left = dict(calls)
        for attempt in range(ATTEMPTS):
            if attempt:
                await _pause(attempt)
            answers |= await self._send(left, answers, confirm)
            left = {shard: call for shard, call in left.items() if isinstance(answers[shard], REDIRECTIONS)}
            if not left:
                return answers
            if any(isinstance(answers[shard], MovedError) for shard in left):
                if self._address.kind != "cluster":
                    break  # a single server cannot say which server has them
                await self.topology.moved()
        for shard in left:
            answers[shard] = self._refusal(f"redis: shard {shard} is moving", answers[shard])
        return answers

    async def run_script(
        self, shard: int, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, confirm: bool = True
    ) -> Any:
        """One script in one shard, as `call_of` takes it. StoreUnavailable."""
        answers = await self.run({shard: call_of(shard, script, keys, arguments)}, confirm=confirm)
        if isinstance(answers[shard], StoreUnavailable):
            raise answers[shard]
        return answers[shard]

    async def _send(self, calls: Mapping[int, ScriptCall], before: Mapping[int, Any], confirm: bool) -> dict[int, Any]:
        """One attempt. `before`: the answers of the previous attempt; empty at the first."""
        groups: dict[tuple[Server, bool], dict[int, ScriptCall]] = {}
        answers: dict[int, Any] = {}
        for shard, call in calls.items():
            try:
                where = await self._server_for(shard, before.get(shard))
            except StoreUnavailable as error:
                answers[shard] = error
            else:
                groups.setdefault(where, {})[shard] = call
        sending = [self._send_group(where, group, confirm) for where, group in groups.items()]
        # Most calls concern one server: they need no task of their own.
        for sent in [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending):
            answers |= sent
        return answers

    async def _server_for(self, shard: int, before: Any) -> tuple[Server, bool]:
        """The server, and whether it must be sent ASKING: it is importing the slot."""
        if isinstance(before, AskError) and isinstance(self.topology, Cluster):
            asked = self._serving[shard]
            host = before.host or (asked.name.rpartition(":")[0] if asked else "")
            return self.topology.server_at(host, before.port), True
        server = await self.topology.server_of(self.slots[shard])
        if self._serving[shard] not in (None, server):
            self._on_change([shard])
        self._serving[shard] = server
        return server, False

    async def _send_group(
        self, where: tuple[Server, bool], calls: Mapping[int, ScriptCall], confirm: bool
    ) -> dict[int, Any]:
        """A failure concerns one server, and not the shards of the others."""
        try:
            return await self._send_to(*where, calls, confirm)
        except StoreUnavailable as error:  # the store was closed meanwhile
            return dict.fromkeys(calls, error)
        except Exception as error:
            log.exception("redis: unexpected")
            return dict.fromkeys(calls, StoreUnavailable(f"redis: unexpected: {type(error).__name__}"))

    async def _send_to(
        self, server: Server, asking: bool, calls: Mapping[int, ScriptCall], confirm: bool
    ) -> dict[int, Any]:
        """One pipeline, by EVALSHA, and another one by EVAL for scripts that the server does not
        know.
        """
        try:
            answers = await self._pipeline(
                server, asking, {shard: command for shard, (_, command) in calls.items()}, confirm
            )
            unknown = [shard for shard, answer in answers.items() if isinstance(answer, NoScriptError)]
            if unknown:
                sources = {shard: calls[shard][0].by_source(calls[shard][1]) for shard in unknown}
                answers |= await self._pipeline(server, asking, sources, confirm)
        except StoreBusy as error:
            return dict.fromkeys(calls, error)
        except StoreUnavailable as error:
            await self.topology.moved()
            return dict.fromkeys(calls, error)
        return {
            shard: StoreUnavailable(f"redis {server.name}: {shortened(answer)}")
            if isinstance(answer, ResponseError) and not isinstance(answer, REDIRECTIONS)
            else answer
            for shard, answer in answers.items()
        }

    async def _pipeline(
        self, server: Server, asking: bool, commands: Mapping[int, Command], confirm: bool
    ) -> dict[int, Any]:
        lines: list[Command] = []
        for command in commands.values():
            lines += [("ASKING",)] * asking
            lines.append(command)
        needs_replica = confirm and self._address.is_replicated
        replies = await server.call(lines, confirm=needs_replica)
        if (
            needs_replica
            and not _is_confirmed(replies.pop())
            and not any(isinstance(reply, ResponseError) for reply in replies)
        ):
            raise NotConfirmed(f"redis {server.name}: written, but no replica confirmed it in time")
        return dict(zip(commands, replies[asking :: 1 + asking], strict=True))

    # --- other commands

    async def ask(self, slot: int, command: Command) -> Any:
        """One command about one slot. StoreUnavailable."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await _pause(attempt)
            server = await self.topology.server_of(slot)
            try:
                (reply,) = await server.call([command])
            except StoreBusy:
                raise
            except StoreUnavailable:
                await self.topology.moved()
                raise
            if isinstance(reply, MovedError):
                if self._address.kind != "cluster":
                    break  # a single server cannot say which server has it
                await self.topology.moved()
            elif not isinstance(reply, REDIRECTIONS):
                break
        if isinstance(reply, ResponseError):
            raise self._refusal(f"redis {server.name}", reply)
        return reply

    def _refusal(self, subject: str, reply: RedisError) -> StoreUnavailable:
        """An error reply, as callers get it; its cause is a MovedError where a server of a Cluster
        was asked as if it were a single one.
        """
        error = StoreUnavailable(f"{subject}: {text_with_code(reply)}")
        if isinstance(reply, MovedError) and self._address.kind != "cluster":
            error = StoreUnavailable(f"{error}; it is a Cluster's: write redis+cluster:// in the store's URL")
            error.__cause__ = reply
        return error

    def _on_server_change(self, server: Server) -> None:
        self._on_change([shard for shard, serving in enumerate(self._serving) if serving is server])


async def _pause(attempt: int) -> None:
    await asyncio.sleep(ATTEMPT_PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311


def _is_confirmed(reply: Any) -> bool:
    return isinstance(reply, int) and reply >= 1

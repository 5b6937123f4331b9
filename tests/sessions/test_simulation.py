"""A seeded simulation: several gateways' caches on one model store, in virtual time, with
everything late, lost or down that can be.

Each schedule is made from its seed alone; a failing one says which, and `FASTTICKET_SEED=n pytest
tests/sessions/test_simulation.py` plays it again. FASTTICKET_FUZZ multiplies how many there are.
What is promised is judged by what clients and operators see: who was admitted or refused, when;
which logins and logouts were acknowledged, when.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from dataclasses import dataclass, field

import pytest
from lab.model_store import TIMEOUT_MS, ModelServer, ModelStore, VirtualLoop, Wire, pass_ms, virtual_ms

import fastticket
from fastticket.errors import StoreUnavailable, TicketRefused

FUZZ = float(os.environ.get("FASTTICKET_FUZZ", "1"))
SCHEDULES = int(1000 * FUZZ)
CHUNKS = 10
KEY = (1, b"k" * 32)
RESOLUTION_MS = 5  # of what an event loop's rounds add up to, in virtual time


class FaultyWire(Wire):
    """Every message takes its time; with `loss`, some are lost on the way there or back, and then a
    timeout passes.
    """

    def __init__(self, rng: random.Random, latency_ms: int, loss: float) -> None:
        super().__init__()
        self._rng = rng
        self._latency_ms = latency_ms
        self.loss = loss
        self.doorbell = rng.choice([0.0, 0.5, 1.0])

    async def carry_request(self, call):
        await super().carry_request(call)
        await self._travel()

    async def carry_reply(self, call):
        await super().carry_reply(call)
        await self._travel()

    async def _travel(self) -> None:
        if self._rng.random() < self.loss:
            await pass_ms(TIMEOUT_MS)
            raise StoreUnavailable("simulation: lost")
        await pass_ms(self._rng.randint(0, self._latency_ms))

    def hears_doorbell(self):
        return self._rng.random() < self.doorbell


@dataclass
class Use:
    at_ms: int  # virtual
    by: int  # which cache
    counts: bool  # as a use: with touch


@dataclass
class Known:
    """The truth about a session."""

    principal: str
    ticket: str
    born_ms: int  # virtual
    uses: list[Use] = field(default_factory=list)
    revoking: bool = False
    revoked_ms: int | None = None  # virtual, when it was acknowledged


class Simulation:
    """One schedule."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.faulty = rng.random() < 0.5
        self.flush_ms = rng.choice([100, 200, 500])
        self.lease_ms = self.flush_ms * rng.randint(2, 6)
        self.latency_ms = rng.choice([0, 1, self.flush_ms // 20, self.flush_ms // 4])
        self.idle_s = rng.randint(max(1, -(-4 * self.flush_ms // 1000)), 5)
        self.lifetime_s = rng.choice([6, 15, 3600])
        self.resolution_ms = rng.choice([0, 0, 0, self.flush_ms])
        self.grace_s = rng.choice([0, 2, 10])
        self.server = ModelServer(virtual_ms, rng.randint(1, 3))
        self.caches: list[fastticket.TicketCache | None] = []
        self.stores: list[ModelStore] = []
        self.sessions: list[Known] = []
        self.killed_ms: dict[int, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.log_losses = rng.choice([0.3, 5])
        self.everywhere: list[tuple[str, float]] = []  # whose sessions all ended, and when that was over
        self.step_ms = rng.choice([1, self.flush_ms // 4, self.flush_ms, 2 * self.flush_ms])

    # --- what happens

    async def run(self) -> None:
        for _ in range(self.rng.randint(2, 4)):
            await self._start()
        for _ in range(self.rng.randint(20, 60)):
            self._act()
            await pass_ms(self.rng.randint(0, self.step_ms))
        for by, store in enumerate(self.stores):
            store.wire.loss = 0.0
            store.wire.is_down = self.caches[by] is None
        if self.tasks:
            await asyncio.wait(self.tasks)
        for by, cache in enumerate(self.caches):
            if cache:
                await cache.aclose()
                self._touches_arrived(by, virtual_ms())
        self._touches_coalesced()

    async def _start(self) -> None:
        wire = FaultyWire(self.rng, self.latency_ms, 0.0)
        store = ModelStore(self.server, wire)
        cache = fastticket.TicketCache(
            store,
            fastticket.Keyring([KEY]),
            idle_timeout_s=self.idle_s,
            absolute_lifetime_s=self.lifetime_s,
            capacity=self.rng.choice([2, 5, 4000]),
            flush_interval_ms=self.flush_ms,
            lease_ms=self.lease_ms,
            touch_resolution_ms=self.resolution_ms,
            outage_policy="serve-cached" if self.grace_s else "deny",
            outage_grace_s=self.grace_s,
            clock=virtual_ms,
        )
        await cache.open()
        wire.loss = self.rng.choice([0.05, 0.3]) if self.faulty else 0.0
        self.caches.append(cache)
        self.stores.append(store)

    def _act(self) -> None:
        actions = {
            self._log_in: 4,
            self._ask: 20,
            self._log_out: 3,
            self._log_out_everywhere: 1,
            self._ask_and_cancel: 2,
            self._lose_log: self.log_losses,
            self._kill: 0.3,
            self._close: 0.3,
            self._cut_off: 2 if self.faulty else 0,
        }
        (act,) = self.rng.choices(list(actions), list(actions.values()))
        alive = [by for by, cache in enumerate(self.caches) if cache]
        if alive:
            act(self.rng.choice(alive))

    def _spawn(self, work) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        return task

    def _log_in(self, by: int) -> None:
        async def log_in() -> None:
            principal = f"user{self.rng.randrange(4)}"
            with contextlib.suppress(StoreUnavailable):
                born_ms = virtual_ms()
                ticket = await self.caches[by].login(principal)
                # Who logs in while all sessions are being ended may lose this one, too.
                revoking = any(whose == principal and until_ms >= born_ms for whose, until_ms in self.everywhere)
                self.sessions.append(Known(principal, ticket, born_ms, revoking=revoking))

        self._spawn(log_in())

    def _ask(self, by: int) -> asyncio.Task[None] | None:
        if not self.sessions:
            return None
        session = self.rng.choice(self.sessions[-6:])
        return self._spawn(self._authenticate(by, session, self.rng.random() < 0.8))

    def _ask_and_cancel(self, by: int) -> None:
        task = self._ask(by)
        if task:
            asyncio.get_running_loop().call_later(self.rng.random() * 0.1, task.cancel)

    async def _authenticate(self, by: int, session: Known, touch: bool) -> None:
        cache = self.caches[by]
        try:
            await cache.authenticate(session.ticket, touch=touch)
        except TicketRefused as refused:
            self._judge_refusal(by, session, refused.reason)
        except StoreUnavailable:
            assert self.faulty or self.caches[by] is None, "the store was there, and yet unavailable"
        else:
            self._judge_admission(by, session)
            session.uses.append(Use(virtual_ms(), by, touch))

    def _log_out(self, by: int) -> None:
        if self.sessions:
            self._spawn(self._revoke(by, self.rng.choice(self.sessions[-6:])))

    async def _revoke(self, by: int, session: Known) -> None:
        session.revoking = True
        with contextlib.suppress(StoreUnavailable, TicketRefused):
            await self.caches[by].logout(session.ticket)
            session.revoked_ms = session.revoked_ms or virtual_ms()

    def _log_out_everywhere(self, by: int) -> None:
        if self.sessions:
            self._spawn(self._revoke_all(by, self.rng.choice(self.sessions).principal))

    async def _revoke_all(self, by: int, principal: str) -> None:
        under_way = (principal, float("inf"))
        self.everywhere.append(under_way)
        ending = [session for session in self.sessions if session.principal == principal]
        for session in ending:
            session.revoking = True
        with contextlib.suppress(StoreUnavailable):
            await self.caches[by].logout_everywhere(principal)
            self.everywhere.remove(under_way)
            self.everywhere.append((principal, virtual_ms()))
            for session in ending:
                session.revoked_ms = session.revoked_ms or virtual_ms()

    def _lose_log(self, by: int) -> None:
        self.server.lose_log(self.rng.randrange(self.server.shards))

    def _cut_off(self, by: int) -> None:
        """For a while, nothing of this gateway arrives."""
        wire = self.stores[by].wire
        wire.is_down = True

        def mend() -> None:
            wire.is_down = self.caches[by] is None

        asyncio.get_running_loop().call_later(self.rng.random() * 2 * (self.grace_s + self.lease_ms / 1000), mend)

    def _kill(self, by: int) -> None:
        """SIGKILL: nothing that it sends arrives any more, and nobody asks it."""
        if sum(cache is not None for cache in self.caches) > 1:
            cache, self.caches[by] = self.caches[by], None
            self.killed_ms[by] = virtual_ms()
            self._touches_arrived(by, virtual_ms() - self.flush_ms - 2 * self.latency_ms - RESOLUTION_MS)
            self.stores[by].wire.is_down = True
            self.server.stores.remove(self.stores[by])
            self._spawn(cache.aclose())

    def _close(self, by: int) -> None:
        """SIGTERM: nobody asks it any more, and it brings all its touches."""
        if sum(cache is not None for cache in self.caches) > 1:
            cache, self.caches[by] = self.caches[by], None

            async def close() -> None:
                await cache.aclose()
                self._touches_arrived(by, virtual_ms())

            self._spawn(close())

    # --- what must hold

    def _slack_ms(self) -> int:
        """The slack for clocks that are read over a wire, and for calls under way."""
        return 2 * self.latency_ms + RESOLUTION_MS

    def _judge_admission(self, by: int, session: Known) -> None:
        now_ms = virtual_ms()
        if session.revoked_ms is not None:
            bound_ms = self.lease_ms
            if self.faulty and self.grace_s:  # on credit: an outage that began before this cache could hear of it
                bound_ms += self.flush_ms + TIMEOUT_MS + self._slack_ms() + 1000 * self.grace_s
            late_ms = now_ms - session.revoked_ms
            assert late_ms <= bound_ms + RESOLUTION_MS, f"P2: admitted {late_ms} ms after its revocation"
        assert now_ms < session.born_ms + 1000 * self.lifetime_s + self._slack_ms(), "P3: past its absolute deadline"
        last_ms = max([session.born_ms, *(use.at_ms for use in session.uses if use.counts)])
        idle_ms = now_ms - last_ms - 1000 * self.idle_s
        assert idle_ms <= self.flush_ms + self._slack_ms(), f"P3: idle for {idle_ms} ms too long"

    def _judge_refusal(self, by: int, session: Known, reason: str) -> None:
        now_ms = virtual_ms()
        if reason == "expired":
            assert now_ms >= session.born_ms + 1000 * self.lifetime_s - self._slack_ms(), "P3: refused before its end"
        elif not session.revoking:
            last_ms = session.born_ms
            for use in session.uses:
                # A use that came in the slack after the idle timeout was luck: nothing is promised
                # to it.
                if self._counts(use, by, now_ms) and use.at_ms <= last_ms + 1000 * self.idle_s:
                    last_ms = max(last_ms, use.at_ms)
            use_ms = last_ms + 1000 * self.idle_s + self.flush_ms
            deadline_ms = min(use_ms, session.born_ms + 1000 * self.lifetime_s) - self.resolution_ms
            assert now_ms >= deadline_ms - self._slack_ms(), f"P4: {reason}, {deadline_ms - now_ms} ms too early"

    def _counts(self, use: Use, by: int, now_ms: int) -> bool:
        """A use counts once its touch can be in the store; one through the very gateway that is
        asked counts at once.
        """
        settled_ms = (
            min(now_ms, self.killed_ms.get(use.by, now_ms)) - self.flush_ms - 4 * self.latency_ms - RESOLUTION_MS
        )
        return use.counts and (use.by == by or (not self.faulty and use.at_ms <= settled_ms))

    def _touches_arrived(self, by: int, until_ms: int) -> None:
        """P5: the store has what this gateway admitted until then, if it could be reached."""
        if self.faulty:
            return
        for session in self.sessions:
            used_ms = [use.at_ms for use in session.uses if use.by == by and use.counts and use.at_ms <= until_ms]
            stored = [s for s in self.server.live.values() if s.principal == session.principal]
            if not used_ms or session.revoking:
                continue
            use_ms = max(used_ms) + 1000 * self.idle_s + self.flush_ms
            wanted_ms = min(use_ms, session.born_ms + 1000 * self.lifetime_s) - self.resolution_ms - self._slack_ms()
            deadlines_ms = [s.idle_deadline_ms - self.server.shift_ms for s in stored if self._is(s, session)]
            if deadlines_ms:  # or it was swept, long after
                assert deadlines_ms[0] >= wanted_ms, "P5: a touch is missing in the store"

    def _is(self, stored, session: Known) -> bool:
        return fastticket.Keyring([KEY]).verify(session.ticket, 0).session_id == stored.id

    def _touches_coalesced(self) -> None:
        """P7: a session is written at most once an interval by a gateway, and closing writes once
        more.
        """
        if self.faulty:
            return
        for store in self.stores:
            written: dict[str, int] = {}
            for call in store.calls:
                for touch in call.touches:
                    written[touch.session_id] = written.get(touch.session_id, 0) + 1
            lived_ms = virtual_ms() - 1_000_000
            for count in written.values():
                assert count <= lived_ms / self.flush_ms + 3, "P7: written more than once an interval"
            for call in store.calls:
                ids = [touch.session_id for touch in call.touches]
                assert len(ids) == len(set(ids)), "P7: written twice at once"
                assert len(call.wanted) == len(set(call.wanted)), "P7: loaded twice at once"


def play(seed: int) -> None:
    async def schedule() -> None:
        simulation = Simulation(seed)
        await simulation.run()
        for task in simulation.tasks:
            if not task.cancelled() and task.exception():
                raise task.exception()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        try:
            runner.run(schedule())
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_promises_hold_in_every_schedule(chunk):
    if "FASTTICKET_SEED" in os.environ:
        play(int(os.environ["FASTTICKET_SEED"]))
        return
    for seed in range(chunk, SCHEDULES, CHUNKS):
        play(seed)

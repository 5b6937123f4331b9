"""Which server is the master, as the sentinels say. They are asked again and again, because a
master that was replaced does not say so itself.

Rules of this file
- All sentinels are asked at the same time: at least once per `confirm_s`, and at once when a link
  to the master fails, when it answers that it is none, and when a sentinel publishes
  `+switch-master`. Each is a `Server` of its own: one that hangs delays no other.
- The answer with the highest config-epoch is believed, whichever sentinel gives it: a majority has
  decided it (a sentinel cannot fail over alone). A sentinel with no higher epoch than ours is
  behind, or was set up anew: if it names another master, that one is believed when a majority of
  the URL's sentinels names it for longer than their news take (LAGGING_S).
- Nothing is sent to a master that was not confirmed within DOUBT times `confirm_s`: a process that
  was stopped asks first. But it does not wait for sentinels when none answers any more.
- So with fewer than a majority in reach the master stays, unless one of them has a higher epoch. A
  gateway that is cut off from every sentinel that knows of a failover cannot know of it; that is
  bounded by `min-replicas-to-write` (docs/how-to/redis.md).
- A process without a master yet takes the best answer, after having given the others a moment.
- Another master is another place for the one `Server`, which drops its links at once and calls
  `on_change` (`Server.move`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from fastticket.errors import StoreUnavailable
from fastticket.stores.redis.address import Address, Place, place_of
from fastticket.stores.redis.errors import shortened
from fastticket.stores.redis.polling import DOUBT, in_time
from fastticket.stores.redis.servers import Listener, Server
from fastticket.stores.usage import Traffic
from fastticket.tasks import end

log = logging.getLogger("fastticket.redis")

SWITCH = "+switch-master"
LAGGING_S = 3.0  # sentinels tell each other every 2 s
ASK_PAUSE_S = 0.05  # between two rounds, whatever the doubts
PING_S = 5.0
SUBSCRIBE_PAUSE_MAX_S = 2.0
FORBIDDEN_PAUSE_S = 60.0


class Answer(NamedTuple):
    """Which master a sentinel names."""

    epoch: int
    host: str
    port: int

    @property
    def where(self) -> tuple[str, int]:
        """The master's host and port."""
        return self.host, self.port


class Sentinel:
    """A topology of one server: Sentinel's master."""

    def __init__(
        self, address: Address, on_change: Callable[[Server], None], confirm_s: float, traffic: Traffic
    ) -> None:
        place = ",".join(f"{host}:{port}" for host, port in address.hosts)
        name = f"{address.master} of {place}"
        self._address = address
        self.confirm_s = confirm_s
        self._doubt = asyncio.Event()
        self._server = Server(name, None, address.timeout_s, on_change, self._doubt.set, traffic)
        self._sentinels = [Server(f"sentinel {at.name}", at, address.timeout_s, _ignore) for at in _places(address)]
        self._asking: dict[Server, asyncio.Task[Answer | None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._epoch = -1  # of the master that is believed
        self._contradicted_since_s: float | None = None  # a majority names another master, with no higher epoch
        self._round = asyncio.get_running_loop().create_future()  # done at the end of the round that goes on
        self._why = "none was asked"  # why no sentinel names a master
        self._began_s = 0.0  # when the last round did
        self._hears = False  # a sentinel answered in it
        self._is_closed = self._is_forbidden = False
        self.servers: dict[str, Server] = {name: self._server}

    async def server_of(self, slot: int) -> Server:
        """The master. StoreUnavailable: no sentinel names it."""
        if self._server.place is None or self._is_overdue():
            self._start()
            self._doubt.set()
            await asyncio.wait([self._round])
            if self._is_overdue():  # that round had begun before
                await asyncio.wait([self._round])
            if self._server.place is None:
                raise StoreUnavailable(f"redis {self._server.name}: no sentinel names a master: {self._why}")
        return self._server

    async def moved(self) -> None:
        """Ask the sentinels again."""
        self._doubt.set()

    async def aclose(self) -> None:
        """All of it, also if it is cancelled. Idempotent."""
        self._is_closed = True
        try:
            await end(*self._tasks)
        finally:
            try:
                await asyncio.gather(*(server.aclose() for server in (self._server, *self._sentinels)))
            finally:
                await end(*self._asking.values())
                self._end_round()

    # --- asking

    def _is_overdue(self) -> bool:
        since_s = asyncio.get_running_loop().time() - self._began_s
        return self._hears and since_s > self.doubt_s and not self._is_closed

    @property
    def doubt_s(self) -> float:
        """How long ago the master was confirmed at most when something is sent to it."""
        return DOUBT * self.confirm_s

    def _start(self) -> None:
        if self._tasks or self._is_closed:
            return
        self._tasks = [asyncio.create_task(self._ask_for_ever(), name="fastticket-sentinels")]
        for sentinel in self._sentinels:
            self._tasks.append(asyncio.create_task(self._listen(sentinel), name=f"fastticket-{sentinel.name}"))

    async def _ask_for_ever(self) -> None:
        while True:
            self._doubt.clear()
            try:
                await self._ask_all()
            except Exception:
                log.exception("redis: the sentinels are asked again after an unexpected error")
            self._end_round()
            await asyncio.sleep(ASK_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.confirm_s - ASK_PAUSE_S, 0)):
                    await self._doubt.wait()

    async def _ask_all(self) -> None:
        """One round. A sentinel that has not answered in the last one yet is not asked twice."""
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        for sentinel in self._sentinels:
            if sentinel not in self._asking:
                task = loop.create_task(self._ask(sentinel), name=f"fastticket-ask-{sentinel.name}")
                self._asking[sentinel] = task
        answers: list[Answer] = []
        asking = self._asking.values()
        async for task in in_time(asking, len(self._sentinels), lambda task: task.result() is not None):
            if answer := task.result():
                answers.append(answer)
                self._believe_newer(answer)
        self._hears = bool(answers)
        self._decide(answers)

    async def _ask(self, sentinel: Server) -> Answer | None:
        """None: it does not answer, or does not know the master's name."""
        try:
            (masters,) = await sentinel.call([("SENTINEL", "MASTERS")])
            if isinstance(masters, ResponseError):
                raise StoreUnavailable(f"redis {sentinel.name}: {shortened(masters)}")
            return _answer(masters, self._address.master)
        except StoreUnavailable as error:
            self._why = str(error)
            return None
        except (LookupError, ValueError, TypeError) as error:
            self._why = f"redis {sentinel.name}: an answer that can not be read: {error}"
            return None
        finally:
            self._asking.pop(sentinel, None)

    # --- believing

    def _are_most(self, number: int) -> bool:
        return number > len(self._sentinels) // 2

    def _believe_newer(self, answer: Answer) -> None:
        if self._server.place is not None and answer.epoch > self._epoch:
            self._believe(answer)

    def _decide(self, answers: list[Answer]) -> None:
        """At the end of a round: which answer is believed, if any."""
        if not answers:
            return
        if self._server.place is None:
            votes = Counter(answer.where for answer in answers)
            self._believe(max(answers, key=lambda answer: (answer.epoch, votes[answer.where])))
            return
        others = Counter(answer.where for answer in answers if answer.where != self._where)
        if not others or not self._are_most(others.most_common(1)[0][1]):
            self._contradicted_since_s = None
            return
        now_s = asyncio.get_running_loop().time()
        if self._contradicted_since_s is None:
            self._contradicted_since_s = now_s
        elif now_s > self._contradicted_since_s + LAGGING_S:
            where = others.most_common(1)[0][0]
            self._believe(max(answer for answer in answers if answer.where == where))

    @property
    def _where(self) -> tuple[str, int] | None:
        place = self._server.place
        return (place.host, place.port) if place else None

    def _believe(self, answer: Answer) -> None:
        self._epoch = answer.epoch
        self._contradicted_since_s = None
        self._move(answer.host, answer.port)

    def _move(self, host: str, port: int) -> None:
        if self._where != (host, port):
            self._server.move(place_of(self._address, host, port))

    def _end_round(self) -> None:
        ended, self._round = self._round, asyncio.get_running_loop().create_future()
        ended.set_result(None)

    # --- listening

    async def _listen(self, sentinel: Server) -> None:
        """Subscribe to a sentinel, for as long as the store is open. After each interruption all
        are asked: what was published meanwhile was not heard.
        """
        failures = 0
        while True:
            pause_max_s = SUBSCRIBE_PAUSE_MAX_S
            try:
                listener = await sentinel.subscribe(SWITCH)
                try:
                    failures = 0
                    self._doubt.set()
                    await self._hear(listener)
                finally:
                    listener.close()
            except NoPermissionError as error:
                pause_max_s = FORBIDDEN_PAUSE_S
                failures = 10
                if not self._is_forbidden:
                    log.warning(
                        "redis %s: %s; asked every %g s instead (how-to/redis in the documentation)",
                        sentinel.name,
                        error,
                        self.confirm_s,
                    )
                    self._is_forbidden = True
            except (RedisError, OSError):
                self._doubt.set()
            except Exception:
                log.exception("redis: %s is listened to again after an unexpected error", sentinel.name)
            failures += 1
            await asyncio.sleep(min(0.05 * 2 ** min(failures, 12), pause_max_s) * random.uniform(0.5, 1))  # noqa: S311

    async def _hear(self, listener: Listener) -> None:
        async for message in listener.published(PING_S):
            self._switched(message.decode(errors="replace"))

    def _switched(self, message: str) -> None:
        """A sentinel has a newer configuration. The message names the old master and the new one,
        and no epoch, which is higher than the old one's.
        """
        name, old_host, old_port, new_host, new_port, *_ = [*message.split(" "), *[""] * 5]
        if name != self._address.master:
            return
        if (old_host, old_port) == tuple(map(str, self._where or ())) and new_port.isdecimal():
            self._epoch += 1
            self._contradicted_since_s = None
            self._move(new_host, int(new_port))
        self._doubt.set()


def _answer(masters: list[list[bytes]], name: str) -> Answer:
    """The reply to `SENTINEL MASTERS`: a list of fields and values for each master. LookupError,
    ValueError.
    """
    for fields in masters:
        master: Mapping[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
        if master[b"name"] == name.encode():
            return Answer(int(master[b"config-epoch"]), master[b"ip"].decode(), int(master[b"port"]))
    raise LookupError(f"it knows no master {name}")


def _places(address: Address) -> list[Place]:
    return [
        Place(
            host,
            port,
            username=address.sentinel_username,
            password=address.sentinel_password,
            tls=address.tls,
            tls_files=address.tls_files,
            is_sentinel=True,
        )
        for host, port in address.hosts
    ]


def _ignore(sentinel: Server) -> None:
    """A sentinel that was replaced needs no care: it is asked again and again."""

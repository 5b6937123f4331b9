"""Runs the workers of a gateway, and outlives them.

A *generation* is a configuration with the workers that serve by it. SIGHUP brings up the next one
beside the present one; when all of its workers are ready, those of the present one retire. If
anything is wrong with it, it goes, and the present one has noticed nothing.

The event loop hears of things (signals, words of workers, the end of processes) and notes them;
`_act` decides, between two runs of the loop, because only there it may fork.

    SIGTERM, SIGINT   end, after `shutdown_delay_s`        SIGHUP   the next generation        SIGUSR1   log files are opened anew
    to a worker: SIGTERM  stop   SIGUSR2  retire
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway import errorlog
from fastticket.gateway.addresses import Server
from fastticket.gateway.admin import AdminListener
from fastticket.gateway.binding import BACKLOG, discard, listen_beside, take_place
from fastticket.gateway.given import Given, Start
from fastticket.gateway.handover import Handover
from fastticket.gateway.listeners import Listeners, Sockets, name_of
from fastticket.gateway.logfile import check_logs
from fastticket.gateway.processes import BAD_CONFIG, FAILED, WorkerProcess, fork_worker
from fastticket.gateway.settings import Config
from fastticket.gateway.slot import add
from fastticket.gateway.snapshot import Snapshot, is_store_away
from fastticket.gateway.systemd import ALIVE, READY, STOPPING, notify, reloading

log = logging.getLogger("fastticket.supervisor")

READY_TIMEOUT_S = 60.0  # of a worker, from its fork
END_MARGIN_S = 10.0  # of a worker, after its time to drain, to write what it has; then SIGKILL
WATCH_INTERVAL_S = 1.0
STEADY_S = 10.0  # a worker that has lived so long is replaced at once
PAUSE_FIRST_S = 0.1  # before a worker that died sooner is replaced; twice as long each time
RENEWAL_PAUSE_S = 1.0  # after a shorter one, who waits in the listen queue is still served
PAUSE_MAX_S = 30.0
RETIRING_GENERATIONS_MAX = 8  # then the oldest has to stop


def run(load: Callable[[], Config], ready: Callable[[list[str]], None]) -> int:
    """Serve until told to stop. The exit code. FastticketError.

    `load` is asked again on SIGHUP; `ready` is called with the addresses.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return Supervisor(load, ready, runner).run()


@dataclasses.dataclass(eq=False)
class Generation:
    """A configuration, its keys, and the processes that serve by them, by worker number: a number
    without one waits for it.

    What its first workers were given, those that take their places are given, too.
    """

    given: Given
    sockets: Sockets
    admin: socket.socket | None  #: to listen on in place of the one before
    processes: dict[int, WorkerProcess] = dataclasses.field(default_factory=dict)
    pauses_s: dict[int, float] = dataclasses.field(default_factory=dict)  #: of workers that died young
    due_s: dict[int, float] = dataclasses.field(default_factory=dict)  #: when to start the next one
    failure: FastticketError | None = None  #: why it can not serve

    @property
    def config(self) -> Config:
        """What it goes by."""
        return self.given.config

    @property
    def is_ready(self) -> bool:
        """All of its workers serve."""
        return all(n in self.processes and self.processes[n].is_ready for n in range(len(self.sockets)))


class Supervisor:
    """Single-threaded, so that it can fork."""

    def __init__(self, load: Callable[[], Config], ready: Callable[[list[str]], None], runner: asyncio.Runner) -> None:
        self._load = load
        self._ready = ready
        self._runner = runner
        self._loop = runner.get_loop()
        self._listeners = Listeners()
        self._handover = Handover()
        self._admin = AdminListener(self.snapshot, self._drain, self._undrain)
        self._present: Generation | None = None
        self._coming: Generation | None = None
        self._retiring: list[Generation] = []
        self._servers: dict[str, list[Server]] = {}  # of names, as workers have found them
        self._departed: dict[str, Any] = {}  # what was counted by those that are gone
        self._restarts = 0
        self._reloads = {"done": 0, "refused": 0}
        self._is_reload_wanted = False
        self._is_leaving = False  # not ready, but everybody is served
        self._left_at_s = 0.0  # since when
        self._has_end = False  # it stops by itself in a while
        self._is_stopping = False
        self._exit_code = 0
        self._news = asyncio.Event()
        self._watched_s = time.monotonic()

    def run(self) -> int:
        """Until SIGTERM or SIGINT, and every worker is gone."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # means something to workers, and to nginx, not here
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._leave)
        self._loop.add_signal_handler(signal.SIGHUP, self._want_reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        self._loop.add_signal_handler(signal.SIGCHLD, self._news.set)
        failure = None
        try:
            self._watch()
            self._bring_up()
            while self._processes() or not self._is_stopping:
                self._runner.run(self._hear())
                self._act()
        except FastticketError as error:
            failure = error
            self._stop()
            while self._processes():
                self._runner.run(self._hear())
                self._bury()
        finally:
            self._listeners.keep([])
            self._handover.close()
            self._runner.run(self._admin.close())
        if failure:
            raise failure
        return self._exit_code

    async def _hear(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _act(self) -> None:
        """Whatever there is to do now."""
        self._bury()
        if self._is_stopping:
            return
        if self._coming and self._coming.failure:
            self._give_up(self._coming, self._coming.failure)
        elif self._coming and self._coming.is_ready:
            self._switch_to(self._coming)
        if self._is_reload_wanted and not self._coming and not self._has_end:
            self._is_reload_wanted = False
            notify(reloading())
            self._bring_up()
        if self._present:
            self._let_serve(self._present)
            self._replace_dead(self._present)

    # --- generations

    def _bring_up(self) -> None:
        """Fork the workers of a new one. FastticketError: there is none before it to go on with."""
        try:
            config = self._load()
            given = self._given(config)
            check_logs(config)
            sockets = self._listeners.for_workers(config.listen_addresses(), config.gateway.workers)
            admin = self._bind_admin(config)
        except FastticketError as error:
            self._refuse(error)
            return
        except Exception as error:  # a bug; the generation before shall not end by it
            log.exception("the configuration could not be taken")
            self._refuse(FastticketError(f"unexpected: {type(error).__name__}: {error}"))
            return
        self._coming = Generation(given, sockets, admin)
        for number in range(len(sockets)):
            self._start(self._coming, number)

    def _given(self, config: Config) -> Given:
        """What the workers of the next generation get. ConfigError: no keys."""
        pairs = config.key_pairs()
        keys = config.keyring_of(pairs)
        if not self._present:
            return Given(config, keys, pairs)
        self._learn_servers()
        notes = [note for process in self._present.processes.values() if (note := process.slot.note())]
        is_nothing_lost = all(is_store_away(note) and not note["now"]["sessions_held"] for note in notes)
        return Given(config, keys, pairs, Start.RELOAD, dict(self._servers), is_nothing_lost)

    def _learn_servers(self) -> None:
        """The addresses of names, as workers have found them; the latest last."""
        notes = [note for process in self._processes() if (note := process.slot.note())]
        for note in sorted(notes, key=lambda note: float(note["at_s"])):
            self._learn_from(note)

    def _learn_from(self, note: Mapping[str, Any]) -> None:
        found = {name: [_server(each) for each in servers] for name, servers in note["resolved"].items()}
        self._servers |= {name: servers for name, servers in found.items() if servers or name not in self._servers}

    def _bind_admin(self, config: Config) -> socket.socket | None:
        """Beside the one that there is, until the workers are ready. Anew each time: somebody may
        have taken its place.
        """
        address = config.admin_address()
        return listen_beside(address, config.admin_access()) if address else None

    def _switch_to(self, coming: Generation) -> None:
        before, self._present, self._coming = self._present, coming, None
        self._listeners.keep(coming.sockets)
        errorlog.follow(coming.config)
        address = coming.config.admin_address()
        if coming.admin and address:
            take_place(coming.admin, address)
        self._runner.run(self._admin.move_to(coming.admin))
        self._let_serve(coming)
        notify(READY)
        if before is None:
            self._ready([name_of(s) for s in coming.sockets[0]])
            return
        self._reloads["done"] += 1
        log.info("reloaded: %d workers serve by %s", len(coming.sockets), coming.config.source)
        self._hand_keys(coming.given, [*self._retiring, before])
        self._let_go(before)

    @staticmethod
    def _hand_keys(given: Given, retiring: Iterable[Generation]) -> None:
        """A key that is gone counts no more for those who retire, either; and one that is new,
        whose tickets may reach them, does.
        """
        if given.pairs is None:  # of the environment, and as they were
            return
        for generation in retiring:
            for process in generation.processes.values():
                process.hand_keys(given.pairs)

    def _let_serve(self, generation: Generation) -> None:
        """Nobody is let in before this: a generation that is given up has no clients."""
        for number, process in generation.processes.items():
            if process.is_ready and not process.is_serving:
                for listener in generation.sockets[number]:
                    listener.listen(BACKLOG)
                process.let_serve()
                if self._is_leaving:
                    process.let_leave()

    def _give_up(self, coming: Generation, failure: FastticketError) -> None:
        self._coming = None
        if coming.admin:
            discard(coming.admin)
        self._let_go(coming)
        self._refuse(failure)

    def _let_go(self, generation: Generation) -> None:
        """Its workers retire: whoever they have let in is served to the end. Of one that is not
        ready the signal is the end.
        """
        for process in generation.processes.values():
            self._retire(process, generation.config)
        self._retiring.append(generation)
        for late in self._retiring[:-RETIRING_GENERATIONS_MAX]:
            for process in late.processes.values():
                if not process.is_stopped:
                    self._end(process, late.config)

    def _refuse(self, error: FastticketError) -> None:
        if not self._present:
            raise error
        self._listeners.keep(self._present.sockets)
        notify(READY)
        self._reloads["refused"] += 1
        log.error("not reloaded, the configuration before stays: %s", error)

    # --- processes

    def _generations(self) -> list[Generation]:
        return [g for g in (*self._retiring, self._present, self._coming) if g]

    def _processes(self) -> list[WorkerProcess]:
        """All that live, of any generation."""
        return [process for g in self._generations() for process in g.processes.values()]

    def _start(self, generation: Generation, number: int) -> None:
        try:
            process = fork_worker(number, generation.given, generation.sockets[number], self._handover)
        except OSError as error:
            self._missing(generation, number, f"worker {number} can not be started: {error.strerror}", 0.0)
            return
        generation.processes[number] = process
        self._loop.add_reader(process.pipe, self._heard_from, process)
        self._kill_after(process, READY_TIMEOUT_S)

    def _heard_from(self, process: WorkerProcess) -> None:
        pipe = process.pipe
        if process.hear():
            self._loop.remove_reader(pipe)
            self._news.set()
        if process.is_ready and process.is_to_reopen:
            process.send(signal.SIGUSR1)
        if process.is_ready and process.timer and not process.is_dismissed:
            process.timer.cancel()

    def _retire(self, process: WorkerProcess, config: Config) -> None:
        timeout_s = config.gateway.retire_timeout_s + config.gateway.drain_timeout_s
        self._dismiss(process, signal.SIGUSR2, timeout_s)

    def _end(self, process: WorkerProcess, config: Config) -> None:
        process.is_stopped = True
        self._dismiss(process, signal.SIGTERM, config.gateway.drain_timeout_s)

    def _dismiss(self, process: WorkerProcess, number: int, timeout_s: float) -> None:
        process.is_dismissed = True
        process.send(number)
        self._kill_after(process, timeout_s + END_MARGIN_S)

    def _kill_after(self, process: WorkerProcess, timeout_s: float) -> None:
        if process.timer:
            process.timer.cancel()
        process.timer = self._loop.call_later(timeout_s, self._kill, process, timeout_s)

    def _kill(self, process: WorkerProcess, timeout_s: float) -> None:
        log.error("%s is killed: not %s in %g s", process, "gone" if process.is_dismissed else "ready", timeout_s)
        process.send(signal.SIGKILL)

    def _watch(self) -> None:
        """Each second: whether the workers' loops run. What this process slept through itself is
        nobody's silence.
        """
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        notify(ALIVE)
        now_s = time.monotonic()
        passed_s, self._watched_s = min(now_s - self._watched_s, 2 * WATCH_INTERVAL_S), now_s
        for generation in self._generations():
            timeout_s = generation.config.gateway.watchdog_timeout_s
            for process in generation.processes.values():
                if process.is_ready and process.listen(passed_s) >= timeout_s > 0:
                    log.error("%s is killed: it hangs, for %g s (watchdog_timeout_s)", process, timeout_s)
                    process.send(signal.SIGKILL)

    def _bury(self) -> None:
        for generation in self._generations():
            for process in list(generation.processes.values()):
                code = process.exit_code()
                if code is not None:
                    del generation.processes[process.number]
                    self._ended(generation, process, code)
        self._retiring = [generation for generation in self._retiring if generation.processes]

    def _ended(self, generation: Generation, process: WorkerProcess, code: int) -> None:
        if process.pipe >= 0:
            self._loop.remove_reader(process.pipe)
            process.hear()
        if process.timer:
            process.timer.cancel()
        process.forget()
        self._departed = add(self._departed, process.slot.counted())
        if note := process.slot.note():
            self._learn_from(note)
        reason = f"{process} {_how_it_ended(code)}{': ' if process.reason else ''}{process.reason}"
        if process.is_dismissed:
            is_early = not process.is_serving and code in (-signal.SIGTERM, -signal.SIGUSR2)
            self._note_end(reason, code == 0 or is_early)
        else:
            failure = ConfigError(process.reason) if code == BAD_CONFIG else FastticketError(process.reason or reason)
            generation.failure = failure
            self._missing(generation, process.number, reason, time.monotonic() - process.born_s)

    def _note_end(self, what: str, is_clean: bool) -> None:
        log.log(logging.INFO if is_clean else logging.ERROR, "%s", what)
        if self._is_stopping and not is_clean:
            self._exit_code = FAILED

    def _missing(self, generation: Generation, number: int, reason: str, lived_s: float) -> None:
        """Of the present one a worker is replaced at once, unless it died young: then after a
        pause, a longer one each time.
        """
        if generation is self._coming:
            generation.failure = generation.failure or FastticketError(reason)
            self._news.set()
            return
        before_s = generation.pauses_s.get(number, 0.0)
        pause_s = 0.0 if lived_s >= STEADY_S else min(max(PAUSE_FIRST_S, 2 * before_s), PAUSE_MAX_S)
        generation.pauses_s[number] = pause_s
        generation.due_s[number] = self._loop.time() + pause_s
        if pause_s >= RENEWAL_PAUSE_S:
            self._renew_sockets(number)
        self._loop.call_later(pause_s, self._news.set)
        log.error("%s, after %.1f s; the next one starts in %g s", reason, lived_s, pause_s)

    def _renew_sockets(self, number: int) -> None:
        """Nobody shall wait for a worker that does not come: the kernel sends clients to those that
        listen, so this one's sockets are bound anew, and listened on by the next one to be ready.
        """
        renewed = self._listeners.renew(number)
        for generation in self._generations():
            generation.sockets[:] = [[renewed.get(s, s) for s in sockets] for sockets in generation.sockets]

    def _replace_dead(self, generation: Generation) -> None:
        for number, at_s in list(generation.due_s.items()):
            if at_s <= self._loop.time():
                del generation.due_s[number]
                self._restarts += 1
                self._learn_servers()
                servers = dict(self._servers)
                generation.given = dataclasses.replace(generation.given, start=Start.REPLACEMENT, servers=servers)
                self._start(generation, number)

    # --- signals

    def _leave(self) -> None:
        """Not ready any more, and stop when every balancer has noticed, or when told so again."""
        delay_s = self._present.config.gateway.shutdown_delay_s if self._present else 0.0
        if self._is_leaving:  # balancers have had so long already
            delay_s -= self._loop.time() - self._left_at_s
        if self._has_end or delay_s <= 0:
            self._stop()
            return
        self._has_end = True
        notify(STOPPING)
        log.info("not ready any more; stops in %g s (shutdown_delay_s)", delay_s)
        self._loop.call_later(delay_s, self._stop)
        self._let_leave()

    def _let_leave(self) -> None:
        if not self._is_leaving:
            self._is_leaving, self._left_at_s = True, self._loop.time()
        for process in self._processes():
            if process.is_serving and not process.is_dismissed:
                process.let_leave()

    def _drain(self) -> None:
        """What an orchestrator asks for before it ends us."""
        if not self._is_leaving:
            log.info("not ready any more: drained by POST /drain; SIGTERM ends it, DELETE /drain takes it back")
            self._let_leave()

    def _undrain(self) -> None:
        """It is not ended, after all. Not once it stops by itself."""
        if self._has_end or self._is_stopping or not self._is_leaving:
            return
        log.info("ready again: DELETE /drain")
        self._is_leaving = False
        for process in self._processes():
            if process.is_serving and not process.is_dismissed:
                process.let_stay()

    def _stop(self) -> None:
        """All generations. Nobody waits in vain for those that accept no more."""
        if self._is_stopping:
            return
        self._is_stopping = True
        notify(STOPPING)
        self._listeners.keep([])
        for generation in self._generations():
            for process in generation.processes.values():
                self._end(process, generation.config)
        self._news.set()

    def _want_reload(self) -> None:
        if self._has_end:
            self._refuse(FastticketError("the gateway stops in a moment"))
            return
        self._is_reload_wanted = True
        self._news.set()

    def _reopen_logs(self) -> None:
        errorlog.reopen()
        for process in self._processes():
            if process.is_ready:
                process.send(signal.SIGUSR1)
            else:  # it has files open, and answers no signal yet
                process.is_to_reopen = True

    # --- to be seen

    def snapshot(self) -> Snapshot:
        """How things are."""
        present = self._present
        serving = {n: p for n, p in present.processes.items() if p.is_ready} if present else {}
        counted = self._departed
        for process in self._processes():
            counted = add(counted, process.slot.counted())
        return Snapshot(
            is_stopping=self._is_stopping or self._is_leaving,
            readiness=present.config.gateway.readiness if present else (),
            workers=present.config.gateway.workers if present else 0,
            serving={number: process.slot.note() for number, process in serving.items()},
            notes=[note for process in self._processes() if (note := process.slot.note())],
            counted=counted,
            retiring=sum(len(generation.processes) for generation in self._retiring),
            restarts=self._restarts,
            reloads=dict(self._reloads),
        )


def _server(noted: list[Any] | str) -> Server:
    """JSON has no pairs."""
    return noted if isinstance(noted, str) else (str(noted[0]), int(noted[1]))


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"has ended with {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"

"""Runs the worker process of a gateway, and outlives it.

A generation is a configuration with the process that serves by it. SIGHUP makes the coming one. If
the worker can take the changes over (`changes`), it is told to; else another worker is forked
beside it. When the coming generation is ready, it becomes the present one; a worker that is no
longer needed retires. If anything is wrong with the coming one, it is given up, and the present one
goes on unchanged.

    SIGTERM, SIGINT   stop, after `shutdown_delay_s`
    SIGHUP            reload
    SIGUSR1           open the log files anew
    SIGUSR2           go on as the program that is installed now (`upgrade`)

Each second `_watch` looks for workers that hang: it kills them, and they are replaced like any that
died.

Rule of this file: nothing forks while the event loop runs, because a child must not be inside a
running loop. What leads to a fork is noted, and `_act` does it between two runs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway import errorlog
from fastticket.gateway.addresses import Address
from fastticket.gateway.admin.access import Access, access_of
from fastticket.gateway.admin.listener import AdminListener
from fastticket.gateway.admin.page import page_files
from fastticket.gateway.admin.recent import Recent
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.binding import BACKLOG, discard, duplicate, listen_beside, take_place
from fastticket.gateway.changes import heritage, obstacles
from fastticket.gateway.exitcodes import BAD_USAGE, FAILED
from fastticket.gateway.forking import fork_worker
from fastticket.gateway.generation import Generation
from fastticket.gateway.handover import Handover
from fastticket.gateway.inheritance import Given, Start
from fastticket.gateway.listeners import Listeners, name_of
from fastticket.gateway.logfile import check_logs
from fastticket.gateway.processes import WorkerProcess, ending_of
from fastticket.gateway.reloads import Reloads
from fastticket.gateway.settings import Config
from fastticket.gateway.sharedmemory import Slot, add
from fastticket.gateway.snapshot import LastReload, Snapshot, is_store_away
from fastticket.gateway.systemd import ALIVE, READY, STOPPING, notify, reloading
from fastticket.gateway.totals import Totals
from fastticket.gateway.upgrade import (
    TRIAL_TIMEOUT_S,
    WAITING_SIGNALS,
    Legacy,
    Program,
    Trial,
    execute,
    inherited,
    socket_of,
)

log = logging.getLogger("fastticket.supervisor")

READY_TIMEOUT_S = 60.0  # of a worker, from its fork
WATCH_INTERVAL_S = 1.0
HANDING_TIMEOUT_S = 5.0  # for a worker to tell what it holds; later, the next one begins without
IDLE_PAUSE_S = 0.02  # while a message to or from a worker is on its way
RENEWAL_PAUSE_S = 1.0  # a worker that pauses for less still serves the clients in its listen queue
INQUIRY_TIMEOUT_S = 5.0
RELOAD_TIMEOUT_S = 2 * READY_TIMEOUT_S  # for the one that is under way, and the next one
RETIRING_GENERATIONS_MAX = 8  # beyond that the oldest is stopped


def run(load: Callable[[], Config], ready: Callable[[list[str]], None], program: Program | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. FastticketError: the first generation cannot
    serve.

    `load` reads the configuration, also on SIGHUP; `ready` is called with the addresses once
    clients are accepted. `program`: how it is called again for an upgrade; None: there are none.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return Supervisor(load, ready, runner, program, inherited()).run()


class Supervisor:
    """Single-threaded, so that it can fork."""

    def __init__(
        self,
        load: Callable[[], Config],
        ready: Callable[[list[str]], None],
        runner: asyncio.Runner,
        program: Program | None,
        legacy: Legacy | None,
    ) -> None:
        """`legacy`: of the program whose place this one takes."""
        self._program = program
        self._legacy = legacy
        self._trial: Trial | None = None
        self._is_upgrade_wanted = False
        self._load = load
        self._ready = ready
        self._runner = runner
        self._loop = runner.get_loop()
        self._listeners = Listeners()
        self._handover = Handover(legacy.handover if legacy else None)
        self.version = program.version if program else ""
        self.recent = Recent()
        self._drained: frozenset[tuple[str, str]] = frozenset()  # servers of upstreams
        self._reload_asked: list[asyncio.Future[str]] = []  # operators who wait for the next reload
        self._reload_awaited: list[asyncio.Future[str]] = []  # for the one that is under way
        self._log_level = ""  # as an operator has set it; "": as the configuration has it
        self._admin = AdminListener(self, page_files())
        self._present: Generation | None = None
        self._coming: Generation | None = None
        self._retiring: list[Generation] = []
        self._totals = Totals()
        self._restarts = 0
        self._reloads = Reloads()
        self._is_reload_wanted = False
        self._is_unready = False  # balancers are to stop sending clients; those that come are served
        self._unready_at_s = 0.0  # loop time
        self._is_stop_due = False  # `shutdown_delay_s` runs; `_stop` comes after it
        self._is_stopping = False
        self._exit_code = 0
        self._news = asyncio.Event()  # there is something to act on
        self._watched_s = time.monotonic()

    def run(self) -> int:
        """Serve until told to stop and every worker is gone; the exit code. FastticketError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop_signal)
        self._loop.add_signal_handler(signal.SIGHUP, self._want_reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        self._loop.add_signal_handler(signal.SIGUSR2, self._want_upgrade)
        self._loop.add_signal_handler(signal.SIGCHLD, self._news.set)
        failure = None
        try:
            if self._legacy:
                self._adopt(self._legacy)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING_SIGNALS)
            self._watch()
            if not self._is_stopping:
                self._bring_up()
            self._news.set()  # a worker may have ended while nobody had a handler for SIGCHLD
            while self._processes() or not self._is_stopping:
                self._runner.run(self._wait_for_news())
                self._act()
        except FastticketError as error:
            failure = error
            self._stop()
            while self._processes():
                self._runner.run(self._wait_for_news())
                self._reap()
        finally:
            if self._trial:
                self._trial.close()
            self._listeners.keep([])
            self._handover.close()
            if self._coming and self._coming.admin:
                discard(self._coming.admin)
            self._runner.run(self._admin.close())
            self._admin.audit.write_out()
        if failure:
            raise failure
        return self._exit_code

    async def _wait_for_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _act(self) -> None:
        """Do everything that is to be done now."""
        self._reap()
        if self._is_stopping:
            return
        if self._coming and self._is_due(self._coming):
            self._start_heir(self._coming)
        if self._coming:
            self._hear(self._coming)
        if self._coming and self._coming.failure:
            self._give_up(self._coming, self._coming.failure)
        elif self._coming and self._coming.is_ready:
            self._switch_to(self._coming)
        if self._is_stopping:  # the loop has run meanwhile
            return
        if self._is_reload_wanted and not self._coming and not self._is_stop_due:
            self._is_reload_wanted = False
            self._reload_awaited, self._reload_asked = self._reload_asked, []
            notify(reloading())
            self._bring_up()
        if self._present:
            self._start_listening(self._present)
            self._replace_dead(self._present)
        if self._is_upgrade_wanted and not self._coming and not self._is_stop_due:
            self._upgrade()

    # --- upgrades of the program

    def _want_upgrade(self) -> None:
        if not self._program or self._is_stop_due or self._is_stopping:
            log.error("not upgraded: %s", "the gateway stops in a moment" if self._program else "this is no `serve`")
            return
        self._is_upgrade_wanted = True
        self._news.set()

    def _upgrade(self) -> None:
        """Start the trial of the new program, or become it if the trial was good."""
        assert self._program and self._present  # noqa: S101, PT018 -- for mypy
        process = self._present.process
        if process and not process.is_serving:  # the new program would take it for one that serves
            return
        try:
            if not self._trial:
                self._trial = Trial(self._program, self._left())
                self._loop.call_later(TRIAL_TIMEOUT_S, self._news.set)
                return
            verdict = self._trial.verdict()
            if verdict is None:
                return
            if verdict:
                raise FastticketError(verdict)
            if not all(process.is_idle for process in self._processes()):
                self._loop.call_later(IDLE_PAUSE_S, self._news.set)
                return
            notify(reloading())
            log.info("upgrading: what is installed now takes the place of version %s", self._program.version)
            errorlog.write_out()
            self._admin.audit.write_out()
            execute(self._program, self._left())
        except (OSError, FastticketError) as error:
            log.error("not upgraded, the program before goes on: %s", error)
            notify(READY)
        self._is_upgrade_wanted = False
        if self._trial:
            self._trial.close()
            self._trial = None

    def _left(self) -> Legacy:
        """What the new program must know."""
        present = self._present
        assert present and self._program  # noqa: S101, PT018 -- for mypy
        self._totals.learn_servers(self._slots())
        return Legacy(
            version=self._program.version,
            heritage=present.heritage,
            processes=[each.held() for each in self._processes()],
            listeners=[(address, [s.fileno() for s in bound]) for address, bound in self._listeners.bound().items()],
            handover=self._handover.filenos(),
            admin=present.admin.fileno() if present.admin else None,
            counted=add(self._totals.departed, errorlog.counted()),
            servers=self._totals.servers,
            restarts=self._restarts,
            reloads=self._reloads.counts,
            unready_at_s=self._unready_at_s if self._is_unready else None,
            drained=sorted(self._drained),
        )

    def _adopt(self, legacy: Legacy) -> None:
        """Take the place of the program before, with its worker as that of the present generation.
        FastticketError: it was told to stop before it could.
        """
        bound = {Address(*address): [*map(socket_of, fds)] for address, fds in legacy.listeners}
        admin = None if legacy.admin is None else socket_of(legacy.admin)
        self._totals.adopt(legacy.counted, legacy.servers)
        self._restarts = legacy.restarts
        self._reloads.adopt(legacy.reloads)
        self._drained = frozenset((str(upstream), str(server)) for upstream, server in legacy.drained)
        if legacy.unready_at_s is not None:
            self._is_unready, self._unready_at_s = True, legacy.unready_at_s
        sockets = self._listeners.adopt(bound)
        processes = [WorkerProcess.adopt(held, self._loop) for held in legacy.processes]
        given, access = self._given_at_last(processes)
        for held, process in zip(legacy.processes, processes, strict=True):
            process.reopen_logs()  # in between a signal to do so is lost
            process.follow(self._news.set, self._keep_drained)
            generation = Generation(
                given, sockets, admin, access, process, heritage=legacy.heritage, is_of_program_before=True
            )
            if held.is_present:
                self._present = generation
            else:
                process.expect_end(given.config)
                self._retiring.append(generation)
        self._present = self._present or Generation(given, sockets, admin, access, due_s=0.0)
        errorlog.follow(given.config)
        log.info("upgraded from version %s to %s", legacy.version, self._program.version if self._program else "")
        self._move_admin(admin, given.config, access)

    def _given_at_last(self, processes: Sequence[WorkerProcess]) -> tuple[Given, Access]:
        """The configuration that the trial has read. If it is not there any more, the worker before
        serves until it is. FastticketError: told to stop, and all of these processes have ended.
        """
        while not self._is_stopping:
            try:
                config = self._load()
                return self._given(config), access_of(config)
            except FastticketError as error:
                log.error("the upgrade waits for its configuration, the worker before goes on: %s", error)
            notify(ALIVE)
            self._wait_for_signals(WATCH_INTERVAL_S)
        for process in processes:
            process.send(signal.SIGTERM)
        while processes := [process for process in processes if process.exit_code() is None]:
            notify(ALIVE)
            self._wait_for_signals(IDLE_PAUSE_S)
        raise FastticketError("stopped before the upgrade had its configuration")

    def _wait_for_signals(self, time_s: float) -> None:
        """While an upgrade holds them back (`execute`)."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING_SIGNALS)
        self._runner.run(asyncio.sleep(time_s))
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITING_SIGNALS)

    # --- generations

    def _bring_up(self) -> None:
        """Make a coming generation. FastticketError: it cannot be, and there is no present one to
        go on with.
        """
        try:
            config = self._load()
            given = self._given(config)
            check_logs(config)
            sockets = self._listeners.for_planes(config.listen_addresses(), config.gateway.threads)
            access = access_of(config)
            admin = self._bind_admin(config)
        except FastticketError as error:
            self._refuse(error)
            return
        except Exception as error:  # a bug, which must not end the present generation
            log.exception("the configuration could not be taken")
            self._refuse(FastticketError(f"unexpected: {type(error).__name__}: {error}"))
            return
        for line in config.outdated:
            log.warning("%s", line)
        self._coming = Generation(given, sockets, admin, access)
        self._begin(self._coming)

    def _begin(self, coming: Generation) -> None:
        """Let the present worker take it over, or start another worker, with what that one holds if
        it may have that.
        """
        present = self._present
        process = present.process if present and present.process and present.process.is_serving else None
        if present and process and not self._obstacles(present, coming):
            coming.successor_of = present
            process.reload(coming.given, coming.sockets, READY_TIMEOUT_S)
        elif present and process and present.heritage == coming.heritage:
            coming.heir_of = process
            process.hand_sessions()
            self._loop.call_later(HANDING_TIMEOUT_S, self._disinherit, coming)
        else:
            self._start(coming)

    @staticmethod
    def _obstacles(before: Generation, coming: Generation) -> list[str]:
        return ["the upgrade of the program"] if before.is_of_program_before else obstacles(before.given, coming.given)

    def _disinherit(self, coming: Generation) -> None:
        """What it waits for has not come in time: it begins without. A worker that gives sessions
        back to the store tells afterwards what it holds, a lease of the fleet and some seconds
        later (`Restorer.finish`).
        """
        if self._is_stopping:  # a worker that has ended has no note any more
            return
        if coming.heir_of and coming.heir_of.is_giving_back:
            log.info("the reload waits for %s, which gives sessions back to the store", coming.heir_of)
            self._loop.call_later(HANDING_TIMEOUT_S, self._disinherit, coming)
        elif coming.heir_of:
            coming.heir_of = None
            self._news.set()

    def _start_heir(self, coming: Generation) -> None:
        """Start the worker of a coming generation that has waited for what it is handed."""
        before, coming.heir_of = coming.heir_of, None
        handed = before.handed if before and before.has_handed else []
        given, coming.given = coming.given, dataclasses.replace(coming.given, handed=handed)
        self._start(coming)
        coming.given = given  # one that replaces it later begins without
        if before:
            before.handed.clear()

    def _given(self, config: Config) -> Given:
        """Read keys and addresses for the worker of a coming generation. ConfigError: no keys."""
        given = Given(config, config.key_pairs(), store_files=config.store_digests())
        if not self._present:
            return given
        self._totals.learn_servers(self._slots())
        note = self._present.process.slot.note() if self._present.process else None
        return dataclasses.replace(
            given,
            start=Start.RELOAD,
            servers=dict(self._totals.servers),
            loses_nothing=note is None or (is_store_away(note) and not note["now"]["sessions_held"]),
        )

    def _bind_admin(self, config: Config) -> socket.socket | None:
        """The admin listener of a coming generation. A Unix socket is bound with every reload:
        another process may have taken the place of its file. A host and port stay bound: who has
        just connected would be reset.
        """
        address, present = config.admin_address(), self._present
        if address and address.host and present and present.admin and present.config.admin_address() == address:
            return duplicate(present.admin)
        return listen_beside(address, config.admin_access()) if address else None

    def _move_admin(self, admin: socket.socket | None, config: Config, access: Access) -> None:
        self._admin.audit.move_to(config.log_path("admin_audit_log"))
        self._runner.run(self._admin.move_to(admin, access))

    @staticmethod
    def _place_admin(coming: Generation, before: Generation | None) -> None:
        """Let its admin listener take the place of the one before. That stays where it was if the
        file has gone meanwhile, by the rules for the address that it has: the next reload tries
        again. ConfigError: there is none before.
        """
        address = coming.config.admin_address()
        if not (coming.admin and address):
            return
        try:
            take_place(coming.admin, address)
        except ConfigError as error:
            if before is None:
                raise
            log.error("the admin listener stays where it was: %s", error)
            coming.admin = before.admin
            if before.config.admin_address() != address:
                coming.access = before.access

    def _switch_to(self, coming: Generation) -> None:
        before, self._present, self._coming = self._present, coming, None
        is_same_worker = coming.successor_of is not None
        if coming.successor_of:
            coming.take_over(coming.successor_of)
        self._listeners.keep(coming.sockets)
        errorlog.follow(coming.config)
        if self._log_level:
            log.info("the log level is %s again, as configured: a reload", coming.config.gateway.log_level)
        self._log_level = ""
        self._place_admin(coming, before)
        self._start_listening(coming)
        notify(READY)
        self._tell_keys(coming.given)
        if before is None:
            self._ready([name_of(s) for s in coming.sockets[0]])
        else:
            self._hand_keys(coming.given, [*self._retiring, before])
            self._retire(before)
        # Last, because the loop runs meanwhile: a signal to stop finds everything in its place.
        self._move_admin(coming.admin, coming.config, coming.access)
        if before:  # only now: no operator is judged by the rules of before any more
            self._tell_reloaded(before, coming, is_same_worker)
        self._answer_reload("")

    @staticmethod
    def _tell_keys(given: Given) -> None:
        """The ids of the ring, so that the log shows by which key this gateway signs by now."""
        *others, signs = given.keys.ids
        log.info("keys: %s", ", ".join([*(f"{key_id} verifies" for key_id in others), f"{signs} signs"]))

    def _tell_reloaded(self, before: Generation, coming: Generation, is_same_worker: bool) -> None:
        self._reloads.end("done")
        source, changed = coming.config.source, ", ".join(self._obstacles(before, coming))
        if is_same_worker:
            log.info("reloaded: the worker serves by %s, with the sessions that it holds", source)
        else:
            log.info(
                "reloaded: a new worker serves by %s, because of %s", source, changed or "the loss of the one before"
            )

    @staticmethod
    def _hand_keys(given: Given, retiring: Iterable[Generation]) -> None:
        """Give retiring workers the new keys, too: a key that was taken out must not be accepted by
        them, and tickets of a new one may reach them.
        """
        if given.pairs is None:  # keys of the environment never change
            return
        for generation in retiring:
            if generation.process:
                generation.process.replace_keys(given.pairs)

    def _start_listening(self, generation: Generation) -> None:
        """Make the sockets of a ready worker listen, and let it accept. No socket listens before
        this, so a generation that is given up has no clients.
        """
        process = generation.process
        if process and process.is_ready and not process.is_serving:
            for listener in {each for of_plane in generation.sockets for each in of_plane}:
                listener.listen(BACKLOG)
            if self._log_level:
                process.set_log_level(self._log_level)
            if self._drained:
                process.drain_servers(self._drained)
            process.let_serve()
            if self._is_unready:
                process.leave(True)

    def _give_up(self, coming: Generation, failure: FastticketError) -> None:
        self._coming = None
        if coming.admin:
            discard(coming.admin)
        self._retire(coming)
        self._refuse(failure)

    def _retire(self, generation: Generation) -> None:
        """Retire its worker, if it has one, and stop the oldest of too many retiring
        generations.
        """
        generation.retire()
        self._retiring.append(generation)
        for late in self._retiring[:-RETIRING_GENERATIONS_MAX]:
            if late.process and not late.process.is_stopped:
                late.stop()

    def _refuse(self, error: FastticketError) -> None:
        if not self._present:
            raise error
        self._listeners.keep(self._present.sockets)
        notify(READY)
        self._tell_refused(error)

    def _tell_refused(self, why: object) -> None:
        self._reloads.end("refused", str(why))
        self._answer_reload(str(why))
        log.error("not reloaded, the configuration before stays: %s", why)

    def _answer_reload(self, refusal: str) -> None:
        """Tell the operators who wait for it."""
        for waiting in self._reload_awaited:
            if not waiting.done():
                waiting.set_result(refusal)
        self._reload_awaited = []

    # --- worker processes

    def _generations(self) -> list[Generation]:
        return [g for g in (*self._retiring, self._present, self._coming) if g]

    def _processes(self) -> list[WorkerProcess]:
        """All that live, of any generation."""
        return [g.process for g in self._generations() if g.process]

    def _serving(self) -> list[WorkerProcess]:
        """Those that serve and were not told to end."""
        return [process for process in self._processes() if process.is_serving and not process.is_dismissed]

    def _slots(self) -> list[Slot]:
        return [process.slot for process in self._processes()]

    def _start(self, generation: Generation) -> None:
        try:
            process = fork_worker(generation.given, generation.sockets, self._handover, self._loop)
        except OSError as error:
            self._worker_missing(generation, f"the worker can not be started: {error.strerror}", 0.0)
            return
        generation.process, generation.is_of_program_before = process, False
        generation.heritage = heritage(generation.config)
        process.follow(self._news.set, self._keep_drained)
        process.kill_after(READY_TIMEOUT_S)

    def _is_due(self, coming: Generation) -> bool:
        """Whether a worker is to be forked that has waited for what it is handed."""
        if coming.successor_of or coming.process or coming.failure:
            return False
        return coming.heir_of is None or coming.heir_of.has_handed or coming.heir_of not in self._processes()

    def _hear(self, coming: Generation) -> None:
        """Whether a coming generation is ready, by what its worker has said."""
        if not coming.successor_of:
            coming.is_ready = bool(coming.process and coming.process.is_ready)
        elif (process := coming.successor_of.process) and process.reloaded:
            coming.is_ready = not process.reloaded.refusal
            coming.failure = coming.failure or (None if coming.is_ready else FastticketError(process.reloaded.refusal))

    def _watch(self) -> None:
        """Each second: kill workers whose loops do not run (`watchdog_timeout_s`). Time for which
        this process did not run itself does not count.
        """
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        notify(ALIVE)
        if self._present and self._present.admin:
            self.recent.note(self._totals.counted(self._slots()))
        now_s = time.monotonic()
        passed_s, self._watched_s = min(now_s - self._watched_s, 2 * WATCH_INTERVAL_S), now_s
        for generation in self._generations():
            timeout_s, process = generation.config.gateway.watchdog_timeout_s, generation.process
            if process and process.is_ready and process.silent_s(passed_s) >= timeout_s > 0:
                log.error("%s is killed: it hangs, for %g s (watchdog_timeout_s)", process, timeout_s)
                process.send(signal.SIGKILL)

    def _reap(self) -> None:
        """Wait for the processes that have ended."""
        for generation in self._generations():
            process = generation.process
            code = process.exit_code() if process else None
            if process and code is not None:
                generation.process = None
                self._ended(generation, process, code)
        self._retiring = [generation for generation in self._retiring if generation.process]

    def _ended(self, generation: Generation, process: WorkerProcess, code: int) -> None:
        process.read_last()
        self._totals.keep(process.slot)
        process.close()
        reason = f"{process} {ending_of(code)}{': ' if process.reason else ''}{process.reason}"
        if process.is_dismissed:
            is_early = not process.is_serving and code in (-signal.SIGTERM, -signal.SIGUSR2)
            self._note_end(reason, code == 0 or is_early)
            return
        failure = ConfigError(process.reason) if code == BAD_USAGE else FastticketError(process.reason or reason)
        if self._coming and generation in (self._coming, self._coming.successor_of):
            self._coming.failure = failure
        self._worker_missing(generation, reason, time.monotonic() - process.born_s)

    def _note_end(self, what: str, is_clean: bool) -> None:
        log.log(logging.INFO if is_clean else logging.ERROR, "%s", what)
        if self._is_stopping and not is_clean:
            self._exit_code = FAILED

    def _worker_missing(self, generation: Generation, reason: str, lived_s: float) -> None:
        """A worker could not be forked, or has died: the coming generation fails, any other gets a
        replacement.
        """
        if generation is self._coming:
            generation.failure = generation.failure or FastticketError(reason)
            self._news.set()
            return
        pause_s = generation.schedule_replacement(lived_s, self._loop.time())
        if pause_s >= RENEWAL_PAUSE_S and not (self._coming and self._coming.process):
            self._renew_sockets()  # a coming worker has those of now, and will serve them in a moment
        self._loop.call_later(pause_s, self._news.set)
        log.error("%s, after %.1f s; the next one starts in %g s", reason, lived_s, pause_s)

    def _renew_sockets(self) -> None:
        """Bind the sockets anew. Clients in their queues would wait as long as the worker does, and
        the kernel would take more; the new ones listen when the replacement is ready. Until then
        clients are refused, and go elsewhere.
        """
        renewed = self._listeners.renew()
        for generation in self._generations():
            generation.sockets[:] = [[renewed.get(s, s) for s in sockets] for sockets in generation.sockets]

    def _replace_dead(self, generation: Generation) -> None:
        if generation.take_due(self._loop.time()):
            self._restarts += 1
            self._totals.learn_servers(self._slots())
            servers = dict(self._totals.servers)
            # The configuration in force before an upgrade was that worker's: this one is unproven.
            start = Start.FIRST if generation.is_of_program_before else Start.REPLACEMENT
            generation.given = dataclasses.replace(generation.given, start=start, servers=servers)
            self._start(generation)

    # --- signals, and POST /drain

    def _on_stop_signal(self) -> None:
        """SIGTERM, SIGINT: not ready from now on, and stop after `shutdown_delay_s`, when every
        balancer has noticed; at once for a second signal.
        """
        delay_s = self._present.config.gateway.shutdown_delay_s if self._present else 0.0
        if self._is_unready:  # balancers have had this long to notice
            delay_s -= self._loop.time() - self._unready_at_s
        if self._is_stop_due or delay_s <= 0:
            self._stop()
            return
        self._is_stop_due = True
        notify(STOPPING)
        log.info("not ready any more; stops in %g s (shutdown_delay_s)", delay_s)
        self._loop.call_later(delay_s, self._stop)
        self._become_unready()

    def _become_unready(self) -> None:
        if not self._is_unready:
            self._is_unready, self._unready_at_s = True, self._loop.time()
        for process in self._serving():
            process.leave(True)

    def drain(self) -> None:
        """POST /drain: what an orchestrator asks for before it sends SIGTERM."""
        if not self._is_unready:
            log.info("not ready any more: drained by POST /drain; SIGTERM ends it, DELETE /drain takes it back")
            self._become_unready()

    def undrain(self) -> bool:
        """DELETE /drain: ready again. False: a signal has told it to stop."""
        if self._is_stop_due or self._is_stopping:
            return False
        if self._is_unready:
            log.info("ready again: DELETE /drain")
            self._is_unready = False
            for process in self._serving():
                process.leave(False)
        return True

    def _stop(self) -> None:
        """Stop all generations. The sockets close at once, so that no client waits in their
        queues.
        """
        if self._is_stopping:
            return
        self._is_stopping = True
        notify(STOPPING)
        self._listeners.keep([])
        for generation in self._generations():
            generation.stop()
        self._news.set()

    def _want_reload(self) -> None:
        self._reloads.begin()
        if self._is_stop_due or self._is_stopping:  # a reload that is under way may still come to its end
            self._tell_refused("the gateway stops in a moment")
            return
        self._is_reload_wanted = True
        self._news.set()

    def _reopen_logs(self) -> None:
        errorlog.reopen()
        self._admin.audit.reopen()
        for process in self._processes():
            process.reopen_logs()

    # --- for the admin listener

    def snapshot(self) -> Snapshot:
        """The state of the gateway now."""
        present = self._present
        process = present.process if present else None
        notes = [note for slot in self._slots() if (note := slot.note())]
        return Snapshot(
            is_stopping=self._is_stopping or self._is_unready,
            readiness=present.config.gateway.readiness if present else (),
            serving=process.slot.note() if process and process.is_ready else None,
            notes=notes,
            counted=add(self._totals.counted(self._slots()), errorlog.counted()),
            retiring=sum(1 for g in self._retiring if g.process) + sum(note["retiring"] for note in notes),
            restarts=self._restarts,
            reloads=dict(self._reloads.counts),
            last_reload=LastReload(self._reloads.was_done, self._reloads.at_s, self._reloads.took_s, self._reloads.why),
            notes_of_others=[note for each in self._processes() if each is not process and (note := each.slot.note())],
            workers=[each.pid for each in sorted(self._processes(), key=lambda each: each is not process)],
        )

    @property
    def in_force(self) -> Given:
        """The configuration in force, with its keys. Refused: the first one is not yet."""
        if not self._present:
            raise Refused("no_worker")
        return self._present.given

    def worker_states(self) -> list[dict[str, Any]]:
        """What there is to say of each worker's process."""
        return [
            {**generation.process.state(), "is_of_program_before": generation.is_of_program_before}
            for generation in self._generations()
            if generation.process
        ]

    async def inquire(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        """Ask the worker that serves. Refused: there is none, it does not answer in time, or says
        no.
        """
        present = self._present
        process = present.process if present else None
        if not (present and process and process.is_serving) or present.is_of_program_before:
            raise Refused("no_worker")
        return await process.inquire(name, arguments, timeout_s or INQUIRY_TIMEOUT_S)

    @property
    def log_level(self) -> str:
        """From which level on lines are logged."""
        return self._log_level or self.in_force.config.gateway.log_level

    def set_log_level(self, level: str) -> None:
        """Log from that level on, in every process, until the next reload."""
        self._log_level = level
        logging.getLogger().setLevel(level.upper())
        for process in self._serving():
            process.set_log_level(level)

    async def reload(self) -> None:
        """Read the configuration anew, and serve by it. Refused: the one before stays."""
        if self._is_stop_due or self._is_stopping:
            raise Refused("stopping")
        outcome: asyncio.Future[str] = self._loop.create_future()
        self._reload_asked.append(outcome)
        self._want_reload()
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                refusal = await outcome
        except TimeoutError:
            raise Refused("worker_silent", "the reload has not come to its end yet") from None
        if refusal:
            raise Refused("reload_refused", refusal)

    def _keep_drained(self, teller: WorkerProcess, servers: frozenset[tuple[str, str]]) -> None:
        """What a worker says is drained: (upstream, server). Workers to come will hear of it, one
        that has taken its place meanwhile, and those that retire: they have clients.
        """
        self._drained = servers
        for process in self._processes():
            if process is not teller and process.is_serving:
                process.drain_servers(servers)

"""Each emergency of docs/how-to/alerts.md once, on a real gateway with real servers, while a real
Prometheus reads it: which alert fires and after how long, which figure shows what is wrong, which
command repairs it, and how long after it all is quiet again. `make emergencies` prints the table.

The rules are those of examples/prometheus, thirty times faster (whole/prometheus.py). Every alert
of theirs has to fire in some row. python -m whole.emergencies [--only NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import os
import re
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lab.processes import Process, starting_none
from lab.redis_servers import SentinelSetup, Server, free_port, wait_until
from lab.tabs import Tab, browser

from fastticket import Keyring, open_store
from fastticket.commands.admin import ask
from fastticket.sessions.canary import INTERVAL_S, stored_canary
from whole.drill import BOUND_S, CONFIG, Scene, all_serve
from whole.prometheus import FASTER, Prometheus, names
from whole.stage import Clock, started_with

FULL = 60_000  # bytes of a disk of 64 KiB


class Emergency(Scene):
    """A scene whose admin listener Prometheus can read. `attack`: a thread of somebody who means no
    good, until `is_repelled`.
    """

    def __init__(self, folder: Path, *, settings: str = "", more: str = "", **options: Any) -> None:
        self.admin = f"127.0.0.1:{free_port()}"
        (folder / "tokens").write_text(f"drill {secrets.token_urlsafe(32)}\n")
        (folder / "tokens").chmod(0o600)
        listener = f'admin = "{self.admin}"\nadmin_token_file = "tokens"\n{settings}'
        super().__init__(folder, template=CONFIG.replace('admin = "unix:admin.sock"', listener) + more, **options)
        self.is_repelled = threading.Event()
        self.notes: dict[str, Any] = {}
        self.mended = contextlib.ExitStack()
        self._exits.callback(self.mended.close)
        self._exits.callback(self.is_repelled.set)

    def page(self, path: str) -> tuple[int, str]:
        """The admin listener's answer."""
        return ask(self.admin, path)

    def run(self, command: str) -> str:
        """A command as an operator types it; what it prints, whatever its exit code."""
        program = f"{sys.executable} -m fastticket "
        done = subprocess.run(
            ["bash", "-c", re.sub(r"\bfastticket (?=[a-z])", program, command)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=2 * BOUND_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        return done.stdout + done.stderr

    def attack(self, cookie: Callable[[], str]) -> None:
        """Send requests with such tickets, some tens a second."""

        def send() -> None:
            while not self.is_repelled.wait(0.02):
                with contextlib.suppress(OSError):
                    self.site.ask(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={cookie()}\r\n\r\n".encode())

        threading.Thread(target=send, daemon=True).start()


class Seen(NamedTuple):
    """What the operators' page shows of it: in the list of figures `place` the one of that name, or
    in the table `place` the row that has the name in it, or all of it.
    """

    place: str
    name: str
    pattern: str

    def text(self, tab: Tab) -> str:
        """What the page shows of it now; "": it is not there."""
        rows = f"#{self.place} > div, #{self.place} > tbody > tr" if self.name else f"#{self.place}"
        shown: list[str] = tab.page.eval_on_selector_all(rows, "rows => rows.map(row => row.innerText)")
        return next((text for text in shown if self.name in text), "")


@dataclass(frozen=True)
class Row:
    """One emergency. `repairs`: what an operator types, or does, and the same here."""

    name: str
    scene: Callable[[Path], contextlib.AbstractContextManager[Emergency]]
    breaks: Callable[[Emergency], None]
    alerts: tuple[str, ...]
    figure: str  #: a pattern of a line of `fastticket status`
    seen: Seen
    command: str
    repairs: Callable[[Emergency], None]
    check: Callable[[Emergency], None] = field(default=lambda _: None)  #: after the repair


@contextlib.contextmanager
def scene(folder: Path, **options: Any) -> Iterator[Emergency]:
    """Its processes end with the block."""
    made = Emergency(folder, **options)
    try:
        yield made
    finally:
        made.close()


# --- the store


def outage(scene: Emergency) -> None:
    """While somebody asks whose session this gateway does not hold."""
    ticket = scene.run("fastticket issue carol --config fastticket.toml 2>/dev/null").strip()
    scene.redis.kill()
    scene.attack(lambda: ticket)


def redis_back(scene: Emergency) -> None:
    scene.redis.start()
    scene.is_repelled.set()
    scene.clients.wait_for("login", "200")


@contextlib.contextmanager
def with_old_store(folder: Path) -> Iterator[Emergency]:
    """While users of another system move in."""
    old = Server(folder)
    more = f'[[migration]]\nsource = "spring"\nurl = "redis://{old.address}/0"\nuntil = "2099-12-31"\n'
    try:
        with scene(folder, more=more) as made:
            made.notes["old"] = old
            yield made
    finally:
        old.kill()


def old_store_dead(scene: Emergency) -> None:
    """While somebody comes with its cookie."""
    scene.notes["old"].kill()
    cookie = base64.b64encode(str(uuid.uuid4()).encode()).decode()
    scene.attack(lambda: f"; SESSION={cookie}")


def old_store_back(scene: Emergency) -> None:
    scene.notes["old"].start()


@contextlib.contextmanager
def with_sentinel(folder: Path) -> Iterator[Emergency]:
    setup = SentinelSetup(folder, down_after_ms=1500)
    try:
        with scene(folder, redis=setup.master, store=f"{setup.url}?timeout_ms=1000") as made:
            made.notes["setup"] = setup
            yield made
    finally:
        setup.close()


def failover(scene: Emergency) -> None:
    setup: SentinelSetup = scene.notes["setup"]
    dead = setup.master
    scene.notes["before"] = count(scene)
    wait_until(lambda: all(replica.is_in_sync() for replica in setup.replicas), "replicas in sync", BOUND_S)
    dead.kill()
    wait_until(lambda: setup.current_master() is not dead, "another primary", BOUND_S)
    scene.clients.wait_for("login", "200")


def count(scene: Emergency) -> int:
    return int(scene.run("fastticket sessions --all --count --config fastticket.toml 2>/dev/null"))


def all_are_there(scene: Emergency) -> None:
    assert count(scene) >= scene.notes["before"], "sessions are lost"


def data_lost(scene: Emergency) -> None:
    """Of a hundred users, while nobody does anything."""
    scene.clients.stop()
    for number in range(100):
        scene.site.ask(f"GET /login HTTP/1.1\r\nHost: a\r\nX-User: user{number}\r\n\r\n".encode())
    wait_until(lambda: living(scene) >= 100, "a census", 120)
    said = scene.run("fastticket export nightly.jsonl --config fastticket.toml")
    assert (scene.folder / "nightly.jsonl").exists(), said
    scene.notes["before"] = count(scene)
    scene.redis.admin("FLUSHALL")


def living(scene: Emergency) -> int:
    """As the gateway has counted last, which it does about once a minute."""
    return int(float((re.findall(r"^fastticket_store_sessions (\S+)", scene.page("/metrics")[1], re.M) or ["0"])[0]))


def imported(scene: Emergency) -> None:
    scene.notes["said"] = scene.run("fastticket import nightly.jsonl --config fastticket.toml")


# --- keys


def leaked(scene: Emergency) -> None:
    stolen = Keyring.from_file(scene.folder / "keys.toml")
    scene.attack(lambda: stolen.mint("root", time.time_ns() // 1_000_000, 7200, 86400))


def key_replaced(scene: Emergency) -> None:
    for command in ("fastticket keys add keys.toml", "fastticket keys promote keys.toml 2"):
        scene.run(command)
        scene.site.reload()
    scene.run("fastticket keys retire keys.toml 1")
    scene.site.reload()


def forged(scene: Emergency) -> None:
    ring = Keyring.from_file(scene.folder / "keys.toml")

    def forge() -> str:
        good = ring.mint("root", time.time_ns() // 1_000_000, 7200, 86400)
        return good[:-8] + secrets.token_urlsafe(6)[:7] + "A"

    scene.attack(forge)


def forger_shut_out(scene: Emergency) -> None:
    assert "127.0.0.1" in scene.run("grep bad_signature disk/access.log | tail -n 1"), "the log does not say who"
    scene.is_repelled.set()


# --- upstreams, descriptors, disks


@contextlib.contextmanager
def with_partner(folder: Path) -> Iterator[Emergency]:
    """Whose other upstream is a process of its own."""
    port = free_port()
    with contextlib.ExitStack() as ends:
        partner = start_partner(folder, port)
        made = ends.enter_context(scene(folder, partner=f"127.0.0.1:{port}"))
        made.notes |= {"partner": partner, "port": port}
        yield made
        made.notes["partner"].kill()
        made.notes["partner"].wait()


def start_partner(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Answers everything with 200."""
    program = folder / "partner.py"
    program.write_text(PARTNER)
    process = subprocess.Popen([sys.executable, program, str(port)], stderr=subprocess.DEVNULL)
    wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "the partner listens", BOUND_S)
    return process


PARTNER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def partner_dead(scene: Emergency) -> None:
    scene.notes["partner"].kill()
    scene.notes["partner"].wait()


def partner_back(scene: Emergency) -> None:
    scene.notes["partner"] = start_partner(scene.folder, scene.notes["port"])
    scene.clients.wait_for("partner", "200")


def descriptors_low(scene: Emergency) -> None:
    """Clients take all that the gateway lets them have; then the limit is lowered under its feet,
    because it would keep enough for itself otherwise.
    """
    scene.site.reload((scene.folder / "fastticket.toml").read_text() + "[limits]\nconnections_max = 100\n")
    for _ in range(100):
        scene.mended.callback(socket.create_connection(scene.site.address).close)
    (worker,) = scene.site.workers()
    scene.notes["limit"] = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{worker}/fd"))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 2, scene.notes["limit"][1]))


def more_descriptors(scene: Emergency) -> None:
    (worker,) = scene.site.workers()
    resource.prlimit(worker, resource.RLIMIT_NOFILE, scene.notes["limit"])
    scene.site.reload((scene.folder / "fastticket.toml").read_text().replace("= 100\n", "= 1000\n"))


@contextlib.contextmanager
def with_small_disk(folder: Path) -> Iterator[Emergency]:
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True, capture_output=True)
    try:
        with scene(folder, settings='error_log = "disk/error.log"\n') as made:
            yield made
    finally:
        subprocess.run(["umount", "--lazy", disk], capture_output=True, check=False)


def disk_full(scene: Emergency) -> None:
    log = scene.folder / "disk/access.log"
    wait_until(lambda: log.stat().st_size > FULL // 2, "a full disk", BOUND_S)
    scene.redis.kill()  # which the error log would tell of
    scene.clients.wait_for("login", "503")
    scene.redis.start()


def disk_larger(scene: Emergency) -> None:
    subprocess.run(["mount", "-o", "remount,size=512m", scene.folder / "disk"], check=True)


# --- clocks, processes, files


@contextlib.contextmanager
def with_a_clock(folder: Path) -> Iterator[Emergency]:
    """Whose store has a clock that can be set: to be off is to differ, whoever is right."""
    clock = Clock(folder)
    with started_with(clock.environment):
        server = Server(folder)
    with scene(folder, redis=server) as made:
        made.notes["clock"] = clock
        yield made


def clock_off(scene: Emergency) -> None:
    scene.notes["clock"].set(60.0)


def clock_set(scene: Emergency) -> None:
    scene.notes["clock"].set(0.0)


def gateway_dead(scene: Emergency) -> None:
    scene.site.at.kill()


def gateway_back(scene: Emergency) -> None:
    scene.site.at.process.stdout.close()
    with (scene.folder / "log").open("ab") as log:
        scene.site.at = Process("serve", "--config", "fastticket.toml", cwd=scene.folder, stderr=log)


def worker_missing(scene: Emergency) -> None:
    scene.mended.enter_context(starting_none(scene.site.at.process))
    os.kill(scene.site.workers()[0], signal.SIGKILL)


def worker_can_start(scene: Emergency) -> None:
    scene.mended.close()
    all_serve(scene)


def configuration_broken(scene: Emergency) -> None:
    text = (scene.folder / "fastticket.toml").read_text()
    scene.notes["good"] = text
    scene.site.reload(text.replace("threads = 2", "threds = 2"))


def configuration_mended(scene: Emergency) -> None:
    assert "did you mean threads?" in scene.run("fastticket check-config --config fastticket.toml")
    scene.site.reload(scene.notes["good"])


@contextlib.contextmanager
def with_many_canaries(folder: Path) -> Iterator[Emergency]:
    """Whose store has others that end canaries, thirty times as often as a fleet does: as the rules
    look thirty times as often.
    """
    over = threading.Event()
    with scene(folder) as made:
        url = f"redis://{made.redis.address}/0"
        ender = threading.Thread(target=lambda: asyncio.run(end_canaries(url, over)), daemon=True)
        ender.start()
        try:
            yield made
        finally:
            over.set()
            ender.join(BOUND_S)


async def end_canaries(url: str, over: threading.Event) -> None:
    """As sessions/canary.py does, on this machine's clock, which is the store's."""
    store = open_store(url)
    await store.open()
    shards = itertools.cycle(range(store.shards))
    while not await asyncio.to_thread(over.wait, INTERVAL_S / FASTER):
        now_ms = time.time_ns() // 1_000_000
        session = stored_canary(next(shards), store.shards, now_ms)
        await store.create(session)
        await store.revoke(session.id, session.principal, f"canary {now_ms}")
    await store.aclose()


def stalls(scene: Emergency) -> None:
    """As a machine does that swaps: three seconds of every four."""
    worker = scene.site.workers()[0]

    def stall() -> None:
        while not scene.is_repelled.wait(1.0):
            os.kill(worker, signal.SIGSTOP)
            scene.is_repelled.wait(3.0)
            os.kill(worker, signal.SIGCONT)

    threading.Thread(target=stall, daemon=True).start()


def stalls_no_more(scene: Emergency) -> None:
    scene.is_repelled.set()


def nothing(_: Emergency) -> None:
    """It has repaired itself."""


ROWS = (
    Row(
        "outage",
        scene,
        outage,
        ("FastticketStoreAway", "FastticketTurnsUsersAway", "FastticketStoreDoesNotKeepUp"),
        r"^store .*: away for \d+ s",
        Seen("store-figures", "Shards away", r"⚠ [1-9]"),
        "systemctl start redis-server",
        redis_back,
    ),
    Row(
        "old store away",
        with_old_store,
        old_store_dead,
        ("FastticketOldStoreAway",),
        r"^gateway +not healthy: old store spring",
        Seen("about", "", r"away: old store spring"),
        "systemctl start redis-server, there",
        old_store_back,
    ),
    Row(
        "failover",
        with_sentinel,
        failover,
        ("FastticketStoreLogLost",),
        r"^store .*: up \(main of ",
        Seen("store-figures", "Times that its log was lost", r"[1-9]"),
        "none: `fastticket sessions --all --count` shows that all are there",
        nothing,
        all_are_there,
    ),
    Row(
        "data lost",
        scene,
        data_lost,
        ("FastticketStoreLogLost", "FastticketStoreLostData"),
        r"^sessions ",
        Seen("store-figures", "Sessions that live, last count", r"\d+"),
        "fastticket import nightly.jsonl",
        imported,
        all_are_there,
    ),
    Row(
        "key leaked",
        scene,
        leaked,
        ("FastticketKeyLeaked",),
        r"^unknown_session +\d{3,}",
        Seen("refusals", "unknown_session", r"\d{3,}"),
        "fastticket keys add, promote, retire, each with a reload after it",
        key_replaced,
    ),
    Row(
        "forgery",
        scene,
        forged,
        ("FastticketForgedTickets",),
        r"^bad_signature +\d\d",
        Seen("refusals", "bad_signature", r"\d\d"),
        "none here: `grep bad_signature access.log` says whom to shut out",
        forger_shut_out,
    ),
    Row(
        "upstream down",
        with_partner,
        partner_dead,
        ("FastticketUpstreamDown", "FastticketUpstreamAway", "FastticketFails"),
        r"^partner .* down\b",
        Seen("servers", "partner", r"down"),
        "systemctl start partner",
        partner_back,
    ),
    Row(
        "descriptors low",
        scene,
        descriptors_low,
        ("FastticketDescriptorsLow", "FastticketConnectionsFull"),
        r"^clients +\d{2,} connections of \d+",
        Seen("own", "File descriptors", r"⚠ \d+ of \d+"),
        "prlimit --pid PID --nofile=20000 (and `LimitNOFILE=` in the unit); a larger `connections_max`, and a reload",
        more_descriptors,
    ),
    Row(
        "disk full",
        with_small_disk,
        disk_full,
        ("FastticketLosesAccessLog", "FastticketLosesErrorLog"),
        r"^logs +\d+ lines lost",
        Seen("own", "Access log lines lost", r"⚠ [1-9]"),
        "remove what fills it, or make it larger",
        disk_larger,
    ),
    Row(
        "clock off",
        with_a_clock,
        clock_off,
        ("FastticketClockOff",),
        r"^clock +60 s behind the store's",
        Seen("own", "Clock", r"⚠ \d\d s behind the store's"),
        "chronyc makestep",
        clock_set,
    ),
    Row(
        "gateway dead",
        scene,
        gateway_dead,
        ("FastticketDown",),
        r"Connection refused",
        Seen("trouble", "", r"the gateway cannot be reached"),
        "systemctl start fastticket",
        gateway_back,
    ),
    Row(
        "worker missing",
        scene,
        worker_missing,
        ("FastticketWorkerMissing",),
        r"^gateway +not healthy: worker",
        Seen("own", "Worker", r"⚠ missing"),
        "none once the cause is gone, which the log names",
        worker_can_start,
    ),
    Row(
        "gateway stalls",
        with_many_canaries,
        stalls,
        ("FastticketRevocationsLate",),
        r"^ends +99 of 100 .* within",
        Seen("own", "99 of 100 ends known within", r"⚠ \d"),
        "take load from the machine",
        stalls_no_more,
    ),
    Row(
        "configuration broken",
        scene,
        configuration_broken,
        ("FastticketReloadRefused",),
        r"^reload +refused \d+ s ago: .*did you mean threads",
        Seen("own", "Last reload", r"⚠ refused"),
        "fastticket check-config --config fastticket.toml; then a reload",
        configuration_mended,
    ),
)

COLUMNS = ("emergency", "alerts, after", "figure", "on the page", "repaired by", "quiet after")


@contextlib.contextmanager
def page_of(scene: Emergency) -> Iterator[Tab]:
    """The operators' page, open since before anything is wrong."""
    with browser() as running:
        tab = Tab(running)
        tab.page.goto(f"http://{scene.admin}/")
        tab.page.wait_for_selector("#token:not([hidden])")
        tab.page.fill("#token-text", (scene.folder / "tokens").read_text().split()[1])
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#own > div")
        yield tab
        tab.close()


def play(row: Row, folder: Path) -> tuple[str, ...]:
    """The cells of a row. AssertionError: something did not happen."""
    with row.scene(folder) as scene, page_of(scene) as tab:
        all_serve(scene)
        prometheus = Prometheus(folder, [scene.admin])
        try:
            assert not (firing := prometheus.firing()), f"{firing} before anything was wrong"
            row.breaks(scene)
            seen = prometheus.wait_for(row.alerts)
            status = scene.run(f"fastticket status --admin {scene.admin} --token-file tokens")
            figure = re.search(row.figure, status, re.MULTILINE)
            assert figure, f"{row.figure} is not in\n{status}"
            seen_on_page = shown_on(tab, row.seen)
            row.repairs(scene)
            quiet_s = prometheus.wait_until_quiet(names())
            row.check(scene)
        finally:
            prometheus.stop()
    line = next(line for line in status.splitlines() if figure[0].splitlines()[0] in line)
    fired = ", ".join(f"{name.removeprefix('Fastticket')} {seconds:.0f} s" for name, seconds in seen.items())
    return row.name, fired, " ".join(line.split()), seen_on_page, row.command, f"{quiet_s:.0f} s"


def shown_on(tab: Tab, seen: Seen) -> str:
    """The text, once it is as it has to be."""
    wait_until(lambda: tab.page.wait_for_timeout(50) or re.search(seen.pattern, seen.text(tab)), f"{seen}", BOUND_S)
    return " ".join(seen.text(tab).split())


def main() -> int:
    """Play each row and print the table; 1 if something did not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the beginning of a name")
    wanted = parser.parse_args().only
    rows = [row for row in ROWS if row.name.startswith(wanted)]
    if not rows:
        parser.error(f"there is no row {wanted!r}; there are: {', '.join(row.name for row in ROWS)}")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    bad = 0
    for row in rows:
        with tempfile.TemporaryDirectory(prefix="emergency-", ignore_cleanup_errors=True) as folder:
            try:
                print("| " + " | ".join(play(row, Path(folder))) + " |", flush=True)
            except (AssertionError, subprocess.SubprocessError) as error:
                print(f"{row.name}: {error}", file=sys.stderr, flush=True)
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

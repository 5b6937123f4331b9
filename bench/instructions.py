"""How many instructions the hot paths take: counts of callgrind, which repeat however busy the
machine is.

    python bench/instructions.py [--json FILE]

    check, hit            a call from Python of a ticket in the near cache, touch noted
    check, HMAC           the same of one that is not there: signature verified
    request               a whole proxied request: all that the gateway's turns do for it, without
                          the kernel
    request, head scan    of it, the request's head: `parse_request`
    request, check        of it, the check of its ticket
    request, calls        system calls, each counted as one: callgrind does not see the kernel,
                          which is most of a request's cost

Method: one process under valgrind, counted only between marks (marks.c). Calls are counted over
2,000 of them, with the Python loop around them. The request is counted over a slice of the loader
(load.c), which runs outside valgrind with 16 in flight. The gateway's turns are taken here, by
hand, after pauses in which all 16 have come in: so batches are alike however busy the machine is,
and the event loop is not in the figure; the lease is long enough that the store is not needed
meanwhile. The counts hold for one compiler, libcrypto and Python; callgrind's processor has no SHA
instructions, so a hash counts for more there.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import figures
import uvloop
from children import GATEWAY_CORE, BenchError, run_program
from loader import BUILD, HERE, Loader, build
from sessions import make_sessions

from fastticket import Keyring, Session, Ticket, TicketCache, Verdict, open_store
from fastticket.gateway.binding import listen
from fastticket.gateway.inheritance import Given
from fastticket.gateway.reader import read_config
from fastticket.gateway.worker import Worker

CALLS = 2_000
CONNECTIONS = 16
SESSIONS = 64
SLICE_MS = 3_000
PAUSE_S = 0.006  # the loader answers or asks 16 times in less than one, even if it has to wait for its core
LEASE_MS = 3_600_000
SYSTEM_CALLS = {"recv", "send", "recvmsg", "sendmsg", "read", "write", "epoll_wait", "epoll_ctl", "accept4", "connect"}
SYSTEM_CALLS |= {"close", "shutdown", "socket", "getsockopt", "setsockopt", "ioctl", "poll"}
BOUND_S = 240
PARTS = {
    "request, head scan": "__pyx_f_10fastticket_9dataplane_5http1_parse_request",
    "request, check": "__pyx_f_10fastticket_4core_5check_7Checker_judge",
}


def count(folder: Path) -> dict[str, float]:
    """Instructions a call, or a request. BenchError without valgrind."""
    if not shutil.which("valgrind"):
        raise BenchError("valgrind is missing; `make test` installs it")
    build()
    command = ["gcc", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", BUILD / "marks.so", HERE / "marks.c"]
    subprocess.run(command, check=True)
    make_sessions(folder, SESSIONS)
    out = folder / "callgrind.out"
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", "--quiet"]
    done = subprocess.run(
        ["taskset", "-c", str(GATEWAY_CORE), *valgrind, sys.executable, __file__, "--inside", folder],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"under valgrind: {done.stderr[-2000:]}")
    requests = float(done.stdout)
    dumps = dict(
        _read(path) for path in folder.glob("callgrind.out.*") if "Client Request" in path.read_text(errors="replace")
    )
    found = {name: _total(dumps[name]) / CALLS for name in ("check, hit", "check, HMAC")}
    found["request"] = _total(dumps["request"]) / requests
    for name, function in PARTS.items():
        found[name] = _inclusive(dumps["request"], function) / requests
    found["request, calls"] = sum(_calls(dumps["request"], SYSTEM_CALLS).values()) / requests
    return found


# ---------------------------------------------------------------------------- what callgrind writes


def _read(path: Path) -> tuple[str, Path]:
    name = re.search(r"desc: Trigger: Client Request: (.*)", path.read_text(errors="replace"))
    assert name
    return name[1], path


def _total(dump: Path) -> int:
    said = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(errors="replace"), re.M)
    assert said
    return int(said[1])


def _inclusive(dump: Path, function: str) -> int:
    """The instructions of a function and of all that it calls."""
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", str(dump)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in said.splitlines():
        if re.search(rf":{function}(\.\w+)*(?:'\d+)? ", line):
            return int(line.split()[0].replace(",", ""))
    raise BenchError(f"callgrind saw nothing of {function}")


def _calls(dump: Path, functions: set[str]) -> Counter[str]:
    """How often functions were called: `calls=` lines after the `cfn=` that they belong to, where a
    name is written out once.
    """
    names: dict[str, str] = {}
    counted: Counter[str] = Counter()
    called = ""
    for line in dump.read_text(errors="replace").splitlines():
        if name := re.match(r"(c?fn)=(\(\d+\))(?: (.*))?", line):
            names.setdefault(name[2], (name[3] or "").partition("@")[0])
            called = names[name[2]] if name[1] == "cfn" else called
        elif line.startswith("calls=") and called in functions:
            counted[called] += int(line[6:].split()[0])
    return counted


# ---------------------------------------------------------------------------------- under callgrind


def inside(folder: Path) -> None:
    """The process whose instructions are counted. Prints the number of requests."""
    marks = ctypes.CDLL(str(BUILD / "marks.so"))
    keys = Keyring.from_file(folder / "keys.toml")
    text = (folder / "tickets").read_text().split()[0]
    for name, is_known in (("check, hit", True), ("check, HMAC", False)):
        call = functools.partial(cache(keys, text, is_known).check, text)
        _count_calls(marks, name, call, Session if is_known else Verdict)
    print(uvloop.run(_count_requests(marks, folder)), flush=True)


def cache(keys: Keyring, text: str, is_known: bool) -> TicketCache:
    """On this machine's clock. No store behind it: a hit asks none, and here nothing flushes."""
    made = TicketCache(open_store("sqlite://:memory:"), keys)
    now_ms = time.time_ns() // 1_000_000
    made._checker.set_offset_ms(now_ms - made._checker.monotonic_ms())
    made._near.renew_lease(0, now_ms + LEASE_MS)
    ticket = keys.verify(text, now_ms)
    assert isinstance(ticket, Ticket)
    if is_known:
        assert made._near.insert(ticket.raw, 0, now_ms + LEASE_MS, now_ms, False)
    return made


def _count_calls(marks: ctypes.CDLL, name: str, call: Callable[[], object], kind: type) -> None:
    assert isinstance(call(), kind)
    for _ in range(10):  # what is done once is done
        call()
    marks.begin_count()
    for _ in itertools.repeat(None, CALLS):
        call()
    marks.end_count(name.encode())


async def _count_requests(marks: ctypes.CDLL, folder: Path) -> float:
    loader = Loader(folder, "loader", CONNECTIONS, folder / "tickets")
    table = {
        "gateway": {"listen": ["127.0.0.1:0"]},
        "ticket": {"keys": str(folder / "keys.toml")},
        "store": {"url": f"sqlite:///{folder / 'sessions.db'}", "flush_interval_ms": 60_000, "lease_ms": LEASE_MS},
        "upstream": [{"name": "app", "servers": [loader.upstream]}],
        "route": [{"path": "/", "auth": "required"}],
    }
    config = read_config(table, "instructions", folder)
    listeners = [listen(address, shared=False) for address in config.listen_addresses()]
    worker = Worker(Given(config, config.key_pairs()), [listeners])
    await worker.start()
    try:
        await asyncio.to_thread(loader.connect, listeners[0].getsockname()[1])
        await asyncio.to_thread(loader.slice, SLICE_MS)
        asyncio.get_running_loop().remove_reader(worker.proxy.fileno())
        with ThreadPoolExecutor(1) as beside:
            slicing = beside.submit(loader.slice, SLICE_MS)
            marks.begin_count()
            while not slicing.done():
                time.sleep(PAUSE_S)  # noqa: ASYNC251  nothing else shall run
                worker.proxy.turn()
            marks.end_count(b"request")
        seen = slicing.result()
        assert seen["identified"] == seen["requests"]
        asyncio.get_running_loop().add_reader(worker.proxy.fileno(), worker.proxy.turn)
    finally:
        loader.stop()
        await worker.stop()
    return seen["requests"]


def unit_of(name: str) -> str:
    """The unit of a figure of `count`."""
    return "calls a request" if name.endswith("calls") else "instructions"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Instructions of the hot paths.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.inside)
        return 0
    with tempfile.TemporaryDirectory(prefix="fastticket-bench-") as folder:
        found = count(Path(folder))
    for name, number in found.items():
        print(f"{name:20} {number:10,.1f} {unit_of(name)}")
    written = {f"instructions/{name}": figures.figure(number, unit_of(name)) for name, number in found.items()}
    figures.write(options.json, written)
    return 0


if __name__ == "__main__":
    run_program(main)

"""Whether the hot paths have become slower than the last recorded baseline. `make test` asks, and
CI with it.

    .venv/bin/python bench/gate.py   exit status 1 if something has
    … --record                       make what is measured now the baseline; commit it, and say why

Two kinds of figures, in `baseline.json`:

instructions   of callgrind, and system calls (instructions.py), within 3 %. They repeat within
               0.1 %, however busy the machine is. Fewer are red, too: a gain that is not recorded
               would hide the next loss. Their key is what makes the code: compiler, Cython, Python,
               libcrypto, libc, as far as a release is likely to change it.
ratios         to a reference workload in the same run, at most 15 % more: a check to `hmac.digest`;
               a proxied request's CPU to that of `floor.c`, which passes the same bytes on unread.
               They depend on the processor, which is their key.

Where there is no baseline for the toolchain or the processor, nothing is judged, and it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import platform
import statistics
import tempfile
import timeit
from collections.abc import Iterator, Mapping
from pathlib import Path

import figures
import gateway
import instructions
from candidates import CANDIDATES
from children import LOAD_CORE, claim_machine, run_program
from loader import build
from sessions import make_sessions

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCES = {"instructions": 1.03, "ratios": 1.15}
PASSES = 300
PASS_CALLS = 2_000
ROUNDS = 10
REFERENCE_CALL = "hmac.digest"
REFERENCE_GATEWAY = "floor: 2 recv, 2 send"
# Redis would have a share of the core: the store is judged by benchmarks of its own.
OURS = "fastticket, SQLite, lazy touches"

Measured = dict[str, float]


def keys() -> dict[str, str]:
    """The keys of this machine: a baseline of the same keys is the one to compare with."""
    known = figures.versions()
    releases = {"python": 2, "gcc": 1, "openssl": 2, "cython": 2, "valgrind": 2}
    tools = " ".join(f"{name} {'.'.join(known.get(name, '?').split('.')[:parts])}" for name, parts in releases.items())
    # libcrypto and libc choose their code by it.
    avx2 = "avx2" if " avx2 " in Path("/proc/cpuinfo").read_text() else "no avx2"
    libc = " ".join(platform.libc_ver())
    return {"instructions": f"{platform.machine()} {avx2} {libc} {tools}", "ratios": figures.processor()}


def measure(folder: Path) -> dict[str, Measured]:
    """Measure all figures that are judged."""
    counted = instructions.count(folder)
    return {"instructions": counted, "ratios": {**call_ratios(folder), **gateway_ratios(folder)}}


def call_ratios(folder: Path) -> Measured:
    """Ratios of calls, by the fastest of many short passes, which take turns: a disturbance only
    makes a pass slower.
    """
    keyring = instructions.Keyring.from_file(folder / "keys.toml")
    text = (folder / "tickets").read_text().split()[0]
    calls = {
        REFERENCE_CALL: timeit.Timer(lambda: hmac.digest(b"k" * 32, b"m" * 39, "sha256")),
        "check, hit": timeit.Timer(
            "check(text)", globals={"check": instructions.cache(keyring, text, True).check, "text": text}
        ),
        "check, HMAC": timeit.Timer(
            "check(text)", globals={"check": instructions.cache(keyring, text, False).check, "text": text}
        ),
    }
    fastest_s = dict.fromkeys(calls, float("inf"))
    for _ in range(PASSES):
        for name, timer in calls.items():
            fastest_s[name] = min(fastest_s[name], timer.timeit(PASS_CALLS))
    reference_s = fastest_s.pop(REFERENCE_CALL)
    return {f"{name} ÷ {REFERENCE_CALL}": took_s / reference_s for name, took_s in fastest_s.items()}


def gateway_ratios(folder: Path) -> Measured:
    """Ratios of CPU a request."""
    build()
    folder = folder / "gateway"
    folder.mkdir()
    sessions = make_sessions(folder, gateway.SESSIONS)
    with contextlib.ExitStack() as stack:
        running = []
        for name in (OURS, REFERENCE_GATEWAY):
            running.append(gateway.Running(name, CANDIDATES[name], folder, sessions, connections=64))
            stack.callback(running[-1].stop)
        slices = gateway.measure(running, ROUNDS, gateway.SLICE_MS)
    cpu = statistics.median(gateway.ratios(slices, OURS, REFERENCE_GATEWAY, "cpu_us"))
    return {"request, CPU ÷ bytes passed on": cpu}


def judge(kind: str, found: Measured, baseline: Mapping[str, float]) -> Iterator[tuple[bool, str]]:
    """For each figure of a kind: whether it is within the tolerance, and a line to read."""
    for name in sorted({*found, *baseline}):
        if name not in found or name not in baseline:
            yield False, f"{name}: {'not measured any more' if name in baseline else 'new'}; --record"
            continue
        relative = found[name] / baseline[name]
        is_slower = relative > TOLERANCES[kind]
        is_faster = kind == "instructions" and relative < 2 - TOLERANCES[kind]
        verdict = (
            f"SLOWER than {TOLERANCES[kind] - 1:.0%} more" if is_slower else "FASTER: --record" if is_faster else "ok"
        )
        line = f"{name:32} {found[name]:12,.3f}  baseline {baseline[name]:12,.3f}  {relative - 1:+7.1%}  {verdict}"
        yield not (is_slower or is_faster), line


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the baseline")
    options = parser.parse_args()
    baselines = json.loads(BASELINE.read_text()) if BASELINE.exists() else {kind: {} for kind in TOLERANCES}
    own_keys = keys()
    for kind, key in own_keys.items():
        if key not in baselines[kind] and not options.record:
            print(f"{kind}: no baseline for {key}; NOTHING IS JUDGED. --record writes one")
    if not options.record and not any(key in baselines[kind] for kind, key in own_keys.items()):
        return 0
    claim_machine(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="fastticket-bench-") as folder:
        found = measure(Path(folder))
    if options.record:
        for kind, key in own_keys.items():
            baselines[kind][key] = found[kind]
        BASELINE.write_text(json.dumps(baselines, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    all_good = True
    for kind, key in own_keys.items():
        if key in baselines[kind]:
            print(f"{kind}, beside the baseline for {key}")
            for is_good, line in judge(kind, found[kind], baselines[kind][key]):
                all_good &= is_good
                print(f"  {line}")
    return 0 if all_good else 1


if __name__ == "__main__":
    run_program(main)

"""The model from the command line: `python tests/model/check.py [--large] [--scope NAME] [--fault
NAME] [--depth N] [--seconds S]`.

Without `--fault` the right protocol is explored, scope by scope, and then each fault is put back,
which must be found. Exit code 1 if a promise breaks that should hold, or holds that should break.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import scopes, words
from model.explore import Report, explore
from model.faults import FAULTS, Fault
from model.protocol import Protocol
from model.scopes import Scope


def main() -> int:
    asked = _arguments()
    if asked.fault:
        return _put_back([fault for fault in FAULTS if fault.name == asked.fault], asked.depth, asked.seconds)
    searched = [scope for scope in (scopes.LARGE if asked.large else scopes.QUICK) if asked.scope in (None, scope.name)]
    failed = sum([_is_broken(scope, asked.depth or scope.depth, asked.seconds) for scope in searched])
    if asked.scope is None:
        failed += _put_back(FAULTS, asked.depth, asked.seconds)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Explore the coherence protocol.")
    parser.add_argument("--large", action="store_true", help="the large bound: minutes")
    parser.add_argument(
        "--scope", choices=[scope.name for scope in scopes.QUICK], help="this search only, of the right protocol"
    )
    parser.add_argument("--fault", choices=[fault.name for fault in FAULTS], help="this fault only")
    parser.add_argument("--depth", type=int, help="moves at most, instead of the search's own bound")
    parser.add_argument("--seconds", type=float, default=1e9, help="of each search at most")
    return parser.parse_args()


def _is_broken(scope: Scope, depth: int, seconds: float) -> bool:
    report = explore(Protocol(scope), depth, seconds)
    print(f"{scope.name:10} {_figures(report)}  {'BROKEN' if report.finding else 'holds'}", flush=True)
    _tell(report)
    return report.finding is not None


def _put_back(faults: list[Fault] | tuple[Fault, ...], depth: int | None, seconds: float) -> int:
    missed = 0
    for fault in faults:
        report = explore(Protocol(fault.scope, fault.rules), depth or fault.scope.depth, seconds, fault.breaks)
        print(
            f"\nfault {fault.name} ({fault.what}): {'found' if report.finding else 'NOT FOUND'}, {_figures(report)}",
            flush=True,
        )
        _tell(report)
        missed += report.finding is None
    return missed


def _figures(report: Report) -> str:
    bound = "every depth" if report.is_whole else f"depth {report.depth}"
    return f"{report.states:,} states, {report.moves:,} moves, {bound}, {report.seconds:.1f} s"


def _tell(report: Report) -> None:
    if report.finding:
        print("\n".join(words.story(report.finding.steps, report.finding.broken)), flush=True)


if __name__ == "__main__":
    sys.exit(main())

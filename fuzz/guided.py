"""A small fuzzer of Python functions, guided by the lines that they reach.

An input is a text or bytes: made of pieces that mean something, or of a seed or an earlier input
that reached lines which no other had reached, changed here and there. Every FOLLOWED-th execution
is followed line by line.

A check says how an input breaks a promise, or nothing. A finding is what it says, an exception that
it lets out, an input that takes longer than SECONDS_MAX, and one after which the process has grown
by more than GROWTH_MAX.
"""

from __future__ import annotations

import random
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

PIECES_MAX = 24
KEPT_MAX = 2000
SIZE_MAX = 20_000
CHANGES_MAX = 6
FOLLOWED = 20
SECONDS_MAX = 10
GROWTH_MAX = 256 * 1024  # KiB


class Check(NamedTuple):
    """`check`: what is wrong with an input, or empty. `code`: the file, below fastticket/, whose
    lines guide; more than one with spaces between. `pieces`, `seeds`: all of them text, or bytes.
    """

    check: Callable[[Any], str]
    code: str
    pieces: Sequence[Any]
    seeds: Sequence[Any] = ()


class _Tried:
    """A check, the inputs that are kept for it, and which lines of its code have run."""

    def __init__(self, check: Check) -> None:
        self.kept = list(check.seeds)
        self._check = check
        self._files = tuple(f"fastticket/{each}" for each in check.code.split())
        self._lines: set[tuple[str, int]] = set()
        self._is_new = False

    def follow(self, value: Any) -> tuple[str, bool]:
        """What the check says, and whether it ran a line for the first time."""
        self._is_new = False
        sys.settrace(self._trace)
        try:
            return self._check.check(value), self._is_new
        finally:
            sys.settrace(None)

    def _trace(self, frame, event, _):  # type: ignore[no-untyped-def]
        if not frame.f_code.co_filename.endswith(self._files):
            return None
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and place not in self._lines:
            self._lines.add(place)
            self._is_new = True
        return self._trace

    def make(self, choose: random.Random) -> Any:
        """The next input."""
        pieces = self._check.pieces
        if self.kept and choose.random() < 0.8:
            value = choose.choice(self.kept)
            for _ in range(choose.randrange(1, CHANGES_MAX)):
                value = self._changed(value, choose)
            return value[:SIZE_MAX]
        return pieces[0][:0].join(choose.choices(pieces, k=choose.randrange(PIECES_MAX)))

    def _changed(self, value: Any, choose: random.Random) -> Any:
        """Another, with a part of it replaced: by pieces, by a part of another input, by the same
        part twice, by one other character, or by nothing.
        """
        at, to = sorted(choose.choices(range(len(value) + 1), k=2))
        if choose.random() < 0.7:  # mostly a small part
            to = min(to, at + choose.randrange(4))
        kind = choose.randrange(5)
        if kind == 0:
            part = value[:0].join(choose.choices(self._check.pieces, k=choose.randrange(4)))
        elif kind == 1:
            other = choose.choice(self.kept)
            first, last = sorted(choose.choices(range(len(other) + 1), k=2))
            part = other[first:last]
        elif kind == 2:
            part = value[at:to] * 2
        elif kind == 3:
            number = choose.randrange(256)
            part = bytes([number]) if isinstance(value, bytes) else chr(number)
            to = min(to, at + 1)
        else:
            part = value[:0]
        return value[:at] + part + value[to:]


def run(checks: Sequence[Check], runs: int, seed: int) -> tuple[int, str]:
    """The checks by turns. How many executions there were, and the finding that ended them, or
    empty.
    """
    choose = random.Random(seed or None)
    tried = [_Tried(check) for check in checks]
    former = signal.signal(signal.SIGALRM, _take_too_long)
    begun_kib = _peak_kib()
    try:
        for number in range(runs):
            each = tried[number % len(tried)]
            value = each.make(choose)
            finding, is_new = _try(each, checks[number % len(tried)], value, number // len(tried) % FOLLOWED == 0)
            if not finding and _peak_kib() - begun_kib > GROWTH_MAX:
                finding = "memory grows without bounds"
            if finding:
                return number + 1, f"{checks[number % len(tried)].check.__name__}: {value!r}: {finding}"
            if is_new and len(each.kept) < KEPT_MAX:
                each.kept.append(value)
    finally:
        signal.signal(signal.SIGALRM, former)
    return runs, ""


def _try(tried: _Tried, check: Check, value: Any, is_followed: bool) -> tuple[str, bool]:
    """The finding, or empty; and whether the input is worth to be kept."""
    signal.alarm(SECONDS_MAX)
    try:
        return tried.follow(value) if is_followed else (check.check(value), False)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"[:1000], False
    finally:
        signal.alarm(0)


def _take_too_long(*_: object) -> None:
    raise TimeoutError(f"longer than {SECONDS_MAX} s")


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

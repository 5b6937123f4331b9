"""The search: breadth first from one state, so that the first state that breaks a promise is
reached by a shortest interleaving.

Of the states that were seen only a hash is kept (of 64 bits: among ten million, the odds that two
are taken for one are 1 : 370,000), and of each move its number among its state's moves: a
counterexample is played again from the start.
"""

from __future__ import annotations

import time
from array import array
from typing import NamedTuple

from model import promises
from model.protocol import Protocol, State, Step, initial


class Finding(NamedTuple):
    broken: str
    steps: list[Step]


class Report(NamedTuple):
    states: int
    moves: int
    depth: int  #: up to which every interleaving was seen
    is_whole: bool  #: there are no more states, at any depth
    seconds: float
    finding: Finding | None


def explore(protocol: Protocol, depth: int, seconds: float = 1e9, promise: str = "P") -> Report:
    """Until a promise breaks, or the one given, or every interleaving of `depth` moves was seen, or
    time is over.
    """
    began = time.monotonic()
    prelude = _play(protocol)
    start = prelude[-1].state if prelude else initial(protocol.scope)
    seen = {protocol.key(start)}
    parents, numbers = array("l", [-1]), array("H", [0])
    level = [(0, start)]
    moves = 0
    for reached in range(depth):
        following: list[tuple[int, State]] = []
        for index, state in level:
            for number, step in enumerate(protocol.steps(state)):
                moves += 1
                key = protocol.key(step.state)
                is_new = key not in seen
                if not is_new and not step.broken:
                    continue
                broken = step.broken or promises.broken(protocol, step.state)
                if broken and promise in broken:
                    steps = prelude + _replay(protocol, start, _path(parents, numbers, index), number)
                    return Report(
                        len(seen), moves, reached + 1, False, time.monotonic() - began, Finding(broken, steps)
                    )
                if not is_new:
                    continue
                seen.add(key)
                following.append((len(parents), step.state))
                parents.append(index)
                numbers.append(number)
            if time.monotonic() - began > seconds:
                return Report(len(seen), moves, reached, False, time.monotonic() - began, None)
        level = following
        if not level:
            return Report(len(seen), moves, reached + 1, True, time.monotonic() - began, None)
    return Report(len(seen), moves, depth, False, time.monotonic() - began, None)


def _play(protocol: Protocol) -> list[Step]:
    """The scope's prelude."""
    state, steps = initial(protocol.scope), []
    for label in protocol.scope.prelude:
        steps.append(next(step for step in protocol.steps(state) if step.label == label))
        state = steps[-1].state
    return steps


def _path(parents: array, numbers: array, index: int) -> list[int]:
    """The numbers of the moves that lead to a state."""
    path = []
    while index:
        path.append(numbers[index])
        index = parents[index]
    return path[::-1]


def _replay(protocol: Protocol, start: State, path: list[int], last: int) -> list[Step]:
    steps: list[Step] = []
    state = start
    for number in (*path, last):
        step = list(protocol.steps(state))[number]
        steps.append(step)
        state = step.state
    return steps

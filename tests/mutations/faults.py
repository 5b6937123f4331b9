"""The faults that the product is broken by on purpose, as `faults.toml` has them, and where each
stands in the tree.

A fault is a text of the product and what stands there in its place; it takes away one part of a
promise (docs/explanation/promises.md).
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FAULTS = Path(__file__).with_name("faults.toml")

PROMISES = {
    "P1": "Authenticity. No request is admitted on a ticket whose HMAC was not verified by this process under a key in the ring.",
    "P2": "Revocation bound. While the store answers, none admits a revoked ticket after the lease (a busy thread: 250 ms more).",
    "P3": "Never too long. By the store's clock, no session is admitted past its deadlines (idle: by more than one flush interval).",
    "P4": "Never too short. A session in use through any gateway does not idle out because one gateway did not see the use.",
    "P5": "Touch loss. While the store answers, SIGKILL loses a flush interval of touches, SIGTERM none; a failed write stays dirty.",
    "P6": "Monotone. Nothing late, doubled or made again moves a deadline back or brings an ended session to life.",
    "P7": "One write. A gateway sends at most one touch of a session per flush interval; concurrent misses make one load.",
    "P8": "Outage. What was leased goes on for the grace, or not at all; unknown tickets get 503; nothing buffered is dropped.",
    "P9": "Bounded. Memory, connections, heads, bodies in flight, queues, retries and time are each bounded by a named limit.",
    "P10": "No spoofing. An identity header reaches an upstream only if this gateway set it.",
    "P11": "Read your writes. What a request changed in its session's attributes the same client's next request sees.",
    "P12": "It starts. What a gateway needed to start once it does not need to go on.",
}


@dataclass(frozen=True)
class Fault:
    """`old` stands exactly once in `file`; `tests` (pytest's node ids) fail when it is `new`."""

    id: str
    promise: str
    file: str
    breaks: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        """Break the copy of the product in `tree`. ValueError: `old` is not there exactly once."""
        path = tree / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.id}: its old text is {text.count(self.old)} times in {self.file}, not once")
        path.write_text(text.replace(self.old, self.new))

    def line(self) -> int:
        """Where it stands, in today's tree."""
        text = (ROOT / self.file).read_text()
        return text[: text.index(self.old)].count("\n") + 1

    def errors(self) -> list[str]:
        """The errors of its entry: ways in which it no longer fits the code and the tests."""
        found = []
        if self.promise not in PROMISES:
            found.append(f"there is no promise {self.promise}")
        times = (ROOT / self.file).read_text().count(self.old)
        if times != 1:
            found.append(f"its old text is {times} times in {self.file}, not once")
        if self.old == self.new or not self.tests:
            found.append("it changes nothing, or names no test")
        return [
            f"{self.id}: {error}" for error in found + [f"no test {test}" for test in self.tests if not is_test(test)]
        ]


def read_faults() -> list[Fault]:
    """All of them, in the file's order. ValueError: two have one id."""
    faults = [
        Fault(**{**entry, "tests": tuple(entry["tests"])}) for entry in tomllib.loads(FAULTS.read_text())["fault"]
    ]
    ids = [fault.id for fault in faults]
    if len(set(ids)) != len(ids):
        raise ValueError(f"two faults have one id: {sorted({each for each in ids if ids.count(each) > 1})}")
    return faults


def is_test(node_id: str) -> bool:
    """Whether there is such a test; of a parametrised one, whether there is the function."""
    file, _, name = node_id.partition("::")
    return (ROOT / file).is_file() and name.partition("[")[0] in _tests_in(ROOT / file)


def _source_of(module: str | None, folder: Path) -> Path | None:
    """The file of a module that tests import from: of their own folder, or of `tests/lab`."""
    path = f"{(module or '').replace('.', '/')}.py"
    return next((at / path for at in (folder, ROOT / "tests") if (at / path).is_file()), None)


@cache
def _tests_in(file: Path) -> frozenset[str]:
    """The names that a node id may have in a module: functions, and methods as `Class::method`,
    those among them that it imports or inherits.
    """
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom) and (module := _source_of(node.module, file.parent)):
            names = {alias.name for alias in node.names}
            found |= {name for name in _tests_in(module) if name.partition("::")[0] in names}
        elif isinstance(node, ast.ClassDef):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            methods |= {name.partition("::")[2] for name in found if name.partition("::")[0] in bases}
            found |= {f"{node.name}::{name}" for name in methods}
    return frozenset(found)

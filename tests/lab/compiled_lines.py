"""Which lines of the compiled modules the tests ran: `make coverage-core`.

For a build with FASTTICKET_GCOV=1, in whose folder this runs. gcc counts how often each line of the
generated C is run, and Cython writes above each piece of C which line of a .pyx or .pxd file it
belongs to. A line has run if the first line of C of one of its pieces has. What only an import runs
(module level, signatures) is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

#: Above a piece of C: the file and the line that it belongs to.
PIECE = re.compile(r'\s*/\* "(fastticket/[\w/]+\.p(?:yx|xd))":(\d+)$')
#: What follows belongs to no line: the end of a function, and its way out after an error.
NO_PIECE = re.compile(r"}|\s*/\* function exit code \*/")
MODULE_LEVEL = re.compile(r"__pyx_pymod_|__Pyx_mod")
SIGNATURE = re.compile(r"\s*(cdef|cpdef|def|class|@)\b.*[:(]\s*(#.*)?$|\s*@")

#: A file's lines, and how often each has run.
Lines = dict[str, dict[int, int]]


def counts_of(data: Path) -> dict[int, int]:
    """Lines of generated C outside the module level, and how often each has run."""
    command = ["gcov", "--json-format", "--stdout", str(data)]
    files = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["files"]
    counts: dict[int, int] = defaultdict(int)
    for file in files:
        if file["file"].endswith(".c"):
            for line in file["lines"]:
                if not MODULE_LEVEL.match(line.get("function_name", "")):
                    counts[line["line_number"]] += line["count"]
    return counts


def first_lines(generated: Iterable[str], counts: dict[int, int]) -> Iterator[tuple[str, int, int]]:
    """For each piece of C: (file, line, line of C that is run first)."""
    piece: tuple[str, int] | None = None
    for number, text in enumerate(generated, 1):
        if found := PIECE.match(text):
            piece = found[1], int(found[2])
        elif NO_PIECE.match(text):
            piece = None
        elif piece and number in counts:
            yield *piece, number
            piece = None


def lines_run(folder: Path) -> Lines:
    """The lines of all modules that were built below a folder and have run."""
    lines: Lines = defaultdict(lambda: defaultdict(int))
    for data in sorted(folder.glob("build/temp*/fastticket/*/*.gcda")):
        counts = counts_of(data)
        with (folder / "fastticket" / data.parent.name / f"{data.stem}.c").open() as generated:
            for file, line, first in first_lines(generated, counts):
                lines[file][line] += counts[first]
    return lines


def without_signatures(file: Path, lines: dict[int, int]) -> dict[int, int]:
    texts = file.read_text().splitlines()
    return {line: count for line, count in lines.items() if not SIGNATURE.match(texts[line - 1])}


def ranges(numbers: list[int], lines: list[int]) -> str:
    """The numbers as text, those as one range between which `lines` has none."""
    place = {line: at for at, line in enumerate(lines)}
    starts = [
        number for before, number in pairwise([None, *numbers]) if before is None or place[number] != place[before] + 1
    ]
    ends = [
        number for number, after in pairwise([*numbers, None]) if after is None or place[after] != place[number] + 1
    ]
    return ", ".join(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))


def main() -> int:
    """Print a row a file, as `coverage report` does."""
    folder = Path.cwd()
    rows = [(file, without_signatures(folder / file, lines)) for file, lines in sorted(lines_run(folder).items())]
    if not rows:
        print("nothing has run that was built with FASTTICKET_GCOV=1", file=sys.stderr)
        return 1
    print(f"{'file':36} lines  missed  run")
    for file, lines in rows:
        missed = sorted(line for line, count in lines.items() if not count)
        print(f"{file:36} {len(lines):5} {len(missed):7} {share(lines)}  {ranges(missed, sorted(lines))}".rstrip())
    together = {(file, line): count for file, lines in rows for line, count in lines.items()}
    print(f"{'together':36} {len(together):5} {sum(not count for count in together.values()):7} {share(together)}")
    return 0


def share(counts: dict) -> str:
    return f"{sum(map(bool, counts.values())) / max(1, len(counts)):4.0%}"


if __name__ == "__main__":
    sys.exit(main())

"""The fenced blocks of a page, for the test that tries them.

    blocks("how-to/flask.md")         [(language, name or None, text), ...]; pages are below docs/
    write_files("how-to/flask.md", folder)    those that have a name
    commands(text)                    [(command, what it prints), ...] of a block of `console`

A block whose first line is a comment `# file: NAME` is that file. Before a block that must not run
stands why: `<!-- not run: why -->`; such a block is left out here.

A page that some test takes in this way is that test's, as a whole. All other pages are tried block
by block: tests/docs/test_snippets.py.
"""

import re
from pathlib import Path
from typing import NamedTuple

from lab.documents import ROOT, blocks_of

NAME = re.compile(r"\W*file: (\S+)")
TAKEN = re.compile(r"\b(?:blocks|write_files|shown)\(\s*\"([\w/-]+\.md)\"")


class Snippet(NamedTuple):
    """`language`: what the fence says. `name`: of the file that it is, if it is one."""

    language: str
    name: str | None
    text: str


def blocks(page: str) -> list[Snippet]:
    """What is to be tried of a page, in its order."""
    return [
        Snippet(block.kind, found[1] if (found := NAME.match(block.text)) else None, block.text)
        for block in blocks_of(ROOT / "docs" / page)
        if not block.why_not
    ]


def write_files(page: str, folder: Path) -> list[Path]:
    """The files that a page shows, written below a folder."""
    paths = [(folder / name, text) for _, name, text in blocks(page) if name]
    for path, text in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [path for path, _ in paths]


def commands(text: str) -> list[tuple[str, str]]:
    """Of a terminal: what was typed after `$ `, lines that go on joined, and what it printed."""
    typed = re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]
    return [(command.strip(), printed) for command, _, printed in (each.partition("\n") for each in typed)]


def taken_pages() -> set[Path]:
    """The pages that have a test of their own."""
    tests = Path(__file__).parents[1].glob("**/test_*.py")
    return {ROOT / "docs" / page for path in tests for page in TAKEN.findall(path.read_text())}

"""The parts of the pages that are made: of the reference from the code, and the list of all pages;
and the man page.

    python docs/generate.py           which pages differ; exit status 1 if one does
    python docs/generate.py --write   the pages, as the code has it

In a page, the text between `<!-- generated: NAME -->` and `<!-- end -->` is written here; what
stands around it is written by hand. generators/ has a module for each page. tests/docs finds a
page that differs.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from generators import admin_api, api, commands, configuration, front, man, metrics, reasons  # noqa: E402
from version import version  # noqa: E402

#: Page -> what is made in it, by name. Each is told what the page has there now.
PAGES: Mapping[str, Mapping[str, Callable[[str], str]]] = {
    "index.md": front.BLOCKS,
    "reference/configuration.md": configuration.BLOCKS,
    "reference/commands.md": commands.BLOCKS,
    "reference/metrics.md": metrics.BLOCKS,
    "reference/admin-api.md": admin_api.BLOCKS,
    "reference/reasons.md": reasons.BLOCKS,
    "reference/api.md": api.BLOCKS,
}
#: What is made as a whole.
MAN_PAGE = HERE / "man" / "fastticket.1"
BLOCK = re.compile(r"<!-- generated: ([\w .]+) -->\n([\s\S]*?)<!-- end -->\n")


def rewritten(text: str, blocks: Mapping[str, Callable[[str], str]]) -> str:
    """A page with its blocks made anew. ValueError: it lacks one, or has one that nobody makes."""
    named = [found[1] for found in BLOCK.finditer(text)]
    if sorted(named) != sorted(blocks):
        raise ValueError(f"the page has {named}, and {list(blocks)} are made")
    return BLOCK.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n\n{blocks[found[1]](found[2]).strip()}\n\n<!-- end -->\n", text
    )


def made() -> Iterator[tuple[Path, str]]:
    """Each file with what should be in it."""
    yield from ((HERE / page, rewritten((HERE / page).read_text(), blocks)) for page, blocks in PAGES.items())
    yield MAN_PAGE, man.man_page(version())


def main() -> int:
    """0: nothing differs, or it was written."""
    parser = argparse.ArgumentParser(description="The parts of the reference that are made from the code.")
    parser.add_argument("--write", action="store_true", help="write the pages")
    is_to_write, differ = parser.parse_args().write, 0
    if is_to_write:
        configuration.note_new_keys(version())
    for path, after in made():
        page, before = path.relative_to(HERE), path.read_text() if path.exists() else ""
        if after == before:
            continue
        if is_to_write:
            path.write_text(after)
            print(f"written: {page}")
        else:
            differ = 1
            sys.stdout.writelines(
                difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(page), str(page))
            )
    return differ


if __name__ == "__main__":
    sys.exit(main())

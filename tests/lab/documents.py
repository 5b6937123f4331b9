"""The documents, read for tests: those of the top folder and all of docs/: their fenced blocks,
inline code, links and headings.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WHY_NOT = r"<!-- not run: ((?:(?!-->)[\s\S])+) -->"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


class Block(NamedTuple):
    """A fenced block: what its first line says it is, and what is in it. `why_not`: nobody runs it,
    for this reason.
    """

    document: Path
    line: int
    kind: str
    text: str
    why_not: str

    def __str__(self):
        return f"{name(self.document)}:{self.line}"


def name(document):
    return str(document.relative_to(ROOT))


def blocks(*kinds):
    """The blocks of all documents, or those of some kinds."""
    return [block for document in DOCUMENTS for block in blocks_of(document) if not kinds or block.kind in kinds]


def blocks_of(document):
    text, found = document.read_text(), []
    for fence in re.finditer(rf"(?:{WHY_NOT}\n+)?^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        line = text.count("\n", 0, fence.start(2)) + 1
        found.append(Block(document, line, fence[2], fence[3], fence[1] or ""))
    return found


def prose_of(document):
    """The text outside of fenced blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", document.read_text(), flags=re.MULTILINE)


def code_of(document):
    """The inline code."""
    return re.findall(r"`([^`\n]+)`", prose_of(document))


def links_of(document):
    """The targets of links, images included."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", prose_of(document)))


def anchors_of(document):
    """Its headings, as GitHub names them in links."""
    headings = re.findall(r"^#+ +(.*)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def targets(folder="."):
    """The targets of a folder's Makefile."""
    makefile = (ROOT / folder / "Makefile").read_text().replace("\\\n", " ")
    names = " ".join(re.findall(r"^NAMES := (.*)$", makefile, re.MULTILINE))
    rules = re.findall(r"^([a-z][\w\t -]*):(?!=)", makefile.replace("$(NAMES)", names), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def variables(folder="."):
    """The variables that the Makefile there reads."""
    return set(re.findall(r"\$\(([A-Z_]+)\)", (ROOT / folder / "Makefile").read_text()))


def is_made(words):
    """Whether `make WORDS` names existing targets, and sets only variables that are read."""
    folder, wanted = (words[1], words[2:]) if words[0] == "-C" else (".", words)
    named = {word.partition("=")[0] for word in wanted if "=" in word}
    return {word for word in wanted if "=" not in word} <= targets(folder) and named <= variables(folder)

"""What the documents name in running text exists: commands and their flags, targets of make, files,
and where links lead.
"""

import ast
import contextlib
import io
import re
import shlex

import pytest
from lab.documents import DOCUMENTS, ROOT, anchors_of, code_of, is_made, links_of, name

from fastticket.commands.cli import main


@pytest.fixture(scope="module")
def flags():
    """Those of each command of the command line, as its help has them; those of `keys add` are of
    `keys`, too.
    """

    def help_of(*words):
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
            main([*words, "--help"])
        return output.getvalue()

    def commands_of(*words):
        return re.findall(r"^    ([a-z][a-z0-9-]*)(?: |$)", help_of(*words), re.MULTILINE)

    def flags_of(*words):
        below = [flags_of(*words, command) for command in commands_of(*words)]
        return set(re.findall(r"--[a-z][\w-]*", help_of(*words))).union(*below)

    without_command = re.findall(r"--[a-z][\w-]*", help_of())
    return {command: flags_of(command) for command in commands_of()} | {flag: {flag} for flag in without_command}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_and_flags_that_are_named_exist(document, flags):
    scripts = "".join(path.read_text() for path in [*ROOT.glob("bench/*.py"), *ROOT.glob("fuzz/*.py")])
    for code in code_of(document):
        words = code.removeprefix("fastticket ").split()
        named = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
        if code.startswith("fastticket ") or words[0] in flags:
            assert words[0] in flags, code
            assert named <= flags[words[0]], code
        elif words[0] == "make":
            assert is_made(shlex.split(code)[1:]), code
        elif words[0] in named and "decisions" not in document.parts:  # which name what was not taken, too
            assert named <= set.union(*flags.values()) or all(f'"{flag}"' in scripts for flag in named), code


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document):
    named = re.findall(
        r"(?<![\w/.])((?:bench|docs|examples|fastticket|fuzz|tests)/[\w./-]*\.\w+)", document.read_text()
    )
    made = [path for path in named if path.startswith("bench/build")]
    assert [path for path in named if path not in made and not (ROOT / path).exists()] == []


def texts_of_code():
    """Each text in the package's Python and Cython that is no docstring and no comment."""
    for path in ROOT.glob("fastticket/**/*.py"):
        tree = ast.parse(path.read_text())
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
                yield node.value
    for path in ROOT.glob("fastticket/**/*.pyx"):
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text())
        yield from re.findall(r'"([^"\n]*)"', code)


def test_a_page_is_named_by_its_path_in_the_documentation():
    """In messages and help: who reads them has the built pages, and often no checkout."""
    named = [page for text in texts_of_code() for page in re.findall(r"([\w/-]+) in the documentation", text)]
    assert named
    assert [page for page in named if not (ROOT / f"docs/{page}.md").exists()] == []
    assert [text for text in texts_of_code() if re.search(r"\bdocs/|\.md\b", text)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    for target in links_of(document):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), target

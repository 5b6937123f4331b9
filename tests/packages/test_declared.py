"""What the package declares of itself agrees: one version, one list of Pythons, ranges that the
tests run with.
"""

import re
import tomllib

from lab.documents import ROOT

import fastticket

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = DECLARED["project"]["optional-dependencies"]


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == fastticket.__version__


def test_what_an_extra_brings_is_tested_in_its_range():
    for name in ("completion", "django", "fastapi", "flask", "starlette", "tui"):
        assert set(EXTRAS[name]) <= set(EXTRAS["dev"]), name


def test_wheels_are_built_for_the_pythons_that_are_named():
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(DECLARED["project"]["classifiers"]), re.MULTILINE)
    built = DECLARED["tool"]["cibuildwheel"]["build"]
    assert built == [f"cp{version.replace('.', '')}-*" for version in named]
    assert DECLARED["project"]["requires-python"] == f">={named[0]}"


def test_what_builds_it_is_what_the_makefile_installs():
    wanted = DECLARED["build-system"]["requires"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"'{requirement}'" in makefile for requirement in wanted)
    assert set(wanted) <= set(EXTRAS["dev"])

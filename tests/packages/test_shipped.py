"""What the package reads beside its code is in the repository, and so in all that is made of it.

A page of the demo was lost from the repository twice: each time some tree still had the file.
"""

import re
import subprocess

import pytest
from lab.documents import ROOT

PACKAGE = ROOT / "fastticket"
#: Kinds of files that are data of the package: setuptools.package-data has them.
DATA = ("css", "html", "js", "lua")


def named():
    """Each data file that the code names, as a path."""
    for module in PACKAGE.rglob("*.py"):
        for name in re.findall(rf"[\"']([\w-]+\.(?:{'|'.join(DATA)}))[\"']", module.read_text()):
            yield module.parent / name


def test_what_the_code_names_is_there():
    names = set(named())
    assert {path.name for path in names} >= {"demo.css", "demo.html", "demo.js", "demo_login.html"}
    assert {path for path in names if not path.is_file()} == set()


def test_what_is_read_is_tracked():
    listed = subprocess.run(["git", "ls-files", "-z", "fastticket"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    tracked = {ROOT / name for name in listed.stdout.split("\0") if name}
    assert {path for path in named() if path not in tracked} == set()
    data = {path for kind in DATA for path in PACKAGE.rglob(f"*.{kind}")}
    of_a_build = {path for path in data if path.suffix == ".html" and path.with_suffix(".pyx").exists()}
    assert data - of_a_build - tracked == set()

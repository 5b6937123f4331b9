"""The source distribution has what git has, and nothing that was built: so whoever unpacks it can
build and test it.
"""

import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from lab.documents import ROOT

#: What only a clone needs.
LEFT_OUT = {".ci/run", ".gitignore"}


def test_it_has_all_that_git_has(tmp_path):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    for name in tracked:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / "tree" / name)
    (tmp_path / "tree/fastticket/core/ticket.c").touch()  # what a build leaves there, and lists
    (tmp_path / "tree/fastticket.egg-info").mkdir()
    (tmp_path / "tree/fastticket.egg-info/SOURCES.txt").write_text("fastticket/core/ticket.c\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTTICKET_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "sdist", "-d", str(tmp_path / "made")],
        cwd=tmp_path / "tree",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "made").iterdir()
    with tarfile.open(made) as opened:
        files = {member.name.partition("/")[2] for member in opened if member.isfile()}
    made_for_it = {
        name for name in files if name in ("PKG-INFO", "setup.cfg") or name.startswith("fastticket.egg-info/")
    }
    assert files - made_for_it == tracked - LEFT_OUT

"""Runs the core's tests on other interpreters: `python -m lab.versions NAME ...`, names or paths.

For each one that is there: a copy of the package in build/versions/NAME, built for it, in a virtual
environment with what these tests need: less than the gateway does, and nothing that would switch
the GIL on where an interpreter has none.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("setup.py", "pyproject.toml", "README.md", "docs", "fastticket", "fastticket_start.py", "tests")
TO_BUILD = ("setuptools>=77", "cython>=3.1,<4")
TO_TEST = (
    "uvloop>=0.23",
    "redis>=6.0",
    "pytest>=8",
    "pytest-asyncio>=0.24",
    "pytest-timeout>=2.4",
    "hypothesis>=6.100,<6.150",
)
FOLDERS = ("tests/core", "tests/stress")


def main():
    found = [python for python in sys.argv[1:] if is_there(python)]
    failed = [python for python in found if not passes(python)]
    missing = [python for python in sys.argv[1:] if python not in found]
    print(f"passed: {names(set(found) - set(failed))}; failed: {names(failed)}; not there: {names(missing)}")
    return 1 if failed else 0


def names(pythons):
    return ", ".join(sorted(pythons)) or "none"


def is_there(python):
    return bool(shutil.which(python)) and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def passes(python):
    folder = ROOT / "build" / "versions" / Path(python).name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    for built in (folder / "fastticket").rglob("*.so"):
        built.unlink()
    own = str(folder / "venv" / "bin" / "python")
    run(folder, python, "-m", "venv", "venv")
    run(folder, own, "-m", "pip", "install", "-q", *TO_BUILD, *TO_TEST)
    run(folder, own, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace")
    print(f"--- {subprocess.check_output([own, '-VV'], text=True).strip()}", flush=True)
    # Without the conftest.py above these folders, which needs the gateway.
    codes = [run(folder, own, "-m", "pytest", "-q", "--confcutdir", tests, tests, check=False) for tests in FOLDERS]
    return not any(codes)


def run(folder, *command, check=True):
    environment = os.environ | {"PYTHONPATH": f"{folder}:{folder / 'tests'}"}
    return subprocess.run(command, cwd=folder, env=environment, check=check).returncode


if __name__ == "__main__":
    sys.exit(main())

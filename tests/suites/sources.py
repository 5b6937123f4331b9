"""What other projects' tests need: their source distributions, and packages that only these tests
use. Kept in build/suites.

They come from the package registry that pip is set up with, by version. Without it there is
`RegistryError`.
"""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

KEPT = Path(__file__).parents[2] / "build/suites"
BOUND_S = 300


class RegistryError(Exception):
    """pip did not get it; the message has its last words."""


def source_of(project, version=""):
    """The unpacked source distribution of a project: of the version that is installed, or of this
    one.
    """
    version = version or importlib.metadata.version(project)
    folder = KEPT / f"{project}-{version}"
    if not folder.exists():
        fetched = folder.with_name(f".{folder.name}.{os.getpid()}")
        _pip("download", "--no-binary", ":all:", "--no-deps", "--dest", fetched, f"{project}=={version}")
        [archive] = fetched.iterdir()
        with tarfile.open(archive) as opened:
            opened.extractall(fetched / "unpacked", filter="data")
        [unpacked] = (fetched / "unpacked").iterdir()
        _put(unpacked, folder)
    return folder


def packages(*requirements):
    """A folder with these, for PYTHONPATH; without what they need themselves."""
    folder = KEPT / "packages" / "+".join(requirements)
    if not folder.exists():
        fetched = folder.with_name(f".{folder.name}.{os.getpid()}")
        _pip("install", "--no-deps", "--target", fetched, *requirements)
        _put(fetched, folder)
    return folder


def _put(made, folder):
    """At once, so that what is there is whole; somebody else may have been faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _pip(command, *arguments):
    KEPT.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "pip", command, "--quiet", "--no-input", "--retries", "1", *map(str, arguments)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=BOUND_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RegistryError(f"pip {command} {arguments[-1]}: no answer in {BOUND_S} s") from error
    if done.returncode:
        raise RegistryError(f"pip {command} {arguments[-1]}: {done.stderr.strip()[-300:]}")

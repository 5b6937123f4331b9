"""The package's version, read and not imported: the pages are built without the package."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("fastticket/__init__.py", "pyproject.toml")
SAID = re.compile(r"^(?:__version__|version) = \"([\w.]+)\"", re.MULTILINE)


def version() -> str:
    """As the first place has it that has one."""
    return next(found[1] for place in PLACES if (found := SAID.search((ROOT / place).read_text())))

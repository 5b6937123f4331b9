"""Run all six demonstrations, one after the other, and print six tables.

python all.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import cookie_only
import fastticket_shared
import ip_hash
import problem
import redis_per_request
import replication
import table
from lab import program

DEMONSTRATIONS = (problem, ip_hash, replication, cookie_only, redis_per_request, fastticket_shared)


def main() -> None:
    parser = argparse.ArgumentParser(description="The six demonstrations.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows of all, and where they were measured")
    options = parser.parse_args()
    found = {}
    for each in DEMONSTRATIONS:
        rows = found[each.__name__] = each.measure()
        print(table.table(each.TITLE, rows), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"where": where(), "rows": found}, indent=1) + "\n")


def where() -> str:
    """Describe the machine and the versions of the programs."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}, nginx {version('nginx')}, Redis {version('redis-server')}"
    )


def version(name: str) -> str:
    said = subprocess.run([program(name), "-v"], capture_output=True, text=True, check=True)
    return re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)[0]


if __name__ == "__main__":
    main()

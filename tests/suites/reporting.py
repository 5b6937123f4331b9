"""A plugin of pytest: what became of each test, as JSON, in the file that SUITE_RESULTS names."""

import json
import os
from pathlib import Path

_ran = set()
_found = {}


def pytest_runtest_logreport(report):
    _ran.add(report.nodeid)
    if report.failed:
        _found[report.nodeid] = ["failed", str(report.longrepr)]
    elif report.skipped and not hasattr(report, "wasxfail"):
        _found.setdefault(report.nodeid, ["skipped", str(report.longrepr)])


def pytest_sessionfinish():
    Path(os.environ["SUITE_RESULTS"]).write_text(json.dumps({"ran": sorted(_ran), "found": _found}))

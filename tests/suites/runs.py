"""The suites: what is run, with which sessions, and what fails that does not fail with the
project's own.

python -m suites.runs    runs all of them, and prints the table; 1 if it differs from what is
                         written in differences.toml
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from suites.sources import packages, source_of

TESTS = Path(__file__).parents[1]
BOUND_S = 600
DJANGO_SHORT = (
    *("auth_tests.test_basic", "auth_tests.test_login", "auth_tests.test_middleware", "auth_tests.test_remote_user"),
    *("auth_tests.test_auth_backends", "messages_tests.test_session", "sessions_tests.tests.SessionMiddlewareTests"),
)


class Outcome(NamedTuple):
    ran: set[str]
    skipped: set[str]
    failed: set[str]  # with ours, and not with their own


class Suite(NamedTuple):
    """`run(is_short)`. RegistryError: what it needs cannot be fetched."""

    project: str
    sessions: str
    run: Callable[[bool], Outcome]


def django(is_short):
    """Django's own pass with Django's own engines."""
    labels = DJANGO_SHORT if is_short else ("sessions_tests", "auth_tests", "messages_tests")
    source = source_of("django")
    return _outcome(_run({}, "suites.django_runner", source, "RESULTS", "suites.django_engine", *labels))


def of_pytest(plugin, project, kind, *tests, version="", needs=(), short=()):
    """A run of pytest with a plugin of ours, and one without our sessions."""

    def run(is_short):
        source = source_of(project, version)
        paths = [str(packages(*needs))] if needs else []
        chosen = short if is_short and short else tests
        ours, own = (_pytest(plugin, source, sessions, paths, chosen) for sessions in (kind, "own"))
        return _outcome(ours, own)

    return run


def _pytest(plugin, source, sessions, paths, tests):
    options = ("-q", "-W", "ignore", "-c", os.devnull, "--rootdir", source, "-p", "no:cacheprovider")
    plugins = ("-p", "suites.reporting", "-p", f"suites.{plugin}")
    return _run({"SUITE_SESSIONS": sessions}, "pytest", *options, *plugins, *tests, paths=paths, folder=source)


def _run(environment, module, *arguments, paths=(), folder=TESTS):
    """The outcomes of the tests, as suites/reporting.py writes them."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch, "results")
        path = os.pathsep.join([*paths, str(TESTS), os.environ.get("PYTHONPATH", "")])
        line = [sys.executable, "-m", module, *(results if said == "RESULTS" else said for said in arguments)]
        done = subprocess.run(
            list(map(str, line)),
            cwd=folder,
            env={**os.environ, **environment, "PYTHONPATH": path, "SUITE_RESULTS": str(results)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        if not results.exists():
            raise AssertionError(f"{' '.join(map(str, line[2:]))}: {done.stdout[-3000:]}")
        return json.loads(results.read_text())


def _outcome(ours, own=None):
    failed, theirs, skipped = (
        {test for test, (kind, _) in (run or {"found": {}})["found"].items() if (kind == "skipped") == is_skipped}
        for run, is_skipped in ((ours, False), (own, False), (ours, True))
    )
    return Outcome(set(ours["ran"]), skipped, failed - theirs)


FLASK_SHORT = ("tests/test_basic.py", "tests/test_testing.py")
FLASK_LOGIN = {"version": "0.6.3", "needs": ("flask-login==0.6.3", "semantic-version==2.10.0")}
STARLETTE = {"needs": ("httpx2==2.16.2", "httpcore2==2.16.2", "truststore==0.10.5")}
SESSIONS_OF_STARLETTE = "tests/middleware/test_session.py"

SUITES = {
    "django": Suite("django", "SESSION_ENGINE, TicketMiddleware", django),
    "flask": Suite("flask", "visitors", of_pytest("flask_plugin", "flask", "anonymous", "tests", short=FLASK_SHORT)),
    "flask, ticket": Suite(
        "flask", "logged in", of_pytest("flask_plugin", "flask", "ticket", "tests", short=FLASK_SHORT)
    ),
    "flask-login": Suite(
        "flask-login",
        'principal_key="_user_id"',
        of_pytest("flask_plugin", "flask-login", "flask_login", "tests", **FLASK_LOGIN),
    ),
    "starlette": Suite(
        "starlette",
        "visitors, within Starlette's own",
        of_pytest("starlette_plugin", "starlette", "anonymous", SESSIONS_OF_STARLETTE, **STARLETTE),
    ),
    "starlette, ticket": Suite(
        "starlette",
        "logged in, in its place",
        of_pytest("starlette_plugin", "starlette", "ticket", SESSIONS_OF_STARLETTE, **STARLETTE),
    ),
}


def differences(name):
    """The tests of a suite that are written down to fail, each with the reason."""
    written = tomllib.loads((Path(__file__).parent / "differences.toml").read_text())["difference"]
    return {test: entry["why"] for entry in written if entry["suite"] == name for test in entry["tests"]}


def main():
    """Run all suites, and print the table."""
    differs = False
    print(f"{'suite':<20} {'sessions':<34} {'ran':>5} {'skipped':>8} {'differ':>7} {'written':>8}")
    for name, suite in SUITES.items():
        outcome, written = suite.run(False), differences(name)
        counts = (len(outcome.ran), len(outcome.skipped), len(outcome.failed), len(written))
        print(
            f"{name:<20} {suite.sessions:<34} {counts[0]:>5} {counts[1]:>8} {counts[2]:>7} {counts[3]:>8}", flush=True
        )
        for test in sorted(outcome.failed.symmetric_difference(written)):
            differs = True
            print(f"    {'not written' if test in outcome.failed else 'written, and passes'}: {test}")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())

"""The fixtures, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

from lab.documents import ROOT

TESTS = """
import asyncio, pytest
import fastticket, fastticket.sync
from fastticket.testing import Clock, MemoryStore

def test_what_they_are(ticket_cache, thread_ticket_cache, ticket_store, ticket_clock, ticket_keys):
    assert isinstance(ticket_cache, fastticket.TicketCache)
    assert isinstance(thread_ticket_cache, fastticket.sync.TicketCache)
    assert isinstance(ticket_store, MemoryStore)
    assert isinstance(ticket_clock, Clock)
    assert isinstance(ticket_keys, fastticket.Keyring)

def test_both_caches_have_the_same_sessions(ticket_cache, thread_ticket_cache):
    async def log_in():
        async with ticket_cache as cache:
            return await cache.login("alice")
    assert thread_ticket_cache.authenticate(asyncio.run(log_in())).principal == "alice"

@pytest.mark.parametrize("number", [1, 2])
def test_each_test_has_its_own(thread_ticket_cache, number):
    assert thread_ticket_cache.sessions("alice") == []
    thread_ticket_cache.login("alice")

def test_time_is_theirs(thread_ticket_cache, ticket_clock):
    ticket = thread_ticket_cache.login("alice")
    ticket_clock.advance(2 * 86_400)
    with pytest.raises(fastticket.TicketRefused, match="expired"):
        thread_ticket_cache.authenticate(ticket)

def test_a_store_that_is_left_away_is_back_for_the_end(thread_ticket_cache, ticket_store):
    thread_ticket_cache.login("alice")
    ticket_store.is_away = True
"""


def test_the_fixtures(tmp_path):
    (tmp_path / "test_them.py").write_text(TESTS)
    command = [
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:asyncio",
        "-p",
        "fastticket.testing.plugin",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_an_installed_package_names_them_to_pytest():
    """By the module's own name, so that `-p` and `pytest_plugins` may name it, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"fastticket.testing.plugin": "fastticket.testing.plugin"}


def test_the_rest_of_the_package_needs_neither_pytest_nor_a_framework():
    code = "import sys, fastticket.testing; print({'pytest', 'starlette', 'flask', 'django'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment, timeout=60) == "set()\n"

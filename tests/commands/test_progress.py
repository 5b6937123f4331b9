"""A long command says how far it is: to a terminal alone, and not in its first two seconds."""

import os
import pty
import subprocess
import sys
import time

import pytest
from conftest import BOUND_S

#: Advances ten times, the clock standing at what the arguments say: none of them waits.
PROGRAM = """
import sys, time
if sys.argv[2] == "plain":
    sys.modules["rich"] = None
from fastticket.commands.progress import progress
clock = [0.0]
import fastticket.commands.progress as module
class Clock:
    monotonic = staticmethod(lambda: clock[0])
module.time = Clock
with progress("export", "sessions", total=100) as advance:
    for _ in range(10):
        clock[0] += float(sys.argv[1])
        advance(10)
"""


def printed(seconds_a_step, how, is_terminal=True):
    """What the program writes to its standard error."""
    reading, writing = pty.openpty() if is_terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds_a_step), how],
        stderr=writing,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"},
    ) as process:
        os.close(writing)
        said = b""
        give_up_at_s = time.monotonic() + BOUND_S
        while time.monotonic() < give_up_at_s:
            try:
                data = os.read(reading, 65536)
            except OSError:  # how a terminal says that nobody writes any more
                break
            if not data:
                break
            said += data
        os.close(reading)
        assert process.wait(BOUND_S) == 0, said
    return said.decode()


def test_a_terminal_gets_a_bar_after_two_seconds():
    said = printed(0.3, "rich")
    assert "export" in said
    assert "70/100" in said  # the first that shows: 2.1 s
    assert "60/100" not in said
    assert "sessions" in said


@pytest.mark.parametrize("how", ["rich", "plain"])
def test_what_is_done_in_two_seconds_shows_nothing(how):
    assert printed(0.1, how) == ""


def test_without_rich_it_is_one_line():
    assert printed(0.3, "plain").strip() == "fastticket: export: 70 of 100 sessions so far; it goes on"


@pytest.mark.parametrize("how", ["rich", "plain"])
def test_what_is_no_terminal_gets_nothing(how):
    assert printed(1, how, is_terminal=False) == ""

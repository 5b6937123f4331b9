"""What cannot be made whole leaves no half behind: makers of several descriptors, when they are
short of them at each of these.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import subprocess
import sys
import textwrap
import threading

import pytest
from conftest import BOUND_S

from fastticket import sync
from fastticket.errors import FastticketError
from fastticket.gateway import errorlog, forking, logfile
from fastticket.gateway.channel import channel_pair
from fastticket.gateway.handover import Handover
from fastticket.gateway.inheritance import Given
from fastticket.gateway.linewriter import LineWriter
from fastticket.gateway.reader import read_config
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.upgrade import Legacy, Program, Trial
from fastticket.gateway.worker import Worker
from fastticket.keyfile import create_key_file

LEGACY = Legacy("1", "", [], [], (3, 4), None, {}, {}, 0, {}, None)
PROGRAM = Program("1", [sys.executable, "-c", ""], [])


def open_now():
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


@contextlib.contextmanager
def descriptors_left(count):
    """As if this process might open so many descriptors more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = open_now()
    first = max(opened) + 1
    null = os.open(os.devnull, os.O_RDONLY)
    filled = {number for number in range(first) if number not in opened}
    for number in filled - {null}:
        os.dup2(null, number)
    if null not in filled:
        os.close(null)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in filled:
            os.close(number)


MAKERS = {
    "slot": (Slot, 2),
    "handover": (Handover, 2),
    "channel": (channel_pair, 2),
    "worker": (lambda: forking.fork_worker(None, [], None, None), 4),
    "trial": (lambda: Trial(PROGRAM, LEGACY), 5),
}


@pytest.mark.parametrize(
    ("maker", "left"), [(maker, left) for maker, (_, needs) in MAKERS.items() for left in range(needs)]
)
def test_a_maker_that_is_short_of_descriptors_leaves_none_open(maker, left):
    before = open_now()
    with descriptors_left(left), pytest.raises(OSError, match="Too many open files"):
        MAKERS[maker][0]()
    assert open_now() == before


def test_a_legacy_that_cannot_be_written_leaves_no_descriptor_open():
    before = open_now()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Trial(PROGRAM, LEGACY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert open_now() == before


def test_a_service_that_cannot_be_made_gives_its_pages_back(tmp_path, monkeypatch):
    """Of these there are 640 for as long as the process lives."""
    create_key_file(tmp_path / "keys.toml")
    table = {
        "gateway": {"access_log": "-"},
        "ticket": {"keys": "keys.toml"},
        "store": {"url": "sqlite://:memory:"},
        "upstream": [{"name": "app", "servers": ["127.0.0.1:9"]}],
        "route": [{"path": "/"}],
    }
    config = read_config(table, "test", tmp_path)
    slot = Slot()

    def fails(fd):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def make():
        return Worker(Given(config, config.key_pairs()), [[]], slot)

    monkeypatch.setattr(logfile.os, "dup", fails)
    for _ in range(2):
        with pytest.raises(FastticketError, match="Too many open files"):
            asyncio.run(make())
    assert [page.number for page in slot.take_pages(1)] == [0]


# --- threads


@pytest.fixture
def no_threads(monkeypatch):
    """As if this process might have no thread more."""

    def fails(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    return monkeypatch


def test_a_log_without_a_thread_has_one_later(no_threads, tmp_path):
    lines = LineWriter(tmp_path / "log", -1, 100, lambda reason, count: None)
    assert lines.write(b"one\n")
    no_threads.undo()
    assert lines.write(b"two\n")
    assert lines.close(BOUND_S)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_log_that_never_has_a_thread_ends_and_says_what_is_lost(no_threads, tmp_path):
    lines = LineWriter(tmp_path / "log", -1, 100, lambda reason, count: None)
    assert lines.close()
    lines = LineWriter(tmp_path / "log", -1, 100, lambda reason, count: None)
    assert lines.write(b"one\n")
    assert not lines.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cache_without_a_thread_leaves_no_descriptor_open(no_threads, tmp_path):
    """An application would ask for one with each request."""
    create_key_file(tmp_path / "keys.toml")
    cache = sync.TicketCache("sqlite://:memory:", tmp_path / "keys.toml")
    opened = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            cache.open()
        gc.collect()
        opened.append(open_now())
    assert opened[0] == opened[1]


def test_an_error_log_without_a_thread_raises_nothing_and_has_one_later(no_threads):
    log, wakes = errorlog.ErrorLog(window_s=0.0), []
    record = logging.LogRecord("it", logging.ERROR, "", 0, "again", (), None)
    no_threads.setattr(errorlog, "LINES_MAX", 0)
    no_threads.setattr(log, "_end_windows", lambda now_s: None)  # they last
    log.handle(record)
    no_threads.setattr(threading.Thread, "start", lambda thread: wakes.append(thread))
    log.handle(record)
    assert [type(wake) for wake in wakes] == [threading.Timer]
    log.close()


# --- a worker's process

A_WORKER_WHOSE_LOG_FAILS = """
import asyncio, os
from fastticket.gateway import errorlog, forking
from fastticket.gateway.handover import Handover

def fails():
    raise RuntimeError("the log fails")

parent, errorlog.end, forking._work = os.getpid(), fails, lambda *_: 7
try:
    process = forking.fork_worker(None, [], Handover(), asyncio.new_event_loop())
finally:
    if os.getpid() != parent:
        print("the worker goes on as its supervisor", flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]))
"""


def test_a_worker_never_goes_on_as_its_supervisor():
    """Whatever fails at its end: it would end the trial of an upgrade, and close sockets."""
    program = textwrap.dedent(A_WORKER_WHOSE_LOG_FAILS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=BOUND_S, check=True)
    assert done.stdout == "7\n"

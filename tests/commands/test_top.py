"""`fastticket top` in a terminal of 80 by 24, and `status`, beside a gateway that is ended and
started again, and whose store goes away and comes back.
"""

import asyncio
import contextlib
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import pytest
from conftest import BOUND_S
from lab.commands import Commands
from lab.operators_site import operators_site
from lab.redis_servers import Server
from textual.widgets import DataTable, Static

from fastticket import Keyring
from fastticket.commands.admin import AdminApi
from fastticket.commands.cli import main
from fastticket.commands.figures import Row, Table, sorted_rows
from fastticket.commands.top import Top
from fastticket.keyfile import create_key_file

SIZE = (80, 24)
INTERVAL_S = 0.1


@pytest.fixture
def store(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def top_of(folder):
    """The running program, and its keys."""
    async with Top(AdminApi(f"unix:{folder}/admin.sock"), INTERVAL_S).run_test(size=SIZE) as pilot:
        yield pilot.app, pilot


def shown(app):
    """All text on the screen."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


async def wait_for(app, pattern, ask=lambda: None):
    """Until it shows that; the gateway is asked meanwhile."""
    give_up_at_s = time.monotonic() + BOUND_S
    while not re.search(pattern, shown(app)):
        assert time.monotonic() < give_up_at_s, f"{pattern!r} is not in\n{shown(app)}"
        await asyncio.to_thread(ask)
        await asyncio.sleep(INTERVAL_S / 2)


@pytest.fixture
def status(tmp_path):
    """Run it, in another process (textual has this one's streams): (exit code, what it says)."""

    async def run():
        code, *outputs = await asyncio.to_thread(
            commands.run, "status", "--config", "fastticket.toml", cwd=tmp_path, stdin=b""
        )
        return code, b"".join(outputs).decode()

    with contextlib.closing(Commands()) as commands:
        yield run


async def test_it_goes_on_through_a_restart_and_an_outage(tmp_path, store, status):
    url = f"redis://{store.address}/0?timeout_ms=5000"  # it may have to wait for a processor; dead, it refuses at once
    create_key_file(tmp_path / "keys.toml")
    keys = Keyring.from_file(tmp_path / "keys.toml")

    def ask():
        """For a session that the store has to be asked about."""
        ticket = keys.mint("alice", time.time_ns() // 1_000_000, 60, 0)
        site.ask(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())

    with operators_site(tmp_path, keys=0, store=url) as site:
        async with top_of(tmp_path) as (app, pilot):
            await wait_for(app, rf"gateway +healthy, ready[\s\S]*pid {site.pid}[\s\S]*store +redis://.*: up")
            await pilot.press("r")
            await wait_for(app, r"unknown_session +\d+ ", ask)
            await pilot.press("u")
            await wait_for(app, r"upstreams, by upstream ▼[\s\S]*app +127\.0\.0\.1:1 ")
            await pilot.press("s", "i")
            await wait_for(app, "upstreams, by server ▲")
            store.kill()
            await wait_for(app, r"gateway +not healthy: store[\s\S]*: away for \d+ s", ask)
            code, said = await status()
            assert code == 1
            assert "gateway   not healthy: store" in said
            store.start()
            await wait_for(app, r"gateway +healthy, ready")
            site.stop()
            await wait_for(app, r"as it was \d+ s ago: \[Errno \d+\] \w+")
            code, said = await status()
            assert code == 1
            assert said.startswith("fastticket: unix:")
            with operators_site(tmp_path, keys=0, store=url) as after:
                await wait_for(app, rf"\A(?!as it was)[\s\S]*gateway +healthy, ready[\s\S]*pid {after.pid}")
                code, said = await status()
                assert code == 0
                assert f"pid {after.pid}, up" in said
                await pilot.press("p")
                await wait_for(app, "paused: p goes on")
            assert all(len(line) <= SIZE[0] for line in shown(app).splitlines())
            assert app.query_one("#lines", Static).size.height >= 6
            assert app.query_one("#table", DataTable).size.height >= 8


def test_it_quits_by_a_key_and_leaves_the_terminal_as_it_was(tmp_path):
    with operators_site(tmp_path):
        here, there = pty.openpty()
        ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        before = termios.tcgetattr(there)
        with subprocess.Popen(
            [sys.executable, "-m", "fastticket", "top", "--config", "fastticket.toml"],
            cwd=tmp_path,
            stdin=there,
            stdout=there,
            stderr=there,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color"},
            start_new_session=True,
        ) as process:
            try:
                read_until(here, b"healthy")
                os.write(here, b"q")
                read_until(here, b"\x1b[?1049l")  # back to the screen before
                assert process.wait(BOUND_S) == 0
            finally:
                process.send_signal(signal.SIGKILL)
        assert termios.tcgetattr(there) == before
        os.close(here)
        os.close(there)


def read_until(terminal, text):
    seen, give_up_at_s = b"", time.monotonic() + BOUND_S
    os.set_blocking(terminal, False)
    while text not in seen:
        assert time.monotonic() < give_up_at_s, seen
        with contextlib.suppress(BlockingIOError):
            seen += os.read(terminal, 65536)


@pytest.mark.parametrize(
    ("column", "is_reversed", "wanted"),
    [(0, False, "abc"), (0, True, "cba"), (1, False, "bca"), (1, True, "acb")],
)
def test_rows_are_sorted_texts_upward_and_numbers_downward(column, is_reversed, wanted):
    table = Table("", ("name", "number"), [Row("b", ("B", 9)), Row("a", ("a", 1)), Row("c", ("c", 2.5))])
    assert "".join(row.key for row in sorted_rows(table, column, is_reversed)) == wanted


def test_without_a_terminal_it_says_what_to_use_instead(capsys):
    assert main(["top", "--admin", "unix:none.sock"]) == 2
    assert "top needs a terminal; fastticket status prints" in capsys.readouterr().err


def test_without_textual_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastticket.commands.top", None)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["top", "--admin", "unix:none.sock"]) == 2
    assert "pip install 'fastticket[tui]'" in capsys.readouterr().err

"""A gigabyte down and a gigabyte up, with real programs at both ends: the gateway's memory does not grow by them."""

import contextlib
import os
import signal

import pytest
from processes import Process
from real_programs import nginx, node, run

from fastticket.keyfile import create_key_file

GIGABYTE = 1 << 30
GROWTH_MAX_KB = 4096

CONFIG = """
gateway = {{ listen = ["127.0.0.1:0"] }}
ticket = {{ keys = "keys.toml" }}
store = {{ url = "sqlite:///s.db" }}
upstream = [{{ name = "app", servers = ["{upstream}"] }}]
route = [{{ path = "/", auth = "none" }}]
"""


@contextlib.contextmanager
def gateway(folder, upstream):
    """In a process of its own, which then ends well."""
    create_key_file(folder / "keys.toml")
    (folder / "fastticket.toml").write_text(CONFIG.format(upstream=upstream))
    at = Process("serve", "--config", "fastticket.toml", cwd=folder)
    with at.process:
        try:
            yield at
        finally:
            code = at.end(signal.SIGTERM)
    assert code == 0


class Memory:
    """How much a process has resident, kB, and the most that it had since this was made."""

    def __init__(self, pid):
        self._folder = f"/proc/{pid}"
        with open(f"{self._folder}/clear_refs", "w") as file:
            file.write("5")  # the peak is from now on the peak since now
        self._before = self._read("VmRSS")

    def growth(self):
        return self._read("VmHWM") - self._before

    def _read(self, name):
        with open(f"{self._folder}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name))


@pytest.fixture
def gigabyte(tmp_path):
    """A file that takes no room on the disk."""
    path = tmp_path / "gigabyte"
    path.touch()
    os.truncate(path, GIGABYTE)
    return path


def curl(at, path, *arguments):
    host, port = at.address
    return run("curl", "-sS", *arguments, f"http://{host}:{port}{path}")


def test_a_gigabyte_down(tmp_path, gigabyte):
    with nginx(tmp_path) as address, gateway(tmp_path, address) as at:
        memory = Memory(at.process.pid)
        assert curl(at, "/gigabyte", "-o", "/dev/null", "-w", "%{size_download}") == str(GIGABYTE)
        assert memory.growth() < GROWTH_MAX_KB


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
def test_a_gigabyte_up(tmp_path, gigabyte, framing):
    with node(tmp_path) as address, gateway(tmp_path, address) as at:
        memory = Memory(at.process.pid)
        assert curl(at, "/count", *framing, "-T", gigabyte) == str(GIGABYTE)
        assert memory.growth() < GROWTH_MAX_KB


def test_a_gigabyte_both_ways_at_once(tmp_path, gigabyte):
    """An echo: each direction has to wait for the other."""
    with node(tmp_path) as address, gateway(tmp_path, address) as at:
        memory = Memory(at.process.pid)
        assert curl(at, "/echo", "-T", gigabyte, "-o", "/dev/null", "-w", "%{size_download}") == str(GIGABYTE)
        assert memory.growth() < GROWTH_MAX_KB

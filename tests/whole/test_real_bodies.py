"""A gigabyte down and a gigabyte up, with real programs at both ends: the gateway's memory does not
grow by them.
"""

import contextlib
import os
import signal

import pytest
from lab.processes import Process
from lab.real_programs import nginx, node, run

from fastticket.keyfile import create_key_file

GIGABYTE = 1 << 30
GROWTH_MAX_KB = 4096
TRANSFER_BOUND_S = 90  # a second or two, on a machine that does nothing else

CONFIG = """
gateway = {{ listen = ["127.0.0.1:0"] }}
ticket = {{ keys = "keys.toml" }}
store = {{ url = "sqlite:///s.db" }}
upstream = [{{ name = "app", servers = ["{upstream}"] }}]
route = [{{ path = "/", auth = "none" }}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a file that takes no room on the disk."""
    made = tmp_path_factory.mktemp("bodies")
    (made / "gigabyte").touch()
    os.truncate(made / "gigabyte", GIGABYTE)
    create_key_file(made / "keys.toml")
    return made


@contextlib.contextmanager
def gateway(folder, upstream):
    """In a process of its own, which then ends well."""
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


def curl(at, path, *arguments):
    host, port = at.address
    return run("curl", "-sS", *arguments, f"http://{host}:{port}{path}", bound_s=TRANSFER_BOUND_S)


def test_a_gigabyte_down(folder):
    with nginx(folder) as address, gateway(folder, address) as at:
        memory = Memory(*at.workers())
        assert curl(at, "/gigabyte", "-o", "/dev/null", "-w", "%{size_download}") == str(GIGABYTE)
        assert memory.growth() < GROWTH_MAX_KB


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
def test_a_gigabyte_up(folder, framing):
    with node(folder) as address, gateway(folder, address) as at:
        memory = Memory(*at.workers())
        assert curl(at, "/count", *framing, "-T", folder / "gigabyte") == str(GIGABYTE)
        assert memory.growth() < GROWTH_MAX_KB


def test_a_gigabyte_both_ways_at_once(folder):
    """An echo: each direction has to wait for the other."""
    with node(folder) as address, gateway(folder, address) as at:
        memory = Memory(*at.workers())
        assert curl(at, "/echo", "-T", folder / "gigabyte", "-o", "/dev/null", "-w", "%{size_download}") == str(
            GIGABYTE
        )
        assert memory.growth() < GROWTH_MAX_KB

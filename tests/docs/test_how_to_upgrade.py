"""The upgrade page: by the command that it shows, the supervisor is found, and no worker."""

import os
import re
import signal
import subprocess

from conftest import BOUND_S
from lab.documents import ROOT
from lab.processes import Site
from lab.redis_servers import wait_until

from fastticket.keyfile import create_key_file

LIST = re.search(r"^ps .*$", (ROOT / "docs/how-to/upgrade.md").read_text(), re.MULTILINE)[0]
GATEWAY = {
    "gateway": {"listen": ["127.0.0.1:0"]},
    "ticket": {"keys": "keys.toml"},
    "upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}],
    "route": [{"path": "/"}],
}


def listed(pid):
    """(pid, parent) of what the command lists, of this gateway: others may run."""
    said = subprocess.check_output(["bash", "-c", LIST], text=True, timeout=BOUND_S)
    found = [tuple(map(int, line.split()[:2])) for line in said.splitlines()]
    return [(each, parent) for each, parent in found if pid in (each, parent)]


def test_the_supervisor_is_the_one_whose_parent_is_not_listed(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    site = Site(tmp_path, GATEWAY)
    try:
        found = listed(site.pid)
        assert len(found) == 2  # it and its worker
        pids = {pid for pid, _ in found}
        assert [pid for pid, parent in found if parent not in pids] == [site.pid]
    finally:
        site.stop()


def test_a_worker_that_gets_the_signal_is_replaced_and_nothing_is_upgraded(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    site = Site(tmp_path, GATEWAY)
    try:
        (worker,) = [pid for pid, _ in listed(site.pid) if pid != site.pid]
        os.kill(worker, signal.SIGUSR2)
        wait_until(lambda: {pid for pid, _ in listed(site.pid)} - {site.pid, worker}, "another worker", BOUND_S)
        assert "upgrad" not in site.log
    finally:
        site.stop()

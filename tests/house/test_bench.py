"""The benchmarks of the store and of a reload run, in small, and what they find is what the
promises say. Their figures are not judged here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
BOUND_S = 120
pytestmark = pytest.mark.timeout(2 * BOUND_S)


def run(tmp_path, script, *arguments):
    """The figures of a benchmark, budgets met or not."""
    report = tmp_path / "report.json"
    command = [sys.executable, BENCH / script, *arguments, "--json", report]
    subprocess.run(command, check=False, timeout=BOUND_S, stdout=subprocess.DEVNULL)
    return {name: figure["value"] for name, figure in json.loads(report.read_text())["figures"].items()}


def test_p2_no_revocation_is_unknown_for_longer_than_the_lease(tmp_path):
    """With the doorbell in a few milliseconds; killed or silent, within the lease."""
    found = run(tmp_path, "revocation.py", "--revocations", "250")
    assert found["revocation/doorbell/p50"] < found["revocation/blocked/p50"]
    assert all(found[f"revocation/{way}/last_admitted"] <= 2000 for way in ("doorbell", "killed", "blocked"))


@pytest.mark.alone
def test_a_gateway_asks_redis_almost_never(tmp_path):
    found = run(tmp_path, "store_load.py", "--seconds", "2", "--only", "fastticket", "naive: GET, EXPIRE")
    assert found["store load/fastticket/commands"] < 20  # 10 at full rate, which a busy machine may not reach
    assert found["store load/naive: GET, EXPIRE/commands"] >= 2000


def test_bytes_a_session(tmp_path):
    found = run(tmp_path, "store_memory.py", "--sessions", "20000")
    assert found["store memory/Linkis"] < found["store memory/fastticket"] < found["store memory/Spring Session"]


@pytest.mark.alone
def test_a_reload_fails_no_request(tmp_path):
    found = run(tmp_path, "reload.py", "--reloads", "1", "--sessions", "2000", "--rate", "500")
    assert found["reload/requests"] == 4000  # two windows of 2 s, and each session once
    assert found["reload/failed"] == 0

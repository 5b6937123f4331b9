"""Other machines at the admin listener: in a network of the test's own, in which this machine has
an address besides loopback.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.documents import ROOT

from fastticket.errors import ConfigError
from fastticket.gateway.reader import read_config
from fastticket.keyfile import create_key_file

OTHER = "192.0.2.7"  # RFC 5737: of nobody
BEHIND = {"upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}], "route": [{"path": "/"}]}
#: Brings the network up, serves, and asks: each "FROM METHOD PATH" of the arguments after the
#: first.
SCRIPT = """
set -e
ip link set lo up
ip addr add {other}/32 dev lo
: >serving
"$1" -m fastticket serve --config fastticket.toml >serving 2>log &
shift
tail --pid=$! -f serving | grep -q -m1 serving
for asked in "$@"; do
    set -- $asked
    curl -s -o /dev/null -w '%{{http_code}} ' --interface "$1" -X "$2" "http://$1:9090$3"
done
kill %1
wait %1
"""


@pytest.fixture
def asked(tmp_path):
    """`asked(networks, "FROM METHOD PATH", ...)`: the statuses of a gateway's admin listener."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("only root can make a network")
    create_key_file(tmp_path / "keys.toml")

    def ask(networks, *requests):
        (tmp_path / "fastticket.toml").write_text(f"""
            [gateway]
            listen = ["127.0.0.1:8080"]
            admin = "0.0.0.0:9090"
            admin_networks = {json.dumps(networks)}
            [ticket]
            keys = "keys.toml"
            [[upstream]]
            name = "app"
            servers = ["127.0.0.1:9001"]
            [[route]]
            path = "/"
        """)
        script = SCRIPT.format(other=OTHER)
        command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "bash", "-c", script, "-", sys.executable]
        done = subprocess.run(
            [*command, *requests],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=6 * BOUND_S,
        )
        assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
        return [int(status) for status in done.stdout.split()]

    return ask


def test_another_machine_may_read_the_pages_if_its_network_is_named(asked):
    pages = [f"{OTHER} GET {page}" for page in ("/readyz", "/healthz", "/metrics")]
    assert asked(["192.0.2.0/24"], *pages) == [200, 200, 200]


def test_another_machine_may_read_nothing_if_its_network_is_not_named(asked):
    pages = [f"{OTHER} GET {page}" for page in ("/readyz", "/healthz", "/metrics", "/else")]
    assert asked(["198.51.100.0/24"], *pages) == [403] * 4


def test_draining_is_for_this_machine_alone(asked):
    drains = [f"{OTHER} POST /drain", f"{OTHER} GET /readyz", "127.0.0.1 POST /drain", f"{OTHER} GET /readyz"]
    undrains = [f"{OTHER} DELETE /drain", "127.0.0.1 DELETE /drain"]
    assert asked(["192.0.2.0/24"], *drains, *undrains) == [403, 200, 503, 503, 403, 200]


@pytest.mark.parametrize(
    ("gateway", "problem"),
    [
        ({"admin": "0.0.0.0:9090"}, "only this machine may ask there; admin_networks names others"),
        ({"admin": "0.0.0.0:9090", "admin_networks": ["10.0.0.1/8"]}, "admin_networks: 10.0.0.1/8 has host bits set"),
        ({"admin": "0.0.0.0:9090", "admin_networks": ["all"]}, "admin_networks: 'all' does not appear to be"),
        (
            {"admin": "unix:admin.sock", "admin_networks": ["10.0.0.0/8"]},
            "is for an admin listener that other machines",
        ),
        ({"admin": "127.0.0.1:9090", "admin_networks": ["10.0.0.0/8"]}, "is for an admin listener that other machines"),
        ({"admin_networks": ["10.0.0.0/8"]}, "is for an admin listener that other machines"),
    ],
)
def test_what_does_not_fit_together(tmp_path, gateway, problem):
    with pytest.raises(ConfigError, match=problem):
        read_config({"gateway": gateway, **BEHIND}, "test", tmp_path)

"""docs/how-to/jupyter.md: its cells in a real kernel; its configuration is that of tests/real."""

import os
import tomllib

import pytest
from conftest import BOUND_S
from jupyter_client.manager import start_new_kernel
from lab.documents import ROOT
from lab.redis_servers import Server
from lab.snippets import blocks

import fastticket
from fastticket.gateway.reader import read_config
from fastticket.keyfile import create_key_file
from fastticket.sync import TicketCache


@pytest.fixture
def redis(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def kernel(redis, tmp_path):
    create_key_file(tmp_path / "keys.toml")
    environment = {
        **os.environ,
        "STORE_URL": f"redis://{redis.address}/0?timeout_ms=10000",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path), env=environment)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(kernel, cell):
    """What a cell prints."""
    printed = []

    def hear(message):
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = kernel.execute_interactive(cell, timeout=3 * BOUND_S, output_hook=hear)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed)


def test_the_cells_of_a_notebook(kernel, redis, tmp_path):
    cells = {block.name: block.text for block in blocks("how-to/jupyter.md") if block.language == "python"}
    keys = fastticket.Keyring.from_file(tmp_path / "keys.toml")
    with TicketCache(fastticket.open_store(f"redis://{redis.address}/0?timeout_ms=10000"), keys) as elsewhere:
        elsewhere.login("alice", details={"user_agent": "Firefox"})
        run(kernel, cells["first.py"])
        assert "Firefox" in run(kernel, cells["look.py"])
        run(kernel, cells["work.py"])
        assert len(elsewhere.sessions("alice")) == 1
        for again in ("last.py", "first.py", "last.py"):
            run(kernel, cells[again])


def test_the_configuration_of_the_gateway_can_be_read(tmp_path):
    (toml,) = [block.text for block in blocks("how-to/jupyter.md") if block.language == "toml"]
    create_key_file(tmp_path / "keys.toml")
    rest = {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock"}
    said = tomllib.loads(toml)
    read_config({**said, "gateway": {**said["gateway"], **rest}, "ticket": {"keys": "keys.toml"}}, "page", tmp_path)


def test_the_configuration_of_jupyterlab_is_the_one_that_make_real_tries():
    (shown,) = [block.text for block in blocks("how-to/jupyter.md") if block.name == "jupyter_server_config.py"]
    tried = (ROOT / "tests/real/jupyter_server_config.py").read_text()
    for part in shown.removeprefix("# file: jupyter_server_config.py\n").split("\n\n\n"):
        assert part.strip() in tried

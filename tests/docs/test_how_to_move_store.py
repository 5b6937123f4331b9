"""Moving to another store, as the page says: alice stays logged in, at every stage."""

import pytest
from conftest import status_of
from lab.pages import shown
from lab.processes import Site
from lab.snippets import blocks
from lab.traffic import get

from fastticket.commands.cli import main

BLOCKS = [block for block in blocks("how-to/move-store.md") if not block.name]
STAGES = [block.text for block in BLOCKS if block.language == "toml"]
COPY, BREAK = (block.text for block in BLOCKS if block.language == "console")

GATEWAY = """
[gateway]
listen = ["{address}"]
[ticket]
keys = "keys.toml"
[[upstream]]
name = "app"
servers = ["{behind}"]
[[route]]
path = "/"
{store}
"""


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "--out", "keys.toml"]) == 0
    with shown("how-to/move-store.md", tmp_path) as terminal:
        yield terminal


def test_the_stages_while_a_gateway_serves_and_the_way_with_a_break(at, tmp_path, capfd, origin):
    behind = origin().address

    def config(store, address="127.0.0.1:0"):
        return GATEWAY.format(address=address, behind=behind, store=at.here(store))

    assert main(["issue", "alice", "--keys", "keys.toml", "--store", "sqlite:///sessions.db"]) == 0
    ticket = capfd.readouterr().out.strip()
    assert len(STAGES) == 3
    site = Site(tmp_path, config(STAGES[0].partition("mirror_url")[0]))
    try:
        for number, stage in enumerate(STAGES):
            assert site.reload(config(stage, f"{site.address[0]}:{site.address[1]}")).startswith("reloaded: ")
            assert status_of(site.ask(get(ticket))[0]) == 200
            if number == 0:
                at.run(COPY)
        assert "0 of them written" in said(capfd, "copy", "--store", at.here("redis://127.0.0.1:6379/0"))
    finally:
        site.stop()
    at.run(BREAK)
    store = at.here("redis://127.0.0.1:6379/1")
    assert "alice" in said(capfd, "sessions", "--user", "alice", "--json", "--store", store)


def said(capfd, command, *options):
    """What a command prints."""
    capfd.readouterr()
    mirror = ["--mirror", "sqlite:///sessions.db"] if command == "copy" else []
    assert main([command, *options, *mirror]) == 0
    return capfd.readouterr().out

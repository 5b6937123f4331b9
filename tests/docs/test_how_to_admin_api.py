"""A gateway is operated by its API, as the page says."""

import tomllib

from lab.pages import shown
from lab.snippets import blocks

from fastticket.gateway.reader import read_config


def test_every_command_prints_what_the_page_shows(tmp_path):
    with shown("how-to/admin-api.md", tmp_path) as at:
        for language, name, text in blocks("how-to/admin-api.md"):
            if language == "console":
                at.run(text)
            elif not name:
                assert language == "toml"
                behind = '[[upstream]]\nname = "a"\nservers = ["127.0.0.1:9"]\n[[route]]\npath = "/"\n'
                read_config(tomllib.loads(text + behind), "the page", tmp_path)

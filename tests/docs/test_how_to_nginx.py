"""nginx in front of two gateways, and nginx that asks two gateways: as the pages say."""

import tomllib

import pytest
from lab.pages import shown
from lab.snippets import blocks

from fastticket.gateway.reader import read_config

PAGES = {"how-to/nginx.md": blocks("how-to/nginx.md"), "how-to/forward-auth.md": blocks("how-to/forward-auth.md")}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_prints_what_the_page_shows(tmp_path, page):
    with shown(page, tmp_path) as at:
        for language, _, text in PAGES[page]:
            if language == "console":
                at.run(text)


def test_the_settings_of_the_endpoint_are_a_configuration(tmp_path):
    """The first block of the page: what has to be set, whatever else is."""
    (said,) = [text for language, name, text in PAGES["how-to/forward-auth.md"] if language == "toml" and not name]
    behind = {"ticket": {"keys": "keys.toml"}, "upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}]}
    assert read_config(behind | tomllib.loads(said), "test", tmp_path).gateway.auth_front == "nginx"


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_tried(page):
    assert {language for language, name, _ in PAGES[page] if not name} <= {"console", "toml", "text"}

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


@pytest.fixture
def asking(tmp_path):
    """The terminal of the page on forward auth: all is started, and alice is logged in."""
    start, login, *_ = (text for language, _, text in PAGES["how-to/forward-auth.md"] if language == "console")
    with shown("how-to/forward-auth.md", tmp_path) as at:
        at.run(start)
        at.run(login)
        yield at


def test_a_gateway_that_hangs_costs_two_seconds_and_no_request(asking):
    asking.run("$ kill -STOP $second $(pgrep -P $second)\n")
    try:
        for _ in range(2):  # in turns, so one of them goes to it
            asking.run("$ curl -s -m 10 -b jar 127.0.0.1:8080/\nhello alice\n")
        assert "upstream timed out" in asking.output
    finally:
        asking.run("$ kill -CONT $second $(pgrep -P $second)\n")


def test_without_the_store_who_is_not_known_is_told_to_try_again(asking):
    asking.run("""\
$ bob=$(fastticket issue bob --keys keys.toml --store redis://127.0.0.1:6379/0)
$ redis-cli -p 6379 shutdown nosave
$ curl -s -o answer -D fields -H "Cookie: ticket=$bob" 127.0.0.1:8080/; cat fields
HTTP/1.1 503 Service Temporarily Unavailable
Retry-After: 1
""")


def test_a_refusal_has_one_challenge(asking):
    asking.run("$ curl -si 127.0.0.1:8080/ | grep -ci '^www-authenticate:'\n1\n")


def test_the_settings_of_the_endpoint_are_a_configuration(tmp_path):
    """The first block of the page: what has to be set, whatever else is."""
    (said,) = [text for language, name, text in PAGES["how-to/forward-auth.md"] if language == "toml" and not name]
    behind = {"ticket": {"keys": "keys.toml"}, "upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}]}
    assert read_config(behind | tomllib.loads(said), "test", tmp_path).gateway.auth_front == "nginx"


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_tried(page):
    assert {language for language, name, _ in PAGES[page] if not name} <= {"console", "toml", "text"}

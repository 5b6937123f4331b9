"""What the documents say of the configuration is what it is. That it can be read,
tests/docs/test_snippets.py finds.
"""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from fastticket.dataplane.proxy import LIMITS, TIMEOUTS_S
from fastticket.gateway.settings import LISTS, SECTIONS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def documented():
    """The file of docs/reference/configuration.md."""
    text = (DOCS / "reference/configuration.md").read_text()
    return tomllib.loads(re.search(r"```toml\n(\[gateway\].*?)```", text, re.DOTALL)[1])


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_default(documented, section):
    assert documented[section] == dataclasses.asdict(SECTIONS[section]())


def test_every_limit_is_documented_with_its_default(documented):
    assert documented["limits"] == {name: default for name, (default, _, _) in LIMITS.items()}


def test_every_timeout_is_documented_with_its_default(documented):
    assert documented["timeouts"] == {f"{name}_s": default for name, (_, default) in TIMEOUTS_S.items()}


@pytest.mark.parametrize("name", LISTS)
def test_every_key_of_a_list_is_documented(documented, name):
    assert documented[name][0].keys() == {field.name for field in dataclasses.fields(LISTS[name])}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_documented_of_a_list_is_its_default(documented, name):
    """But for what has none, or is shown with an example."""
    examples = {"name", "servers", "weights", "path", "upstream", "source", "url", "until"}
    kind = LISTS[name]
    defaults = {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in dataclasses.fields(kind)
    }
    shown = {key: value for key, value in documented[name][0].items() if key not in examples}
    assert shown == {key: defaults[key] for key in shown}

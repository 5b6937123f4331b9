"""The reference says what the code says."""

import base64
import re
import runpy
import subprocess

import pytest
from lab.documents import DOCS

from fastticket import Keyring
from fastticket.dataplane.fieldnames import KNOWN
from fastticket.gateway import upgrade
from fastticket.stores import sqlite
from fastticket.stores.redis import layout

GENERATE = runpy.run_path(str(DOCS / "generate.py"))


@pytest.mark.parametrize("page", GENERATE["PAGES"])
def test_what_is_made_from_the_code_is_up_to_date(page):
    """Else: `make docs-reference`."""
    text = (DOCS / page).read_text()
    assert GENERATE["rewritten"](text, GENERATE["PAGES"][page]) == text


def test_versions_names_the_formats_of_the_code():
    page = (DOCS / "reference/versions.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (\d+) \|", page.partition("## What it runs on")[0], re.MULTILINE)
    raw = base64.urlsafe_b64decode(Keyring([(1, bytes(32))], "shop").mint("alice", 1, 60, 60) + "==")
    numbers = {"ticket": raw[0], "signing key": 1, "store in [Redis": layout.FORMAT, "store in SQLite": sqlite.FORMAT}
    numbers |= {"upgrade in place": upgrade.FORMAT}
    assert len(rows) == len(numbers)
    for name, number in numbers.items():
        (said,) = (said for row, said in rows if row.lstrip("[").startswith(name.lstrip("[")))
        assert int(said) == number, name


def test_the_man_page_is_that_of_the_parser_and_is_read_without_a_complaint():
    """Else: `make man`."""
    path = GENERATE["MAN_PAGE"]
    assert GENERATE["man"].man_page(GENERATE["version"]()) == path.read_text()
    shown = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-Wbreak", str(path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert shown.stderr == ""
    text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", shown.stdout)
    assert "fastticket keys retire keys.toml 1 --admin" in " ".join(text.split())


def test_a_block_that_nobody_makes_is_an_error():
    page = "reference/reasons.md"
    text = (DOCS / page).read_text()
    blocks = dict(GENERATE["PAGES"][page])
    with pytest.raises(ValueError, match="verdicts"):
        GENERATE["rewritten"](text.replace("generated: verdicts", "generated: others"), blocks)


def test_a_page_that_differs_is_written_and_keeps_what_was_written_by_hand():
    text = (DOCS / "reference/metrics.md").read_text()
    kept = "| times that `connections_max` clients were connected and others had to wait |"
    assert kept in text
    after = GENERATE["rewritten"](text.replace("| counter |", "| gauge |"), GENERATE["PAGES"]["reference/metrics.md"])
    assert after == text


def test_every_header_that_has_a_meaning_is_described():
    """Those of proxies and of tickets; what HTTP itself says of the others, reference/http does."""
    page = (DOCS / "reference/headers.md").read_text().lower()
    names = [name for name in KNOWN if name.startswith(("x-", "forwarded", "true-"))]
    assert len(names) > 10
    assert [name for name in names if f"`{name}" not in page] == []

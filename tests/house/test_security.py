"""What docs/explanation/security.md says of the tree is so: the tests that it names exist, its
inventory of cryptography is whole, and what must not be guessed comes from the operating system.
Nothing is run but a ring and a ticket.
"""

import re
import secrets

import pytest
from lab.documents import ROOT
from mutations.faults import is_test

from fastticket import Keyring
from fastticket.keyfile import create_key_file

PAGE = ROOT / "docs" / "explanation" / "security.md"
PACKAGE = ROOT / "fastticket"
#: Where bytes that nobody may guess, hashes, signatures and TLS come from.
CRYPTOGRAPHY = re.compile(r"^\s*(?:import|from) (?:cryptography|hashlib|hmac|secrets|ssl)\b|<openssl/", re.MULTILINE)
STATUSES = {"yes", "set", "part", "yours", "no"}


def rows_below(heading):
    """The rows of the tables below a heading, each a list of cells."""
    section = PAGE.read_text().partition(f"\n{heading}\n")[2]
    section = re.split(rf"^#{{1,{heading.count('#')}}} ", section, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|") and not line.startswith("|---")]
    assert lines, f"{PAGE} has no table below {heading}"
    return [[cell.strip() for cell in line.removeprefix("| ").removesuffix("|").split(" | ")] for line in lines]


def requirements():
    """The rows of the ASVS tables."""
    return [row for row in rows_below("## ASVS 5.0") if re.match(r"\d+\.\d", row[0])]


def test_every_test_that_is_named_exists():
    named = re.findall(r"`([\w/]+\.py::\w[\w:]*)`", PAGE.read_text())
    assert len(named) > 100
    assert [test for test in named if not is_test(f"tests/{test}")] == []


@pytest.mark.parametrize("row", requirements(), ids=lambda row: row[0].partition(" ")[0])
def test_a_requirement_has_a_level_a_status_and_what_shows_it(row):
    _, levels, status, how, shown = row
    assert re.fullmatch(r"[123](?:(?:, | to )[123])*", levels)
    assert status in STATUSES
    assert how or status in ("yours", "no")
    assert "::" in shown or status in ("yours", "no") or "none" in how


def test_the_inventory_of_cryptography_is_whole():
    found = {
        str(path.relative_to(PACKAGE))
        for suffix in ("py", "pyx", "pxd")
        for path in PACKAGE.rglob(f"*.{suffix}")
        if CRYPTOGRAPHY.search(path.read_text())
    }
    named = {
        file for row in rows_below("## Secrets and cryptography") for file in re.findall(r"`([\w/]+\.p\w+)`", row[2])
    }
    assert named == found


def test_session_ids_and_secrets_come_from_the_operating_system(monkeypatch, tmp_path):
    asked = []

    def token_bytes(size):
        asked.append(size)
        return b"%032d" % len(asked) if size == 32 else b"%016d" % len(asked)

    monkeypatch.setattr(secrets, "token_bytes", token_bytes)
    keyring = Keyring.generate()
    ticket = keyring.verify(keyring.mint("alice", 0), 0)
    create_key_file(tmp_path / "keys.toml")
    assert asked == [32, 16, 32]
    assert ticket.raw[2:18] == b"%016d" % 2

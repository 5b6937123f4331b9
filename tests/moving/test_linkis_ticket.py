"""Linkis' tickets, by the facts of its formats: the tests seal with other libraries' primitives
where there are any (openssl), and put every fault to the reader.
"""

import base64
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastticket.moving.derived import derive_session_id
from fastticket.moving.formats.linkis_ticket import LinkisTickets, OpenedTicket, broken, hash_fields, unbroken

TICKETS = LinkisTickets()
FORMATS = ["des", "des-raw", "aes-gcm"]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda n: len(n.encode()) <= 190
)
LOGINS = st.integers(min_value=0, max_value=10**15 - 1)


def by_openssl(text, key):
    """DES-ECB of openssl; its padding is PKCS5."""
    made = subprocess.run(
        ["openssl", "enc", "-des-ecb", "-provider", "legacy", "-provider", "default", "-K", key.hex()],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    return base64.b64encode(made.stdout).decode()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the tickets")
@pytest.mark.parametrize(("kind", "key"), [("des", b"YmRwLWZv"), ("des-raw", b"bdp-for-")])
def test_des_tickets_are_those_of_another_implementation(kind, key):
    ticket = by_openssl("bfs_hadoop,1700000000000", key)
    assert TICKETS.open(ticket) == OpenedTicket("hadoop", 1700000000000, kind)
    assert TICKETS.seal("hadoop", 1700000000000, kind) == ticket


@given(NAMES, LOGINS, st.sampled_from(FORMATS))
def test_what_was_sealed_opens_to_the_same(user, login_ms, kind):
    ticket = TICKETS.seal(user, login_ms, kind)
    opened = TICKETS.open(ticket)
    assert opened == OpenedTicket(user, login_ms, opened.format)
    assert opened.format in ((kind, "aes-gcm") if kind == "des-raw" else (kind,))
    assert TICKETS.open(unbroken(ticket)) == opened
    assert ticket in hash_fields(unbroken(ticket))
    assert LinkisTickets("another key").open(ticket).reason == "forged"


def test_a_user_name_may_have_commas_and_a_suffix():
    suffixed = LinkisTickets(user_suffix="_c")
    for kind in FORMATS:
        ticket = suffixed.seal("a,b", 5, kind)
        assert suffixed.open(ticket) == OpenedTicket("a,b", 5, kind)
        assert TICKETS.open(ticket) == OpenedTicket("a,b_c", 5, kind)
        assert LinkisTickets(header="other_").open(ticket).reason == "forged"


def test_a_long_ticket_has_line_breaks_in_the_hash_and_none_in_a_cookie():
    ticket = TICKETS.seal("u" * 100, 1700000000000, "des")
    assert [len(line) for line in ticket.split("\r\n")] == [76, 76, 8]
    assert hash_fields(unbroken(ticket)) == [unbroken(ticket), ticket]
    for other in (ticket.replace("\r\n", "\n"), ticket + "\r\n", "\r\n" + ticket, ticket.replace("\r\n", "", 1)):
        assert TICKETS.open(other).reason == "malformed"


@pytest.mark.parametrize(
    "text", ["", "bfs_", "bfs_,1", "bfs_a", "bfs_a,", "bfs_a,-1", "bfs_a,1x", "xfs_a,1", "bfs_a, 1", "bfs_a,²"]
)
def test_a_text_that_is_no_tickets_is_forged(text):
    padding = 8 - len(text.encode()) % 8
    encryptor = TICKETS._des["des"].encryptor()
    sealed = encryptor.update(text.encode() + bytes([padding]) * padding)
    assert TICKETS.open(base64.b64encode(sealed).decode()).reason == "forged"


@given(st.one_of(st.text(max_size=1200), st.binary(max_size=300).map(lambda raw: base64.b64encode(raw).decode())))
def test_foreign_text_is_refused_and_raises_nothing(text):
    assert TICKETS.open(text).reason in ("malformed", "forged")


@given(NAMES, LOGINS, st.sampled_from(FORMATS), st.data())
def test_a_changed_ticket_is_never_another_spelling_of_the_same(user, login_ms, kind, data):
    """So one old session cannot become two."""
    ticket = unbroken(TICKETS.seal(user, login_ms, kind))
    at = data.draw(st.integers(0, len(ticket) - 1))
    changed = ticket[:at] + data.draw(st.sampled_from("A+/=b 0-_\r\n")) + ticket[at + 1 :]
    opened = TICKETS.open(changed)
    assert changed == ticket or not opened or opened.format != "aes-gcm"
    assert not opened or unbroken(changed) == changed


def test_every_bit_of_an_aes_ticket_counts():
    raw = base64.b64decode(TICKETS.seal("alice", 1700000000000, "aes-gcm"))
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert not TICKETS.open(base64.b64encode(changed).decode())


def test_short_keys_are_filled_and_an_empty_one_is_refused():
    assert LinkisTickets("abc").open(LinkisTickets("abc").seal("alice", 1, "des-raw"))
    with pytest.raises(ValueError, match="is empty"):
        LinkisTickets("")


def test_a_ticket_that_no_linkis_could_read_is_not_sealed():
    for user, login_ms in (("", 1), ("u" * 191, 1), ("alice", -1)):
        with pytest.raises(ValueError, match="190 bytes"):
            TICKETS.seal(user, login_ms, "des")


def test_derived_ids_are_ids_and_differ_by_source():
    assert len(derive_session_id("linkis", "x")) == 22
    assert derive_session_id("linkis", "x") == derive_session_id("linkis", "x") == "Q2GwnQpcb0P3emrVzhfxOw"
    assert len({derive_session_id(source, old) for source in ("linkis", "spring") for old in ("x", "y")}) == 4


def test_broken_leaves_short_tickets_alone():
    assert broken("A" * 76) == "A" * 76
    assert broken("A" * 77) == "A" * 76 + "\r\nA"

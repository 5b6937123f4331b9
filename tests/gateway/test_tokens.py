"""Tokens of programs: what a file of them may say, whom they admit, and what is said of it."""

import datetime

import pytest

from fastticket.errors import ConfigError
from fastticket.gateway.passes import Passes
from fastticket.gateway.tokens import TOKENS_MAX, read_tokens

OURS = """
[[token]]
name = "linkis-cli"
code = "a-long-random-code"
users = ["alice", "文"]
hosts = ["10.1.0.0/16", "::1"]
expires = 2999-01-01T00:00:00Z

[[token]]
name = "engines"
code = "another-random-code"
users = ["*"]
hosts = ["*"]
"""
LINKIS = """id,token_name,legal_users,legal_hosts,business_owner,create_time,update_time,elapse_day,update_by
1,LINKIS_CLI-AUTH,"alice,bob",127.0.0.1,BDP,2022-01-01 00:00:00,2022-01-01 00:00:00,-1,LINKIS
2,OLD-AUTH-CODE,*,*,BDP,2022-01-01,2022-01-01,30,LINKIS
3,NOBODY-AUTH,,*,BDP,2022-01-01,2022-01-01,-1,LINKIS
4,RANGE-AUTH,*,"10.0.0.0/8,gateway",BDP,2022-01-01,2022-01-01,-1,LINKIS
"""


def tokens_of(tmp_path, text, name="tokens.toml"):
    path = tmp_path / name
    path.write_text(text)
    return read_tokens(path)


@pytest.mark.parametrize(
    ("code", "user", "address", "outcome"),
    [
        ("a-long-random-code", "alice", "10.1.2.3", "admitted"),
        ("a-long-random-code", "文", "::1", "admitted"),
        ("a-long-random-code", "bob", "10.1.2.3", "user"),
        ("a-long-random-code", "alice", "10.2.0.1", "address"),
        ("a-long-random-code", "alice", "", "address"),
        ("a-long-random-cod", "alice", "10.1.2.3", "unknown"),
        ("", "alice", "10.1.2.3", "malformed"),  # there are two
        ("another-random-code", "anybody", "", "admitted"),
        ("another-random-code", "", "", "malformed"),
        ("another-random-code", "a\x7fb", "", "malformed"),
    ],
)
def test_whom_a_token_admits(tmp_path, caplog, code, user, address, outcome):
    caplog.set_level("INFO")
    passes = Passes(tokens_of(tmp_path, OURS))
    made = passes.admit(code.encode(), user.encode(), address, b"/a")
    assert bool(made) == (outcome == "admitted")
    assert passes.judge(made) == (True if made else None)
    assert passes.outcomes == {outcome: 1}
    (line,) = [record.getMessage() for record in caplog.records]
    assert outcome in line
    assert ascii(user) in line
    assert not code or code not in line


@pytest.mark.parametrize(
    ("code", "user", "address", "outcome"),
    [
        ("LINKIS_CLI-AUTH", "bob", "127.0.0.1", "admitted"),
        ("LINKIS_CLI-AUTH", "carol", "127.0.0.1", "user"),
        ("LINKIS_CLI-AUTH", "bob", "127.0.0.2", "address"),
        ("OLD-AUTH-CODE", "bob", "127.0.0.1", "expired"),
        ("NOBODY-AUTH", "bob", "127.0.0.1", "user"),
        ("RANGE-AUTH", "bob", "10.1.2.3", "address"),
    ],
)
def test_linkis_table_is_read_as_linkis_reads_it(tmp_path, code, user, address, outcome):
    passes = Passes(tokens_of(tmp_path, LINKIS, "tokens.csv"))
    passes.admit(code.encode(), user.encode(), address, b"/")
    assert passes.outcomes == {outcome: 1}


def test_a_token_of_linkis_ends_so_many_days_after_it_was_made(tmp_path):
    made = datetime.datetime.now() - datetime.timedelta(days=30)
    for hours, outcome in ((1, "admitted"), (-1, "expired")):
        at = (made + datetime.timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M:%S")
        row = f"token_name,legal_users,legal_hosts,create_time,elapse_day\nTHE-CODE,*,*,{at},30\n"
        passes = Passes(tokens_of(tmp_path, row, "tokens.csv"))
        passes.admit(b"THE-CODE", b"alice", "", b"/")
        assert passes.outcomes == {outcome: 1}


def test_what_is_kept_by_session_is_of_one_user(tmp_path):
    """One token speaks for many."""
    passes = Passes(tokens_of(tmp_path, OURS))
    made = [passes.admit(b"another-random-code", user, "", b"/") for user in (b"alice", b"bob")]
    ids = [passes._keys.verify(each, 0).session_id for each in made]
    assert ids[0] != ids[1]


def test_a_pass_is_as_good_as_its_token(tmp_path):
    made = Passes(tokens_of(tmp_path, OURS)).admit(b"another-random-code", b"alice", "", b"/")
    assert Passes(tokens_of(tmp_path, OURS)).judge(made) is None  # of another process


HEAD = "token_name,legal_users,legal_hosts,create_time,elapse_day\n"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", OURS.replace("another-random-code", "a-long-random-code"), "engines: has the code of linkis-cli"),
        ("a.toml", OURS.replace("another-random-code", "short"), "code: must have 8"),
        ("a.toml", OURS.replace('"engines"', '""'), "name: must have"),
        ("a.toml", OURS.replace('hosts = ["*"]', 'hosts = "*"'), "hosts: must be a list"),
        ("a.toml", OURS.replace("10.1.0.0/16", "10.1.0.1/16"), "hosts: 10.1.0.1/16 has host bits set"),
        ("a.toml", OURS.replace("00:00:00Z", "00:00:00"), "expires: must be a time with an offset"),
        ("a.toml", OURS.replace("users =", "user ="), "must have name, code, users and hosts"),
        ("a.toml", "a = 1", "holds"),
        ("a.csv", "token_name,legal_users\n", "has no column legal_hosts"),
        ("a.csv", HEAD + "CODE,*,*,yesterday,1\n", "line 2: create_time and elapse_day"),
        ("a.csv", HEAD + f"CODE,*,*,2026-01-01 00:00:00,{'9' * 400}\n", "line 2: create_time and elapse_day"),
        ("a.csv", "x" * 200_000 + "\n", "field larger than field limit"),
        ("a.csv", HEAD + "CODE,*,*\n", "line 2: has another number of values"),
        ("a.csv", HEAD + "".join(f"CODE{n},*,*,,-1\n" for n in range(TOKENS_MAX + 1)), "more than 10000 tokens"),
    ],
)
def test_what_is_refused(tmp_path, name, text, says):
    with pytest.raises(ConfigError, match=says) as refused:
        tokens_of(tmp_path, text, name)
    assert "random-code" not in str(refused.value)


def test_what_linkis_has_sealed_is_left_out_and_named(tmp_path, caplog):
    row = HEAD.replace("\n", ",token_sign\n") + "LIN***AUTH,*,*,,-1,{RSA}abc\n"
    assert len(tokens_of(tmp_path, row, "a.csv")) == 0
    assert "line 2: is left out" in caplog.text

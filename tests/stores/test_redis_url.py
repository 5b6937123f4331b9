"""Redis URLs: what they mean, and what is said of those that mean nothing."""

from pathlib import Path

import pytest

import fastticket
from fastticket.errors import ConfigError
from fastticket.stores.redis.address import Address, parse_url, slot_of

HERE = Path("/etc/fastticket")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Address("single", (("h", 6379),))),
        ("redis://h:1/3", Address("single", (("h", 1),), db=3)),
        ("redis://[::1]:7", Address("single", (("::1", 7),))),
        ("redis://u:p%40%2F%3A@h", Address("single", (("h", 6379),), username="u", password="p@/:")),
        ("redis://:p@h", Address("single", (("h", 6379),), password="p")),
        ("rediss://h", Address("single", (("h", 6379),), tls=True)),
        (
            "rediss://h?ssl_ca_certs=ca.pem&ssl_certfile=/c.pem",
            Address(
                "single",
                (("h", 6379),),
                tls=True,
                tls_files=(("ssl_ca_certs", "/etc/fastticket/ca.pem"), ("ssl_certfile", "/c.pem")),
            ),
        ),
        ("unix:///run/r.sock?db=2", Address("unix", path="/run/r.sock", db=2)),
        ("unix://:p@/run/r.sock", Address("unix", path="/run/r.sock", password="p")),
        ("redis+sentinel://a:1,b/main", Address("sentinel", (("a", 1), ("b", 26379)), master="main")),
        (
            "rediss+sentinel://u:p@a/main/4?sentinel_username=s&sentinel_password=t",
            Address(
                "sentinel",
                (("a", 26379),),
                master="main",
                db=4,
                tls=True,
                username="u",
                password="p",
                sentinel_username="s",
                sentinel_password="t",
            ),
        ),
        ("redis://:hush[@h", Address("single", (("h", 6379),), password="hush[")),
        ("redis+cluster://a:1,[::1]:2", Address("cluster", (("a", 1), ("::1", 2)))),
        (
            "redis://h?shards=64&timeout_ms=250&durability=replicated",
            Address("single", (("h", 6379),), shards=64, timeout_s=0.25, is_replicated=True),
        ),
    ],
)
def test_what_a_url_says(url, expected):
    assert parse_url(url, HERE) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://", "host:port"),
        ("redis://h:99999", "host:port"),
        ("redis://h/x", "database: must be a whole number"),
        ("redis://a,b", "redis\\+sentinel or redis\\+cluster"),
        ("redis+sentinel://a", "the master's name"),
        ("redis+cluster://a/1", "no numbered databases"),
        ("redis+other://a", "no such kind"),
        ("rediss+unix://a", "no such kind"),
        ("unix+cluster://a", "no such kind"),
        ("unix://", "unix:///path"),
        ("redis://h?shard=2", "shard: no such option; known are shards"),
        ("redis://h?shards=0", "shards: must be a whole number from 1 to 4096"),
        ("redis://h?timeout_ms=soon", "timeout_ms"),
        ("redis://h?durability=high", "durability: must be primary or replicated"),
        ("redis://h?x", "name=value"),
        ("sqlite+x://h", "known are sqlite://, redis://"),
    ],
)
def test_what_is_wrong_with_it(url, says):
    with pytest.raises(ConfigError, match=says) as refused:
        fastticket.open_store(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hush@h/x",
        "redis://u:hush@h:port",
        "redis://u:hush@h?shards=x",
        "redis+x://u:hush@h",
    ],
)
def test_no_secret_in_an_error_or_a_repr(url):
    with pytest.raises(ConfigError) as refused:
        fastticket.open_store(url)
    assert "hush" not in str(refused.value)
    assert "hush" not in repr(parse_url("redis+sentinel://u:hush@h/m?sentinel_password=hush", HERE))
    assert "hush" not in repr(fastticket.open_store("redis://u:hush@h"))


def test_all_of_a_shard_is_in_one_slot():
    """The Cluster specification's example, and the hash tag."""
    assert slot_of("123456789") == 0x31C3
    assert slot_of("{ft:003}:live") == slot_of("{ft:003}:user:{x}") == slot_of("ft:003")


def test_passwords_out_of_files(tmp_path):
    (tmp_path / "one").write_text("p@/:\n")
    (tmp_path / "two").write_text("t\r\nand more")
    url = f"redis+sentinel://u@a/main?password_file=one&sentinel_password_file={tmp_path}/two"
    address = parse_url(url, tmp_path)
    assert (address.username, address.password, address.sentinel_password) == ("u", "p@/:", "t")
    assert "p@/:" not in repr(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:p@h?password_file=one", "there is a password in the URL, too"),
        ("redis+sentinel://h/m?sentinel_password=p&sentinel_password_file=one", "there is sentinel_password, too"),
        ("redis://h?password_file=none", "none: No such file"),
        ("redis://h?password_file=empty", "its first line is empty"),
        ("redis://h?password=hush", "password: no such option"),
    ],
)
def test_password_files_that_mean_nothing(tmp_path, url, said):
    (tmp_path / "one").write_text("p")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match=said) as failure:
        parse_url(url, tmp_path)
    assert "hush" not in str(failure.value)

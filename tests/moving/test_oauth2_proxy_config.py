"""oauth2-proxy's configuration file becomes ours."""

import re
import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastticket.errors import ConfigError
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.reader import read_config
from fastticket.moving.sources.oauth2_proxy import CARRIED, _toml, translate
from fastticket.moving.sources.oauth2_proxy_left import LEFT

FILE = """\
## a usual one
http_address = ":4180"
reverse_proxy = true
upstreams = [
    "http://127.0.0.1:8080/",
    "http://10.0.0.7:9000/api/",
    "https://secure.test/",
    "static://202",
]
provider = "oidc"
client_secret = "hush-hush"
cookie_secret = "0123456789abcdef-secret"
cookie_expire = "168h0m0s"
cookie_domains = [".shop.test"]
cookie_samesite = "lax"
cookie_secure = true
skip_auth_routes = [ "GET=^/health$", "^/static/", "POST!=^/x", "(?=look)" ]
skip_auth_preflight = true
session_store_type = "redis"
redis_connection_url = "redis://user:redis-hush@10.0.0.9/3"
request_logging = true
metrics_address = ":9100"
email_domains = "*"
frobnicate = 1
"""


def loaded(text, tmp_path):
    """Our configuration, checked as `fastticket check-config` does it."""
    (tmp_path / "redis-password").write_text("x\n")
    return read_config(tomllib.loads(text), "made", tmp_path)


def test_a_file_becomes_ours_and_every_line_is_told(tmp_path):
    made = translate(FILE, "oauth2-proxy.cfg")
    config = loaded(made.toml, tmp_path)
    assert config.gateway.listen == ["0.0.0.0:4180"]
    assert config.gateway.admin == "127.0.0.1:9100"
    assert [upstream.servers for upstream in config.upstream] == [["127.0.0.1:8080"], ["10.0.0.7:9000"]]
    assert config.ticket.absolute_lifetime_s == 7 * 86_400
    assert config.ticket.cookie_domain_level == 2
    assert config.store.url == "redis://10.0.0.9:6379/3?password_file=redis-password"
    assert [line.key for line in made.lines] == list(tomllib.loads(FILE))
    assert {line.number for line in made.lines} == {
        number for number, line in enumerate(FILE.splitlines(), 1) if re.match(r"\w+ =", line)
    }
    report = {line.key: line for line in made.lines}
    assert "https, static" in report["upstreams"].note
    assert "POST!=" in report["skip_auth_routes"].note
    assert not report["provider"].ours
    assert "not known" in report["frobnicate"].note
    assert "hush" not in str(made)
    assert "0123456789" not in str(made)


def test_paths_without_a_login_are_those_that_were(tmp_path):
    routes = {(route.path, *route.methods): route for route in loaded(translate(FILE, "x.cfg").toml, tmp_path).route}
    assert routes["/", "OPTIONS"].auth == "none"
    for route, paths in ((routes["/",], {"/static/a"}), (routes["/", "GET"], {"/health", "/a/static/b", "/static/a"})):
        covered = {
            path
            for path in ("/health", "/health/x", "/static/a", "/x", "/")
            if Exemption(route.exempt).covers(path.encode())
        }
        assert covered == paths - {"/a/static/b"}
    assert routes["/api", "GET"].upstream == "app2"


def test_what_nginx_asked_it_asks_here(tmp_path):
    config = loaded(
        translate('set_xauthrequest = true\nproxy_prefix = "/oauth2"\nupstreams=["static://202"]', "x").toml, tmp_path
    )
    assert (config.gateway.auth_path, config.gateway.identity_header) == ("/oauth2/auth", "X-Auth-Request-User")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            'redis_use_sentinel = true\nredis_sentinel_master_name = "m"\n'
            'redis_sentinel_connection_urls = ["redis://a:1", "b"]\nredis_password = "hush"',
            "redis+sentinel://a:1,b:26379/m?password_file=redis-password",
        ),
        (
            'redis_use_cluster = true\nredis_cluster_connection_urls = ["rediss://[::1]:7"]',
            "rediss+cluster://[::1]:7",
        ),
        ('redis_connection_url = "unix:///run/redis.sock"', "unix:///run/redis.sock"),
    ],
)
def test_redis_is_the_one_that_it_was(tmp_path, text, url):
    made = translate(text, "x")
    assert loaded(made.toml, tmp_path).store.url == url
    assert "hush" not in str(made)


@pytest.mark.parametrize("text", ["upstreamConfig:\n  upstreams:\n", "a = ", "a = 1\na = 2"])
def test_what_is_no_such_file_is_said(text):
    with pytest.raises(ConfigError, match=r"x\.cfg: "):
        translate(text, "x.cfg")


def test_no_setting_is_told_twice():
    assert not set(CARRIED) & set(LEFT)


values = st.one_of(
    *(st.booleans(), st.integers(-9, 9), st.just(""), st.text(max_size=8), st.lists(st.text(max_size=8), max_size=2)),
    st.sampled_from(["1h", "http://[", "redis://a:b:c", "(", "*", ["http://a:x/"], ["GET=("], [1], {"a": 1}]),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*CARRIED, "cookie_secret", "?"]), values, max_size=5))
@example({"cookie_expire": "1h1"})
def test_whatever_a_value_is_there_is_a_report_and_toml(table):
    text = "".join(
        f"{_toml(key)} = {_toml(value) if not isinstance(value, dict) else '{a = 1}'}\n" for key, value in table.items()
    )
    made = translate(text, "x")
    assert [line.key for line in made.lines if line.key in table] == [line.key for line in made.lines]
    assert len(made.lines) == len(table)
    tomllib.loads(made.toml)

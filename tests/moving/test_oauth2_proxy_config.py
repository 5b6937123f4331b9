"""oauth2-proxy's configuration becomes ours: its file in TOML, its alpha configuration in YAML."""

import datetime
import re
import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastticket.dataplane.fieldnames import KNOWN
from fastticket.errors import ConfigError
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.reader import read_config
from fastticket.gateway.rules import ADDABLE
from fastticket.moving.sources.oauth2_proxy import CARRIED, translate
from fastticket.moving.sources.oauth2_proxy_alpha import ALPHA_INSTEAD, VALUES_MAX
from fastticket.moving.sources.oauth2_proxy_left import LEFT
from fastticket.moving.sources.oauth2_proxy_ours import FILLED_IN, NOT_SET_BY_ROUTES, toml_value

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
    for name in ("redis-password", "redis-sentinel-password", "cookie-secret"):
        (tmp_path / name).write_text("x\n")
    return read_config(tomllib.loads(text), "made", tmp_path)


def test_a_file_becomes_ours_and_every_line_is_told(tmp_path):
    made = translate(FILE, "oauth2-proxy.cfg")
    config = loaded(made.toml, tmp_path)
    assert config.gateway.listen == ["0.0.0.0:4180"]
    assert config.gateway.admin == "127.0.0.1:9100"
    assert [upstream.servers for upstream in config.upstream] == [["127.0.0.1:8080"], ["10.0.0.7:9000"]]
    assert config.ticket.absolute_lifetime_s == 7 * 86_400
    lifetimes = config.ticket.idle_timeout_s, config.ticket.remember_lifetime_s
    assert lifetimes == (config.ticket.absolute_lifetime_s,) * 2
    assert config.ticket.cookie_domain_level == 2
    (migration,) = config.migration
    assert (migration.source, migration.url, migration.cookie) == ("oauth2-proxy", config.store.url, "_oauth2_proxy")
    assert migration.key_file == "cookie-secret"
    assert migration.idle_timeout_s == config.ticket.absolute_lifetime_s
    left = datetime.date.fromisoformat(migration.until) - datetime.datetime.now(datetime.UTC).date()
    assert left > datetime.timedelta(seconds=migration.idle_timeout_s)
    assert [each.partition(": ")[0] for each in made.to_do] == [
        *("keys.toml", "redis-password", "cookie-secret", "[gateway] trusted_proxies")
    ]
    assert all(f"# To do: {each}\n" in made.toml for each in made.to_do)
    assert config.store.url == "redis://user@10.0.0.9:6379/3?password_file=redis-password"
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


def test_one_text_is_a_list_and_what_is_not_set_is_as_there(tmp_path):
    made = translate('upstreams = "http://127.0.0.1:1/,http://127.0.0.1:2/api/"\nredis_password = 1\n', "x.cfg")
    config = loaded(made.toml, tmp_path)
    assert [upstream.servers for upstream in config.upstream] == [["127.0.0.1:1"], ["127.0.0.1:2"]]
    assert config.ticket.cookie_secure is True


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
            'redis_sentinel_connection_urls = ["redis://a:1", "b"]\nredis_password = "hush"\nredis_username = "u@"\n'
            'redis_sentinel_password = "hush"',
            "redis+sentinel://u%40@a:1,b:26379/m?password_file=redis-password&sentinel_password_file=redis-sentinel-password",
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


@pytest.mark.parametrize(
    "text", ["upstreamConfig:\n  upstreams:\n", "a = ", "a = 1\na = 2", f"a = {'9' * 5000}", "a=" + "[" * 5000]
)
def test_what_is_no_such_file_is_said(text):
    with pytest.raises(ConfigError, match=r"x\.cfg: "):
        translate(text, "x.cfg")


def test_no_setting_is_told_twice():
    assert not set(CARRIED) & set(LEFT)
    assert set(CARRIED) >= ALPHA_INSTEAD


def test_the_fields_that_a_route_cannot_set_are_those_of_the_gateway():
    assert set(KNOWN) - ADDABLE == NOT_SET_BY_ROUTES


@pytest.mark.parametrize(
    ("text", "alpha_text", "identity", "more"),
    [
        ("", "", "X-Forwarded-User", []),
        ('set_xauthrequest = true\nupstreams=["http://a/", "http://b/x"]', "", "X-Forwarded-User", []),
        ('set_xauthrequest = true\nupstreams=["static://202"]', "", "X-Auth-Request-User", []),
        ('basic_auth_password = "x"', "", "X-Forwarded-User", ["Authorization"]),
        ('basic_auth_password = "x"\npass_basic_auth = false', "", "X-Forwarded-User", []),
        ("pass_authorization_header = true", "", "X-Forwarded-User", ["Authorization"]),
        (
            "",
            "injectRequestHeaders: [{name: X-Me, values: [{claim: user}]}, {name: authorization, values: [{claim: id_token}]},"
            " {name: X-Mail, preserveRequestValue: true, values: [{claim: email}]},"
            " {name: X-Kept, preserveRequestValue: true, values: [{value: eA==}]}, {name: X-Key, values: [{value: eA==}]}]",
            "X-Me",
            ["authorization", "X-Mail", "X-Key"],
        ),
    ],
)
def test_what_a_client_says_of_its_user_is_not_believed(tmp_path, text, alpha_text, identity, more):
    config = loaded(translate(text, "x", (alpha_text, "y") if alpha_text else None).toml, tmp_path)
    assert config.gateway.identity_header == identity
    assert [*config.gateway.removed_headers] == [each for each in FILLED_IN if each != identity] + more


@pytest.mark.parametrize(
    ("text", "alpha_text", "principals"),
    [
        ("", "", ["user", "email"]),
        ("prefer_email_to_user = true", "", ["email"]),
        (
            "",
            "injectRequestHeaders: [{name: X-Forwarded-User, values: [{claim: preferred_username}]}]",
            ["preferred_username"],
        ),
    ],
)
def test_a_user_keeps_the_name_that_applications_know(tmp_path, text, alpha_text, principals):
    redis = '\nsession_store_type = "redis"\nredis_connection_url = "redis://a"\ncookie_name = "_shop"'
    config = loaded(translate(text + redis, "x", (alpha_text, "y") if alpha_text else None).toml, tmp_path)
    (migration,) = config.migration
    assert migration.principal_attributes == principals
    assert migration.cookie == "_shop"
    assert config.gateway.identity_header == "X-Forwarded-User"


# ------------------------------------------------------------------------------- alpha

ALPHA = """\
upstreamConfig:
  proxyRawPath: true
  upstreams:
    - {id: shop, path: /, uri: "http://127.0.0.1:8080", timeout: 90s, passHostHeader: true}
    - id: api
      path: /api/
      uri: http://10.0.0.7:9000/base
    - {id: exact, path: /api, uri: "http://10.0.0.8"}
    - {id: secure, path: /secure/, uri: "https://secure.test", insecureSkipTLSVerify: true}
    - {id: static, path: /ok, static: true, staticCode: 202}
    - id: moved
      path: ^/old/(.*)$
      rewriteTarget: /new/$1
      uri: http://127.0.0.1:8080
    - {id: env, path: /env/, uri: "http://${HOST}"}
injectRequestHeaders:
- name: X-Remote-User
  values:
  - claimSource: {claim: user}
- {name: X-Forwarded-Email, values: [{claim: email}]}
- name: Authorization
  values:
  - claim: user
    basicAuthPassword: {value: hush-hush}
- {name: X-Key, preserveRequestValue: true, values: [{value: aHVzaC1odXNo}]}
injectResponseHeaders:
- {name: X-Auth-Request-User, values: [{claim: user}]}
Server:
  BindAddress: 0.0.0.0:4180
  SecureBindAddress: :4443
  TLS: {Key: {fromFile: /hush-hush}}
metricsServer: {bindAddress: ":9100"}
providers:
- id: oidc
  provider: oidc
  clientID: shop
  clientSecret: hush-hush
  allowedGroups: [staff]
  oidcConfig: {issuerURL: "https://id.test"}
frobnicate: hush-hush
"""


def alpha(text, beside="", source="x.cfg"):
    return translate(beside, source, (text, "alpha.yaml"))


def test_the_alpha_configuration_becomes_ours_and_every_value_is_told(tmp_path):
    made = alpha(ALPHA, 'upstreams = ["http://other"]\nhttp_address = ":1"\nskip_auth_routes = ["^/static/"]')
    config = loaded(made.toml, tmp_path)
    assert (config.gateway.listen, config.gateway.admin) == (["0.0.0.0:4180"], "127.0.0.1:9100")
    assert (config.gateway.identity_header, config.gateway.auth_path) == ("X-Remote-User", "/oauth2/auth")
    assert {upstream.name: upstream.servers for upstream in config.upstream} == {
        "shop": ["127.0.0.1:8080"],
        "api": ["10.0.0.7:9000"],
    }
    routes = {route.path: route for route in config.route}
    assert (routes["/"].timeouts, routes["/api"].timeouts) == ({"upstream_first_byte": 90.0}, {})
    assert Exemption(routes["/api"].exempt).covers(b"/static/a")
    assert "X-Forwarded-Email" in config.gateway.removed_headers
    assert "X-Key" not in config.gateway.removed_headers
    assert set(routes) == {"/", "/api", "/login"}
    report = {line.key: line for line in made.lines}
    assert [line.file for line in made.lines] == ["x.cfg"] * 3 + ["alpha.yaml"] * (len(made.lines) - 3)
    values = [number for number, line in enumerate(ALPHA.splitlines(), 1) if re.search(r": [^ ]", line)]
    assert {line.number for line in made.lines if line.file == "alpha.yaml"} == set(values)
    for key, words in {
        "upstreams": "in its place",
        "upstreamConfig.upstreams[2].uri": "/api, here the same as /api/",
        "upstreamConfig.upstreams[3].uri": "not carried over: https",
        "upstreamConfig.upstreams[4].static": "static answers",
        "upstreamConfig.upstreams[5].rewriteTarget": "not rewritten",
        "upstreamConfig.upstreams[6].path": "variable of the environment",
        "injectRequestHeaders[3].name": "a client sends in it goes on",
        "injectRequestHeaders[3].values[0].value": "not repeated",
        "Server.TLS.Key.fromFile": "TLS",
        "providers[0].allowedGroups[0]": "who may log in",
        "providers[0].clientSecret": "login",
        "frobnicate": "not known",
    }.items():
        assert words in report[key].note, key
        assert not report[key].ours
    assert "aHVz" not in str(made)
    assert "hush" not in str(made)


def test_a_gateway_in_front_that_asks_goes_on_asking(tmp_path):
    text = (
        "injectResponseHeaders: [{name: X-User, values: [{claim: user}]}]\nupstreams: [{id: a, path: /, static: true}]"
    )
    config = loaded(alpha(text, 'proxy_prefix = "/p/"').toml, tmp_path)
    assert (config.gateway.auth_path, config.gateway.identity_header) == ("/p/auth", "X-User")


BOMB = "a: &a [x, x]\n" + "".join(
    f"{n}: &{n} [*{p}, *{p}, *{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("providers:\n- clientSecret: 'hush", "line 2: not YAML"),
        ("providers: *hush", "line 1: not YAML: found undefined alias '…'"),
        ("a: !hush!x hush", "line 1: not YAML"),
        ("- a", "it has no keys"),
        ("a: 1\nA: 2", "line 2: A is there twice"),
        ("a: &a {b: 1}\nc: {<<: *a}", "line 2: << is not read"),
        ("? [a]\n: b", "line 1: a key must be a text"),
        ("a: &a [*a]", "line 1: values within values are too deep"),
        ("a: " + "[" * 5000, "too deep"),
        ('a: "\\UFFFFFFFF"', "not YAML"),
        (BOMB, f"more than {VALUES_MAX} values"),
        ("#" * 300_000, "characters"),
    ],
)
def test_what_is_no_alpha_configuration_is_said_without_its_text(text, why):
    with pytest.raises(ConfigError, match=rf"^alpha\.yaml: .*{re.escape(why)}") as error:
        alpha(text)
    assert "hush" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None


values = st.one_of(
    *(st.booleans(), st.integers(-9, 9), st.just(""), st.text(max_size=8), st.lists(st.text(max_size=8), max_size=2)),
    st.sampled_from(["1h", "http://[", "redis://a:b:c", "(", "*", ["http://a:x/"], ["GET=("], [1], {"a": 1}]),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*CARRIED, "cookie_secret", "?"]), values, max_size=5))
@example({"cookie_expire": "1h1"})
@example({"cookie_expire": "9" * 400 + "h"})
@example({"upstream_timeout": 10**400})
@example({"upstreams": ["http://a/x", "http://b/x/"]})
def test_whatever_a_value_is_there_is_a_report_and_toml(table):
    text = "".join(
        f"{toml_value(key)} = {toml_value(value) if not isinstance(value, dict) else '{a = 1}'}\n"
        for key, value in table.items()
    )
    made = translate(text, "x")
    assert [line.key for line in made.lines if line.key in table] == [line.key for line in made.lines]
    assert len(made.lines) == len(table)
    tomllib.loads(made.toml)

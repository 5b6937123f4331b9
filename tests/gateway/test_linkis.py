"""Linkis' own configuration file, unchanged: what each key becomes, what is refused, and the way to
a file of ours.
"""

import dataclasses
import re
import tomllib

import pytest
from lab.documents import ROOT

from fastticket.errors import ConfigError
from fastticket.gateway.linkis import Around, load_linkis
from fastticket.gateway.reader import read_config
from fastticket.gateway.writer import to_toml, without_secrets
from fastticket.web.cookies import TicketCookie
from fastticket.web.hosts import parent_domain

LOGIN = "/api/rest_j/v1/user/login"
PUBLIC_KEY = "/api/rest_j/v1/user/publicKey"
OFFLINE = "/api/rest_j/v1/offline"
USER = "/api/rest_j/v1/user"

STOCK = [ROOT / "examples/linkis" / name for name in ("linkis.properties", "linkis-mg-gateway.properties")]

REAL = r"""
#
# Licensed to the Apache Software Foundation (ASF) under one or more
#
!mysql
wds.linkis.server.mybatis.datasource.url=jdbc:mysql://127.0.0.1:3306/linkis?characterEncoding=UTF-8
wds.linkis.server.mybatis.datasource.password = hush-mysql
wds.linkis.gateway.conf.enable.proxy.user=false
wds.linkis.server.restful.uri=/
linkis.session.redis.cache.enabled=true
linkis.session.redis.host = redis.example.com
linkis.session.redis.port:6380
linkis.session.redis.password=p@ss\:w/rd\u0021
wds.linkis.server.web.session.timeout 30m
wds.linkis.session.ticket.key=my_ticket
wds.linkis.server.user.restful.uri.pass.auth=/api/rest_j/v1/user/login,\
    /api/rest_j/v1/user/publicKey , /static/
wds.linkis.gateway.conf.url.pass.auth=/dss/
wds.linkis.gateway.no.auth.url.regex=^/api/rest_j/v1/public/.*|/open\.html
wds.linkis.server.security.ssl=true
wds.linkis.gateway.cookie.domain.setup.switch=true
wds.linkis.gateway.domain.level=2
"""


def around(**options):
    return Around(**{"listen": ["127.0.0.1:0"], "upstream": ["127.0.0.1:9001"], "keys": "keys.toml"} | options)


def load(tmp_path, text, **options):
    path = tmp_path / "linkis.properties"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_linkis([path], around(**options))


def free_paths(config):
    """What is public beside Linkis' defaults and what the login page needs."""
    return {route.path for route in config.route if route.auth != "required"} - {PUBLIC_KEY, "/dws"}


def test_a_real_file(tmp_path, caplog):
    config = load(tmp_path, REAL)
    assert config.store.url == "redis://:p%40ss%3Aw%2Frd%21@redis.example.com:6380/0"
    assert config.ticket.cookie == "my_ticket"
    assert config.ticket.cookie_secure
    assert config.ticket.cookie_domain_level == 2
    assert config.ticket.idle_timeout_s == 1800
    assert free_paths(config) == {
        LOGIN,
        "/static",
        "/dss",
        "/api/rest_j/v1/public",
        "/open.html",
    }
    optional = {route.path for route in config.route if route.auth == "optional"}
    assert optional == free_paths(config)
    assert [route.path for route in config.route if route.login] == [LOGIN]
    assert [route.path for route in config.route if route.auth == "required"] == [OFFLINE, "/"]
    (warned,) = [record.getMessage() for record in caplog.records]
    assert "3 settings are not about the gateway's sessions: ignored; --verbose names each" in warned


def test_each_that_is_ignored_is_named_to_who_asks(tmp_path, caplog):
    load(tmp_path, REAL)
    caplog.clear()
    load_linkis([tmp_path / "linkis.properties"], around(), names_ignored=True)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 3
    assert all("linkis.properties: wds.linkis." in line and "ignored" in line for line in warned)
    assert not any("hush" in line for line in warned)


def test_an_empty_file_is_linkis_defaults_on_the_embedded_store(tmp_path):
    config = load(tmp_path, "")
    assert config.store.url == "sqlite:///fastticket.db"
    assert config.ticket.cookie == "linkis_user_session_ticket_id_v1"
    assert config.ticket.idle_timeout_s == 7200
    assert (config.ticket.cookie_secure, config.ticket.cookie_domain_level) == (False, 0)
    assert free_paths(config) == {LOGIN}
    assert "/dws" in {route.path for route in config.route if route.auth == "optional"}
    assert config.route[-1].exempt == ".*visualis.*share.*"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("cache.enabled=false\nhost=h", "sqlite:///fastticket.db"),
        ("cache.enabled=true", "redis://127.0.0.1:6379/0"),
        ("cache.enabled=TRUE\nhost=h\npassword=", "redis://h:6379/0"),
        (
            "cache.enabled=true\nsentinel.master=main\nsentinel.nodes=a:6381, b:6381",
            "redis+sentinel://a:6381,b:6381/main",
        ),
        (
            "cache.enabled=true\npassword=x\nsentinel.master=main\nsentinel.nodes=a:1\nsentinel.password=y&z",
            "redis+sentinel://:x@a:1/main?sentinel_password=y%26z",
        ),
    ],
)
def test_where_the_sessions_are(tmp_path, text, url):
    lines = (f"linkis.session.redis.{line}" for line in text.splitlines())
    assert load(tmp_path, "\n".join(lines)).store.url == url


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("30m", 1800), ("45min", 2700), ("7200s", 7200), ("7200000", 7200), ("1d", 86400)],
)
def test_the_timeout(tmp_path, text, seconds):
    assert load(tmp_path, f"wds.linkis.server.web.session.timeout={text}").ticket.idle_timeout_s == seconds


def test_nobody_is_cut_off_within_the_idle_timeout(tmp_path):
    ticket = load(tmp_path, "wds.linkis.server.web.session.timeout=7d").ticket
    assert ticket.absolute_lifetime_s == ticket.idle_timeout_s == 7 * 86400


@pytest.mark.parametrize(
    ("regex", "paths"),
    [
        ("^/a/b/.*$", {"/a/b"}),
        ("/a.*", {"/a"}),
        ("(/a/.*|/b/c)", {"/a", "/b/c"}),
        ("^/a(.*)", {"/a"}),
        (r"/a\.js", {"/a.js"}),
        ("/a/[^/]+/public", set()),
        (".*/public", set()),
        ("/a/.*/b", set()),
        ("(/a|/b)/c", set()),
        ("/a?", set()),
        ("/a.?b", set()),
        ("/a.{2}", set()),
        ("/x/.*|/a/[0-9]+", {"/x"}),
    ],
)
def test_an_expression_exempts_no_more_than_it_says(tmp_path, regex, paths, caplog):
    """A plain path and everything below it becomes a route; the rest stays an expression."""
    config = load(tmp_path, "wds.linkis.gateway.no.auth.url.regex=" + regex.replace("\\", "\\\\"))
    assert free_paths(config) - {LOGIN} == paths
    rest = config.route[-1].exempt
    assert bool(rest) == (bool(regex) and len(paths) < regex.count("|") + 1)
    assert rest in regex
    assert not caplog.records


def test_an_expression_that_python_does_not_read_exempts_nothing(tmp_path, caplog):
    config = load(tmp_path, r"wds.linkis.gateway.no.auth.url.regex=/x/.*|/\\p{Alpha}+/y")
    assert free_paths(config) - {LOGIN} == {"/x"}
    assert config.route[-1].exempt == ""
    assert "needs a ticket" in caplog.text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("linkis.session.redis.cluster.nodes=a:1", "is about sessions"),
        ("wds.linkis.enable.gateway.auth=true", "let the proxy in front do it"),
        ("wds.linkis.server.security.referer.validate=true", "let the proxy in front do it"),
        ("wds.linkis.session.proxy.user.ticket.key=x", "is about sessions"),
        ("wds.linkis.server.web.session.timeout=soon", "must be like 2h"),
        ("wds.linkis.server.web.session.timeout=30", "less than a second"),
        (f"wds.linkis.server.web.session.timeout={'9' * 400}h", "must be like 2h"),
        (
            f"wds.linkis.gateway.cookie.domain.setup.switch=true\nwds.linkis.gateway.domain.level={'9' * 5000}",
            "whole number",
        ),
        ("wds.linkis.server.security.ssl=maybe", "must be true or false"),
        ("linkis.session.redis.cache.enabled=true\nlinkis.session.redis.port=x", "must be a whole number"),
        ("linkis.session.redis.cache.enabled=true\nlinkis.session.redis.sentinel.master=m", "sentinel.nodes: missing"),
        ("wds.linkis.gateway.conf.url.pass.auth=/", "would let everybody in everywhere"),
        ("wds.linkis.gateway.no.auth.url.regex=.*|/.*", "would let everybody in everywhere"),
        ("wds.linkis.gateway.no.auth.url.regex=.*[a-z]", "would let everybody in everywhere"),
        ("wds.linkis.gateway.conf.url.pass.auth=dss", "path must begin with /"),
        ("wds.linkis.session.ticket.key=a b", "cookie"),
    ],
)
def test_what_is_refused(tmp_path, line, says):
    with pytest.raises(ConfigError, match=says) as refused:
        load(tmp_path, line)
    assert "linkis.properties" in str(refused.value)


def test_the_way_to_a_file_of_ours(tmp_path):
    config = load(tmp_path, REAL)
    again = read_config(tomllib.loads(to_toml(config)), config.source, config.base)
    assert to_toml(again) == to_toml(dataclasses.replace(config, origins={}))
    assert "hush" not in to_toml(config)


# --- several files


def of_files(*paths, **options):
    return load_linkis(paths, around(**options))


def test_the_two_files_of_the_distribution(caplog):
    config = of_files(*STOCK)
    assert config.store.url == "redis://127.0.0.1:6379/0"
    assert config.ticket.idle_timeout_s == 3600
    public = {route.path: route.auth for route in config.route}
    assert public == {LOGIN: "optional", PUBLIC_KEY: "none", OFFLINE: "required", "/dss": "optional", "/": "required"}
    assert config.route[-1].exempt == ".*visualis.*share.*"
    line, _ = [record.getMessage() for record in caplog.records]
    assert re.search(r"linkis.properties, .*linkis-mg-gateway.properties: 18 settings are not", line)


def test_the_later_file_wins_and_every_line_says_where_it_comes_from():
    lines = to_toml(of_files(*STOCK)).splitlines()
    assert "idle_timeout_s = 3600  # wds.linkis.server.web.session.timeout=1h in linkis-mg-gateway.properties" in lines
    assert any(re.match(r'cookie = "\w+"  # wds.linkis.session.ticket.key=.*Linkis. default', line) for line in lines)
    tables = "\n".join(lines).split("\n\n")
    for table in tables[:-1]:
        head, *rest = table.splitlines()
        assert head.startswith("# ") if rest[0].startswith("[[") else all("  # " in line for line in rest), table
    in_the_other_order = of_files(*reversed(STOCK))
    assert "/dss" in free_paths(in_the_other_order)
    assert "/api/rest_j/v1/doc.html" in free_paths(in_the_other_order)


def test_taking_an_instance_out_of_service_is_never_public(tmp_path, caplog):
    """Whatever opens a path above it; and what Spring tells of itself stays closed with it."""
    text = f"wds.linkis.server.user.restful.uri.pass.auth=/actuator/prometheus,{OFFLINE}/,/help\n"
    text += "wds.linkis.gateway.conf.url.pass.auth=/api/rest_j/\nwds.linkis.gateway.no.auth.url.regex=.*/off.*"
    config = load(tmp_path, text)
    assert free_paths(config) == {LOGIN, "/api/rest_j", "/help"}
    (route,) = [route for route in config.route if route.path == OFFLINE]
    assert (route.auth, route.exempt) == ("required", "")
    assert caplog.text.count("needs a ticket all the same") == 2


def test_of_two_ways_to_redis_sentinel_wins_and_it_is_said(tmp_path, caplog):
    names = ("cache.enabled=true", "host=h", "sentinel.master=main", "sentinel.nodes=a:1")
    config = load(tmp_path, "\n".join(f"linkis.session.redis.{name}" for name in names))
    assert config.store.url == "redis+sentinel://a:1/main"
    assert "linkis.session.redis.host: there is a Sentinel master, too: Sentinel wins" in caplog.text


@pytest.mark.parametrize(
    "name", ["gateway.conf.enable.sso", "gateway.conf.enable.oauth.auth", "test.mode", "gateway.conf.enable.proxy.user"]
)
def test_where_linkis_lets_others_in_it_is_said(tmp_path, caplog, name):
    load(tmp_path, f"wds.linkis.{name}=true")
    assert f"linkis.properties: wds.linkis.{name}: " in caplog.text


def test_its_sessions_go_on_until_a_day(tmp_path):
    lines = [
        "wds.linkis.crypt.key=s\\u0065cret-of-ours",
        "wds.linkis.ticket.header=t_",
        "wds.linkis.session.ticket.key=k",
    ]
    lines += ["linkis.username.suffix.enable=true", "linkis.session.redis.cache.enabled=true"]
    config = load(tmp_path, "\n".join(lines), until="2030-01-31")
    (migration,) = config.migration
    assert (migration.source, migration.until) == ("linkis", "2030-01-31")
    assert (migration.cookie, migration.prefix, migration.user_suffix) == ("k", "t_", "_c")
    assert (migration.url, config.ticket.cookie) == (config.store.url, "ticket")
    assert config.migration_key(migration) == "secret-of-ours"
    assert "secret" not in to_toml(config)
    (usual,) = of_files(*STOCK, until="2030-01-31").migration
    assert (usual.cookie, usual.key_file, usual.prefix) == ("linkis_user_session_ticket_id_v1", "", "bfs_")


def test_its_tokens_are_a_table_that_an_option_names(tmp_path, caplog):
    of_files(*STOCK)
    assert "export the table and name it with --tokens" in caplog.text
    (tmp_path / "tokens.csv").write_text("token_name,legal_users,legal_hosts,create_time,elapse_day\n")
    config = of_files(*STOCK, tokens=str(tmp_path / "tokens.csv"))
    assert (config.tokens.forward, len(config.known_tokens)) == (True, 0)
    with pytest.raises(ConfigError, match=r"enable\.token\.auth: is false"):
        load(tmp_path, "", tokens="tokens.csv")
    with pytest.raises(ConfigError, match="where nothing can find them"):
        load(tmp_path, "", until="2030-01-31")


def test_what_stands_around_is_said_by_options(tmp_path, caplog):
    """In front of linkis-gateways and in their place; what stands beside Linkis' file is named from
    there, so that it can go to another machine with it.
    """
    text = "linkis.session.redis.cache.enabled=true\nwds.linkis.gateway.conf.enable.token.auth=true\nwds.linkis.crypt.key=k"
    (tmp_path / "tokens.csv").write_text(
        "token_name,legal_users,legal_hosts,create_time,elapse_day\nA-LONG-CODE,*,10.1.2.3,2022-01-01,-1\n"
    )
    given = {"until": "2030-01-31", "keys": str(tmp_path / "keys.toml"), "tokens": str(tmp_path / "tokens.csv")}
    front = load(tmp_path, text, admin="127.0.0.1:9100", **given)
    assert "every program has its address" in caplog.text
    assert (front.gateway.admin, front.ticket.keys, front.tokens.file) == ("127.0.0.1:9100", "keys.toml", "tokens.csv")
    assert (front.migration[0].key_file, front.tokens.forward) == ("linkis.properties", True)
    ways = {route.path: (route.auth, route.upstream) for route in front.route}
    assert (ways[USER], ways["/"]) == (("optional", ""), ("required", ""))
    caplog.clear()
    text += f"\nwds.linkis.gateway.conf.url.pass.auth={USER}/help,{USER}\n"
    place = load(tmp_path, text, login=["127.0.0.1:9201"], linkis_ticket="des", trusted_proxies=["10.0.0.9"], **given)
    assert "address" not in caplog.text
    assert (place.gateway.trusted_proxies, place.tokens.forward) == (["10.0.0.9"], False)
    assert [(each.name, each.linkis_ticket) for each in place.upstream] == [("linkis", "des"), ("login", "")]
    login = {route.path for route in place.route if route.upstream == "login"}
    assert login == {LOGIN, PUBLIC_KEY, USER, f"{USER}/help"}
    for wrong in (
        {"login": ["a:1"]},
        {"linkis_ticket": "des"},
        {"login": ["a:1"], "linkis_ticket": "des", "until": ""},
    ):
        with pytest.raises(ConfigError, match="--login"):
            load(tmp_path, text, **given | wrong)


def test_in_front_of_a_single_sign_on_linkis_answers_those_without_a_session(tmp_path, caplog):
    """Its 401 names where the sign-on is."""
    text = "linkis.session.redis.cache.enabled=true\nwds.linkis.gateway.conf.enable.sso=true"
    assert load(tmp_path, text, until="2030-01-31").route[-1].auth == "optional"
    assert 'has auth = "optional"' in caplog.text
    assert load(tmp_path, text).route[-1].auth == "required"


def test_no_value_makes_a_line_of_its_own(tmp_path):
    config = load(tmp_path, "wds.linkis.gateway.no.auth.url.regex=/[a]\\nb = 1")
    assert config.route[-1].exempt == "/[a]\nb = 1"
    assert tomllib.loads(to_toml(config))["route"][-1]["exempt"] == config.route[-1].exempt


def test_printed_without_secrets(tmp_path):
    text = REAL + "linkis.session.redis.sentinel.master=m\nlinkis.session.redis.sentinel.nodes=a:1\n"
    shown = to_toml(without_secrets(load(tmp_path, text + "linkis.session.redis.sentinel.password=hush")))
    assert 'url = "redis+sentinel://:***@a:1/m?sentinel_password=***"' in shown


def test_a_file_in_latin_1(tmp_path):
    config = load(
        tmp_path, "linkis.session.redis.cache.enabled=true\nlinkis.session.redis.password=é".encode("latin-1")
    )
    assert config.store.url == "redis://:%C3%A9@127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("host", "level", "domain"),
    [
        ("a.b.example.com", 2, "example.com"),
        ("a.b.example.com:8080", 3, "b.example.com"),
        ("example.com", 3, "example.com"),
        ("example.com.", 2, "example.com"),
        ("a.b.example.com", 0, ""),
        ("localhost", 3, ""),
        ("10.0.0.1", 3, ""),
        ("[::1]:80", 3, ""),
        ("", 3, ""),
        ("a..com", 3, ""),
    ],
)
def test_a_cookies_domain(host, level, domain):
    assert parent_domain(host, level) == domain


def test_the_set_cookie_values():
    cookie = TicketCookie("t", is_secure=True, domain_level=2)
    assert cookie.set("T", "x.a.b:1")[-1] == "t=T; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=a.b"
    assert cookie.clear("x.a.b")[-1] == "t=; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=a.b; Max-Age=0"
    assert "Domain" not in TicketCookie("t", is_secure=False, domain_level=0).set("T", "x.a.b")[-1]


def test_a_login_through_the_gateway_sets_the_domain_of_the_host_that_was_asked(gateway, origin):
    answer = b"HTTP/1.1 200 OK\r\nX-Ticket-Login: alice\r\nContent-Length: 0\r\n\r\n"
    at = gateway(
        origin(answer=answer), routes=[{"path": "/", "auth": "none", "login": True}], ticket={"cookie_domain_level": 2}
    )
    head, _ = at.ask(b"GET / HTTP/1.1\r\nHost: www.shop.example.com:8080\r\n\r\n")
    assert b"; Domain=example.com\r\n" in head
    for host in (b"localhost", b"a" * 90 + b".example.com"):
        head, _ = at.ask(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        assert b"Set-Cookie: ticket=" in head
        assert b"Domain" not in head

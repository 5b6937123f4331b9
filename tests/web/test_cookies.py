"""The ticket's cookie: found as the gateway finds it, and set for the domain that it should be."""

import pytest

from fastticket import ConfigError, TicketCookie
from fastticket.dataplane.cookiefields import cookies_named
from fastticket.web.hosts import parent_domain


@pytest.mark.parametrize(
    "field",
    [
        b"ticket=A",
        b"a=1;\tticket=A \t; b=2",
        b"ticket=A; ticket=A",
        b"ticket=A; ticket=B",
        b"ticket=; ticket=A",
        b"ticket=A; ticket=; ticket= \t",
        b"ticket=",
        b"ticket",
        b"ticket= A",
        b"ticket =A",
        b"ticket=A; ticket =B",
        b'ticket="A"',
        b'ticket="A;ticket=B"',
        b"ticket=A=B",
        b"ticket=A\xa0",
        b"ticket=A\x85",
        b"\x0bticket=B;ticket=A",
        b"TICKET=A",
        b";;ticket=A;;",
        b"aticket=A; tickets=B",
        b"ticket-seen=1-0; ticket=A",
        b"ticket=A; ticket-seen=1-0; ticket-seen=2-0",
        b"ticket-seen=1-0",
    ],
)
def test_a_ticket_is_found_where_the_gateway_finds_it(field):
    count, value = cookies_named(field, b"ticket")
    found = value.decode("latin-1") if count == 1 else ""
    assert TicketCookie().find(field.decode("latin-1")) == found


@pytest.mark.parametrize(
    "host",
    [
        "shop.test; Path=/evil",
        "a.test;SameSite=None",
        "a.b\x85c.d",
        "user@a.test",
        "a.test,b.test",
        "a.t\u00e4st",
        "a.te\r\nst",
        "a.test\n",
        "a..",
    ],
)
def test_what_is_no_hosts_name_is_no_domain(host):
    assert parent_domain(host, 2) == ""
    assert not any("Domain" in value for value in TicketCookie(domain_level=2).set("A", host))


def test_a_domain_is_as_long_as_it_should_be():
    assert parent_domain("www.Shop-1.test:8080", 2) == "Shop-1.test"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("ticket=A; ticket-seen=1-0", ["1-0"]),
        ("ticket-seen=1-0;\tticket-seen=2-0 ; ticket-seen=", ["1-0", "2-0", ""]),
        ("ticket=ticket-seen=1-0; aticket-seen=1-0; ticket-seen", []),
        ("", []),
    ],
)
def test_what_the_client_has_seen_is_found_beside_it(field, values):
    assert TicketCookie().find_seen(field) == values


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        ({}, "; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"is_secure": False}, "; Path=/; HttpOnly; SameSite=Lax"),
        ({"domain_level": 2}, "; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=shop.test"),
        ({"domain": ".Shop.test"}, "; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=.Shop.test"),
        ({"path": "/a"}, "; Path=/a; HttpOnly; SameSite=Lax; Secure"),
        ({"same_site": "Strict"}, "; Path=/; HttpOnly; SameSite=Strict; Secure"),
        ({"same_site": "None"}, "; Path=/; HttpOnly; SameSite=None; Secure"),
        ({"is_partitioned": True}, "; Path=/; HttpOnly; SameSite=Lax; Secure; Partitioned"),
    ],
)
def test_both_cookies_have_the_same_attributes_when_they_are_set_and_when_they_are_cleared(settings, attributes):
    cookie, host = TicketCookie("t", **settings), "www.shop.test"
    assert cookie.set("A", host)[-1] == f"t=A{attributes}"
    assert cookie.set_seen("1-0", host) == [f"t-seen=1-0{attributes}"]
    assert cookie.set("A", host, max_age_s=9)[-1] == f"t=A{attributes}; Max-Age=9"
    assert cookie.set_seen("1-0", host, max_age_s=9) == [f"t-seen=1-0{attributes}; Max-Age=9"]
    assert cookie.clear(host)[-1] == cookie.clear_own(host) == f"t={attributes}; Max-Age=0"
    assert cookie.set_seen("", host) == [f"t-seen={attributes}; Max-Age=0"]


# --- what else the same request could have brought


def places(values):
    """(path, domain, partitioned) of values that clear, and nothing else."""
    assert all(value.startswith("t=; ") and value.endswith("; Max-Age=0") for value in values), values
    said = [dict(part.partition("=")[::2] for part in value.split("; ")) for value in values]
    return [(each["Path"], each.get("Domain", ""), "Partitioned" in each) for each in said]


def cleared(host, settings=None, **asked):
    return places(TicketCookie("t", **{"is_secure": False, **(settings or {})}).clear(host, **asked))


@pytest.mark.parametrize(
    ("host", "domains"),
    [
        ("shop.test", ["shop.test", ""]),
        ("a.b.shop.test:8080", ["a.b.shop.test", "b.shop.test", "shop.test", ""]),
        ("localhost:80", [""]),
        ("app.localhost", ["app.localhost", ""]),
        ("10.0.0.1", [""]),
        ("[::1]:80", [""]),
        ("a.te\r\nst", [""]),
        ("", [""]),
        (
            ".".join("abcdefghijkl"),
            ["a.b.c.d.e.f.g.h.i.j.k.l", "e.f.g.h.i.j.k.l", *(".".join("efghijkl"[n:]) for n in range(1, 7)), ""],
        ),
    ],
)
def test_a_logout_clears_the_hosts_cookie_and_those_of_every_domain_above_it(host, domains):
    assert cleared(host) == [("/", domain, False) for domain in domains]


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, ""),
        ({"domain_level": 2}, "shop.test"),
        ({"domain_level": 3}, "www.shop.test"),
        ({"domain": ".SHOP.test"}, ".SHOP.test"),
    ],
)
def test_a_login_clears_all_but_its_own_and_sets_that_last(settings, own):
    cookie = TicketCookie("t", is_secure=False, **settings)
    *others, mine = cookie.set("A", "www.shop.test")
    every = {"", "www.shop.test", "shop.test"}
    assert {domain for _, domain, _ in places(others)} == every - {own.lower().removeprefix(".")}
    assert mine == f"t=A; Path=/; HttpOnly; SameSite=Lax{f'; Domain={own}' if own else ''}"


def test_another_path_was_perhaps_configured_before():
    assert cleared("localhost", {"path": "/a"}) == [("/", "", False), ("/a", "", False)]


def test_one_that_is_partitioned_has_a_twin_that_is_not():
    settings = {"is_partitioned": True, "is_secure": True}
    assert cleared("localhost", settings) == [("/", "", False), ("/", "", True)]
    assert TicketCookie("__Host-t", is_partitioned=True).set("A", "www.shop.test") == [
        "__Host-t=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0",
        "__Host-t=A; Path=/; HttpOnly; SameSite=Lax; Secure; Partitioned",
    ]


def test_a_cookie_for_the_host_alone_has_no_others():
    assert TicketCookie("__Host-t").set("A", "www.shop.test") == ["__Host-t=A; Path=/; HttpOnly; SameSite=Lax; Secure"]


def test_after_a_request_with_several_all_paths_above_it_are_cleared():
    found = cleared("shop.test", asked_path="/x/y z;/é")
    assert [path for path, domain, _ in found if not domain] == [
        *("/x", "/x/", "/x/y%20z%3B", "/x/y%20z%3B/", "/x/y%20z%3B/%E9", "/"),
    ]
    assert ("/x", "shop.test", False) in found
    assert ("/", "", True) in cleared("shop.test", {"is_secure": True}, asked_path="/")


def test_what_clears_others_is_bounded_and_the_likely_ones_come_first():
    """A balancer that takes 4,096 bytes of a response's head takes this one."""
    host = ".".join(["label"] * 18)
    for settings in ({}, {"is_secure": True, "is_partitioned": True, "domain_level": 2}):
        *others, own = TicketCookie("t", **settings).clear(host, asked_path="/x" * 100)
        assert 1500 < sum(map(len, others)) <= 2000
        assert len(own) < 200
        assert [path for path, _, _ in places(others)][:8] == ["/"] * 8


def test_of_what_was_seen_the_others_are_cleared_where_there_are_some():
    cookie = TicketCookie("t", is_secure=False)
    assert cookie.set_seen("1-0", "shop.test", are_several=True) == [
        "t-seen=; Path=/; HttpOnly; SameSite=Lax; Domain=shop.test; Max-Age=0",
        "t-seen=1-0; Path=/; HttpOnly; SameSite=Lax",
    ]


# --- Secure


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST.",
        "app.localhost:1",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]",
        "[::1]:8080",
    ],
)
def test_over_http_a_loopback_host_gets_a_cookie_that_is_not_secure(host):
    assert not TicketCookie().is_secure(host, is_https=False)
    assert TicketCookie().is_secure(host, is_https=True)
    for settings in ({"is_secure": True}, {"same_site": "None"}, {"is_partitioned": True}, {"name": "__Secure-t"}):
        assert TicketCookie(**settings).is_secure(host, is_https=False)


@pytest.mark.parametrize(
    "host",
    [
        "shop.test",
        "10.0.0.1",
        "[2001:db8::1]",
        "",
        "localhost.shop.test",
        "127.0.0.1.shop.test",
        "notlocalhost",
        "[::1",
        "0",
    ],
)
def test_any_other_host_gets_one_that_is_secure(host):
    assert TicketCookie().is_secure(host, is_https=False)
    assert not TicketCookie(is_secure=False).is_secure(host, is_https=True)


# --- what browsers would not take


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(
            ({"name": name}, "TicketCookie name: must be 1 to 100")
            for name in ("x\r\ny", "", "a b", "a;b", "a=b", "ä", "x" * 101, 5, None)
        ),
        *(
            ({"path": path}, "TicketCookie path: must begin")
            for path in ("", "a", "/a;b", "/a\r\n", "/ä", "/" * 300, None)
        ),
        *(
            ({"same_site": it}, "TicketCookie same_site: must be")
            for it in ("lax", "", "Lax; Domain=a.b", None, False, [])
        ),
        *(({"domain_level": it}, "TicketCookie domain_level: must be") for it in (1, -1, 128, 2.0, "2", True, None)),
        *(({"is_secure": it}, "TicketCookie is_secure: must be") for it in ("yes", 1, 0)),
        *(({"is_partitioned": it}, "TicketCookie is_partitioned: must be") for it in (None, 1, "")),
        *(({"domain": it}, "TicketCookie domain: must be") for it in ("a.b; Path=/x", "a\r\nb", "a..b", None, 5)),
        ({"domain": "a.b", "domain_level": 2}, "TicketCookie domain: is said already by domain_level"),
        (
            {"name": "__Secure-t", "is_secure": False},
            "is_secure: browsers take a cookie named __Secure-t only if it is Secure",
        ),
        (
            {"name": "__host-t", "is_secure": False},
            "is_secure: browsers take a cookie named __host-t only if it is Secure",
        ),
        ({"name": "__Host-t", "domain_level": 2}, "domain_level: browsers take __Host-t only for the host alone"),
        ({"name": "__Host-Http-t", "domain": "a.b"}, "domain: browsers take __Host-Http-t only for the host alone"),
        ({"name": "__Host-t", "path": "/a"}, "path: browsers take __Host-t only with the path /"),
        ({"same_site": "None", "is_secure": False}, "is_secure: browsers take a cookie with SameSite=None only if"),
        ({"is_partitioned": True, "is_secure": False}, "is_secure: browsers take a cookie that is Partitioned only if"),
    ],
)
def test_what_is_wrong_with_a_cookie_is_said_when_it_is_made(options, said):
    with pytest.raises(ConfigError) as refused:
        TicketCookie(**options)
    assert said in str(refused.value)
    assert not set("\r\n") & set(str(refused.value))


def test_all_that_is_wrong_is_said():
    with pytest.raises(ConfigError) as refused:
        TicketCookie("__Host-t", is_secure=False, path="/a", domain_level=2, same_site="none")
    assert len(refused.value.problems) == 4


def test_a_cookie_on_any_page_above_is_cleared_in_the_end():
    """Where they are more than one answer takes, each begins elsewhere: or a sibling could lock out
    for ever.
    """
    host, path = "my.account.shop.example", "/req/v1/users/17/orders/3"
    parts = path.split("/")[1:]
    above = [f"/{'/'.join(parts[:n])}{slash}" for n in range(1, len(parts) + 1) for slash in ("", "/")][:-1]
    left = {(p, d, each) for p in above for d in ("account.shop.example", "shop.example") for each in (True, False)}
    cookie = TicketCookie("t", is_secure=True)
    for _ in range(200):
        fields = cookie.clear_others(host, asked_path=path)
        assert sum(map(len, fields)) <= 2000
        left -= set(places(fields))
    assert left == set()

"""The ticket's cookie: found as the gateway finds it, and set for the domain that it should be."""

import pytest

from fastticket.cookies import TicketCookie, parent_domain
from fastticket.core.http1 import cookies_named


@pytest.mark.parametrize(
    "field",
    [
        b"ticket=A",
        b"a=1;\tticket=A \t; b=2",
        b"ticket=A; ticket=A",
        b"ticket=A; ticket=B",
        b"ticket=; ticket=A",
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
    assert "Domain" not in TicketCookie(domain_level=2).set("A", host)


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
    ],
)
def test_both_cookies_have_the_same_attributes(settings, attributes):
    cookie, host = TicketCookie("__Host-ticket", **settings), "www.shop.test"
    assert cookie.set("A", host) == f"__Host-ticket=A{attributes}"
    assert cookie.set_seen("1-0", host) == f"__Host-ticket-seen=1-0{attributes}"
    assert cookie.set("A", host, max_age_s=9) == f"__Host-ticket=A{attributes}; Max-Age=9"
    assert cookie.set_seen("1-0", host, max_age_s=9) == f"__Host-ticket-seen=1-0{attributes}; Max-Age=9"
    assert cookie.clear(host) == f"__Host-ticket={attributes}; Max-Age=0"
    assert cookie.set_seen("", host) == f"__Host-ticket-seen={attributes}; Max-Age=0"

"""The ticket does not reach an application that has no use for it; what comes beside it does, byte
for byte, except what is not for a client to say.
"""

import asyncio
import threading

import pytest
from conftest import BOUND_S, fields_of, status_of
from hypothesis import given
from hypothesis import strategies as st

from fastticket.dataplane.cookiefields import cookies_named, without_cookies

PRIVATE = {"path": "/"}
OPEN = {"path": "/open", "auth": "none"}
OPTIONAL = {"path": "/optional", "auth": "optional"}
ROUTES = [PRIVATE, OPEN, OPTIONAL]


@pytest.fixture
def behind(origin):
    return origin()


@pytest.fixture
def at(gateway, behind):
    return gateway(behind, routes=ROUTES)


def get(*fields, path="/"):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode("latin-1")


def seen(behind):
    """The cookies of the last request, and its Authorization, as the application saw them."""
    lines = behind.requests[-1][0].split(b"\r\n")
    return [line for line in lines if line.lower().startswith((b"cookie:", b"authorization:"))]


# @ stands for the ticket.
LEFT = [
    (["Cookie: ticket=@"], []),
    (["Cookie: theme=dark; ticket=@"], ["Cookie: theme=dark"]),
    (["Cookie: ticket=@; theme=dark"], ["Cookie: theme=dark"]),
    (["Cookie: a=1; ticket=@; b=2"], ["Cookie: a=1; b=2"]),
    (["Cookie: a=1;ticket=@;b=2"], ["Cookie: a=1;b=2"]),
    (["Cookie: a=1 ;  ticket=@  ;\tb=2"], ["Cookie: a=1 ;  b=2"]),
    (["Cookie: a=1;; ticket=@"], ["Cookie: a=1"]),
    (["Cookie: ;ticket=@; ;"], []),
    (["Cookie: a=1;  b=2 ;c; ticket=@"], ["Cookie: a=1;  b=2 ;c"]),
    (['Cookie: a="x, y"; ticket=@; b=é=;'], ['Cookie: a="x, y"; b=é=;']),
    (["Cookie: tickets=1; ticket=@; aticket=2; ticket"], ["Cookie: tickets=1; aticket=2; ticket"]),
    (["cookie:ticket=@; a=1"], ["cookie: a=1"]),
    (["Cookie:   a=1; ticket=@   "], ["Cookie: a=1"]),
    (["Cookie: a=1", "Cookie: ticket=@", "Cookie: b=2"], ["Cookie: a=1", "Cookie: b=2"]),
    (["Cookie: ticket=@; a=1", "Cookie: b=2"], ["Cookie: a=1", "Cookie: b=2"]),
    (["Authorization: Ticket @"], []),
    (["authorization: tICKET @", "Cookie: a=1"], ["Cookie: a=1"]),
    (["Authorization: Basic dTpw", "Cookie: ticket=@"], ["Authorization: Basic dTpw"]),
]


@pytest.mark.parametrize("path", ["/", "/optional", "/open"])
@pytest.mark.parametrize(("sent", "left"), LEFT)
def test_an_application_sees_what_is_beside_the_ticket(at, behind, sent, left, path):
    """Looked for or not, on whatever route."""
    ticket = at.login()
    fields = ["X-Before: 1", *(line.replace("@", ticket) for line in sent), "X-After: 2"]
    assert status_of(at.ask(get(*fields, path=path))[0]) == 200
    assert seen(behind) == [line.encode("latin-1") for line in left]
    head = behind.requests[-1][0]
    assert ticket.encode() not in head
    assert b"\r\nX-Before: 1\r\n" in head
    assert b"\r\nX-After: 2\r\n" in head
    assert (b"X-Forwarded-User: alice" in head) == (path != "/open")


def test_where_no_ticket_is_needed_all_of_several_go(at, behind):
    fields = [
        "Cookie: ticket=1; a=1; ticket=2; ticket=3",
        "Cookie: ticket=4",
        "Cookie: b=2; ticket=5",
        "Authorization: Ticket 6",
    ]
    assert status_of(at.ask(get(*fields, path="/open"))[0]) == 200
    assert seen(behind) == [b"Cookie: a=1", b"Cookie: b=2"]


def test_a_ticket_that_is_no_good_is_one_too(at, behind):
    assert status_of(at.ask(get("Cookie: a=1; ticket=forged", path="/optional"))[0]) == 200
    assert seen(behind) == [b"Cookie: a=1"]


def test_whoever_waited_for_the_store_keeps_it_as_little(at, behind):
    """After the store has answered, the head is read again."""
    ticket = at.login()
    for _ in range(2):  # loaded, and held
        assert status_of(at.ask(get(f"Cookie: a=1; ticket={ticket}; b=2"))[0]) == 200
        assert seen(behind) == [b"Cookie: a=1; b=2"]


def test_whoever_waited_does_not_go_on_with_the_cookies_of_who_came_meanwhile(at, behind):
    """The store is slow to answer for one, and another, whose session is held, is served before
    that.
    """
    ticket, waiting = at.login("alice"), at.login("bob")
    assert status_of(at.ask(get(f"Cookie: ticket={ticket}"))[0]) == 200
    behind.requests.clear()
    exchange, asked, gate = at.cache._store.exchange, threading.Event(), asyncio.Event()

    async def held(requests):
        asked.set()
        await gate.wait()
        return await exchange(requests)

    at.call(setattr, at.cache._store, "exchange", held)
    with at.connect() as client:
        client.sendall(get(f"Cookie: x=1; ticket={waiting}; y=2"))
        assert asked.wait(BOUND_S)
        assert status_of(at.ask(get(f"Cookie: {'z' * 600}=3; ticket={ticket}"))[0]) == 200
        at.call(gate.set)
        assert status_of(client.read_response()[0]) == 200
    assert [fields_of(head)[b"cookie"] for head, _ in behind.requests] == [b"z" * 600 + b"=3", b"x=1; y=2"]


def test_an_application_that_reads_tickets_itself_is_given_them(gateway, behind):
    at = gateway(behind, routes=ROUTES, ticket={"forward_ticket": True})
    fields = f"Cookie: a=1; ticket={at.login()}"
    assert status_of(at.ask(get(fields))[0]) == 200
    assert seen(behind) == [fields.encode()]
    fields = f"Authorization: Ticket {at.login()}"
    assert status_of(at.ask(get(fields))[0]) == 200
    assert seen(behind) == [fields.encode()]


def test_the_requests_of_one_connection_do_not_lend_each_other_their_cookies(at, behind):
    tickets = [at.login(name) for name in ("alice", "bob-with-a-longer-name")]
    for ticket in tickets:  # held from now on: nothing below waits, and is read again
        assert status_of(at.ask(get(f"Cookie: ticket={ticket}"))[0]) == 200
    behind.requests.clear()
    with at.connect() as client:
        client.sendall(
            get(f"Cookie: x=1; ticket={tickets[0]}")
            + get("Cookie: ticket=none; y=2", path="/open")
            + get(f"Cookie: z=3; ticket={tickets[1]}; w=4")
            + get("Cookie: v=5", path="/optional")
        )
        assert [status_of(client.read_response()[0]) for _ in range(4)] == [200] * 4
    assert [fields_of(head)[b"cookie"] for head, _ in behind.requests] == [b"x=1", b"y=2", b"z=3; w=4", b"v=5"]


PAIRS = st.sampled_from(["ticket=1", "ticket=", "a=1", "b", "ticket", "tickets=2", "c=x=y", '"', ""])
SEPARATORS = st.sampled_from(["; ", ";", " ; ", ";;", ";\t", "; ; "])


@given(st.lists(st.tuples(PAIRS, SEPARATORS), max_size=6), PAIRS)
def test_the_cookies_that_are_left_are_those_that_came(pairs, last):
    """By a reader that splits at semicolons and knows no better."""
    value = "".join(pair + separator for pair, separator in pairs) + last

    def parts(value):
        return [part for part in (part.strip(" \t") for part in value.split(";")) if part]

    def others(value):  # an empty cookie of that name is no ticket
        return [part for part in parts(value) if not part.startswith("ticket=") or part == "ticket="]

    left = without_cookies(value.encode(), b"ticket").decode()
    assert cookies_named(left.encode(), b"ticket")[0] == 0
    assert others(left) == others(value)
    has_ticket = others(value) != parts(value)
    assert (left == "") == (others(value) == []) or not has_ticket
    assert left == value or has_ticket


# --- what is not for a client to say

SAID = [
    "X-Forwarded-User: eve",
    "X-FORWARDED-EMAIL: eve",
    "x_forwarded_email: eve",
    "X-Key: eve",
    "Authorization: Basic eve",
]


def test_no_client_sends_what_is_removed(gateway, behind):
    """With a ticket or without, in whatever spelling; a route's own value is there all the same."""
    routes = [PRIVATE, OPEN | {"request_headers": {"X-Key": "ours"}}]
    removed = {"removed_headers": ["X-Forwarded-Email", "x-key", "authorization"]}
    at = gateway(behind, routes=routes, gateway=removed)
    ticket = at.login()
    for path, user, key in (("/", b"alice", None), ("/open", None, b"ours")):
        assert status_of(at.ask(get(*SAID, f"Cookie: a=1; ticket={ticket}", "X-Other: 1", path=path))[0]) == 200
        head = behind.requests[-1][0]
        assert b"eve" not in head
        fields = fields_of(head)
        assert [fields.get(name) for name in (b"x-forwarded-user", b"x-key", b"cookie")] == [user, key, b"a=1"]
        assert fields[b"x-other"] == b"1"
    assert status_of(at.ask(get(f"Authorization: Ticket {ticket}"))[0]) == 200
    assert fields_of(behind.requests[-1][0])[b"x-forwarded-user"] == b"alice"

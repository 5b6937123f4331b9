"""A page can say that a request is no use of its session, and can ask how long it lives."""

import contextlib
import re
import sqlite3

import pytest
from conftest import BOUND_S, OK, fields_of, status_of
from lab.redis_servers import wait_until

from fastticket.errors import StoreUnavailable

ROUTES = [{"path": "/open", "auth": "none"}, {"path": "/pay", "consistency": "strong"}, {"path": "/"}]
NAMES = {"no_use_header": "X-No-Use", "lifetime_header": "X-Session-Lifetime"}
TIMES = {"idle_timeout_s": 1200, "absolute_lifetime_s": 36000}


def get(*fields, path="/", ticket=None, method="GET"):
    cookie = [f"Cookie: ticket={ticket}"] if ticket else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, *cookie, "", ""]).encode()


@pytest.fixture
def behind(origin):
    return origin()


@pytest.fixture
def at(gateway, behind):
    return gateway(behind, routes=ROUTES, gateway=NAMES, ticket=TIMES)


def logged_in(at):
    """A session that is held."""
    ticket = at.login()
    at.run(at.cache.authenticate(ticket, touch=False))
    return ticket


def deadline_ms(at, ticket):
    """As held here; to look is no use."""
    return at.call(lambda: at.cache._checker.check(ticket, False).idle_deadline_ms)


def let_time_pass(at):
    """So that a use would be seen: by the clock that deadlines are counted by."""
    now_ms = at.call(at.cache.now_ms)
    wait_until(lambda: at.call(at.cache.now_ms) > now_ms + 10, "the clock goes on")


def moves(at, ticket, *fields, path="/"):
    """Whether a request moves the deadline of its session."""
    before = deadline_ms(at, ticket)
    let_time_pass(at)
    assert status_of(at.ask(get(*fields, path=path, ticket=ticket))[0]) == 200
    return deadline_ms(at, ticket) > before


# --- no use


def test_a_request_that_says_so_is_no_use_of_its_session(at, behind):
    ticket = logged_in(at)
    assert moves(at, ticket)
    assert not moves(at, ticket, "X-No-Use: 1")
    assert not moves(at, ticket, "x-no-use:1 ")
    assert b"X-No-Use: 1" in behind.requests[1][0]  # a gateway behind this one may ask the same
    assert moves(at, ticket)


@pytest.mark.parametrize("field", ["X-No-Use: 0", "X-No-Use: true", "X-No-Use:", "X_No_Use: 1", "X-Other: 1"])
def test_anything_else_is_use(at, field):
    assert moves(at, logged_in(at), field)


@pytest.mark.parametrize("path", ["/", "/pay"])
def test_to_be_looked_up_is_no_use_either(at, path):
    """The store is asked, and told nothing."""
    ticket = logged_in(at)
    before = deadline_ms(at, ticket)
    let_time_pass(at)
    at.call(at.cache._near.bump_epoch, 0)
    assert status_of(at.ask(get("X-No-Use: 1", path=path, ticket=ticket))[0]) == 200
    assert at.cache.stats["loads"] == 2
    assert deadline_ms(at, ticket) <= before
    assert moves(at, ticket, path=path)


def test_a_session_that_is_only_polled_idles_out(gateway, behind):
    at = gateway(behind, routes=ROUTES, gateway=NAMES, ticket={"idle_timeout_s": 2})
    ticket = logged_in(at)
    with at.connect() as client:

        def is_over():
            client.sendall(get("X-No-Use: 1", ticket=ticket))
            return status_of(client.read_response()[0]) == 401

        wait_until(is_over, "it idles out")


def test_a_tunnel_that_says_so_keeps_nobody_alive(gateway, origin):
    """A page that polls through a WebSocket."""

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n")
        with contextlib.suppress(OSError):
            while connection.recv(100):
                pass

    at = gateway(origin(serve), routes=ROUTES, gateway=NAMES, ticket={"idle_timeout_s": 4})
    fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    with at.connect() as client:
        client.sendall(get(*fields, "X-No-Use: 1", ticket=logged_in(at)))
        assert status_of(client.read_head()) == 101

        def is_over():
            client.sendall(b"\x81\x84\0\0\0\0poll")  # a frame of text: use, but for the field
            return at.stats["cut"]

        with contextlib.suppress(ConnectionError):
            wait_until(is_over, "it idles out")
    assert at.stats["cut"] == 1


def test_without_a_name_nobody_says_so(gateway, behind):
    at = gateway(behind, routes=ROUTES)
    assert moves(at, logged_in(at), "X-No-Use: 1")


# --- lifetime


def told(at, *fields, path="/", ticket):
    """(idle, absolute) in s, or None."""
    head, _ = at.ask(get(*fields, path=path, ticket=ticket))
    assert status_of(head) in (200, 204)
    text = fields_of(head).get(b"x-session-lifetime")
    if text is None:
        return None
    found = re.fullmatch(rb"(?:idle=(\d+))?(?:, )?(?:absolute=(\d+))?", text)
    return tuple(int(number) if number else None for number in found.groups())


def is_about(seconds, wanted):
    return wanted - 2 * BOUND_S <= seconds <= wanted


def test_who_asks_is_told_how_long_his_session_lives(at, behind):
    ticket = logged_in(at)
    assert told(at, ticket=ticket) is None
    for path in ("/", "/pay"):
        idle, absolute = told(at, "X-Session-Lifetime: ?", path=path, ticket=ticket)
        assert is_about(idle, 1200)
        assert is_about(absolute, 36000)
    assert b"Lifetime" not in b"".join(head for head, _ in behind.requests)


def test_to_ask_may_be_no_use(at):
    """So a page can wait for the end without putting it off."""
    ticket = logged_in(at)
    assert not moves(at, ticket, "X-Session-Lifetime: ?", "X-No-Use: 1")
    assert moves(at, ticket, "X-Session-Lifetime: ?")


def test_it_is_what_the_store_knows_of_all_gateways(at, tmp_path):
    """Another one has seen the session used: what is held here is far behind."""
    ticket = logged_in(at)
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as db, db:
        moved = db.execute("UPDATE live SET idle_deadline_ms = idle_deadline_ms + 600000").rowcount
    assert moved == 1
    idle, _ = told(at, "X-Session-Lifetime: ?", "X-No-Use: 1", ticket=ticket)
    assert is_about(idle, 1800)


def test_while_the_store_is_away_it_is_what_is_known_here(at, monkeypatch):
    ticket = logged_in(at)
    assert told(at, ticket=ticket) is None

    async def away(requests):
        raise StoreUnavailable("gone for a test")

    monkeypatch.setattr(at.cache._store, "exchange", away)
    idle, absolute = told(at, "X-Session-Lifetime: ?", ticket=ticket)
    assert is_about(idle, 1200)
    assert is_about(absolute, 36000)


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ({"idle_timeout_s": 0, "absolute_lifetime_s": 3600}, (None, 3600)),
        ({"idle_timeout_s": 60, "absolute_lifetime_s": 0}, (60, None)),
        ({"idle_timeout_s": 7200, "absolute_lifetime_s": 60}, (60, 60)),
    ],
)
def test_an_end_that_there_is_not_is_not_told(gateway, behind, times, wanted):
    at = gateway(behind, routes=ROUTES, gateway=NAMES, ticket=times)
    found = told(at, "X-Session-Lifetime: ?", ticket=logged_in(at))
    assert all(
        found_s == want or (found_s and want and is_about(found_s, want))
        for found_s, want in zip(found, wanted, strict=True)
    )


def test_a_session_without_an_end_has_nothing_to_tell(gateway, behind):
    at = gateway(behind, routes=ROUTES, gateway=NAMES, ticket={"idle_timeout_s": 0, "absolute_lifetime_s": 0})
    assert told(at, "X-Session-Lifetime: ?", ticket=logged_in(at)) is None


def test_an_application_does_not_tell_it(gateway, origin):
    """Nor is anybody told on a route that looks at no ticket."""
    answer = OK.replace(b"\r\n\r\n", b"\r\nX-Session-Lifetime: idle=9\r\nx_session_lifetime: 9\r\n\r\n")
    at = gateway(origin(answer=answer), routes=ROUTES, gateway=NAMES)
    ticket = logged_in(at)
    assert told(at, ticket=ticket) is None
    assert told(at, "X-Session-Lifetime: ?", path="/open", ticket=ticket) is None


def test_the_endpoint_tells_it_too(gateway, behind):
    at = gateway(behind, routes=ROUTES, gateway={**NAMES, "auth_path": "/_ticket/auth"}, ticket=TIMES)
    ticket = logged_in(at)
    assert told(at, path="/_ticket/auth", ticket=ticket) is None
    before = deadline_ms(at, ticket)
    let_time_pass(at)
    idle, absolute = told(at, "X-Session-Lifetime: ?", "X-No-Use: 1", path="/_ticket/auth", ticket=ticket)
    assert is_about(idle, 1200)
    assert is_about(absolute, 36000)
    assert deadline_ms(at, ticket) == before
    assert behind.requests == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"no_use_header": "Cookie"}, "[gateway] no_use_header: the field 'Cookie' has a meaning of its own"),
        ({"lifetime_header": "x forwarded"}, "[gateway] lifetime_header: not a field name"),
        (
            {"no_use_header": "X-Same", "lifetime_header": "x-same"},
            "[gateway] lifetime_header: the field 'x-same' has a meaning",
        ),
        (
            {"lifetime_header": "X-Forwarded-User"},
            "[gateway] lifetime_header: the field 'X-Forwarded-User' has a meaning",
        ),
        (
            {"request_id_header": "X-Id", "no_use_header": "X-Id"},
            "[gateway] no_use_header: the field 'X-Id' has a meaning",
        ),
    ],
)
def test_each_name_has_one_meaning(gateway, behind, settings, said):
    with pytest.raises(Exception, match=re.escape(said)):
        gateway(behind, gateway=settings)


@pytest.mark.parametrize("name", [*NAMES.values(), "x-session-LIFETIME"])
def test_a_route_does_not_set_them(gateway, behind, name):
    with pytest.raises(
        Exception, match=f"response_headers: '{name}' is not a field name, or one that has a meaning of its own"
    ):
        gateway(behind, routes=[{"path": "/", "response_headers": {name: "1"}}], gateway=NAMES)

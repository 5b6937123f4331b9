"""One browser, two users: a ticket of one, and the other system's cookie of another. The gateway
and what is behind it never see two users in one request.
"""

import base64

import pytest
import redis
from conftest import fields_of, status_of
from lab.old_systems import put_spring_session
from test_migration import (
    COOKIE,
    LEASE_MS,
    NEVER,
    ROUTES,
    TICKETS,
    answering_with,
    counts_of,
    linkis,  # noqa: F401 -- a fixture
    moving,  # noqa: F401 -- a fixture
    now_ms,
    request,
    ticket_in,
)
from test_migration_sources import request as request_with

LOGIN = {"/login": b"X-Ticket-Login: zoe", "/logout": b"X-Ticket-Logout: session"}
DELETED = f"Set-Cookie: {COOKIE}=; Path=/; Max-Age=0".encode()


@pytest.fixture
def browsing(moving, linkis):  # noqa: F811
    """`(the gateway, ask)`: `ask(path, old, ticket)` is (status, the user told upstream, the ticket
    set).
    """
    olds = {user: linkis.login(user) for user in ("yan", "zoe")}
    sets = {f"/as-{user}": f"Set-Cookie: {COOKIE}={old}; Path=/".encode() for user, old in olds.items()}
    at, behind = moving(answers=answering_with(LOGIN | sets | {"/leave": DELETED}))

    def ask(path, old=None, ticket=None):
        count = len(behind.requests)
        head, _ = at.ask(request(path, old, ticket))
        seen = fields_of(behind.requests[-1][0]) if len(behind.requests) > count else {}
        return status_of(head), seen.get(b"x-forwarded-user", b"").decode(), ticket_in(head)

    return at, ask, olds


def test_p2_who_logs_in_at_the_old_system_ends_a_session_that_began_here(browsing):
    """As somebody else: as the same user, it goes on. A deletion of what was brought ends it."""
    _, ask, olds = browsing
    _, _, ticket = ask("/login")
    assert ask("/as-zoe", None, ticket) == (200, "zoe", None)
    assert ask("/leave", None, ticket) == (200, "zoe", None)
    assert ask("/", None, ticket) == (200, "zoe", None)
    assert ask("/as-yan", None, ticket)[:2] == (200, "zoe")
    assert ask("/", None, ticket)[0] == 401
    status, user, ticket_of_yan = ask("/", olds["yan"], ticket)
    assert (status, user) == (200, "yan")
    assert ticket_of_yan not in (None, ticket)
    _, _, ticket = ask("/login")
    assert ask("/leave", olds["zoe"], ticket)[:2] == (200, "zoe")
    assert ask("/", None, ticket)[0] == 401


def test_p2_a_ticket_beside_another_users_old_session_goes_on_as_that_one(browsing, linkis):  # noqa: F811
    """The old system was asked directly: no Set-Cookie has passed here. The near cache knows the
    ticket, and it is the first request with both that counts.
    """
    at, ask, olds = browsing
    dan, dans_other = linkis.login("dan"), linkis.login("dan", "aes-gcm")
    forged, over = TICKETS.seal("yan", 1, "des"), linkis.login("yan", used_ms_ago=10_000_000)
    _, _, ticket = ask("/", dan)
    for cookie in (dan, None, dans_other, forged, over):
        assert [ask("/", cookie, ticket) for _ in range(2)] == [(200, "dan", None)] * 2, cookie
    assert counts_of(at)["exchanged"] == 1
    status, user, ticket_of_yan = ask("/", olds["yan"], ticket)
    assert (status, user) == (200, "yan")
    assert ask("/", olds["yan"], ticket_of_yan) == (200, "yan", None)
    assert ask("/", None, ticket)[0] == 401
    assert linkis.used_ms(dan) is None  # the browser has left it
    assert linkis.used_ms(dans_other) is not None
    linkis.server.pause()  # nobody whose session is known notices
    try:
        assert ask("/", dans_other, ticket_of_yan)[:2] == (200, "yan")
    finally:
        linkis.server.resume()


def test_p2_a_login_or_logout_here_ends_what_the_browser_has_brought(browsing, linkis):  # noqa: F811
    """Else the next request would be the user before again."""
    at, ask, olds = browsing
    _, _, ticket = ask("/login")
    assert ask("/", olds["zoe"], ticket) == (200, "zoe", None)
    assert ask("/logout", olds["zoe"], ticket)[0] == 200
    assert ask("/", olds["zoe"])[0] == 401
    assert linkis.used_ms(olds["zoe"]) is None
    again = linkis.login("zoe", login_ms=now_ms())
    _, _, ticket = ask("/login")
    assert ask("/login", again, ticket)[0] == 200  # of the same user: it stays
    assert linkis.used_ms(again) is not None
    assert set(counts_of(at)) <= {"exchanged", "ended_here", "written_back", "refused_not_found", "refused_revoked"}


def test_p2_what_ended_here_stays_so_while_the_old_store_can_not_be_told(moving, linkis):  # noqa: F811
    linkis.redis.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hdel"])
    at, _ = moving(
        answers=answering_with(LOGIN),
        migration={"url": f"redis://reader:x@{linkis.server.address}/0"},
        routes=[{"path": "/login", "auth": "none", "login": True}, {"path": "/"}],
    )
    yans, own = linkis.login("yan"), linkis.login("zoe")
    ticket = ticket_in(at.ask(request("/login", yans))[0])
    head, _ = at.ask(request("/", yans, ticket))
    assert (status_of(head), ticket_in(head)) == (200, None)
    assert status_of(at.ask(request("/logout", own, ticket))[0]) == 200
    assert status_of(at.ask(request("/", own))[0]) == 401
    assert linkis.used_ms(yans)
    assert linkis.used_ms(own)


def test_p2_what_a_client_has_brought_ends_when_a_body_has_driven_out_the_head(browsing, linkis):  # noqa: F811
    at, ask, _ = browsing
    body = b"x" * 300_000
    for path, user in (("/logout", "zoe"), ("/leave", "zoe")):
        old = linkis.login(user)
        _, _, ticket = ask("/login")
        assert ask("/", old, ticket) == (200, user, None)
        head = request(path, old, ticket, f"Content-Length: {len(body)}").replace(b"GET", b"POST")
        assert status_of(at.ask(head + body)[0]) == 200
        assert ask("/", None, ticket)[0] == 401, path
        assert (linkis.used_ms(old) is None) == (path == "/logout")


def test_p2_another_users_old_session_that_came_with_a_second_cookie_is_noticed_alone(browsing):
    """Of two, which could be either, neither counts. That they were seen says nothing of one."""
    _, ask, olds = browsing
    _, _, ticket = ask("/login")
    for both in ((olds["zoe"], olds["yan"]), (olds["yan"], olds["zoe"])):
        assert ask("/", f"; {COOKIE}=".join(both), ticket) == (200, "zoe", None)
    assert ask("/", olds["yan"], ticket)[:2] == (200, "yan")


def test_a_cart_of_the_old_system_beside_a_session_that_began_here_is_left_alone(gateway, origin, redis_server):
    """The application has a session of its own for a user whom the gateway names: as nobody, and
    then as that user.
    """
    cookies = {name: base64.b64encode(name.encode()).decode() for name in ("cart", "own")}
    with redis.Redis(port=redis_server.port) as there:
        put_spring_session(there, "cart", cart=b"[1]")
        put_spring_session(there, "own", user="zoe")
        sets = {f"/{name}": f"Set-Cookie: SESSION={cookie}".encode() for name, cookie in cookies.items()}
        at = gateway(
            answering_with(LOGIN | sets)(origin),
            migration=[{"source": "spring", "url": f"redis://{redis_server.address}/0", "until": NEVER}],
            routes=ROUTES,
            store={"lease_ms": LEASE_MS, "flush_interval_ms": 100},
        )
        ticket = ticket_in(at.ask(request_with("/login", {"SESSION": cookies["cart"]}))[0])
        for name, cookie in cookies.items():
            for path in (f"/{name}", "/"):
                head, _ = at.ask(request_with(path, {"SESSION": cookie, "ticket": ticket}))
                assert (status_of(head), ticket_in(head)) == (200, None), (name, path)
        assert there.exists("spring:session:sessions:cart")

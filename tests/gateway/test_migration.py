"""Sessions of Apache Linkis go on at the gateway: from outside, with its hash in a real Redis."""

import re
import threading
import time

import pytest
from conftest import fields_of, status_of
from lab.redis_servers import wait_until
from test_gateway_auth import answering

from fastticket.gateway.migration.oldstores import Seen
from fastticket.moving.formats.linkis_ticket import LinkisTickets

COOKIE = "linkis_user_session_ticket_id_v1"
HASH = "user_ticket_redis_key"
TICKETS = LinkisTickets()
NEVER = "2999-12-31"
LEASE_MS = 1000
PATIENT_MS, HASTY_MS = 5000, 500  # what an answer of the old store may take: of one that a test does not, or does, halt
ROUTES = [{"path": "/login", "auth": "optional", "login": True}, {"path": "/open", "auth": "optional"}, {"path": "/"}]


def now_ms():
    return time.time_ns() // 1_000_000


def request(path="/", old=None, ticket=None, *fields):
    cookies = [f"{COOKIE}={old}"] * (old is not None) + [f"ticket={ticket}"] * (ticket is not None)
    lines = [f"GET {path} HTTP/1.1", "Host: a", *fields, *([f"Cookie: {'; '.join(cookies)}"] if cookies else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def ticket_in(head):
    """The ticket that an answer sets; None: none."""
    found = re.findall(rb"(?i)^set-cookie: ticket=([^;\r]+)", head, re.MULTILINE)
    return found[-1].decode() if found else None


def answering_with(lines):
    """An origin that answers each path with this field line, and others with none."""

    def made(origin):
        def serve(connection):
            while True:
                head, _ = behind.request(connection)
                connection.sendall(answering(lines.get(head.split(b" ")[1].decode(), b"X-Nothing: x")))

        behind = origin(serve)
        return behind

    return made


class Linkis:
    """The old system: what its gateways keep in Redis."""

    def __init__(self, server):
        self.server = server
        self.redis = server.client()

    def url(self, timeout_ms):
        return f"redis://{self.server.address}/0?timeout_ms={timeout_ms}"

    def login(self, user="alice", kind="des", used_ms_ago=0, login_ms=None):
        ticket = TICKETS.seal(user, login_ms or now_ms() - 60_000, kind)
        self.redis.hset(HASH, ticket, now_ms() - used_ms_ago)
        return ticket

    def used_ms(self, ticket):
        value = self.redis.hget(HASH, ticket)
        return value and int(value)

    def logout(self, ticket):
        assert self.redis.hdel(HASH, ticket)


@pytest.fixture
def linkis(redis_server):
    return Linkis(redis_server)


@pytest.fixture
def moving(gateway, origin, linkis):
    """`(gateway, its origin)`; `migration`: more of the table."""

    def start(*, answers=None, migration=None, **tables):
        behind = (answers or answering_with({}))(origin)
        table = {"source": "linkis", "url": linkis.url(PATIENT_MS), "until": NEVER}
        store = {"lease_ms": LEASE_MS, "flush_interval_ms": 100}
        tables.setdefault("routes", ROUTES)
        return gateway(behind, migration=[table | (migration or {})], store=store, **tables), behind

    return start


def counts_of(at):
    return {result: count for (_, result), count in at.service.exchange.counts.items() if count}


@pytest.mark.parametrize("kind", ["des", "des-raw", "aes-gcm"])
def test_an_old_ticket_is_exchanged_and_the_new_one_set_beside(moving, linkis, kind):
    at, behind = moving()
    old = linkis.login("älice", kind)
    head, _ = at.ask(request("/x", old))
    assert status_of(head) == 200
    assert fields_of(head)[b"cache-control"] == b"no-store"
    ticket = ticket_in(head)
    seen = behind.requests[-1][0]
    assert fields_of(seen)[b"x-forwarded-user"] == "älice".encode()
    assert fields_of(seen)[b"cookie"] == f"{COOKIE}={old}".encode()
    head, _ = at.ask(request("/x", old, ticket))
    assert status_of(head) == 200
    assert ticket_in(head) is None
    assert ticket_in(at.ask(request("/x", old))[0]) == ticket  # a client that keeps no cookies
    assert counts_of(at) == {"exchanged": 1}
    (session,) = at.run(at.cache.sessions("älice"))
    assert session.created_ms <= now_ms() - 60_000  # as its ticket says


def test_two_gateways_at_once_make_one_session(moving, linkis):
    one, _ = moving()
    other, _ = moving()
    olds = [linkis.login(f"user{n}") for n in range(8)]
    tickets = {}

    def ask(at, name):
        tickets[name] = [ticket_in(at.ask(request("/", old))[0]) for old in olds]

    threads = [threading.Thread(target=ask, args=each) for each in ((one, "one"), (other, "other"), (one, "again"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert None not in tickets["one"]
    assert tickets["one"] == tickets["other"] == tickets["again"]
    for number in range(8):
        assert len(one.run(one.cache.sessions(f"user{number}"))) == 1


def test_what_is_forged_expired_or_ended_is_refused(moving, linkis):
    at, behind = moving(ticket={"idle_timeout_s": 60})
    forged = TICKETS.seal("alice", now_ms(), "des")
    other_key = LinkisTickets("another").seal("alice", now_ms(), "aes-gcm")
    idle = linkis.login("idle", used_ms_ago=61_000)
    for old in (forged, other_key, idle, "x", "=" * 4000, "%00"):
        assert status_of(at.ask(request("/", old))[0]) == 401, old
    linkis.redis.hset(HASH, other_key, now_ms())
    assert status_of(at.ask(request("/", other_key))[0]) == 401
    assert status_of(at.ask(request("/open", forged))[0]) == 200  # where a ticket is optional: without a name
    assert [fields_of(head).get(b"x-forwarded-user") for head, _ in behind.requests] == [None]
    assert status_of(at.ask(request("/", linkis.login("idle2", used_ms_ago=50_000)))[0]) == 200


def test_what_is_wrong_with_an_old_cookie_says_nothing_of_our_tickets(moving, linkis):
    """By the reasons of refusals, alerts tell a leaked key and forged tickets."""
    at, _ = moving()
    ours = ticket_in(at.ask(request("/", linkis.login()))[0])
    stale = TICKETS.seal("bob", now_ms(), "des")
    for old in (stale, "x"):
        assert status_of(at.ask(request("/", old))[0]) == 401
    assert at.stats["refused"] == {"missing": 2}
    assert {name for name in counts_of(at) if name.startswith("refused")} == {"refused_not_found", "refused_forged"}
    forged = ours[:-1] + ("A" if ours[-1] != "A" else "Q")
    assert status_of(at.ask(request("/", stale, forged))[0]) == 401
    # A ticket of ours is judged, whatever comes with it.
    assert at.stats["refused"] == {"missing": 2, "bad_signature": 1}
    assert at.stats["forged"] == 1


def test_a_logout_ends_both_for_good(moving, linkis):
    at, _ = moving(answers=answering_with({"/logout": b"X-Ticket-Logout: session"}))
    other, _ = moving()
    old = linkis.login()
    ticket = ticket_in(at.ask(request("/", old))[0])
    assert status_of(at.ask(request("/logout", old, ticket))[0]) == 200
    assert linkis.used_ms(old) is None
    linkis.redis.hset(HASH, old, now_ms())  # as a refresh that was under way at an old gateway does
    for each in (at, other):
        assert status_of(each.ask(request("/", old))[0]) == 401
        assert status_of(each.ask(request("/", old, ticket))[0]) == 401


def test_what_another_gateway_or_an_operator_ends_ends_there_too(moving, linkis):
    at, _ = moving()
    other, _ = moving()
    old = linkis.login()
    ticket = ticket_in(at.ask(request("/", old))[0])
    (session,) = other.run(other.cache.sessions("alice"))
    assert other.run(other.cache.revoke(session.id, "alice"))
    wait_until(lambda: linkis.used_ms(old) is None, "the end there")
    assert status_of(at.ask(request("/", old, ticket))[0]) == 401


def test_an_end_at_the_old_gateway_ends_ours(moving, linkis):
    at, _ = moving()
    other, _ = moving()
    old = linkis.login()
    ticket = ticket_in(at.ask(request("/", old))[0])
    assert status_of(other.ask(request("/", old, ticket))[0]) == 200
    linkis.logout(old)
    wait_until(lambda: status_of(other.ask(request("/", None, ticket))[0]) == 401, "the end here")
    assert status_of(at.ask(request("/", None, ticket))[0]) == 401
    assert counts_of(at).get("ended_there", 0) + counts_of(other).get("ended_there", 0) >= 1


def outlived_s(ended_s, admits):
    """How long after an end it was asked for the last time with success; then it is refused."""
    last_s = ended_s

    def is_refused():
        nonlocal last_s
        began_s = time.monotonic()
        if admits():
            last_s = began_s
            return False
        return True

    wait_until(is_refused, "it is refused")
    return last_s - ended_s


@pytest.mark.timed
def test_an_end_on_one_side_is_one_on_the_other_within_the_lease(moving, linkis):
    """And half a second for the machine. One gateway has not seen the old cookie: it hears of the
    end there by the other one.
    """
    answers = answering_with({"/logout": b"X-Ticket-Logout: session"})
    one, other = moving(answers=answers)[0], moving(answers=answers)[0]
    bound_s = LEASE_MS / 1000 + 0.5

    def both_admit():
        old = linkis.login()
        ticket = ticket_in(one.ask(request("/", old))[0])
        admitted = [lambda at=at: status_of(at.ask(request("/", None, ticket))[0]) == 200 for at in (one, other)]
        assert all(admits() for admits in admitted)
        return old, ticket, admitted

    for _ in range(3):  # at another time of a round each
        old, _, admitted = both_admit()
        linkis.logout(old)
        ended_s = time.monotonic()
        assert max(outlived_s(ended_s, admits) for admits in admitted) <= bound_s
        old, ticket, admitted = both_admit()
        assert status_of(other.ask(request("/logout", None, ticket))[0]) == 200
        ended_s = time.monotonic()
        assert max(outlived_s(ended_s, admits) for admits in (lambda: linkis.used_ms(old), *admitted)) <= bound_s  # noqa: B023


@pytest.mark.parametrize(("idle_timeout_s", "used_ms_ago"), [(100, 50_000), (0, 400_000), (1_000_000, 400_000)])
def test_use_here_keeps_the_old_one_alive_and_revives_none(moving, linkis, idle_timeout_s, used_ms_ago):
    """However long a session of ours may be idle, or for ever: Linkis' own is two hours."""
    at, _ = moving(ticket={"idle_timeout_s": idle_timeout_s, "absolute_lifetime_s": 2_000_000})
    old = linkis.login(used_ms_ago=used_ms_ago)
    before_ms = linkis.used_ms(old)
    ticket = ticket_in(at.ask(request("/", old))[0])
    wait_until(lambda: linkis.used_ms(old) > before_ms + 40_000, "the use there")
    linkis.logout(old)
    wait_until(lambda: status_of(at.ask(request("/", None, ticket))[0]) == 401, "the end here")
    store = at.service.exchange._migrations[0].store
    assert at.run(store.keep({old: Seen(now_ms(), 7200)})) == 0
    assert linkis.used_ms(old) is None


def test_logged_out_everywhere_is_so_at_old_gateways_that_nobody_came_from(moving, linkis):
    at, _ = moving(answers=answering_with({"/out": b"X-Ticket-Logout: everywhere"}))
    here, elsewhere, bobs = linkis.login(), linkis.login(kind="aes-gcm"), linkis.login("bob")
    ticket = ticket_in(at.ask(request("/", here))[0])
    assert status_of(at.ask(request("/out", here, ticket))[0]) == 200
    for old in (here, elsewhere):
        assert status_of(at.ask(request("/", old))[0]) == 401
    wait_until(lambda: linkis.redis.hkeys(HASH) == [bobs], "the ends there")
    assert status_of(at.ask(request("/", bobs))[0]) == 200


def test_without_write_back_nothing_is_written_there(moving, linkis):
    at, _ = moving(migration={"write_back": False}, ticket={"idle_timeout_s": 100})
    old = linkis.login(used_ms_ago=50_000)
    before_ms = linkis.used_ms(old)
    ticket = ticket_in(at.ask(request("/", old))[0])
    held = next(iter(at.call(lambda: list(at.service.exchange._held))))
    wait_until(lambda: held.seen, "a round of the watch")
    assert linkis.used_ms(old) == before_ms
    assert status_of(at.ask(request("/", None, ticket))[0]) == 200


def test_an_old_store_that_is_away_is_an_outage_of_exchanges_alone(moving, linkis):
    at, _ = moving(
        answers=answering_with({"/logout": b"X-Ticket-Logout: session"}), migration={"url": linkis.url(HASTY_MS)}
    )
    old, gone, unknown = linkis.login(), linkis.login("bob"), linkis.login("carol")
    ticket, ticket_gone = (ticket_in(at.ask(request("/", each))[0]) for each in (old, gone))
    linkis.server.pause()
    try:
        head, _ = at.ask(request("/", unknown))
        assert status_of(head) == 503
        assert b"retry-after" in fields_of(head)
        assert status_of(at.ask(request("/", old, ticket))[0]) == 200
        assert status_of(at.ask(request("/", old))[0]) == 200
        assert status_of(at.ask(request("/logout", gone, ticket_gone))[0]) == 200
        assert status_of(at.ask(request("/", gone, ticket_gone))[0]) != 200
    finally:
        linkis.server.resume()
    wait_until(lambda: linkis.used_ms(gone) is None, "the end there")
    wait_until(lambda: status_of(at.ask(request("/", unknown))[0]) == 200, "exchanges again")


@pytest.mark.parametrize(("mints", "away"), [("", {}), ("des", {"linkis": True})])
def test_after_the_last_day_nothing_is_exchanged_and_the_old_store_is_missed_for_tickets_alone(
    moving, linkis, origin, mints, away
):
    upstream = {"name": "app", "servers": [origin().address], "linkis_ticket": mints}
    at, _ = moving(migration={"until": "2020-01-01"}, upstream=[upstream])
    assert status_of(at.ask(request("/", linkis.login()))[0]) == 401
    linkis.server.kill()
    wait_until(lambda: at.call(lambda: at.service.exchange._watch._away), "a round that it did not answer")
    assert at.call(lambda: at.service.exchange.away) == away
    assert status_of(at.ask(request("/", TICKETS.seal("alice", 1, "des")))[0]) == 401


def test_the_auth_endpoint_exchanges_too(moving, linkis):
    at, _ = moving(gateway={"auth_path": "/auth"})
    head, _ = at.ask(request("/auth", linkis.login()))
    assert status_of(head) == 204
    assert fields_of(head)[b"x-forwarded-user"] == b"alice"
    assert status_of(at.ask(request("/", None, ticket_in(head)))[0]) == 200


def test_another_login_at_the_old_system_is_another_session(moving, linkis):
    """The upstream is the old gateway itself: a login there must not go on as the user before."""
    bob = linkis.login("bob")
    at, behind = moving(answers=answering_with({"/as-bob": f"Set-Cookie: {COOKIE}={bob}; Path=/".encode()}))
    alice = linkis.login("alice")
    ticket = ticket_in(at.ask(request("/", alice))[0])
    head, _ = at.ask(request("/as-bob", alice, ticket))
    assert status_of(head) == 200
    assert status_of(at.ask(request("/", None, ticket))[0]) == 401
    head, _ = at.ask(request("/", bob, ticket))
    assert fields_of(behind.requests[-1][0])[b"x-forwarded-user"] == b"bob"
    assert ticket_in(head) not in (None, ticket)


def test_an_application_that_reads_the_ticket_has_it_with_the_first_request(moving, linkis):
    at, behind = moving(ticket={"forward_ticket": True})
    old = linkis.login()
    ticket = ticket_in(at.ask(request("/", old, "AQ"))[0])  # and one that is none
    assert fields_of(behind.requests[-1][0])[b"cookie"] == f"{COOKIE}={old}; ticket={ticket}".encode()
    at.ask(request("/", old, ticket))
    assert fields_of(behind.requests[-1][0])[b"cookie"] == f"{COOKIE}={old}; ticket={ticket}".encode()
    at.ask(request("/", old, None, "Authorization: Ticket AQ"))
    seen = fields_of(behind.requests[-1][0])
    assert (seen[b"x-forwarded-user"], b"authorization" in seen) == (b"alice", False)


@pytest.mark.parametrize("kind", ["des", "aes-gcm"])
def test_a_service_of_linkis_gets_a_ticket_of_its_own(gateway, origin, linkis, kind):
    """Made once a session, in the hash while that lives, and nobody else's: the one that a client
    brings does not go on. Nor does a token, which nobody has checked here.
    """
    behind = answering_with({"/login": b"X-Ticket-Login: alice", "/logout": b"X-Ticket-Logout: session"})(origin)
    at = gateway(
        upstream=[{"name": "app", "servers": [behind.address], "linkis_ticket": kind}],
        migration=[{"source": "linkis", "url": f"redis://{linkis.server.address}/0", "until": NEVER}],
        routes=ROUTES,
        store={"lease_ms": LEASE_MS, "flush_interval_ms": 100},
    )

    def cookies_seen():
        return fields_of(behind.requests[-1][0]).get(b"cookie")

    foreign = linkis.login("mallory")
    ticket = ticket_in(at.ask(request("/login", foreign))[0])
    assert cookies_seen() == f"{COOKIE}={foreign}".encode()  # it was exchanged: it is mallory's
    for more in ((), ("Token-Code: eve", "token_user: eve", "Token-User: eve", "Cookie: theme=dark")):
        assert status_of(at.ask(request("/x", foreign, ticket, *more))[0]) == 200
        assert b"eve" not in behind.requests[-1][0]
    first, _, cookie = cookies_seen().partition(b"; ")
    assert first == b"theme=dark"
    name, _, minted = cookie.decode().partition("=")
    assert name == COOKIE
    assert (TICKETS.open(minted).user, TICKETS.open(minted).format) == ("alice", kind)
    assert set(linkis.redis.hkeys(HASH)) == {minted}  # the login has ended mallory's
    assert status_of(at.ask(request("/open", foreign))[0]) == 200
    assert cookies_seen() is None
    # from a service's log, say
    assert at.ask(request("/x", minted))[1] == b'{"error": "Unauthorized", "reason": "unknown_session", "status": -1}\n'
    assert status_of(at.ask(request("/logout", None, ticket))[0]) == 200
    assert linkis.used_ms(minted) is None
    assert counts_of(at)["minted"] == 1


def test_a_session_that_idled_out_here_while_it_was_used_there_begins_again(moving, linkis):
    at, _ = moving(ticket={"idle_timeout_s": 1}, gateway={"no_use_header": "X-No-Use"})
    old = linkis.login("alice")
    ticket = ticket_in(at.ask(request("/", old))[0])
    linkis.redis.hset(HASH, old, now_ms() + 60_000)  # its gateways' clock is ahead: it stays alive there

    def comes_back():
        head, _ = at.ask(request("/", old, ticket, "X-No-Use: 1"))
        return status_of(head) == 200 and ticket_in(head) not in (None, ticket)

    wait_until(comes_back, "the session again")

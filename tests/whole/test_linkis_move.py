"""The move from Apache Linkis as a whole, under load: fastticket is put in front of two
linkis-gateways, then in their place, then they are gone, and all the way back. Nobody is logged
out, and nobody is let in who should not be.

The gateways and services of Linkis are stand-ins, written from what is known of Linkis
(lab/linkis_service.py): whatever they say is Linkis' judgement, not fastticket's.
"""

import pytest
from conftest import BOUND_S
from lab.linkis_installation import TIMEOUT_MS, TOKEN, USER, Installation, ask, log_in
from lab.linkis_tickets import COOKIE, HASH, Tickets, now_ms
from lab.linkis_users import WHO, Crowd, User
from lab.redis_servers import wait_until

SESSIONS = 1000


def refused(address, user):
    """Whether it is, sooner or later. How soon: gateway/test_migration.py, on an idle machine."""
    return wait_until(lambda: ask(address, User(user.name, **user.cookies))[0] == 401, "it is refused", BOUND_S)


@pytest.fixture
def installation(tmp_path, era, monkeypatch):
    monkeypatch.setenv("LOGIN_PASSWORD", "wonder")
    made = Installation(tmp_path, era)
    with made.exits:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("era", ["1.8", "later"])
def test_the_move_logs_nobody_out_and_lets_nobody_in(installation, era):
    users = installation.seed(SESSIONS)
    old = [each.address for each in installation.old]
    with Crowd(users, list(old)) as crowd:
        crowd.go_round()
        assert not crowd.failures

        # In front of the old gateways: first for some of the requests, then for all.
        sites = installation.start_ours()
        ours = [each.address for each in sites]
        crowd.entry = [*old, *ours]
        crowd.go_round()
        crowd.entry = list(ours)
        crowd.go_round()
        assert not crowd.failures
        assert all("ticket" in user.cookies for user in users)
        see_nobody_let_in(installation, ours[0], old)
        see_ends_end_both(installation, ours, old)
        see_tokens_admit(ours, old)

        # In their place.
        for site in sites:
            assert site.reload(installation.configuration(in_place=True)).startswith("reloaded")
        crowd.go_round()
        assert not crowd.failures
        see_nobody_let_in(installation, ours[0], old)
        see_login_and_logout_in_place(installation, ours, old)
        see_tokens_admit(ours)

        # They are gone. Use keeps the old tickets alive: as if the sessions were nearly idle.
        for each in installation.old:
            installation.end(each)
        almost_idle_ms = now_ms() - TIMEOUT_MS * 9 // 10
        installation.hash.hset(HASH, mapping={user.cookies[COOKIE]: almost_idle_ms for user in users})
        crowd.go_round()
        wait_until(
            lambda: all(int(used) > almost_idle_ms for used in installation.hash.hmget(HASH, tickets_of(users))),
            "the last uses are written back",
            2 * BOUND_S,
        )
        assert not crowd.failures

        # And back.
        crowd.entry = [each.address for each in installation.start_old()]
        crowd.go_round()
        assert not crowd.failures


def tickets_of(users):
    return [user.cookies[COOKIE] for user in users]


def see_nobody_let_in(installation, ours, old):
    """Tickets that are none: forged, expired, or of nobody."""
    forged = User("hadoop", **{COOKIE: installation.ticket_of("hadoop")})
    expired = User("erin", **{COOKIE: installation.ticket_of("erin")})
    installation.hash.hset(HASH, expired.cookies[COOKIE], now_ms() - TIMEOUT_MS - 60_000)
    foreign = User("mallory", **{COOKIE: Tickets("1.8", "another-key").make("mallory", now_ms())})
    installation.hash.hset(HASH, foreign.cookies[COOKIE], now_ms())
    for user in (forged, expired, foreign, User("nobody")):
        assert ask(ours, user)[0] == 401, user.name
        assert "ticket" not in user.cookies
        assert ask(old[0], user)[0] == 401, user.name


def see_ends_end_both(installation, ours, old):
    """Two users log in at Linkis, through ours and not; each ends the session on one side."""
    there, here = log_in(old[0], "olga", "olga"), log_in(ours[0], "henry", "henry")
    for user in (there, here):
        assert [ask(address, user)[0] for address in ours] == [200, 200]
        assert "ticket" in user.cookies
    at_the_other = User("olga", **there.cookies)
    assert ask(old[1], at_the_other, f"{USER}/logout")[0] == 200
    before = User("henry", **here.cookies)
    assert ask(ours[1], here, f"{USER}/logout")[0] == 200
    for user in (there, before):
        for address in (*ours, *old):
            assert refused(address, user)


def see_tokens_admit(ours, also=()):
    """Programs, which have no session: services read their user from a ticket of Linkis."""
    for name in ("mike", "nina", "mike"):
        for address in (*ours, *also):
            status, said = ask(address, User(name), WHO, "GET", b"", f"Token-Code: {TOKEN}", f"Token-User: {name}")
            assert (status, said["data"]["user"]) == (200, name)
    assert ask(ours[0], User("mike"), WHO, "GET", b"", "Token-Code: ANOTHER-AUTH", "Token-User: mike")[0] == 401


def see_login_and_logout_in_place(installation, ours, old):
    """Our logout ends Linkis' session; a login without Linkis gets a session here."""
    user = log_in(old[0], "ines", "ines")
    assert ask(ours[0], user)[0] == 200
    before = User("ines", **user.cookies)
    assert ask(ours[1], user, f"{USER}/logout")[0] == 200
    for address in (*ours, *old):
        assert refused(address, before)
    newcomer = log_in(ours[0], "nora", "wonder")
    status, said = ask(ours[1], newcomer, f"{USER}/userInfo")
    assert (status, said["data"]) == (200, {"userName": "nora"})
    status, said = ask(ours[1], newcomer)
    assert (status, said["data"]["user"], said["data"]["cookies"]) == (200, "nora", [COOKIE])
    assert set(newcomer.cookies) == {"ticket"}

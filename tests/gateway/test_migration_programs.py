"""Tickets of Linkis that a gateway made for programs' tokens do not outlive what they were made
for.
"""

import pytest
from conftest import fields_of, status_of
from lab.redis_servers import wait_until
from test_migration import (
    COOKIE,
    HASH,
    LEASE_MS,
    NEVER,
    ROUTES,
    TICKETS,
    answering_with,
    linkis,  # noqa: F401 -- a fixture
    request,
)
from test_migration_held import slow, table_of, under_way  # noqa: F401 -- a fixture

from fastticket.commands.cli import main
from fastticket.gateway.migration.making import make_exchange
from fastticket.keyfile import create_key_file

TOKEN = '[[token]]\nname = "{0}"\ncode = "the-code-of-{0}"\nusers = ["*"]\nhosts = ["*"]\n'


def test_p2_a_programs_ticket_ends_with_its_token_its_users_sessions_and_its_gateway(
    site,
    origin,
    linkis,  # noqa: F811
    tmp_path,
):
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens.toml").write_text(TOKEN.format("one") + TOKEN.format("two"))
    behind = answering_with({})(origin)
    there = f"redis://{linkis.server.address}/1"
    app = {"name": "app", "servers": [behind.address], "linkis_ticket": "des"}
    more = {"tokens": {"file": "tokens.toml"}, "upstream": [app]}
    table = table_of(behind, linkis) | more
    at = site(table | {"store": table["store"] | {"url": there}})

    def ticket_of(name, user):
        head, _ = at.ask(request("/", None, None, f"Token-Code: the-code-of-{name}", f"Token-User: {user}"))
        assert status_of(head) == 200
        return fields_of(behind.requests[-1][0])[b"cookie"].decode().partition(f"{COOKIE}=")[2]

    def there_now():
        return {TICKETS.open(ticket).user for ticket in linkis.redis.hkeys(HASH)}

    alices = ticket_of("one", "alice")
    assert ticket_of("one", "alice") == alices
    ticket_of("two", "bob")
    ticket_of("one", "carol")
    assert there_now() == {"alice", "bob", "carol"}
    main(["revoke", "--user", "alice", "--store", there])
    wait_until(lambda: there_now() == {"bob", "carol"}, "the end of alice's")
    wait_until(lambda: ticket_of("one", "alice") != alices, "another one")
    assert there_now() == {"alice", "bob", "carol"}
    (tmp_path / "tokens.toml").write_text(TOKEN.format("two"))
    at.reload()
    wait_until(lambda: there_now() == {"bob"}, "the ends with the token")
    at.stop()
    assert there_now() == set()


def told(at, name, user):
    return status_of(at.ask(request("/", None, None, f"Token-Code: the-code-of-{name}", f"Token-User: {user}"))[0])


def test_the_tokens_in_force_judge_alone_while_the_configuration_before_retires(
    site,
    linkis,  # noqa: F811
    slow,  # noqa: F811
    tmp_path,
):
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens.toml").write_text(TOKEN.format("one"))
    app = {"name": "app", "servers": [slow.address], "linkis_ticket": "des"}
    at = site(table_of(slow, linkis) | {"tokens": {"file": "tokens.toml"}, "upstream": [app]})
    assert told(at, "one", "alice") == 200
    with under_way(at, slow):
        (tmp_path / "tokens.toml").write_text(TOKEN.format("one") + TOKEN.format("two"))
        at.reload()
        assert told(at, "two", "bob") == 200
        (bobs,) = (ticket for ticket in linkis.redis.hkeys(HASH) if TICKETS.open(ticket).user == "bob")
        (tmp_path / "tokens.toml").write_text(TOKEN.format("two"))
        at.reload()
        wait_until(lambda: linkis.redis.hlen(HASH) == 1, "a round in which the first token's was ended")
        assert linkis.redis.hkeys(HASH) == [bobs]


@pytest.fixture
def at(gateway, origin, linkis, tmp_path):  # noqa: F811
    (tmp_path / "tokens.toml").write_text(TOKEN.format("one"))
    table = {"source": "linkis", "url": f"redis://{linkis.server.address}/0?timeout_ms=2000", "until": NEVER}
    return gateway(
        upstream=[{"name": "app", "servers": [origin().address], "linkis_ticket": "des"}],
        migration=[table],
        routes=ROUTES,
        tokens={"file": "tokens.toml"},
        store={"lease_ms": LEASE_MS, "flush_interval_ms": 100},
    )


def test_a_reload_that_fails_takes_nothing_away_and_leaves_nothing_behind(at, linkis):  # noqa: F811
    before = at.service.exchange
    never_begun = [at.call(lambda: make_exchange(at.config, at.cache, before)) for _ in range(2)]
    assert told(at, "one", "alice") == 200
    at.run(never_begun[0].aclose())
    assert at.call(lambda: before.now) == {"held": 1, "late": 0}
    assert linkis.redis.hlen(HASH) == 1
    at.stop()
    assert linkis.redis.hlen(HASH) == 0


def test_none_that_is_over_is_forgotten_before_the_old_store_was_told(at, linkis):  # noqa: F811
    """It is silent, and the gateway may stop at any time."""
    exchange = at.service.exchange
    for user in ("alice", "bob", "carol"):
        assert told(at, "one", user) == 200
    linkis.server.pause()
    try:
        at.call(lambda: setattr(exchange._programs, "_tokens", None))  # as if none were in the file
        late = wait_until(lambda: at.call(lambda: not exchange._programs._made and exchange.now), "a round")["late"]
        assert late == 3
    finally:
        linkis.server.resume()
    at.stop()
    assert linkis.redis.hlen(HASH) == 0

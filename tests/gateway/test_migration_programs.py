"""Tickets of Linkis that a gateway made for programs' tokens do not outlive what they were made
for.
"""

from conftest import fields_of, status_of
from lab.redis_servers import wait_until
from test_migration import (
    COOKIE,
    HASH,
    TICKETS,
    answering_with,
    linkis,  # noqa: F401 -- a fixture
    request,
)
from test_migration_held import table_of

from fastticket.commands.cli import main
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

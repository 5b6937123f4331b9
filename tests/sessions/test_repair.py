"""After a gap what is held is looked up again, even if that fails at first: a later outage finds it
known.
"""

from __future__ import annotations

from lab.model_store import in_virtual_time, is_load, pass_ms
from lab.virtual_gateways import gateway, new_server, said_of


@in_virtual_time
async def test_p8_what_was_held_through_a_gap_and_a_short_failure_after_it_is_admitted_in_a_later_outage():
    server = new_server(shards=1)
    async with gateway(server) as (other, _), gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(600)
        await other.login("bob")
        server.logs[0].lose(entries=10)
        repairing = store.hold_requests(is_load)
        await repairing.arrival()
        store.wire.is_down = True
        repairing.open()
        await pass_ms(700)
        store.wire.is_down = False
        await pass_ms(20_000)
        assert cache.stats["shards_away"] == 0
        store.wire.is_down = True
        await pass_ms(5_000)
        assert await said_of(cache, ticket) == "alice"

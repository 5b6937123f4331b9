"""Settings that change while a ticket cache serves. In virtual time."""

import pytest
from lab.model_store import in_virtual_time, pass_ms
from lab.virtual_gateways import LEASE_MS, gateway, new_server, said_of

from fastticket.errors import ConfigError, TooManySessions
from fastticket.sessions.settings import ChangeableNames, SettingNames


@in_virtual_time
async def test_lifetimes_are_of_sessions_that_begin():
    async with gateway(new_server()) as (cache, _):
        before = await cache.login("alice")
        cache.change_settings(idle_timeout_s=10, absolute_lifetime_s=20, remember_lifetime_s=40)
        after, remembered = await cache.login("bob"), await cache.login("carol", remember=True)
        assert (cache.absolute_lifetime_s, cache.remember_lifetime_s) == (20, 40)
        await pass_ms(15_000)
        assert [await said_of(cache, ticket) for ticket in (before, after, remembered)] == ["alice", "idle", "carol"]
        await pass_ms(30_000)
        assert [await said_of(cache, ticket) for ticket in (before, remembered)] == ["alice", "expired"]


@in_virtual_time
async def test_the_limit_of_sessions_is_of_logins_that_come():
    async with gateway(new_server()) as (cache, _):
        tickets = [await cache.login("alice") for _ in range(3)]
        cache.change_settings(sessions_max=2, sessions_max_policy="refuse")
        assert [await said_of(cache, ticket) for ticket in tickets] == ["alice"] * 3
        with pytest.raises(TooManySessions):
            await cache.login("alice")


@in_virtual_time
async def test_the_policy_of_outages_is_of_those_that_come():
    async with gateway(new_server()) as (cache, store):
        ticket = await cache.login("alice")
        assert await said_of(cache, ticket) == "alice"
        cache.change_settings(outage_policy="deny")
        store.wire.is_down = True
        await pass_ms(2 * LEASE_MS)
        assert await said_of(cache, ticket) == "store_unavailable"


@in_virtual_time
async def test_settings_that_contradict_each_other_change_nothing():
    async with gateway(new_server()) as (cache, _):
        with pytest.raises(ConfigError, match="shorter than four flush intervals"):
            cache.change_settings(absolute_lifetime_s=5, idle_timeout_s=1)
        assert cache.absolute_lifetime_s == 600


def test_what_changes_is_a_setting():
    assert set(ChangeableNames.__annotations__) < set(SettingNames.__annotations__)

"""A shard whose server was replaced while its slot is being moved in a Cluster."""

from __future__ import annotations

import pytest
from lab.redis_servers import ClusterSetup
from lab.store_contract import add_session, bars_of, is_there, new_session

import fastticket
from fastticket.errors import StoreUnavailable
from fastticket.stores.contract import Reply, Request, shard_of

PATIENT = "{}?timeout_ms=10000"  # a server on a busy machine may be silent for longer than the default


@pytest.fixture
def cluster(tmp_path):
    cluster = ClusterSetup(tmp_path)
    yield cluster
    cluster.close()


async def test_p8_ends_are_made_again_while_the_slot_is_being_moved(cluster):
    """Nothing has been moved yet; that can last, if whoever moves it has died."""
    store, other = (fastticket.open_store(PATIENT.format(cluster.url)) for _ in range(2))
    await store.open()
    await other.open()
    try:
        shard = shard_of("alice", store.shards)
        position = (await store.exchange({shard: Request(None)}))[shard].position
        await other.create(await new_session(other))  # an empty set of live ones would be a key that is nowhere, too
        for _ in range(3):
            session = await new_session(other)
            await other.create(session)
            await other.revoke(session.id, session.principal)
        position = (await store.exchange({shard: Request(position)}))[shard].position
        slot = store._sender.slots[shard]
        source = cluster.owner_of(slot)
        target = next(each for each in cluster.primaries if each is not source)
        target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", source.admin("CLUSTER MYID"))
        source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", target.admin("CLUSTER MYID"))
        store._takeover.note([shard])
        reply = (await store.exchange({shard: Request(position)}))[shard]
        assert isinstance(reply, Reply)
        assert reply.replaced
    finally:
        await store.aclose()
        await other.aclose()


async def test_p6_an_end_of_all_whose_bar_is_out_of_reach_is_not_acknowledged(cluster):
    """A bar that is nowhere may be at the server that the slot is moved to."""
    store = fastticket.open_store(PATIENT.format(cluster.url))
    await store.open()
    try:
        session = await add_session(store)
        slot = store._sender.slots[shard_of("alice", store.shards)]
        source = cluster.owner_of(slot)
        target = next(each for each in cluster.primaries if each is not source)
        source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", target.admin("CLUSTER MYID"))
        with pytest.raises(StoreUnavailable):
            await store.revoke_all("alice")
        assert await is_there(store, session)
        source.admin("CLUSTER", "SETSLOT", slot, "STABLE")
        assert list(await store.revoke_all("alice")) == [session.id]
        assert [bar.principal for bar in await bars_of(store)] == ["alice"]
    finally:
        await store.aclose()

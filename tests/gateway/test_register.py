"""The fleet's register: gateways announce themselves in the store, and see each other there."""

import asyncio
import json
import os
import signal

from conftest import BOUND_S
from lab.redis_servers import wait_until
from lab.web_stores import CountedStore

import fastticket
from fastticket import Keyring, TicketCache, open_store
from fastticket.gateway import register
from fastticket.gateway.register import LEASE_MS, p99_ms_of, rates_of
from fastticket.keyfile import create_key_file
from fastticket.testing.memory import MemoryStore


def test_gateways_are_in_the_register_from_their_start_to_their_end(site, redis_server, tmp_path):
    """A worker that is replaced changes nothing of a gateway's id; SIGTERM takes it out at once; of
    one that was killed, the lease ends.
    """
    create_key_file(tmp_path / "keys.toml")

    def start(name):
        return site(
            {
                "gateway": {"listen": ["127.0.0.1:0"], "admin": f"unix:{name}.sock"},
                "ticket": {"keys": "keys.toml"},
                "store": {"url": f"redis://{redis_server.address}"},
                "upstream": [{"name": "app", "servers": ["127.0.0.1:9"]}],
                "route": [{"path": "/"}],
            }
        )

    async def read():
        store = open_store(f"redis://{redis_server.address}")
        await store.open()
        try:
            return {gateway_id: json.loads(card) for gateway_id, card in (await store.gateways()).items()}
        finally:
            await store.aclose()

    def known(count):
        return wait_until(
            lambda: found if len(found := asyncio.run(read())) == count else None, f"{count} gateways", BOUND_S
        )

    one, two = start("one"), start("two")
    cards = {card["pid"]: card for card in known(2).values()}
    assert cards.keys() == {one.pid, two.pid}
    card = cards[one.pid]
    assert (card["admin"], card["version"]) == (f"unix:{tmp_path}/one.sock", fastticket.__version__)
    assert (card["figures"]["store"], card["figures"]["servers"], card["figures"]["threads"]) == ("up", 1, 1)
    redis_server.admin("FLUSHALL")
    (worker,) = one.workers()
    os.kill(worker, signal.SIGKILL)
    assert {each["id"] for each in known(2).values()} == {each["id"] for each in cards.values()}
    one.stop()
    assert known(1).keys() == {cards[two.pid]["id"]}
    two.at.kill()
    now_ms = redis_server.client().time()[0] * 1000
    ends_ms = redis_server.admin("ZSCORE", "{ft:000}:gateways", cards[two.pid]["id"])
    assert ends_ms is None or float(ends_ms) <= now_ms + 1000 + LEASE_MS


def test_without_the_store_the_view_has_this_gateway_and_says_since_when(gateway, origin, monkeypatch):
    """What was known of the others stays; what another program wrote need not be a card."""
    monkeypatch.setattr(register, "LOOK_AGAIN_S", 0.0)
    store = MemoryStore()
    monkeypatch.setattr("fastticket.gateway.settings.Config.open_store", lambda _: store)
    at = gateway(origin())
    other = store.another()

    async def fill():
        await other.open()
        for name, card in {"x": b"no json", "y": b"[1]", "z": b'{"host": "away", "figures": 3}'}.items():
            await other.announce(name, card, LEASE_MS)

    at.run(fill())
    view = at.run(at.worker.register.view())
    own, *others = view["gateways"]
    assert (own["id"], own["pid"], view["unknown_since_ms"]) == (view["self"], os.getpid(), None)
    assert others == [register.NOTHING_SAID | {"id": "z", "host": "away", "figures": {}}]
    store.is_away = True
    away = at.run(at.worker.register.view())
    assert [card["id"] for card in away["gateways"]] == [view["self"], "z"]
    assert view["known_at_ms"] == away["known_at_ms"] <= away["unknown_since_ms"]
    assert at.run(at.worker.register.view())["unknown_since_ms"] == away["unknown_since_ms"]
    store.is_away = False
    assert at.run(at.worker.register.view())["unknown_since_ms"] is None


def test_many_who_look_read_the_register_once(gateway, origin, monkeypatch):
    store = CountedStore()
    monkeypatch.setattr("fastticket.gateway.settings.Config.open_store", lambda _: store)
    at = gateway(origin())

    async def look():
        return await asyncio.gather(*(at.worker.register.view() for _ in range(50)))

    views = at.run(look())
    assert len(views) == 50
    assert store.asked["gateways"] == 1


async def test_a_cache_in_a_program_of_its_own_announces_nothing(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    store = MemoryStore()
    async with TicketCache(store, Keyring.from_file(tmp_path / "keys.toml")) as cache:
        await cache.login("alice")
        assert await store.gateways() == {}


def test_figures_are_of_the_time_between_two_looks():
    before = {"requests": 100, "refused": {"expired": 3}, "answers": {"5xx": 1}, "latency_us": [(1024, 100), (None, 0)]}
    after = {
        "requests": 300,
        "refused": {
            "expired": 4,
            "revoked": 3,
            "store_unavailable": 3,
            "old_store_unavailable": 1,
        },  # the last two failed
        "answers": {"5xx": 5},
        "loads": 40,
        "latency_us": [(1024, 298), (4096, 1), (8192, 1), (None, 0)],
    }
    assert rates_of(before, after, 2.0) == {
        "requests_per_s": 100.0,
        "refused_per_s": 2.0,
        "failed_per_s": 2.0,
        "loads_per_s": 20.0,
        "p99_ms": 1.024,
    }
    assert rates_of(after, after, 2.0)["p99_ms"] is None
    assert p99_ms_of([], [(1024, 0), (4096, 1), (None, 2)]) == 4.096

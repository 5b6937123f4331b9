"""A fleet moves from SQLite to Redis and to a Cluster with another number of shards while it
serves, as docs/how-to/move-store.md says: nobody is logged out, nothing is lost, and nobody comes
back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sys

import pytest
from conftest import BOUND_S, status_of
from lab.processes import Site
from lab.redis_servers import ClusterSetup, wait_until
from lab.store_contract import attributes_of, scan_all
from lab.traffic import get

from fastticket import Keyring, StoreUnavailable, TicketCache, TicketRefused, open_store
from fastticket.keyfile import create_key_file

SESSIONS = 150
CLIENTS = 3
IDLE_S = 15  # a use that was lost in a move would show: each stage takes seconds
LIFETIMES = {"idle_timeout_s": IDLE_S, "absolute_lifetime_s": 3600}
ROUTES = {"route": [{"path": "/"}]}


@pytest.fixture
async def fleet(tmp_path, origin, redis_server):
    with contextlib.closing(ClusterSetup(tmp_path)) as cluster:
        made = Fleet(tmp_path, origin().address)
        made.redis, made.cluster = redis_server, f"{cluster.url}?shards=32"
        try:
            yield made
        finally:
            await made.close()


def patient(url):
    """The URL of a store that is the truth, which may have to wait for a processor."""
    return url if url.startswith("sqlite") else f"{url}{'&' if '?' in url else '?'}timeout_ms=5000"


class Fleet:
    """Two gateways, an application with a cache of its own, and clients that go to both
    gateways.
    """

    def __init__(self, folder, behind):
        self.folder, self.behind, self.sites, self.cache = folder, behind, [], None
        self.tickets = {}  # by session id, of those who must get in
        self.values = {}
        self.ended = []
        self.failures, self.asked, self.changed, self.refused_changes = [], 0, 0, 0
        self.is_over = False
        self.changing = asyncio.Lock()
        create_key_file(folder / "keys.toml")

    def config(self, url, mirror_url):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 5.0},
            "ticket": {"keys": str(self.folder / "keys.toml"), **LIFETIMES},
            "store": {"url": patient(url), "flush_interval_ms": 200, "mirror_url": mirror_url},
            "upstream": [{"name": "app", "servers": [self.behind]}],
            **ROUTES,
        }

    async def start(self, url):
        for number in range(2):
            folder = self.folder / f"gateway{number}"
            folder.mkdir()
            self.sites.append(await asyncio.to_thread(Site, folder, self.config(url, "")))
        await self._open(url, "")

    async def stage(self, url, mirror_url=""):
        """One process after the other. Those in between serve beside each other."""
        for site in self.sites:
            address = site.address
            config = self.config(url, mirror_url)
            config["gateway"]["listen"] = [f"{address[0]}:{address[1]}"]
            said = await asyncio.to_thread(site.reload, config)
            assert said.startswith("reloaded: "), said
        await self._open(url, mirror_url)

    async def _open(self, url, mirror_url):
        before, keys = self.cache, Keyring.from_file(self.folder / "keys.toml")
        cache = TicketCache(open_store(patient(url), mirror_url=mirror_url), keys, flush_interval_ms=200, **LIFETIMES)
        await cache.open()
        self.cache = cache
        if before:
            await before.aclose()

    async def close(self):
        for site in self.sites:
            await asyncio.to_thread(site.stop)
        if self.cache:
            await self.cache.aclose()

    # --- clients

    async def ask_without_end(self, number):
        """Each session again and again, now here, now there."""
        chance, connections = random.Random(number), {}
        while not self.is_over:
            known = list(self.tickets.items())[number::CLIENTS]
            for session_id, ticket in known:
                site = chance.choice(self.sites)
                status = await self._ask(connections, site, ticket)
                if status != 200 and session_id in self.tickets and self.tickets[session_id] == ticket:
                    self.failures.append((session_id[:6], status))
                self.asked += 1
                await asyncio.sleep(0)
        for _, writer in connections.values():
            await _closed(writer)

    async def _ask(self, connections, site, ticket):
        for _ in range(3):  # a worker that leaves closes connections that are idle
            try:
                if site not in connections:
                    connections[site] = await asyncio.open_connection(*site.address)
                reader, writer = connections[site]
                writer.write(get(ticket))
                async with asyncio.timeout(BOUND_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    await reader.readexactly(length)
            except (OSError, EOFError):
                if site in connections:
                    await _closed(connections.pop(site)[1])
                continue
            if b"connection: close" in head.lower():
                await _closed(connections.pop(site)[1])
            return status_of(head)
        return 0

    # --- the application

    async def change_without_end(self):
        """Logins, logouts, new ids and attributes; what a store refuses is tried again later."""
        chance = random.Random(7)
        while not self.is_over:
            try:
                async with self.changing:
                    await self._change(chance)
                self.changed += 1
            except StoreUnavailable:
                self.refused_changes += 1
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.01)

    async def _change(self, chance):
        cache, act = self.cache, chance.choice(("login", "logout", "rotate", "write", "write"))
        if act == "login" or len(self.tickets) < SESSIONS // 2:
            ticket = await cache.login(f"user{chance.randrange(50)}", details={"agent": "ü"})
            session = await cache.authenticate(ticket)
            self.values[session.id] = {}
            self.tickets[session.id] = ticket
            return
        session_id = chance.choice(list(self.tickets))
        ticket = self.tickets[session_id]
        if act == "write":
            session = await cache.authenticate(ticket)
            name, value = f"n{chance.randrange(4)}", chance.random()
            async with cache.attributes(session) as attributes:
                attributes[name] = value
            self.values[session_id][name] = value
            return
        del self.tickets[session_id]  # from now on it may be refused
        values = self.values.pop(session_id)
        try:
            if act == "logout":
                await cache.logout(ticket)
            else:
                new = await cache.rotate(ticket)
                session = await cache.authenticate(new)
                self.values[session.id] = values
                self.tickets[session.id] = new
        except StoreUnavailable:
            self.ended.append((ticket, False))  # perhaps
            raise
        self.ended.append((ticket, True))

    async def log_in(self, count):
        for number in range(count):
            ticket = await self.cache.login(f"user{number % 50}", details={"agent": "ü"})
            session = await self.cache.authenticate(ticket)
            async with self.cache.attributes(session) as attributes:
                attributes["n0"] = number
            self.values[session.id] = {"n0": number}
            self.tickets[session.id] = ticket

    async def expect(self, url):
        """What must be true of the store that is the truth now, and of the gateways."""
        for ticket, is_certain in self.ended:
            if is_certain:
                with pytest.raises(TicketRefused):
                    await self.cache.authenticate(ticket, touch=False)
        store = open_store(url)
        await store.open()
        try:
            async with self.changing:
                found = await scan_all(store)
                for session_id in self.tickets:
                    stored = await attributes_of(store, found[session_id])
                    assert {name: float(value) for name, value in stored.items()} == self.values[session_id]
        finally:
            await store.aclose()

    def refused(self):
        """Those that have ended, at each gateway."""
        for ticket, is_certain in self.ended[-40:]:
            for site in self.sites if is_certain else ():
                wait_until(lambda t=ticket, at=site: status_of(at.ask(get(t))[0]) == 401, "it has heard of it", BOUND_S)

    async def go_on_while_stopped(self, server):
        """What the mirror does not answer for holds up nobody who has a ticket."""
        asked = self.asked
        server.pause()
        try:
            await asyncio.to_thread(wait_until, lambda: self.asked > asked + 2000, "requests go on", BOUND_S)
        finally:
            server.resume()

    async def command(self, *words, killed_after_s=None):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fastticket", *words, stdout=asyncio.subprocess.PIPE, cwd=self.folder
        )
        if killed_after_s is not None:
            await asyncio.sleep(killed_after_s)  # wherever it is by then
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        output, _ = await process.communicate()
        return process.returncode, output.decode()


async def _closed(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_p6_a_fleet_moves_from_sqlite_to_redis_to_a_cluster_and_nobody_is_logged_out(fleet):
    sqlite, redis = f"sqlite:///{fleet.folder}/tickets.db", f"redis://{fleet.redis.address}/1"
    await fleet.start(sqlite)
    await fleet.log_in(SESSIONS)
    tasks = [asyncio.create_task(fleet.ask_without_end(number)) for number in range(CLIENTS)]
    tasks.append(asyncio.create_task(fleet.change_without_end()))
    try:
        for old, new in ((sqlite, redis), (redis, fleet.cluster)):
            await fleet.stage(old, mirror_url=new)
            await fleet.command("copy", "--store", old, "--mirror", new, "--rate", "200", killed_after_s=0.8)
            if new == redis:
                await fleet.go_on_while_stopped(fleet.redis)
            os.kill(fleet.sites[0].workers()[0], signal.SIGKILL)
            code, said = await fleet.command("copy", "--store", old, "--mirror", new)
            assert code == 0
            # Logins that nobody got a ticket for: the mirror took them after they were given up.
            assert re.search(r"^\d+ that only the mirror had, ", said, re.MULTILINE)
            await fleet.expect(new)
            await fleet.stage(new, mirror_url=old)
            await fleet.expect(new)
            await fleet.stage(new)
        asked = fleet.asked
        have_come = lambda: fleet.asked > asked + 500 and fleet.changed > 50  # noqa: E731
        await asyncio.to_thread(wait_until, have_come, "all were asked again, and some changed", 3 * BOUND_S)
    finally:
        fleet.is_over = True
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert ends == [None] * len(tasks)
    await fleet.expect(fleet.cluster)
    fleet.refused()
    assert fleet.failures == []
    print(
        f"asked {fleet.asked}, changed {fleet.changed}, not changed {fleet.refused_changes}, ended {len(fleet.ended)}"
    )


async def test_the_audience_changes_and_nobody_is_logged_out(fleet):
    """First every process accepts the other audience, then every process signs for it."""
    url = f"sqlite:///{fleet.folder}/tickets.db"
    await fleet.start(url)
    keys = fleet.folder / "keys.toml"
    async with TicketCache(open_store(url), Keyring.from_file(keys, "new")) as application:
        old, new = await fleet.cache.login("alice"), await application.login("alice")
        stages = (("default", ["new"], (new, 200)), ("new", ["default"], None), ("new", [], (old, 401)))
        assert [status_of(site.ask(get(new))[0]) for site in fleet.sites] == [401, 401]
        for audience, accepted, difference in stages:
            for site in fleet.sites:
                config = fleet.config(url, "")
                config["gateway"]["listen"] = [f"{site.address[0]}:{site.address[1]}"]
                config["ticket"] |= {"audience": audience, "accept_audiences": accepted}
                assert (await asyncio.to_thread(site.reload, config)).startswith("reloaded: ")
                if difference:  # the worker before answers for a moment longer who has knocked
                    ticket, status = difference
                    wait_until(lambda at=site, t=ticket, s=status: status_of(at.ask(get(t))[0]) == s, "it", BOUND_S)
                for ticket in {old, new} - {difference and difference[0]}:
                    assert status_of(site.ask(get(ticket))[0]) == 200

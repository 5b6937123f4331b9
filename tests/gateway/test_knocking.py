"""Servers that are away are asked for a connection: each in its turn, and what comes of it is said
of the server alone.
"""

import asyncio
import contextlib
import os
import resource
import socket

import pytest
from conftest import BOUND_S

from fastticket.dataplane.upstreams import Upstreams, report
from fastticket.gateway import knocking
from fastticket.gateway.knocking import Knocking

LONG_AGO_MS = 1


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(knocking, "LOOK_S", 0.01)


def group_of(*servers):
    made = Upstreams()
    made.add_group()
    made.set_servers(0, [(server, 1) for server in servers])
    for server in servers:
        report(made, 0, server, "failed", LONG_AGO_MS)
    return made


@contextlib.asynccontextmanager
async def knocking_at(upstreams):
    made = Knocking(upstreams, 1)
    made.start()
    try:
        async with asyncio.timeout(BOUND_S):
            yield made
    finally:
        await made.stop()


async def until(holds):
    while not holds():  # noqa: ASYNC110 -- there is no event of it
        await asyncio.sleep(0)


async def one_knock(at):
    await until(lambda: at._knocks)
    await until(lambda: not at._knocks)


def test_each_has_its_turn(monkeypatch):
    """Also one behind others that are due again as soon as they were asked: of many that are silent
    the first ones are, before the last ones were asked once.
    """
    monkeypatch.setattr(knocking, "AT_ONCE", 1)
    asked = []

    async def main():
        async def fail_again(reader, writer):
            address = writer.get_extra_info("sockname")
            asked.append(address)
            await reader.read()
            writer.close()
            await until(lambda: address not in at.unreached(0, 0))  # it is said that it took the connection
            report(at, 0, address, "failed", LONG_AGO_MS)

        listening = [await asyncio.start_server(fail_again, "127.0.0.1", 0) for _ in range(3)]
        addresses = [each.sockets[0].getsockname() for each in listening]
        at = group_of(*addresses)
        async with knocking_at(at):
            await until(lambda: len(asked) >= len(addresses))
        for each in listening:
            each.close()
        assert asked[:3] == addresses

    asyncio.run(main())


def test_what_the_gateway_lacks_itself_says_nothing_of_a_server():
    """A server that is back is not kept away for longer, because there is no descriptor to ask it
    with.
    """

    async def main(address):
        at = group_of(address)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        held = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            async with knocking_at(at) as made:
                await one_knock(made)
            assert at.unreached(0, 0) == [address]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in held:
                os.close(each)

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(main(server.getsockname()))


def test_a_unix_socket_whose_queue_is_full_takes_no_connection(tmp_path):
    path = str(tmp_path / "app.sock")

    async def main():
        at = group_of(path)
        async with knocking_at(at) as made:
            await one_knock(made)
        assert [(each["state"], each["why"]) for each in at.state()] == [("down", "Resource temporarily unavailable")]

    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(path)
        full.listen(0)
        waiting.connect(path)
        asyncio.run(main())

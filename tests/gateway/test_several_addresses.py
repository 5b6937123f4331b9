"""A name with addresses of two families is one server, reached by whichever of them answers:
`localhost` that is ::1, or both.

Rule: on the addresses of the first family nobody listens, unless a test says so; `app.test` has
those that `names` lists.
"""

import asyncio
import contextlib
import errno
import socket
import threading

import pytest
from conftest import BOUND_S, OK, Client, family_of, status_of
from lab.redis_servers import Server, free_port, wait_until
from test_gateway_upstreams import GET, says, state_of, upstream

from fastticket.dataplane.upstreams import Upstreams, picks, report
from fastticket.gateway.lookups import fallbacks_of
from fastticket.stores.redis import connecting
from fastticket.stores.redis.address import Place

V4, V6, OTHER_V4 = ("127.0.0.1", 9000), ("::1", 9000), ("127.0.0.2", 9000)
FIRST, SECOND, OTHER = "127.0.0.1:9000", "[::1]:9000", "127.0.0.2:9000"


def end(listener):
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def also_on():
    """`also_on(origin, host, port=0)`: the origin serves there, too; its port."""
    with contextlib.ExitStack() as stack:

        def listen(server, host, port=0):
            listener = socket.create_server((host, port), family=family_of(host))
            stack.callback(end, listener)

            def accept():
                with contextlib.suppress(OSError):
                    while True:
                        server._start(Client(fileno=listener.accept()[0].detach()))

            threading.Thread(target=accept, daemon=True).start()
            return listener.getsockname()[1]

        yield listen


# -------------------------------------------------------------------------------------- the gateway


@pytest.mark.parametrize("addresses", [["::1"], ["127.0.0.1", "::1"], ["::1", "127.0.0.1"]])
@pytest.mark.parametrize("retry_percent", [20, 0])
def test_a_server_on_ipv6_alone_is_found(gateway, origin, names, also_on, addresses, retry_percent):
    names[:] = addresses
    port = also_on(says(origin, "here"), "::1")
    at = gateway(**upstream(f"app.test:{port}", retry_percent=retry_percent))
    assert [at.ask(GET)[1] for _ in range(5)] == [b"here"] * 5


def test_a_knock_earns_no_retry(gateway, origin, names, also_on):
    """An upstream without retries has none, however often the first address refuses."""
    names[:] = ["127.0.0.1", "::1"]

    def serve(connection):
        server.request(connection)
        connection.sendall(OK)
        server.request(connection)  # and closes without an answer

    server = origin(serve)
    port = also_on(server, "::1")
    at = gateway(**upstream(f"app.test:{port}", retry_percent=0))
    assert status_of(at.ask(GET)[0]) == 200
    for _ in range(3):
        at.call(at.worker.proxy.upstreams.knocked, 0, ("127.0.0.1", port), errno.ECONNREFUSED)
    assert status_of(at.ask(GET)[0]) == 502
    assert len(server.requests) == 2


def test_a_server_on_both_is_one(gateway, origin, names, also_on):
    names[:] = ["::1", "127.0.0.1"]
    server, second = says(origin, "first"), says(origin, "second")
    port = int(server.address.rpartition(":")[2])
    also_on(second, "::1", port)
    at = gateway(**upstream(f"app.test:{port}", connections_max=1))
    assert {at.ask(GET)[1] for _ in range(6)} == {b"first"}
    server.close()
    assert {at.ask(GET)[1] for _ in range(6)} == {b"second"}
    assert state_of(at, f"[::1]:{port}")["state"] == "up"


def test_an_address_that_is_a_server_by_itself_is_no_second(gateway, origin, names, also_on):
    names[:] = ["::1", "127.0.0.1"]
    server = says(origin, "first")
    port = int(server.address.rpartition(":")[2])
    also_on(says(origin, "itself"), "::1", port)
    at = gateway(**upstream(f"app.test:{port}", f"[::1]:{port}"))
    assert {at.ask(GET)[1] for _ in range(6)} == {b"first", b"itself"}


def test_that_nobody_listens_on_a_second_address_is_not_said(gateway, origin, names, caplog):
    names[:] = ["::1", "127.0.0.1"]
    server = says(origin, "here")
    port = int(server.address.rpartition(":")[2])
    at = gateway(**upstream(f"app.test:{port}", health_path="/health", health_interval_s=0.05))
    wait_until(lambda: len(server.requests) >= 6, "many checks")
    shown = [state["server"] for state in at.call(at.worker.proxy.upstreams.state)]
    assert shown == [f"127.0.0.1:{port}"]  # nor is it a server that is down to who watches the metrics
    assert "is not well" not in caplog.text
    assert {at.ask(GET)[1] for _ in range(4)} == {b"here"}


def test_a_name_that_loses_a_family(gateway, origin, names, also_on):
    names[:] = ["::1", "127.0.0.1"]
    server = says(origin, "first")
    port = int(server.address.rpartition(":")[2])
    also_on(says(origin, "second"), "::1", port)
    at = gateway(**upstream(f"app.test:{port}"))
    names[:] = ["::1"]
    at.run(at.service.upstreams._groups[0].resolve())
    assert {at.ask(GET)[1] for _ in range(4)} == {b"second"}
    names[:] = ["::1", "127.0.0.1"]
    at.run(at.service.upstreams._groups[0].resolve())
    assert {at.ask(GET)[1] for _ in range(4)} == {b"first"}


def test_more_addresses_than_a_group_may_have_are_those_of_the_first_family(gateway, origin, names):
    server = says(origin, "here")
    port = int(server.address.rpartition(":")[2])
    names[:] = ["127.0.0.1", *(f"fd00::{number:x}" for number in range(1, 257))]
    at = gateway(**upstream(f"app.test:{port}"))
    assert at.ask(GET)[1] == b"here"


# --------------------------------------------------------------------------------- who has its turn


def group_of(servers, seconds, **options):
    made = Upstreams()
    made.add_group(slow_return_ms=0, **options)
    made.set_servers(0, [(server, 1) for server in servers], seconds)
    return made


@pytest.mark.parametrize("balance", ["round_robin", "least_connections", "ip_hash"])
def test_a_second_has_its_turn_while_no_first_is_up(balance):
    at = group_of([V4, OTHER_V4, V6], [([V4, OTHER_V4], [V6])], balance=balance)
    keys = range(1, 9) if balance == "ip_hash" else [0] * 8
    assert set(picks(at, 0, keys)) == {FIRST, OTHER}
    report(at, 0, V4, "failed")
    assert set(picks(at, 0, keys)) == {OTHER}
    report(at, 0, OTHER_V4, "failed")
    assert set(picks(at, 0, keys)) == {SECOND}
    assert FIRST in picks(at, 0, keys, 5000)
    at.set_health(0, V4, False, 5000)
    at.set_health(0, OTHER_V4, False, 5000)
    assert set(picks(at, 0, keys, 5000)) == {SECOND}
    report(at, 0, V6, "failed", 5000)
    assert set(picks(at, 0, keys, 5001)) <= {FIRST, OTHER, SECOND}  # all are down: all are tried


def test_one_name_s_second_does_not_wait_for_another_name_s_first():
    at = group_of([V4, V6, OTHER_V4], [([V4], [V6])])
    report(at, 0, V4, "failed")
    assert set(picks(at, 0, [0] * 6)) == {SECOND, OTHER}


def test_seconds_are_servers():
    with pytest.raises(ValueError, match="there is no server"):
        group_of([V4], [([V4], [V6])])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([[V4], [V6]], []),
        ([[V4, V6]], [({V4}, {V6})]),
        ([[V6, V4], [V6]], []),
        ([[V4, V6], [V4, OTHER_V4]], [({V4}, {V6})]),
        ([[V4, V6], [OTHER_V4, V6]], [({V4, OTHER_V4}, {V6})]),
        ([[V4, V6], [V4, ("::2", 9000)]], [({V4}, {V6, ("::2", 9000)})]),
        ([["/run/a.sock"], [V4, V6]], [({V4}, {V6})]),
    ],
)
def test_which_are_seconds(found, expected):
    assert fallbacks_of(found) == expected


# ---------------------------------------------------------------------------------------- the store


def looked_up(monkeypatch, *addresses):
    async def look_up(host, port):
        return [(family_of(each[0]), socket.SOCK_STREAM, 6, "", each) for each in addresses]

    monkeypatch.setattr(connecting, "_look_up", look_up)


@contextlib.contextmanager
def silence():
    """An address that answers no SYN: its queue is full."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        yield full.getsockname()


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


async def connects(timeout_s):
    async with asyncio.timeout(BOUND_S):
        link = await connecting.connect(Place("store.test", 1), timeout_s)
    assert link.info["redis_version"]
    link.close()


async def test_a_store_whose_first_address_refuses(monkeypatch, redis):
    looked_up(monkeypatch, ("127.0.0.1", free_port()), ("::1", free_port()), ("127.0.0.1", redis.port))
    await connects(0.8 * BOUND_S)


async def test_a_store_whose_first_address_is_silent(monkeypatch, redis):
    with silence() as silent:
        looked_up(monkeypatch, silent, ("127.0.0.1", redis.port))
        await connects(0.8 * BOUND_S)


async def test_a_store_none_of_whose_addresses_answers(monkeypatch):
    looked_up(monkeypatch, ("127.0.0.1", free_port()), ("::1", free_port()))
    with pytest.raises(OSError, match="Connection refused"):
        await connects(0.8 * BOUND_S)


async def test_a_store_whose_name_does_not_resolve():
    with pytest.raises(OSError, match="the name does not resolve: "):
        await connecting.connect(Place("store.invalid", 1), 2.0)

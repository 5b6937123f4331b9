"""The link does to bytes what it says, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from conftest import BOUND_S, Client, Origin

from whole.link import Door, Links

MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n"


@pytest.fixture
def door() -> Iterator[Door]:
    """To a server that says everything back."""

    def echo(connection: Client) -> None:
        while got := connection.recv(65536):
            connection.sendall(got)

    origin = Origin(echo)
    links = Links()
    host, port = origin.address.split(":")
    yield links.door((host, int(port)))
    links.close()
    origin.close()


def test_bytes_pass_whole_and_in_order(door: Door) -> None:
    sent = bytes(range(256)) * 4000
    with Client(door.address) as client:
        writer = threading.Thread(target=client.sendall, args=(sent,))
        writer.start()
        assert client.read_exactly(len(sent)) == sent
        writer.join(BOUND_S)


def test_a_delay_is_for_each_direction_and_holds_for_open_connections(door: Door) -> None:
    with Client(door.address) as client:
        client.sendall(b"a")
        assert client.read_exactly(1) == b"a"
        door.delay(0.1, 0.2)
        began_s = time.monotonic()
        client.sendall(b"b")
        client.sendall(b"c")
        assert client.read_exactly(2) == b"bc"
        assert 0.3 <= time.monotonic() - began_s < 0.3 + BOUND_S / 4


def test_what_is_held_flows_later(door: Door) -> None:
    door.hold()
    with Client(door.address) as client:  # it accepts
        client.sendall(b"a")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(BOUND_S)
        door.open()
        assert client.read_exactly(1) == b"a"


def test_bites_are_of_that_size(door: Door) -> None:
    door.bite(3, 0.02)
    with Client(door.address) as client:
        began_s = time.monotonic()
        client.sendall(b"0123456789")
        assert client.read_exactly(10) == b"0123456789"
        assert time.monotonic() - began_s > 0.05


def test_a_refusal_resets_and_the_same_port_serves_again(door: Door) -> None:
    with Client(door.address) as client:
        client.sendall(b"a")
        assert client.read_exactly(1) == b"a"
        door.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        Client(door.address)
    door.open()
    with Client(door.address) as client:
        client.sendall(b"b")
        assert client.read_exactly(1) == b"b"


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_cut_is_a_reset_or_an_end(door: Door, is_reset: bool) -> None:
    with Client(door.address) as client:
        client.sendall(b"a")
        assert client.read_exactly(1) == b"a"
        door.cut(reset=is_reset)
        if is_reset:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""


def test_a_muted_door_loses_notifications_alone(door: Door) -> None:
    door.mute()
    with Client(door.address) as client:
        client.sendall(b"+1\r\n" + MESSAGE + MESSAGE + b"+2\r\n")
        assert client.read_exactly(8) == b"+1\r\n+2\r\n"
        door.mute(False)
        client.sendall(MESSAGE)
        assert client.read_exactly(len(MESSAGE)) == MESSAGE

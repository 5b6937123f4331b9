"""File descriptors: clients wait before service fails, in real processes with real limits."""

import os
import re
import resource

import pytest
from conftest import Client, status_of
from lab.processes import Site
from lab.redis_servers import wait_until

from fastticket.gateway.descriptors import RESERVED, share
from fastticket.keyfile import create_key_file

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def limited(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def site(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    behind = origin()
    started = []

    def start(soft, hard, **tables):
        table = {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 1.0},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": [behind.address]}],
            "route": [{"path": "/", "auth": "none"}],
            **tables,
        }
        started.append(Site(tmp_path, table, preexec_fn=limited(soft, hard)))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def metric(at, name):
    with Client(str(at.folder / "admin.sock")) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        body = client.read_response()[1].decode()
    return float(re.search(rf"^fastticket_{name} (\S+)$", body, re.MULTILINE)[1])


def descriptors_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def lowest_free(pid):
    """The number of the next descriptor that a process would get."""
    there = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    return min(set(range(len(there) + 1)) - there)


def test_more_idle_clients_than_the_soft_limit(site):
    """As it was seen: 1,100 of them, and every request was 502."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 3000:
        pytest.skip("there may not be so many here")
    at = site(1024, 3000)
    clients = [at.connect() for _ in range(1100)]
    try:
        wait_until(lambda: descriptors_of(at.workers()[0]) > 1100, "all are let in")
        assert [status_of(at.ask(GET)[0]) for _ in range(20)] == [200] * 20
    finally:
        for client in clients:
            client.close()


def test_clients_that_there_are_no_descriptors_for_wait_and_the_others_are_served(site):
    at = site(256, 256)
    most = share(256, 1).clients
    wait_until(lambda: f"connections_max is {most}, not 10000: there may be 256 file descriptors" in at.log, "the word")
    clients = [at.connect() for _ in range(most + 20)]
    try:
        for client in clients:
            client.sendall(GET)
        assert [status_of(client.read_response()[0]) for client in clients[:most]] == [200] * most
        wait_until(lambda: f"connections_max: {most} clients are connected, others wait" in at.log, "the word")
        for client in clients[:20]:
            client.close()
        assert [status_of(client.read_response()[0]) for client in clients[most:]] == [200] * 20
        assert metric(at, "connections_full_total") > 0
        assert metric(at, "upstream_errors_total") == metric(at, "descriptor_shortages_total") == 0
    finally:
        for client in clients:
            client.close()


def test_without_a_descriptor_what_idles_makes_room_and_then_it_is_said(site, origin):
    """The limit is taken from under a worker, as by a machine that has no more (ENFILE)."""
    answer_now = []

    def serve(connection):
        while True:
            connection.read_head()
            answer_now.append(connection)

    held = origin(serve)
    at = site(256, 256, upstream=[{"name": "app", "servers": [held.address]}])
    (worker,) = at.workers()
    idle, first, second = at.connect(), at.connect(), at.connect()
    with idle, first, second:
        for client in (idle, first, second):  # each is let in: it has asked, and has its answer
            client.sendall(GET)
            wait_until(lambda: answer_now, "the request")
            answer_now.pop().sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            assert status_of(client.read_response()[0]) == 200
        wait_until(lambda: all(each.fileno() < 0 for each in held.connections), "upstream connections are gone")
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (lowest_free(worker), 256))
        first.sendall(GET)  # who has idled longest makes room for it
        wait_until(lambda: answer_now, "the request")
        assert idle.read_all() == b""
        second.sendall(GET)  # now there is nobody who could
        head, body = second.read_response()
        assert (status_of(head), b"out_of_descriptors" in body) == (503, True)
        answer_now.pop().sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert status_of(first.read_response()[0]) == 200
        wait_until(lambda: "there are no file descriptors left, with 2 clients: others wait" in at.log, "the word")
        wait_until(lambda: metric(at, "descriptor_shortages_total") >= 2, "it is counted")
        assert metric(at, "upstream_errors_total") == 0
        assert at.log.count("no file descriptors left") == 1


def test_what_is_reserved():
    assert share(20_000, 1) == (20_000 - RESERVED - 1, (20_000 - RESERVED - 1) // 2)
    assert share(64, 10) == (32, 16)
    assert share(1, 1).clients == 1

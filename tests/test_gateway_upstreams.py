"""The servers behind the gateway: balancing over real sockets, caps and queues, retries, health checks, names that move."""

import contextlib
import socket
import threading
from collections import Counter

import pytest
from conftest import BOUND_S, OK, fields_of, status_of
from redis_servers import free_port, wait_until

from fastticket.gateway import upstreams

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(path="/", ticket=None):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n".encode()


def upstream(*origins, **options):
    servers = [each if isinstance(each, str) else each.address for each in origins]
    return {"upstream": [{"name": "app", "servers": servers, **options}]}


def says(origin, name, **fields):
    """An origin that says who it is."""
    more = "".join(f"{field.replace('_', '-')}: {value}\r\n" for field, value in fields.items())
    return origin(answer=f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n{more}\r\n{name}".encode())


def state_of(at, server):
    return next(s for s in at.call(at.worker.proxy.upstream_states) if s["server"] == server)


# --- balancing


def test_weights(gateway, origin):
    at = gateway(**upstream(says(origin, "a"), says(origin, "b"), weights=[3, 1]))
    found = Counter(at.ask(GET)[1] for _ in range(12))
    assert found == {b"a": 9, b"b": 3}


def test_least_connections(gateway, origin):
    """One server holds on to its requests; the others go elsewhere."""
    go_on = threading.Event()

    def slow(connection):
        while connection.read_head():
            assert go_on.wait(BOUND_S)
            connection.sendall(OK)

    at = gateway(**upstream(origin(slow), says(origin, "fast"), balance="least_connections"))
    with at.connect() as held:
        held.sendall(GET)
        wait_until(lambda: sum(s["active"] for s in at.call(at.worker.proxy.upstream_states)) == 1, "it is under way")
        found = [at.ask(GET)[1] for _ in range(6)]
        go_on.set()
        assert found == [b"fast"] * 6 or held.read_response()[1] == b"fast"


def test_ip_hash_goes_by_the_client_that_a_proxy_names(gateway, origin):
    servers = [says(origin, name) for name in "abc"]
    at = gateway(gateway={"trusted_proxies": ["127.0.0.1/32"]}, **upstream(*servers, balance="ip_hash"))

    def server_of(client):
        return at.ask(f"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, {client}\r\n\r\n".encode())[1]

    found = {client: server_of(client) for client in (f"9.9.9.{n}" for n in range(30))}
    assert set(found.values()) == {b"a", b"b", b"c"}
    assert all(server_of(client) == server for client, server in found.items())


def test_ticket_hash_keeps_a_session_with_one_server(gateway, origin):
    servers = [says(origin, name) for name in "abc"]
    at = gateway(routes=[{"path": "/"}], **upstream(*servers, balance="ticket_hash"))
    other = gateway(routes=[{"path": "/"}], **upstream(*reversed(servers), balance="ticket_hash"))
    tickets = [at.login(f"user{n}") for n in range(30)]
    found = [at.ask(get(ticket=ticket))[1] for ticket in tickets]
    assert set(found) == {b"a", b"b", b"c"}
    for gateway_asked in (at, other):
        assert [gateway_asked.ask(get(ticket=ticket))[1] for ticket in tickets] == found


def test_ticket_hash_keeps_who_logged_in_with_the_server_that_logged_him_in(gateway, origin):
    """It has his local session: the ticket is drawn so that he comes back to it."""
    servers = [says(origin, name, X_Ticket_Login="alice") for name in "abcd"]
    routes = [{"path": "/login", "auth": "none", "login": True}, {"path": "/"}]
    at = gateway(routes=routes, **upstream(*servers, balance="ticket_hash", weights=[1, 1, 1, 10]))
    for _ in range(40):
        head, server = at.ask(get("/login"))
        ticket = fields_of(head)[b"set-cookie"].split(b";")[0].partition(b"=")[2].decode()
        assert at.ask(get("/x", ticket))[1] == server


# --- caps and queues


class Gate:
    """An origin that counts what it has at once, and answers one request for each `open()`."""

    def __init__(self):
        self._slots = threading.Semaphore(0)
        self._lock = threading.Lock()
        self.active = self.most = self.served = 0

    def __call__(self, connection):
        while connection.read_head():
            with self._lock:
                self.active += 1
                self.most = max(self.most, self.active)
            assert self._slots.acquire(timeout=BOUND_S)
            with self._lock:
                self.active -= 1
                self.served += 1
            connection.sendall(OK)

    def open(self, count=1):
        self._slots.release(count)


def test_a_server_has_no_more_at_once_than_it_may_and_the_rest_waits_in_order(gateway, origin):
    gate = Gate()
    at = gateway(**upstream(origin(gate), connections_max=2))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(at.connect()) for _ in range(6)]
        for number, client in enumerate(clients):
            client.sendall(GET)
            at.call(lambda: None)
            wait_until(
                lambda n=number: (
                    sum(s["active"] + s["queued"] for s in at.call(at.worker.proxy.upstream_states)) == n + 1
                ),
                "it is there",
            )
        wait_until(lambda: gate.most == 2, "both have come")
        gate.open(len(clients))
        for client in clients:
            assert status_of(client.read_response()[0]) == 200
    assert (gate.most, gate.served) == (2, 6)


def test_a_full_queue_is_503_at_once(gateway, origin):
    gate = Gate()
    at = gateway(**upstream(origin(gate), connections_max=1, pending_max=1))
    with at.connect() as first, at.connect() as second:
        for client, key in ((first, "active"), (second, "queued")):
            client.sendall(GET)
            wait_until(lambda key=key: at.call(at.worker.proxy.upstream_states)[0][key] == 1, key)
        head, body = at.ask(GET)
        assert (status_of(head), b"upstream_busy" in body) == (503, True)
        gate.open(2)
        for client in (first, second):
            assert status_of(client.read_response()[0]) == 200
    assert at.stats["queue_full"] == 1


def test_who_waits_too_long_is_told(gateway, origin):
    gate = Gate()
    at = gateway(timeouts={"upstream_pending_s": 0.3}, **upstream(origin(gate), connections_max=1))
    with at.connect() as first, at.connect() as second:
        first.sendall(GET)
        wait_until(lambda: at.call(at.worker.proxy.upstream_states)[0]["active"] == 1, "active")
        second.sendall(GET)
        head, body = second.read_response()
        assert (status_of(head), b"upstream_busy" in body) == (503, True)
        gate.open(2)
        assert status_of(first.read_response()[0]) == 200
        second.sendall(GET)
        assert status_of(second.read_response()[0]) == 200


def test_who_leaves_leaves_the_queue(gateway, origin):
    gate = Gate()
    at = gateway(**upstream(origin(gate), connections_max=1))
    with at.connect() as first, at.connect() as last:
        first.sendall(GET)
        wait_until(lambda: at.call(at.worker.proxy.upstream_states)[0]["active"] == 1, "active")
        with at.connect() as leaving:
            leaving.sendall(GET)
            wait_until(lambda: at.call(at.worker.proxy.upstream_states)[0]["queued"] == 1, "queued")
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: at.call(at.worker.proxy.upstream_states)[0]["queued"] == 0, "gone")
        last.sendall(GET)
        gate.open(2)
        for client in (first, last):
            assert status_of(client.read_response()[0]) == 200
    assert gate.served == 2


def test_a_session_that_waits_for_its_busy_server_holds_up_nobody_else(gateway, origin):
    gates = [Gate(), Gate()]
    at = gateway(routes=[{"path": "/"}], **upstream(*map(origin, gates), balance="ticket_hash", connections_max=1))
    tickets = [at.login(f"user{n}") for n in range(40)]  # so many that each server has some

    def active():
        return [gate.active for gate in gates]

    with contextlib.ExitStack() as stack:
        clients = []
        for ticket in tickets:
            clients.append(stack.enter_context(at.connect()))
            clients[-1].sendall(get(ticket=ticket))
        wait_until(lambda: active() == [1, 1], "both have one")
        for gate in gates:
            gate.open(len(tickets))
        for client in clients:
            assert status_of(client.read_response()[0]) == 200
    assert [gate.most for gate in gates] == [1, 1]


# --- retries


class Closing:
    """Answers the first request of a connection, and closes as soon as the second has come."""

    def __init__(self):
        self.tries = 0

    def __call__(self, connection):
        connection.read_head()
        connection.sendall(OK)
        connection.read_head()
        self.tries += 1


def test_retries_are_within_a_budget(gateway, origin):
    """Without any, a request that meets a connection just closed is lost."""
    at = gateway(**upstream(origin(Closing()), retry_percent=0))
    with at.connect() as client:
        client.sendall(GET)
        client.read_response()
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 502
    assert at.stats["retries"] == 0
    with_budget = gateway(**upstream(origin(Closing())))
    with with_budget.connect() as client:
        for _ in range(2):
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 200


def test_a_server_that_refuses_costs_no_request_while_there_is_budget(gateway, origin):
    closed = f"127.0.0.1:{free_port()}"
    at = gateway(**upstream(closed, says(origin, "up")))
    assert {at.ask(GET)[1] for _ in range(10)} == {b"up"}
    assert state_of(at, closed)["state"] == "down"


# --- health checks


class Patient:
    """Well or not, as a test says."""

    def __init__(self, name):
        self.name = name.encode()
        self.is_well = True

    def __call__(self, connection):
        while True:
            head = connection.read_head()
            if head.startswith(b"GET /health ") and not self.is_well:
                connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            else:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.name), self.name))


def test_a_server_that_is_not_well_gets_nothing_until_it_is(gateway, origin, tmp_path):
    patients = [Patient("a"), Patient("b")]
    servers = [origin(patients[0]), origin(patients[1], path=str(tmp_path / "b.sock"))]
    at = gateway(
        **upstream(*servers, health_path="/health", health_interval_s=0.05, slow_return_s=0, health_timeout_s=1)
    )
    assert {at.ask(GET)[1] for _ in range(4)} == {b"a", b"b"}
    for number in (0, 1):
        patients[number].is_well = False
        wait_until(lambda n=number: state_of(at, servers[n].address)["state"] == "down", "not well")
        assert {at.ask(GET)[1] for _ in range(4)} == {patients[1 - number].name}
        patients[number].is_well = True
        wait_until(lambda n=number: state_of(at, servers[n].address)["state"] == "up", "well again")
        assert {at.ask(GET)[1] for _ in range(4)} == {b"a", b"b"}


def test_a_server_that_does_not_answer_is_not_well(gateway, origin):
    hung = threading.Event()

    def hang(connection):
        connection.read_head()
        hung.wait(BOUND_S)

    silent, up = origin(hang), says(origin, "up")
    at = gateway(**upstream(silent, up, health_path="/health", health_interval_s=0.05, health_timeout_s=0.5))
    wait_until(lambda: state_of(at, silent.address)["state"] == "down", "not well")
    assert {at.ask(GET)[1] for _ in range(4)} == {b"up"}
    hung.set()


# --- names


@pytest.fixture
def names(monkeypatch):
    """The addresses of `app.test`, as a name server would give them."""
    addresses = []
    real = socket.getaddrinfo

    def look_up(host, port, *rest, **options):
        if host != "app.test":
            return real(host, port, *rest, **options)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(upstreams.socket, "getaddrinfo", look_up)
    return addresses


def on_all_loopbacks(origin, name, count):
    """Origins with one port on 127.0.0.1, 127.0.0.2 …"""
    port = free_port()
    made = []
    for number in range(1, count + 1):
        server = says(origin, f"{name}{number}")
        made.append(server)
        relay = socket.create_server((f"127.0.0.{number}", port))
        threading.Thread(target=_relay, args=(relay, server), daemon=True).start()
        server.relay = relay
    return port, made


def _relay(listener, server):
    """Hand connections to an origin."""
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            from conftest import Client

            server._start(Client(fileno=accepted.detach()))


def test_a_name_is_all_its_addresses_and_is_looked_up_again(gateway, origin, names):
    port, servers = on_all_loopbacks(origin, "s", 3)
    try:
        names[:] = ["127.0.0.1", "127.0.0.2"]
        at = gateway(**upstream(f"app.test:{port}", slow_return_s=0))
        group = at.worker._groups[0]
        assert {at.ask(GET)[1] for _ in range(6)} == {b"s1", b"s2"}
        names[:] = ["127.0.0.2", "127.0.0.3"]
        at.run(group.resolve())
        assert {at.ask(GET)[1] for _ in range(6)} == {b"s2", b"s3"}
        names.clear()
        at.run(group.resolve())  # a name server that fails changes nothing
        assert {at.ask(GET)[1] for _ in range(6)} == {b"s2", b"s3"}
    finally:
        for server in servers:
            server.relay.shutdown(socket.SHUT_RDWR)
            server.relay.close()


def test_a_request_under_way_ends_with_a_server_that_went(gateway, origin, names):
    gate = Gate()
    server = origin(gate)
    port = server.address.rpartition(":")[2]
    names[:] = ["127.0.0.1"]
    at = gateway(**upstream(f"app.test:{port}"))
    with at.connect() as client:
        client.sendall(GET)
        wait_until(lambda: gate.active == 1, "under way")
        names[:] = ["127.0.0.9"]
        at.run(at.worker._groups[0].resolve())
        gate.open()
        assert status_of(client.read_response()[0]) == 200
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 502  # nobody is there
    assert gate.served == 1


def test_a_name_is_looked_up_by_itself(gateway, origin, names):
    server = says(origin, "up")
    port = server.address.rpartition(":")[2]
    names[:] = ["127.0.0.9"]
    at = gateway(**upstream(f"app.test:{port}", resolve_interval_s=1, slow_return_s=0))
    names[:] = ["127.0.0.1"]
    wait_until(lambda: at.ask(GET)[1] == b"up", "the new address")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": [1]}, "weights: must be a number from 1 to 1000 for each"),
        ({"weights": [1, 0]}, "weights: must be a number from 1"),
        ({"weights": ["1", "2"]}, "weights: must be a list of whole numbers"),
        ({"balance": "random"}, "balance: must be one of round_robin"),
        ({"servers": ["127.0.0.1:1", "127.0.0.1:1"]}, "servers: an address is there twice"),
        ({"retry_percent": 101}, "retry_percent: must be from 0 to 100"),
        ({"health_path": "health"}, "health_path: must begin with /"),
        ({"health_interval_s": 0}, "health_interval_s, health_timeout_s: must be at least"),
        ({"resolve_interval_s": 0}, "resolve_interval_s: must be at least 1"),
        ({"servers": ["no..name.invalid:1"]}, "the name does not resolve"),
    ],
)
def test_what_an_upstream_can_not_have(gateway, options, said):
    table = {"upstream": [{"name": "app", "servers": ["127.0.0.1:1", "127.0.0.1:2"], **options}]}
    with pytest.raises(Exception, match=said):
        gateway(**table)

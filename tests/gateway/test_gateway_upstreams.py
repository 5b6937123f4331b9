"""The servers behind the gateway: balancing over real sockets, caps and queues, retries, health
checks, names that move.
"""

import contextlib
import socket
import threading
import time
from collections import Counter

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from lab.redis_servers import free_port, wait_until

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
    return next(s for s in at.call(at.worker.proxy.upstreams.state) if s["server"] == server)


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
        wait_until(lambda: sum(s["active"] for s in at.call(at.worker.proxy.upstreams.state)) == 1, "it is under way")
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
                    sum(s["active"] + s["queued"] for s in at.call(at.worker.proxy.upstreams.state)) == n + 1
                ),
                "it is there",
            )
        wait_until(lambda: gate.most == 2, "both have come")
        gate.open(len(clients))
        for client in clients:
            assert status_of(client.read_response()[0]) == 200
    assert (gate.most, gate.served) == (2, 6)


def accept_request(listener):
    """The next connection with a request, whose head was read. The gateway may have knocked
    before.
    """
    while True:
        connection = Client(fileno=listener.accept()[0].detach())
        with contextlib.suppress(EOFError):
            connection.read_head()
            return connection
        connection.close()


def test_a_server_that_is_back_is_up_although_nobody_asks_for_it(gateway):
    """And until then it is down, also between two attempts."""
    with socket.socket() as back:
        back.bind(("127.0.0.1", 0))  # and does not listen: it refuses
        at = gateway(**upstream(f"127.0.0.1:{back.getsockname()[1]}"))

        def state():
            return at.call(at.worker.proxy.upstreams.state)[0]["state"]

        def has_longer_pause():
            seen.add(state())
            return not at.call(at.worker.proxy.upstreams.unreached, 0, 1500)

        assert status_of(at.ask(GET)[0]) == 502
        seen = set()
        wait_until(has_longer_pause, "it has refused once more")
        assert seen == {"down"}
        back.listen()
        wait_until(lambda: state() == "up", "it is up")


def test_who_waits_is_served_by_a_server_that_comes_back(gateway, origin):
    """The other one is busy all the time, so nothing becomes free; but the pause of the one that
    refused is over.
    """
    gate = Gate()
    with socket.socket() as back:
        back.bind(("127.0.0.1", 0))  # and does not listen: it refuses
        at = gateway(**upstream(origin(gate), f"127.0.0.1:{back.getsockname()[1]}", connections_max=1))
        with at.connect() as busy, at.connect() as waiting:
            busy.sendall(GET)
            wait_until(lambda: gate.active == 1, "one is busy")
            waiting.sendall(GET)
            wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "one waits")
            back.listen()
            back.settimeout(BOUND_S)
            with accept_request(back) as connection:
                connection.sendall(OK)
                assert status_of(waiting.read_response()[0]) == 200
            gate.open()
            assert status_of(busy.read_response()[0]) == 200


def test_a_full_queue_is_503_at_once(gateway, origin):
    gate = Gate()
    at = gateway(**upstream(origin(gate), connections_max=1, pending_max=1))
    with at.connect() as first, at.connect() as second:
        for client, key in ((first, "active"), (second, "queued")):
            client.sendall(GET)
            wait_until(lambda key=key: at.call(at.worker.proxy.upstreams.state)[0][key] == 1, key)
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
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["active"] == 1, "active")
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
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["active"] == 1, "active")
        with at.connect() as leaving:
            leaving.sendall(GET)
            wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "queued")
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 0, "gone")
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


def test_each_request_of_a_connection_may_be_sent_again(gateway, origin):
    """And after that they use kept connections as before."""
    closing = Closing()
    behind = origin(closing)
    at = gateway(**upstream(behind))
    with at.connect() as client:
        for _ in range(6):
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 200
    assert (closing.tries, at.stats["retries"], len(behind.connections)) == (5, 5, 6)


def test_a_server_that_refuses_costs_no_request_while_there_is_budget(gateway, origin):
    closed = f"127.0.0.1:{free_port()}"
    at = gateway(**upstream(closed, says(origin, "up")))
    assert {at.ask(GET)[1] for _ in range(10)} == {b"up"}
    assert state_of(at, closed)["state"] == "down"


RETRIES_KEPT = 100  # that a group may have saved up
RETRIES_PER_S = 10  # that it is given; beside those that requests earn


def refused(at, count):
    """Requests to servers that take no connection: how often they were sent again; how often they
    could by what is given meanwhile.
    """
    began_s = time.monotonic()
    before = at.stats["retries"]
    with at.connect() as client:
        for _ in range(count):
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 502
    given = int((time.monotonic() - began_s) * RETRIES_PER_S) + 2
    return at.stats["retries"] - before, given


def test_p9_retries_are_paid_for(gateway):
    """The saved budget is spent once; then there is one retry for five requests."""
    at = gateway(**upstream(f"127.0.0.1:{free_port()}", retry_percent=20))
    retries, given = refused(at, 1000)
    assert 0.2 * 1000 <= retries <= RETRIES_KEPT + 0.2 * 1000 + given


def test_p9_what_was_earned_has_an_end(gateway, origin):
    behind = origin()
    at = gateway(**upstream(behind, retry_percent=20))
    with at.connect() as client:
        for _ in range(2000):
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 200
    behind.close()
    retries, given = refused(at, 500)
    assert retries <= RETRIES_KEPT + 0.2 * 500 + given


def test_p9_without_a_budget_time_gives_none(gateway):
    at = gateway(**upstream(f"127.0.0.1:{free_port()}", retry_percent=0))
    for _ in range(10):
        at.call(at.worker.proxy.tick)
    assert refused(at, 10)[0] == 0


def test_p9_a_request_is_tried_no_more_often_than_there_are_servers_and_once(gateway):
    at = gateway(**upstream(*(f"127.0.0.1:{free_port()}" for _ in range(3))))
    assert refused(at, 1)[0] == 3


# --- bad answers


class Moody:
    """`/good` is answered well, `/malformed` and `/closed` as they say, `/late` not at all."""

    def __call__(self, connection):
        while True:
            path = connection.read_head().split(b" ")[1]
            if path == b"/good":
                connection.sendall(OK)
            elif path == b"/malformed":
                connection.sendall(b"HTTP/1.1 banana\r\n\r\n")
            elif path == b"/closed":
                return


MOODY = [
    {"path": "/late", "auth": "none", "timeouts": {"upstream_first_byte_s": 0.05}},
    {"path": "/", "auth": "none"},
]
BAD = [("/malformed", 502), ("/closed", 502), ("/late", 504)]


@pytest.mark.parametrize(("path", "status"), BAD)
def test_three_bad_answers_in_a_row_put_a_server_aside(gateway, origin, path, status):
    server = origin(Moody())
    at = gateway(routes=MOODY, **upstream(server))
    for _ in range(2):
        assert status_of(at.ask(get(path))[0]) == status
        assert state_of(at, server.address)["state"] == "up"
    for _ in range(7):  # three times three: it is left alone for three seconds, which a busy machine has
        assert status_of(at.ask(get(path))[0]) == status
    assert state_of(at, server.address)["state"] == "down"


@pytest.mark.parametrize(("path", "status"), BAD)
def test_a_good_answer_is_the_end_of_a_row(gateway, origin, path, status):
    server = origin(Moody())
    at = gateway(routes=MOODY, **upstream(server))
    for _ in range(4):
        assert status_of(at.ask(get("/good"))[0]) == 200
        for _ in range(2):
            assert status_of(at.ask(get(path))[0]) == status
        assert state_of(at, server.address)["state"] == "up"


# --- health checks


class Patient:
    """A server whose health checks pass as long as `is_well`."""

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


@pytest.mark.parametrize("host", ["shop.example", "shop.example:8443", "[::1]", ""])
def test_a_health_check_asks_for_the_host_that_is_wanted(gateway, origin, tmp_path, host):
    """A server with several sites answers 404, or another's health, to a Host that it does not
    know. Default: its own address.
    """
    server = origin()
    local = origin(path=str(tmp_path / "a.sock"))
    gateway(**upstream(server, local, health_path="/health", health_interval_s=0.05, health_host=host))
    for one, default in ((server, server.address), (local, "localhost")):
        wait_until(lambda one=one: one.requests, "it is asked")
        assert fields_of(one.requests[0][0])[b"host"].decode() == (host or default)


def test_a_server_that_is_well_again_gets_its_share_by_and_by(gateway, origin):
    """It may have cold caches: an hour here, so that a minute's share is nearly nothing."""
    patients = [Patient("a"), Patient("b")]
    servers = [origin(patient) for patient in patients]
    at = gateway(**upstream(*servers, health_path="/health", health_interval_s=0.05, slow_return_s=3600))
    assert Counter(at.ask(GET)[1] for _ in range(40)) == {b"a": 20, b"b": 20}
    patients[1].is_well = False
    wait_until(lambda: state_of(at, servers[1].address)["state"] == "down", "not well")
    patients[1].is_well = True
    wait_until(lambda: state_of(at, servers[1].address)["state"] == "up", "well again")
    assert Counter(at.ask(GET)[1] for _ in range(40))[b"b"] <= 2


@pytest.mark.parametrize("is_well", [True, False])
def test_only_health_checks_in_a_row_count(gateway, origin, caplog, is_well):
    """Two are wanted; every other one is the other way."""
    checks = []

    def serve(connection):
        while connection.read_head():
            checks.append(is_well if len(checks) < 4 else len(checks) % 2 == 0)
            connection.sendall(b"HTTP/1.1 %d Checked\r\nContent-Length: 0\r\n\r\n" % (200 if checks[-1] else 503))

    server = origin(serve)
    at = gateway(**upstream(server, health_path="/health", health_interval_s=0.05))
    assert state_of(at, server.address)["state"] == ("up" if is_well else "down")
    wait_until(lambda: len(checks) >= 16, "many checks")
    assert state_of(at, server.address)["state"] == ("up" if is_well else "down")
    assert caplog.text.count("is not well") == (0 if is_well else 1)  # the first look
    assert "is well" not in caplog.text


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
            server._start(Client(fileno=accepted.detach()))


def test_a_name_is_all_its_addresses_and_is_looked_up_again(gateway, origin, names):
    port, servers = on_all_loopbacks(origin, "s", 3)
    try:
        names[:] = ["127.0.0.1", "127.0.0.2"]
        at = gateway(**upstream(f"app.test:{port}", slow_return_s=0))
        group = at.service.upstreams._groups[0]
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


def test_p12_of_two_names_one_that_can_not_be_looked_up_keeps_its_servers(gateway, origin, names):
    """Though the other one has others now."""
    port, servers = on_all_loopbacks(origin, "s", 2)
    real = socket.getaddrinfo
    try:
        names[:] = ["127.0.0.1"]
        at = gateway(**upstream(f"app.test:{port}", f"localhost:{port}", slow_return_s=0))
        group = at.service.upstreams._groups[0]
        assert {at.ask(GET)[1] for _ in range(4)} == {b"s1"}  # both names are for it

        def moved(host, *rest, **options):
            return real("127.0.0.2" if host == "localhost" else host, *rest, **options)

        socket.getaddrinfo = moved
        names.clear()
        at.run(group.resolve())
        assert {at.ask(GET)[1] for _ in range(6)} == {b"s1", b"s2"}
    finally:
        socket.getaddrinfo = real
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
        at.run(at.service.upstreams._groups[0].resolve())
        gate.open()
        assert status_of(client.read_response()[0]) == 200
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 502  # nobody is there
    assert gate.served == 1


def test_p9_no_connection_to_a_server_that_went_is_kept(gateway, origin, names):
    """Neither one that has nothing to do, nor one whose request ends later: the server's side sees
    the end of both.
    """
    gate, ended = Gate(), []

    def serve(connection):
        try:
            gate(connection)
        finally:
            ended.append(connection)

    server = origin(serve)
    names[:] = ["127.0.0.1"]
    by_name = upstream(f"app.test:{server.address.rpartition(':')[2]}")
    at = gateway(timeouts={"upstream_idle_s": 60}, **by_name)
    with at.connect() as one, at.connect() as other:
        for client in (one, other):
            client.sendall(GET)
        wait_until(lambda: gate.active == 2, "both under way")
        gate.open()
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["idle"] == 1, "one is idle")
        names[:] = ["127.0.0.9"]
        at.run(at.service.upstreams._groups[0].resolve())
        wait_until(lambda: len(ended) == 1, "the idle one has ended", BOUND_S)
        gate.open()
        for client in (one, other):
            assert status_of(client.read_response()[0]) == 200
        wait_until(lambda: len(ended) == 2, "the other one has ended", BOUND_S)


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
        ({"health_host": "a b"}, "health_host: must be a name or an address"),
        ({"health_host": "a\r\nX: y"}, "health_host: must be a name or an address"),
        ({"health_interval_s": 0}, "health_interval_s, health_timeout_s: must be at least"),
        ({"resolve_interval_s": 0}, "resolve_interval_s: must be at least 1"),
        ({"servers": ["no..name.invalid:1"]}, "the name does not resolve"),
    ],
)
def test_what_an_upstream_can_not_have(gateway, options, said):
    table = {"upstream": [{"name": "app", "servers": ["127.0.0.1:1", "127.0.0.1:2"], **options}]}
    with pytest.raises(Exception, match=said):
        gateway(**table)

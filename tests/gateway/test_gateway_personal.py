"""Authentication that is bound to a connection (NTLM, Negotiate): whoever did the handshake is
nobody else's answer.

The upstream is one of the kind: it challenges a connection, and takes every later request on it for
one of who has answered.
"""

import base64
import contextlib
import hashlib
import secrets
import threading

import pytest
from conftest import BOUND_S, fields_of, status_of
from lab.redis_servers import wait_until

PASSWORDS = {"alice": "wonderland", "bob": "builder"}
SCHEMES = ["NTLM", "Negotiate"]
KERBEROS = b"ticket-of-"  # is enough in one message, of whom a name follows


def proof(challenge, user):
    """The third message: who it is, and what only he can make of the challenge."""
    return base64.b64encode(f"{user}:{hashlib.sha256(challenge + PASSWORDS[user].encode()).hexdigest()}".encode())


class Windows:
    """`offers`: the schemes in its challenge; without, it knows of them all the same, and only
    answers.
    """

    def __init__(self, origin, offers=("Negotiate", "NTLM")):
        self._offers = offers
        self.handshakes = 0
        self.behind = origin(self._serve)

    def _serve(self, connection):
        user, challenge = None, None
        while True:
            head, body = self.behind.request(connection)
            scheme, _, message = fields_of(head).get(b"authorization", b"").partition(b" ")
            if message == b"hello":
                user, challenge = None, base64.b64encode(secrets.token_bytes(8))
                connection.sendall(self._refusal([scheme + b" " + challenge]))
            elif message.startswith(KERBEROS):
                user = message.removeprefix(KERBEROS).decode()
                connection.sendall(self._answer(user, body))
            elif message and challenge:
                name = base64.b64decode(message).decode().partition(":")[0]
                is_good = message == proof(challenge, name)
                user, challenge = name if is_good else None, None
                self.handshakes += is_good
                connection.sendall(self._answer(user, body) if is_good else self._refusal())
            elif user:
                connection.sendall(self._answer(user, body))
            elif self._offers and b" /open" not in head:
                connection.sendall(self._refusal())
            else:
                connection.sendall(self._answer("nobody", body))

    def _refusal(self, challenges=None):
        fields = [b"WWW-Authenticate: " + each for each in challenges or map(str.encode, self._offers)]
        return b"\r\n".join([b"HTTP/1.1 401 Unauthorized", *fields, b"Content-Length: 0", b"", b""])

    @staticmethod
    def _answer(user, body):
        said = user.encode() + b"," + body
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


def ask(client, *, ticket=None, credentials=None, path="/x", method="GET", body=b""):
    """(status, body, challenge)"""
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
    lines += [f"Cookie: ticket={ticket}"] * bool(ticket) + [f"Authorization: {credentials}"] * bool(credentials)
    client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    head, said = client.read_response()
    return status_of(head), said, fields_of(head).get(b"www-authenticate", b"")


def shake_hands(client, user, scheme="NTLM", **options):
    """As a browser does it: it is asked, says hello, and answers the challenge."""
    status, _, challenge = ask(client, credentials=f"{scheme} hello", **options)
    assert status == 401
    answer = proof(challenge.partition(b" ")[2], user).decode()
    status, said, _ = ask(client, credentials=f"{scheme} {answer}", **options)
    assert (status, said) == (200, user.encode() + b",")


@pytest.fixture
def windows(origin):
    return Windows(origin)


@pytest.fixture
def private(gateway, windows):
    """With a ticket for everything but `/open` and what is under it."""

    def start(**tables):
        return gateway(windows.behind, routes=[{"path": "/open", "auth": "none"}, {"path": "/"}], **tables)

    return start


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_handshake_works_and_lasts_as_long_as_the_connection(private, windows, scheme):
    at = private()
    alice = at.login("alice")
    with at.connect() as client:
        assert ask(client, ticket=alice)[0] == 401
        shake_hands(client, "alice", scheme, ticket=alice)
        for method in ("GET", "POST", "GET"):
            assert ask(client, ticket=alice, method=method, body=b"x")[:2] == (200, b"alice,x")
    assert windows.handshakes == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bob_is_not_answered_as_alice(private, windows, scheme):
    """On a client connection of his own, and while hers is open, and when it has closed."""
    at = private()
    alice, bob = at.login("alice"), at.login("bob")
    with at.connect() as hers, at.connect() as his:
        shake_hands(hers, "alice", scheme, ticket=alice)
        for _ in range(5):
            assert ask(his, ticket=bob)[0] == 401
        assert ask(hers, ticket=alice)[1] == b"alice,"
        shake_hands(his, "bob", scheme, ticket=bob)
        assert [ask(his, ticket=bob)[1], ask(hers, ticket=alice)[1]] == [b"bob,", b"alice,"]
    wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["idle"] == 0, "neither is kept")
    for _ in range(5):
        with at.connect() as client:
            assert ask(client, ticket=bob)[0] == 401


def test_bob_is_not_answered_as_alice_on_her_client_connection(private):
    """A proxy in front that nobody has named may send him there; or he sits at her desk."""
    at = private()
    alice, bob = at.login("alice"), at.login("bob")
    with at.connect() as shared:
        shake_hands(shared, "alice", ticket=alice)
        assert ask(shared, ticket=bob)[0] == 401
        assert ask(shared, ticket=alice)[0] == 401  # hers is gone; a browser does it again
        shake_hands(shared, "alice", ticket=alice)
        assert ask(shared, path="/open")[1] == b"nobody,"


def test_a_handshake_that_nobody_asked_for(gateway, origin):
    """The client begins with it, and no response offers anything: the request's own words are
    enough.
    """
    windows = Windows(origin, offers=())
    at = gateway(windows.behind, routes=[{"path": "/"}])
    alice, bob = at.login("alice"), at.login("bob")
    with at.connect() as hers, at.connect() as his:
        assert ask(hers, ticket=alice, credentials=f"Negotiate {KERBEROS.decode()}alice")[1] == b"alice,"
        for _ in range(3):
            assert ask(his, ticket=bob)[1] == b"nobody,"
            assert ask(hers, ticket=alice)[1] == b"alice,"


def test_clients_without_a_ticket_are_told_apart_by_their_connections(private, windows):
    """A login page that asks Windows who it is."""
    at = private()
    with at.connect() as hers, at.connect() as his:
        shake_hands(hers, "alice", path="/open/login")
        assert ask(his, path="/open/login")[1] == b"nobody,"
        assert ask(hers, path="/open/login")[1] == b"alice,"
    assert windows.handshakes == 1


def test_a_proxy_of_ours_has_many_clients(private):
    """Clients without a ticket cannot be told apart, so nothing is kept for them; those with one
    are told apart by it.
    """
    at = private(gateway={"trusted_proxies": ["127.0.0.1/32"]})
    alice, bob = at.login("alice"), at.login("bob")
    with at.connect() as proxy:
        _, _, challenge = ask(proxy, path="/open/login", credentials="NTLM hello")
        answer = proof(challenge.partition(b" ")[2], "alice").decode()
        for credentials in (f"NTLM {answer}", None):
            assert ask(proxy, path="/open/login", credentials=credentials)[1] == b"nobody,"
        shake_hands(proxy, "alice", ticket=alice)
        assert ask(proxy, ticket=alice)[1] == b"alice,"
        assert ask(proxy, ticket=bob)[0] == 401


def test_another_ticket_of_the_same_principal(private):
    at = private()
    with at.connect() as client:
        shake_hands(client, "alice", ticket=at.login("alice"))
        assert ask(client, ticket=at.login("alice"))[1] == b"alice,"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_closes_costs_another_handshake_and_no_request(private, windows, method):
    at = private()
    alice = at.login("alice")
    with at.connect() as client:
        shake_hands(client, "alice", ticket=alice)
        windows.behind.connections[-1].shutdown(2)
        assert ask(client, ticket=alice, method=method)[0] == 401
        shake_hands(client, "alice", ticket=alice)


def test_a_server_with_a_cap_serves_others_beside_idle_handshakes(gateway, windows):
    upstream = {"name": "app", "servers": [windows.behind.address], "connections_max": 1}
    at = gateway(routes=[{"path": "/"}], upstream=[upstream])
    tickets = [at.login(user) for user in ("alice", "bob")]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(at.connect()) for _ in tickets]
        for client, user, ticket in zip(clients, ("alice", "bob"), tickets, strict=True):
            shake_hands(client, user, ticket=ticket)
        for client, user, ticket in zip(clients, ("alice", "bob"), tickets, strict=True):
            assert ask(client, ticket=ticket)[1] == user.encode() + b","
        assert at.call(at.worker.proxy.upstreams.state)[0]["active"] == 0


def test_who_has_to_wait_for_his_own_connection_waits(gateway, origin):
    """A server that may have one request has one: the client's next request is in the queue, and
    goes over his connection.
    """
    go_on, is_busy = threading.Event(), threading.Event()

    class Slow(Windows):
        def _answer(self, user, body):
            if body == b"slow":
                is_busy.set()
                assert go_on.wait(BOUND_S)
            return Windows._answer(user, body)

    windows = Slow(origin)
    upstream = {"name": "app", "servers": [windows.behind.address], "connections_max": 1}
    at = gateway(routes=[{"path": "/"}, {"path": "/open", "auth": "none"}], upstream=[upstream])
    alice = at.login("alice")
    with at.connect() as client, at.connect() as other:
        shake_hands(client, "alice", ticket=alice)
        other.sendall(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nslow")
        assert is_busy.wait(BOUND_S)
        client.sendall(f"GET /x HTTP/1.1\r\nHost: a\r\nCookie: ticket={alice}\r\n\r\n".encode())
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "it waits")
        go_on.set()
        assert other.read_response()[1] == b"nobody,slow"
        assert client.read_response()[1] == b"alice,"


def test_who_waits_for_his_own_connection_does_not_wait_for_ever(gateway, origin):
    """There is another server that is free, and of no use to him: his place in the queue and his
    deadline stay what they were.
    """

    class Slow(Windows):
        def __init__(self, origin):
            self.go_on, self.is_busy = threading.Event(), threading.Event()
            super().__init__(origin)

        def _answer(self, user, body):
            if body == b"slow":
                self.is_busy.set()
                assert self.go_on.wait(2 * BOUND_S)
            return Windows._answer(user, body)

    servers = [Slow(origin), Slow(origin)]
    upstream = {"name": "app", "servers": [each.behind.address for each in servers], "connections_max": 1}
    routes = [{"path": "/"}, {"path": "/open", "auth": "none"}]
    at = gateway(routes=routes, upstream=[upstream], timeouts={"upstream_pending_s": 3.0})
    alice = at.login("alice")
    with at.connect() as client, at.connect() as one, at.connect() as two:
        shake_hands(client, "alice", ticket=alice)
        own, other = sorted(servers, key=lambda each: -each.handshakes)
        for each in (one, two):
            each.sendall(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nslow")
        assert own.is_busy.wait(BOUND_S)
        assert other.is_busy.wait(BOUND_S)
        client.sendall(f"GET /x HTTP/1.1\r\nHost: a\r\nCookie: ticket={alice}\r\n\r\n".encode())
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "he waits")
        other.go_on.set()
        assert status_of(client.read_response()[0]) == 503
        own.go_on.set()


def test_others_are_pooled_as_before(gateway, origin):
    """Basic, Bearer and Digest are of a request."""
    answer = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x", Digest qop="auth"\r\nContent-Length: 0\r\n\r\n'
    behind = origin(answer=answer)
    at = gateway(behind)
    for credentials in ("Basic YTpi", "Bearer ntlm", None):
        with at.connect() as client:
            assert ask(client, credentials=credentials)[0] == 401
    assert len(behind.connections) == 1


def test_a_connection_goes_with_its_server(gateway, windows):
    """And with its client; the gateway keeps none."""
    at = gateway(windows.behind, routes=[{"path": "/"}])
    alice = at.login("alice")
    with at.connect() as client:
        shake_hands(client, "alice", ticket=alice)
        at.call(at.worker.proxy.upstreams.set_servers, 0, [(("127.0.0.1", 1), 1)])
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["idle"] == 0, "it is closed")
        assert ask(client, ticket=alice)[0] == 502

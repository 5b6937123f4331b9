"""Programs that come with a token: whose requests they are, what applications see of it, and what
becomes of wrong ones. test_tokens.py says whom a token admits.
"""

import datetime
import functools
import threading
import time

import pytest
from conftest import BOUND_S, OK, fields_of, status_of
from lab.redis_servers import wait_until
from lab.traffic import metric

from fastticket.errors import ConfigError
from fastticket.keyfile import create_key_file

CODE = "a-long-random-code"
TOKENS = """
[[token]]
name = "engines"
code = "%s"
users = ["alice", "bob"]
hosts = ["127.0.0.1", "10.0.0.7"]
"""
ROUTES = [
    {"path": "/", "auth": "required"},
    {"path": "/maybe", "auth": "optional"},
    {"path": "/free", "auth": "none"},
    {"path": "/open", "auth": "required", "exempt": "/open/x"},
]


@pytest.fixture
def behind(origin):
    return origin()


@pytest.fixture
def serve(gateway, behind, tmp_path):
    """`serve(**tables)`: a gateway that takes tokens."""
    (tmp_path / "tokens.toml").write_text(TOKENS % CODE)

    def start(*, forward=False, routes=ROUTES, **tables):
        return gateway(behind, routes=routes, tokens={"file": "tokens.toml", "forward": forward}, **tables)

    return start


def request(*fields, path="/a"):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def token(code=CODE, user="alice"):
    return f"Token-Code: {code}", f"Token-User: {user}"


def seen(behind):
    """The fields of the last request that the application got."""
    return fields_of(behind.requests[-1][0])


@pytest.mark.parametrize("forward", [False, True])
def test_a_good_token_is_its_user(serve, behind, forward):
    at = serve(forward=forward)
    head, _ = at.ask(request(*token(user="bob"), "token_code: x"))
    assert status_of(head) == 200
    assert b"Set-Cookie" not in head
    assert seen(behind)[b"x-forwarded-user"] == b"bob"
    assert seen(behind).get(b"token-code") == (CODE.encode() if forward else None)
    assert seen(behind).get(b"token-user") == (b"bob" if forward else None)
    assert b"token_code" not in seen(behind)
    assert at.run(at.cache.sessions("bob")) == []


@pytest.mark.parametrize(
    ("fields", "path", "status"),
    [
        (token(code="another-random-code"), "/a", 401),
        (token(user="carol"), "/a", 401),
        ((*token(), "Token-User: bob"), "/a", 401),
        ((*token(), "Token-Code: x"), "/a", 401),
        (token(code=""), "/a", 401),
        (token(user=""), "/a", 401),
        (token(code="another-random-code"), "/open/y", 401),
        (token(code="another-random-code"), "/open/x", 200),
        (token(code="another-random-code"), "/maybe", 200),
        (token(code="another-random-code"), "/free", 200),
    ],
)
def test_a_wrong_token_is_nobody(serve, behind, caplog, fields, path, status):
    at = serve()
    head, body = at.ask(request(*fields, path=path))
    assert status_of(head) == status
    if status == 401:
        assert b'"reason": "bad_token"' in body
        assert at.stats["refused"]["bad_token"] == 1
        assert not behind.requests
    else:
        assert b"x-forwarded-user" not in seen(behind)
    if path != "/free":
        (line,) = [record.getMessage() for record in caplog.records if "token" in record.getMessage()]
        assert "refused" in line
        assert "random-code" not in line
        assert at.call(lambda: sum(at.service.token_requests.values())) == 1


def test_half_a_token_is_none(serve):
    at = serve()
    for fields in (token()[:1], token()[1:]):
        _, body = at.ask(request(*fields))
        assert b'"reason": "missing"' in body


def test_a_session_goes_first(serve, behind):
    at = serve()
    cookie = f"Cookie: ticket={at.login('carol')}"
    assert status_of(at.ask(request(cookie, *token()))[0]) == 200
    assert seen(behind)[b"x-forwarded-user"] == b"carol"
    at.run(at.cache.logout_everywhere("carol"))
    assert status_of(at.ask(request(cookie, *token()))[0]) == 200
    assert seen(behind)[b"x-forwarded-user"] == b"alice"


@pytest.mark.parametrize(
    ("trusted", "said", "status"),
    [
        (["127.0.0.0/8"], "10.0.0.7", 200),
        (["127.0.0.0/8"], "10.0.0.8", 401),
        (["127.0.0.0/8"], "10.0.0.7, 10.0.0.8", 401),
        ([], "10.0.0.8", 200),
    ],
)
def test_the_address_is_the_clients_behind_proxies_of_ours(serve, trusted, said, status):
    at = serve(gateway={"trusted_proxies": trusted})
    assert status_of(at.ask(request(*token(), f"X-Forwarded-For: {said}"))[0]) == status


@pytest.mark.parametrize("takes_tokens", [True, False])
def test_services_that_believe_the_two_fields_get_them_from_the_gateway_alone(serve, gateway, behind, takes_tokens):
    """`identity_header = "Token-User"`: the user who was admitted, by token or by ticket, and on
    the routes that say so the configuration's code. Nothing that a client calls so goes on.
    """
    with_code = [{**route, "request_headers": {"Token-Code": "of-the-gateway"}} for route in ROUTES]
    routes = [*with_code, {"path": "/bare", "auth": "optional"}]
    start = serve if takes_tokens else functools.partial(gateway, behind)
    at = start(routes=routes, gateway={"identity_header": "Token-User"})
    cookie = f"Cookie: ticket={at.login('carol')}"
    forged = *token(code="forged-random-code", user="root"), "token_user: root", "TOKEN_CODE: forged-random-code"

    def told(*fields, path="/a"):
        """All that an application is told under these names, in any spelling."""
        head, _ = at.ask(request(*fields, path=path))
        if status_of(head) != 200:
            return status_of(head)
        lines = behind.requests[-1][0].split(b"\r\n")
        assert b"root" not in behind.requests[-1][0]
        return sorted(line for line in lines if line.lower().replace(b"_", b"-").startswith(b"token-"))

    ours = b"Token-Code: of-the-gateway"
    assert told(cookie) == told(cookie, *forged) == told(cookie, *forged, *forged) == [ours, b"Token-User: carol"]
    assert told(cookie, *forged, path="/bare") == [b"Token-User: carol"]
    assert told(*forged) == told(*forged, *forged) == told(*token(user="bob"), *token(user="root")) == 401
    for path in ("/maybe", "/free"):
        assert told(*forged, path=path) == told(*forged, *forged, path=path) == [ours]
    assert told(*forged, path="/bare") == told("Token-Code: x", path="/bare") == []
    if takes_tokens:
        assert told(*token(user="bob")) == told(*token(user="bob"), "token_user: root") == [ours, b"Token-User: bob"]
        assert told(*token(user="bob"), path="/bare") == [b"Token-User: bob"]


def test_the_clients_fields_are_not_shown_beside_the_gateways(serve):
    for more in ({"identity_header": "Token-User"}, {"removed_headers": ["token-code"]}):
        with pytest.raises(ConfigError, match=r"\[tokens\] forward: .* leave forward out"):
            serve(forward=True, gateway=more)


def test_who_takes_no_tokens_passes_them_on(gateway, behind):
    at = gateway(behind, routes=ROUTES)
    assert b'"reason": "missing"' in at.ask(request(*token()))[1]
    at.ask(request(*token(), path="/free"))
    assert seen(behind)[b"token-code"] == CODE.encode()


def test_many_requests_on_one_connection_are_each_judged(serve, behind):
    at = serve(gateway={"threads": 2})
    with at.connect() as client:
        for user, status in [("alice", 200), ("carol", 401), ("bob", 200)] * 20:
            client.sendall(request(*token(user=user)))
            head, _ = client.read_response()
            assert status_of(head) == status
    assert at.stats["admitted"] == 40


def test_who_waits_for_a_server_is_judged_again(serve, behind):
    """A request that was pending is looked at once more before it goes on."""
    may_answer = threading.Event()

    def answer(connection):
        while behind.request(connection):
            assert may_answer.wait(BOUND_S)
            connection.sendall(OK)

    behind.serve = answer
    at = serve(upstream=[{"name": "app", "servers": [behind.address], "connections_max": 1}])
    with at.connect() as busy, at.connect() as waiting:
        busy.sendall(request(*token()))
        wait_until(lambda: behind.requests, "one is busy", BOUND_S)
        waiting.sendall(request(*token(user="bob")))
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "one waits", BOUND_S)
        may_answer.set()
        assert status_of(busy.read_response()[0]) == 200
        assert status_of(waiting.read_response()[0]) == 200
    assert seen(behind)[b"x-forwarded-user"] == b"bob"


def test_a_stream_ends_with_its_token(serve, behind, tmp_path):
    def stream(connection):
        behind.request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        connection.read_all()

    behind.serve = stream
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=4)
    (tmp_path / "tokens.toml").write_text(TOKENS % CODE + f"expires = {ends.isoformat()}\n")
    at = serve()
    with at.connect() as client:
        client.sendall(request(*token()))
        client.read_until(b"a\r\n")
        client.read_all()
    assert time.time() >= ends.timestamp()


def test_a_reload_takes_other_tokens_and_the_metrics_count_on(site, origin, tmp_path):
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens.toml").write_text(TOKENS % CODE)
    config = {
        "gateway": {"listen": ["127.0.0.1:0"], "access_log": "access.log", "admin": "unix:admin.sock"},
        "ticket": {"keys": "keys.toml"},
        "tokens": {"file": "tokens.toml"},
        "upstream": [{"name": "app", "servers": [origin().address]}],
        "route": ROUTES,
    }
    at = site(config)
    assert status_of(at.ask(request(*token()))[0]) == 200
    (tmp_path / "tokens.toml").write_text("[[token]]")
    assert at.reload().startswith("not reloaded")
    assert "tokens.toml: [[token]] number 1: must have" in at.log
    assert status_of(at.ask(request(*token()))[0]) == 200
    (tmp_path / "tokens.toml").write_text(TOKENS % "another-random-code")
    assert at.reload().startswith("reloaded")
    assert status_of(at.ask(request(*token()))[0]) == 401
    assert status_of(at.ask(request(*token(code="another-random-code")))[0]) == 200
    wait_until(lambda: metric(at, "token_requests_total", outcome="admitted") == 3, "a note", BOUND_S)
    assert metric(at, "token_requests_total", outcome="unknown") == 1
    wait_until(lambda: "token engines: admitted: user 'alice' from 127.0.0.1, '/a'" in at.log, "the log", BOUND_S)
    wait_until(lambda: (tmp_path / "access.log").read_text().count("alice") == 3, "the access log", BOUND_S)

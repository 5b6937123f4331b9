"""Fields that a route adds to responses (HSTS, CORS) are on the gateway's own answers, too,
wherever their route is known.
"""

import threading

import pytest
from conftest import BOUND_S, fields_of, status_of
from lab.redis_servers import free_port

HSTS, CORS = "max-age=63072000", "https://shop.test"
ADDED = {"Strict-Transport-Security": HSTS, "Access-Control-Allow-Origin": CORS}
OTHER = {"X-Of": "the other one"}


def has_them(head):
    fields = fields_of(head)
    return (fields.get(b"strict-transport-security"), fields.get(b"access-control-allow-origin")) == (
        HSTS.encode(),
        CORS.encode(),
    )


def ask(at, path="/x", *fields, method="GET", body=b""):
    head, _ = at.ask("\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode() + body)
    return head


@pytest.fixture
def serving(gateway, origin):
    def start(*origins, auth="required", **tables):
        routes = [{"path": "/", "auth": auth, "response_headers": ADDED}]
        routes += [{"path": "/other", "auth": "none", "response_headers": OTHER}]
        return gateway(*(origins or [origin()]), routes=routes, **tables)

    return start


def test_on_a_refusal(serving):
    head = ask(serving())
    assert status_of(head) == 401
    assert has_them(head)
    assert b"x-of" not in fields_of(head)


def test_on_a_redirect(serving, origin):
    at = serving(gateway={"login_url": "/other"})
    head = ask(at, "/x", "Accept: text/html")
    assert (status_of(head), fields_of(head)[b"location"]) == (302, b"/other?next=/x")
    assert has_them(head)


def test_on_two_tickets(serving):
    head = ask(serving(), "/x", "Cookie: ticket=a; ticket=b")
    assert status_of(head) == 400
    assert has_them(head)


@pytest.mark.parametrize(
    ("answer", "status"), [(b"garbage\r\n\r\n", 502), (b"HTTP/1.1 200 OK\r\nX-Ticket-Logout: 1\r\n\r\n", 502)]
)
def test_on_a_response_that_is_none(serving, origin, answer, status):
    head = ask(serving(origin(answer=answer), auth="none"))
    assert status_of(head) == status
    assert has_them(head)


def test_on_a_server_that_is_down(serving):
    head = ask(serving(f"127.0.0.1:{free_port()}", auth="none"))
    assert status_of(head) == 502
    assert has_them(head)


def test_on_an_outage(serving, monkeypatch):
    from fastticket.errors import StoreUnavailable

    at = serving()
    ticket = at.login()

    async def away(*_, **__):
        raise StoreUnavailable("gone for a test")

    monkeypatch.setattr(at.cache._store, "exchange", away)
    at.call(at.cache._near.bump_epoch, 0)
    head = ask(at, "/x", f"Cookie: ticket={ticket}")
    assert (status_of(head), fields_of(head)[b"retry-after"]) == (503, b"1")
    assert has_them(head)


def test_on_a_server_that_takes_too_long(serving, origin):
    over = threading.Event()

    def silent(connection):
        connection.read_head()
        assert over.wait(BOUND_S)

    at = serving(origin(silent), auth="none", timeouts={"upstream_first_byte_s": 0.2})
    head = ask(at)
    over.set()
    assert status_of(head) == 504
    assert has_them(head)


@pytest.mark.parametrize("is_later", [False, True])
def test_on_a_body_that_is_none(serving, origin, is_later):
    """Whether that is seen with the head, or when the server has it."""
    begun = threading.Event()

    def reading(connection):
        connection.read_head()
        begun.set()
        connection.read_until(b"never")

    at = serving(origin(reading), auth="none")
    with at.connect() as client:
        head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        client.sendall(head if is_later else head + b"zz\r\n")
        if is_later:
            assert begun.wait(BOUND_S)
            client.sendall(b"zz\r\n")
        head, _ = client.read_response()
    assert status_of(head) == 400
    assert has_them(head)


def test_what_an_answer_says_itself_is_said_once(gateway, origin):
    fields = {
        "Cache-Control": "public", "Date": "yesterday", "Content-Type": "text/plain", "WWW-Authenticate": "Basic",
        "Location": "/away", "Retry-After": "9", "X-Request-Id": "7", "X-Kept": "yes",
    }  # fmt: skip
    at = gateway(
        origin(), routes=[{"path": "/", "response_headers": fields}], gateway={"request_id_header": "X-Request-Id"}
    )
    head = ask(at)
    lines = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
    assert len(lines) == len(set(lines))
    said = fields_of(head)
    assert (said[b"cache-control"], said[b"content-type"]) == (b"no-store", b"application/json")
    assert said[b"www-authenticate"].startswith(b"Ticket ")
    assert said[b"x-kept"] == b"yes"
    assert not {b"location", b"retry-after"} & said.keys()


def test_where_no_route_is_known_there_is_nothing_to_add(gateway, origin):
    """Not that of the request before it on its connection, either."""
    at = gateway(origin(), routes=[{"path": "/x", "auth": "none", "response_headers": ADDED}])
    with at.connect() as client:
        for path in ("/x", "/none"):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            head, _ = client.read_response()
            assert (status_of(head), has_them(head)) == ((200, True) if path == "/x" else (404, False))
        client.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert has_them(client.read_response()[0])
        client.sendall(b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n")
        head, _ = client.read_response()
        assert (status_of(head), has_them(head)) == (400, False)


def test_as_many_as_there_may_be(gateway, origin):
    fields = {f"X-{n}": "v" * 900 for n in range(2)}
    at = gateway(origin(), routes=[{"path": "/", "response_headers": fields}])
    head = ask(at)
    assert (status_of(head), len(fields_of(head)[b"x-1"])) == (401, 900)

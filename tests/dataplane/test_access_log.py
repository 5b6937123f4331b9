"""The access log: a line a request, in both formats, with no secret and no room for forgeries."""

import asyncio
import email.utils
import json
import os
import re
import time
from collections import Counter

import pytest
from conftest import fields_of, status_of
from lab.redis_servers import wait_until

from fastticket.gateway.logfile import LogFile


def request(path="/", *fields, ticket=None, method="GET", host="a"):
    cookie = [f"Cookie: ticket={ticket}"] if ticket else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, *cookie, "", ""]).encode("latin-1")


@pytest.fixture
def logging(gateway, origin, tmp_path):
    """Start a gateway with a log; `(gateway, read)`: `read(n)` waits for so many lines."""

    def start(form, behind=None, **options):
        settings = {"access_log": "access.log", "access_log_format": form, "request_id_header": "X-Request-Id"}
        routes = [
            {"path": "/open", "auth": "none"},
            {"path": "/login", "auth": "none", "login": True},
            {"path": "/"},
        ]
        at = gateway(behind or origin(), routes=routes, gateway={**settings, **options.pop("gateway", {})}, **options)

        def read(count):
            path = tmp_path / "access.log"
            wait_until(lambda: path.read_text().count("\n") >= count, f"{count} lines")
            lines = path.read_text().splitlines()
            assert len(lines) == count
            return [json.loads(line) for line in lines] if form == "json" else lines

        return at, read

    return start


def test_json(logging):
    at, read = logging("json")
    ticket = at.login("älice")
    at.ask(request("/shop?token=secret", ticket=ticket, host="shop.example"))
    at.ask(request("/open/x"))
    at.ask(request("/private", ticket="forged"))
    at.ask(b"GET /\x01 HTTP/1.1\r\n\r\n")
    admitted, open_to_all, refused, unread = read(4)
    session = at.run(at.cache.sessions("älice"))[0]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", admitted.pop("time"))
    assert re.fullmatch(r"[0-9a-f]{32}", admitted.pop("request_id"))
    assert 0 < admitted.pop("duration_ms") < 10_000
    assert admitted == {
        "client": "127.0.0.1",
        "principal": "älice",
        "session": session.id[:6],
        "method": "GET",
        "host": "shop.example",
        "path": "/shop",
        "verdict": "admitted",
        "status": 200,
        "body_bytes": 2,
    }
    assert (open_to_all["verdict"], open_to_all["path"]) == ("anonymous", "/open/x")
    assert (refused["verdict"], refused["status"]) == ("malformed", 401)
    assert not {"principal", "session"} & (open_to_all.keys() | refused.keys())
    assert (unread["verdict"], unread["status"], unread["client"]) == ("bad_request", 400, "127.0.0.1")
    assert re.fullmatch(r"[0-9a-f]{32}", unread["request_id"])
    assert not {"principal", "session", "method", "path"} & unread.keys()


def test_each_line_is_of_its_own_request(logging):
    """On one connection, in every order: nothing of the one before."""
    at, read = logging("json")
    ticket = at.login()
    asked = [
        (request("/a", ticket="forged"), "malformed"),
        (request("/b", ticket=ticket), "admitted"),
        (request("/open/c"), "anonymous"),
        (request("/d"), "missing"),
        (request("/open/e"), "anonymous"),
        (request("/f", ticket=ticket), "admitted"),
    ]
    with at.connect() as client:
        for raw, _ in asked:
            client.sendall(raw)
            client.read_response()
    lines = read(len(asked))
    assert [line["verdict"] for line in lines] == [verdict for _, verdict in asked]
    assert [line["path"] for line in lines] == ["/a", "/b", "/open/c", "/d", "/open/e", "/f"]
    assert ["principal" in line for line in lines] == [False, True, False, False, False, True]


def test_text(logging):
    at, read = logging("text")
    ticket = at.login("alice smith")
    at.ask(request("/shop?token=secret", ticket=ticket))
    at.ask(request('/a"b\\c'))
    first, second = (line.split(" ") for line in read(2))
    session = at.run(at.cache.sessions("alice smith"))[0]
    assert first[1:10] == ["127.0.0.1", "alice%20smith", session.id[:6], "admitted", "GET", "a", "/shop", "200", "2"]
    assert first[10].endswith("ms")
    assert second[1:9] == ["127.0.0.1", "-", "-", "missing", "GET", "a", "/a%22b%5Cc", "401"]


def test_no_secret_is_in_it(logging, tmp_path):
    at, read = logging("json")
    ticket = at.login()
    at.ask(request(f"/x?ticket={ticket}", f"Authorization: Ticket {ticket}"))
    at.ask(request("/x", "Authorization: Bearer swordfish", ticket=ticket))
    read(2)
    text = (tmp_path / "access.log").read_text()
    session = at.run(at.cache.sessions("alice"))[0]
    assert not any(secret in text for secret in (ticket, ticket[-20:], session.id, "swordfish", "ticket="))


def test_a_path_can_not_forge_a_field(logging):
    at, read = logging("json")
    at.ask(request('/open/","verdict":"admitted","x":"'))
    assert read(1)[0]["verdict"] == "anonymous"
    assert read(1)[0]["path"] == '/open/","verdict":"admitted","x":"'


def test_a_long_path_is_cut(logging):
    at, read = logging("json")
    at.ask(request("/open/" + "p" * 5000))
    assert len(read(1)[0]["path"]) == 512


def test_an_answer_that_did_not_get_through_says_so(logging, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly")

    at, read = logging("json", origin(serve))
    with at.connect() as client:
        client.sendall(request("/open"))
        client.read_all()
    line = read(1)[0]
    assert (line["status"], line["body_bytes"], line["cut"]) == (200, 4, True)


def test_every_request_of_a_busy_connection_has_its_line(logging):
    at, read = logging("json")
    with at.connect() as client:
        client.sendall(b"".join(request(f"/open/{number}") for number in range(300)))
        for _ in range(300):
            assert status_of(client.read_response()[0]) == 200
    assert [line["path"] for line in read(300)] == [f"/open/{number}" for number in range(300)]


def test_the_client_that_a_proxy_names(logging):
    at, read = logging("json", gateway={"trusted_proxies": ["127.0.0.1/32"]})
    at.ask(request("/open", "X-Forwarded-For: 9.9.9.9", "X-Request-Id: abc"))
    line = read(1)[0]
    assert (line["client"], line["request_id"]) == ("9.9.9.9", "abc")


def test_what_is_left_is_written_at_the_end(logging, tmp_path):
    at, _ = logging("text")
    for _ in range(5):
        at.ask(request("/open"))
    at.stop()
    assert (tmp_path / "access.log").read_text().count("\n") == 5


def test_lines_of_several_workers_do_not_mix_on_a_pipe(tmp_path):
    """Each has more to write than the pipe holds: what does not fit is written in pieces, between
    those of others.
    """
    path, writers, count = tmp_path / "pipe", b"ab", 1000
    os.mkfifo(path)
    lines = {bytes([letter]) * 200 + b"\n" for letter in writers}

    async def write():
        files = [LogFile(path) for _ in writers]
        reading = asyncio.create_task(asyncio.to_thread(reader.read))
        async with asyncio.TaskGroup() as group:
            for file, line in zip(files, lines, strict=True):
                group.create_task(file.aclose(line * count))
        os.close(writing)
        return await reading

    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        os.set_blocking(reader.fileno(), True)
        writing = os.open(path, os.O_WRONLY)  # else the pipe is at its end before a file's thread opens it
        read = asyncio.run(write()).splitlines(keepends=True)
    assert Counter(read) == dict.fromkeys(lines, count)


def unheard_of(keys, name="alice"):
    """Authentic, but the store knows no such session."""
    return keys.mint(name, time.time_ns() // 1_000_000, 3600, 3600)


@pytest.mark.parametrize("form", ["json", "text"])
def test_whose_a_ticket_is_that_is_refused(logging, keys, form):
    """What a stolen key does looks like no logout; and who was logged out can be told from who
    never was in.
    """
    at, read = logging(form)
    forged, ended = unheard_of(keys, "mallory"), at.login("alice")
    at.run(at.cache.logout(ended))
    at.ask(request("/x", ticket=forged))
    at.ask(request("/x", ticket=ended))
    at.ask(request("/x", ticket=ended[:-6] + "AAAAAA"))
    lines = read(3)
    verified = [keys.verify(ticket, 0) for ticket in (forged, ended)]
    ids = [ticket.session_id[:6] for ticket in verified]
    key_id = keys.ids[0]
    if form == "json":
        said = [[line.get(name) for name in ("verdict", "principal", "session", "key_id", "status")] for line in lines]
        assert said[:2] == [
            ["unknown_session", "mallory", ids[0], key_id, 401],
            ["revoked", "alice", ids[1], key_id, 401],
        ]
        assert said[2] == ["bad_signature", None, None, key_id, 401]  # whom it names nobody has verified
        assert all(re.fullmatch(r"[0-9a-f]{32}", line["request_id"]) for line in lines)
    else:
        said = [line.split(" ") for line in lines]
        assert [line[2:5] for line in said] == [
            ["mallory", ids[0], "unknown_session"],
            ["alice", ids[1], "revoked"],
            ["-", "-", "bad_signature"],
        ]
        assert all(line[-1] == f"key={key_id}" for line in said)


def test_nobody_is_named_where_a_ticket_does_not_count(gateway, origin, keys, tmp_path):
    at = gateway(
        origin(),
        routes=[{"path": "/", "auth": "optional"}],
        gateway={"access_log": "access.log", "access_log_format": "json"},
    )
    at.ask(request("/x", ticket=unheard_of(keys)))
    wait_until((tmp_path / "access.log").read_text, "a line")
    line = json.loads((tmp_path / "access.log").read_text())
    assert line["verdict"] == "anonymous"
    assert not {"principal", "session", "key_id"} & line.keys()


def test_no_ticket_in_a_path_is_logged(logging):
    at, read = logging("json")
    ticket = at.login("alice")
    paths = [f"/open/{ticket}", f"/open/{ticket}/x", f"/open/a.{ticket};b", "/open/" + "p" * 480 + "/" + ticket]
    for path in paths:
        at.ask(request(path))
    said = [line["path"] for line in read(4)]
    assert said == ["/open/***", "/open/***/x", "/open/a.***;b", "/open/" + "p" * 480 + "/***"]
    at.ask(request("/open/" + "0123456789abcdef" * 8))  # a SHA-512 is none
    assert read(5)[4]["path"] == "/open/" + "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("raw", "status", "verdict"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * 20_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"\x16\x03\x01\r\n\r\n", 400, "bad_request"),
    ],
)
def test_what_is_no_request_has_a_line(logging, raw, status, verdict):
    """The line names no user: what is known of the connection's last request is not said of it."""
    at, read = logging("json")
    with at.connect() as client:
        client.sendall(request("/open/before", ticket=at.login()))
        client.read_response()
        client.sendall(raw)
        head, _ = client.read_response()
    before, line = read(2)
    assert before["path"] == "/open/before"
    assert (line["status"], line["verdict"], line["client"]) == (status, verdict, "127.0.0.1")
    assert line["request_id"].encode() == fields_of(head)[b"x-request-id"]
    assert line["request_id"] != before["request_id"]
    assert not {"principal", "session", "method", "path", "host"} & line.keys()


def test_answers_of_the_gateways_own_say_when_and_which(logging, keys):
    """Date, a request id as the log has it, and that nobody may keep them."""
    at, read = logging("json", gateway={"trusted_proxies": ["127.0.0.1/32"], "login_url": "/login"})
    asked = [
        request("/x"),
        request("/x", "Accept: text/html"),
        request("/x", "X-Request-Id: from-the-proxy", ticket=unheard_of(keys)),
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    heads = [fields_of(at.ask(raw)[0]) for raw in asked]
    for fields, line in zip(heads, read(4), strict=True):
        at_s = email.utils.parsedate_to_datetime(fields[b"date"].decode()).timestamp()
        assert abs(at_s - time.time()) < 5
        assert fields[b"cache-control"] == b"no-store"
        assert fields[b"x-request-id"].decode() == line["request_id"]
    assert heads[2][b"x-request-id"] == b"from-the-proxy"

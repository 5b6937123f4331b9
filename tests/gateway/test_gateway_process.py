"""Real processes: the command line, signals, SIGKILL, workers, no descriptors left, a real nginx
behind.
"""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from lab.processes import Nginx
from lab.redis_servers import free_port, wait_until

import fastticket
from fastticket.keyfile import create_key_file


def get(ticket, path="/x"):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode()


@pytest.fixture
def serve(run, tmp_path, origin):
    """`fastticket serve` in front of an origin, by the simple flags."""
    create_key_file(tmp_path / "keys.toml")
    behind = origin()
    flags = (
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        behind.address,
        "--store",
        "sqlite:///s.db",
        "--keys",
        "keys.toml",
    )
    return lambda **options: run("serve", *flags, **options)


def in_store(tmp_path, action):
    """Do something with a cache of our own on the gateway's store."""

    async def act():
        keys = fastticket.Keyring.from_file(tmp_path / "keys.toml")
        store = fastticket.open_store("sqlite:///s.db", base=tmp_path)
        async with fastticket.TicketCache(store, keys) as cache:
            return await action(cache)

    return asyncio.run(act())


def deadlines(tmp_path, principal="alice"):
    return [s.idle_deadline_ms for s in in_store(tmp_path, lambda cache: cache.sessions(principal))]


def test_p5_sigterm_loses_no_touch(serve, tmp_path):
    ticket = in_store(tmp_path, lambda cache: cache.login("alice"))
    before = deadlines(tmp_path)
    at = serve()
    assert status_of(at.ask(get(ticket))[0]) == 200
    assert at.end(signal.SIGTERM) == 0
    assert deadlines(tmp_path) > before


def test_sigterm_lets_requests_under_way_finish(run, tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    asked, go_on = threading.Event(), threading.Event()

    def slow(connection):
        connection.read_head()
        asked.set()
        assert go_on.wait(BOUND_S)
        connection.sendall(OK)

    at = run("serve", "--listen", "127.0.0.1:0", "--upstream", origin(slow).address, "--keys", "keys.toml")
    with Client(at.address) as client, Client(at.address) as idle:
        client.sendall(b"GET /login HTTP/1.1\r\nHost: a\r\n\r\n")
        assert asked.wait(BOUND_S)
        at.process.send_signal(signal.SIGTERM)
        assert idle.read_all() == b""  # idle connections end at once
        with socket.socket() as late:
            assert late.connect_ex(at.address) != 0  # nobody waits in vain
        go_on.set()
        head, body = client.read_response()
        assert (status_of(head), body) == (200, b"ok")
        assert b"Connection: close" in head
    assert at.process.wait(BOUND_S) == 0


def test_p5_sigkill_loses_at_most_an_interval(serve, tmp_path):
    """Touches older than a flush are in the store; sessions live on in the next process."""
    ticket = in_store(tmp_path, lambda cache: cache.login("alice"))
    before = deadlines(tmp_path)
    at = serve()
    assert status_of(at.ask(get(ticket))[0]) == 200
    written = threading.Event()

    def watch():
        while deadlines(tmp_path) <= before:
            pass
        written.set()

    threading.Thread(target=watch, daemon=True).start()
    assert written.wait(BOUND_S)
    at.kill()
    assert status_of(serve().ask(get(ticket))[0]) == 200


def test_threads_share_sessions_and_a_dead_worker_is_replaced(run, tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "fastticket.toml").write_text(
        f"""
        gateway = {{listen = ["127.0.0.1:0"], threads = 2}}
        ticket = {{keys = "keys.toml"}}
        store = {{url = "sqlite:///s.db"}}
        upstream = [{{name = "app", servers = ["{origin().address}"]}}]
        route = [{{path = "/"}}]
        """
    )
    at = run("serve", "--config", "fastticket.toml")
    ticket = in_store(tmp_path, lambda cache: cache.login("alice"))
    assert {status_of(at.ask(get(ticket))[0]) for _ in range(20)} == {200}
    before = at.workers()
    os.kill(before[0], signal.SIGKILL)
    bounded = threading.Event()
    threading.Timer(BOUND_S, bounded.set).start()
    while not at.workers() or at.workers() == before:
        assert not bounded.is_set()
    for _ in range(20):
        with contextlib.suppress(ConnectionError, EOFError):  # those that the dead one had accepted
            assert status_of(at.ask(get(ticket))[0]) == 200
    assert at.end(signal.SIGTERM) == 0


def test_no_descriptors_left(serve, tmp_path):
    """Clients beyond the limit wait until descriptors are free again."""
    ticket = in_store(tmp_path, lambda cache: cache.login("alice"))
    at = serve(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)))
    clients = [Client(at.address) for _ in range(80)]
    for client in clients[:10]:
        client.sendall(get(ticket))
    for client in clients[40:]:
        client.close()
    for client in clients[:10]:
        assert status_of(client.read_response()[0]) in (200, 502, 503)
    for client in clients[:40]:
        client.close()
    head, _ = at.ask(get(ticket))
    assert status_of(head) == 200


NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; client_max_body_size 0;
  server {{
    listen unix:{folder}/nginx.sock;
    location / {{ return 200 "$http_x_forwarded_user\\n"; }}
    location /files/ {{ alias {folder}/files/; dav_methods PUT; }}
  }}
}}
"""


@pytest.fixture
def nginx(tmp_path):
    """A real nginx on a Unix socket; its path."""
    (tmp_path / "files").mkdir()
    os.chmod(tmp_path / "files", 0o777)
    server = Nginx(tmp_path, NGINX.format(folder=tmp_path), str(tmp_path / "nginx.sock"))
    yield f"unix:{tmp_path}/nginx.sock"
    server.stop()


def test_a_real_nginx_behind(gateway, nginx, tmp_path):
    """Many users over many connections, each seen as who they are; a file both ways, equal."""
    at = gateway(nginx, routes=[{"path": "/"}])
    tickets = {f"user{number}": at.login(f"user{number}") for number in range(200)}
    clients = [at.connect() for _ in range(50)]
    for _ in range(3):
        for start in range(0, 200, 50):
            batch = list(tickets.items())[start : start + 50]
            for client, (_, ticket) in zip(clients, batch, strict=True):
                client.sendall(get(ticket))
            for client, (user, _) in zip(clients, batch, strict=True):
                assert client.read_response()[1] == f"{user}\n".encode()
    for client in clients:
        client.close()
    data = os.urandom(5_000_000)
    with at.connect() as client:
        cookie = f"Host: a\r\nCookie: ticket={tickets['user0']}\r\n"
        client.sendall(f"PUT /files/x HTTP/1.1\r\n{cookie}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        assert status_of(client.read_response()[0]) == 201
        assert (tmp_path / "files/x").read_bytes() == data
        client.sendall(f"GET /files/x HTTP/1.1\r\n{cookie}\r\n".encode())
        assert client.read_response()[1] == data


def is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_demo(run, tmp_path):
    """The demo as the README shows it, with curl."""
    port, one, two = free_port(), free_port(), free_port()

    def demo():
        return run("demo", "--port", str(port), "--app-ports", f"{one},{two}", "--dir", "state")

    def curl(*arguments):
        done = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code}", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=3 * BOUND_S,
            check=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    url = f"http://127.0.0.1:{port}"
    at = demo()
    redirect = ("-o", "/dev/null", "-w", "\n%{redirect_url}\n%{http_code}")
    assert (
        curl("-H", "Accept: text/html", *redirect, f"{url}/whoami?x=1")[1].strip()
        == f"{url}/login?next=/whoami%3Fx%3D1"
    )
    for wanted, went in (("/whoami%3Fx%3D1", "/whoami?x=1"), ("//evil.example", "/"), ("/%5Cevil.example", "/")):
        assert curl("-d", "user=alice", *redirect, f"{url}/login?next={wanted}")[1].strip() == f"{url}{went}"
    assert curl("-c", "jar", "-d", "user=alice", f"{url}/login")[0] == 303
    answers = [json.loads(curl("-b", "jar", f"{url}/whoami")[1]) for _ in range(6)]
    assert {answer["user"] for answer in answers} == {"alice"}
    assert [answer["application"] for answer in answers[::2]] == [answers[0]["application"]] * 3
    assert {answer["application"] for answer in answers} == {one, two}

    ticket = re.search(r"ticket\t(\S+)", (tmp_path / "jar").read_text())[1]
    changed = ticket[:60] + ("A" if ticket[60] != "A" else "B") + ticket[61:]
    assert curl("-H", f"Cookie: ticket={changed}", f"{url}/whoami")[0] == 401

    at.end(signal.SIGKILL)
    bounded = threading.Event()
    timer = threading.Timer(BOUND_S, bounded.set)
    timer.start()
    while is_taken(one) or is_taken(two):  # the applications end with it
        assert not bounded.is_set()
    timer.cancel()
    demo()
    assert curl("-b", "jar", f"{url}/whoami")[0] == 200
    assert curl("-b", "jar", "-X", "POST", f"{url}/logout")[0] == 303
    assert curl("-b", "jar", f"{url}/whoami")[0] == 401
    assert "log in" in curl(f"{url}/login")[1].lower()


FEATURES = """
[gateway]
listen = ["127.0.0.1:0"]
workers = 2
login_url = "/login"
next_parameter = "back"
auth_path = "/_ticket/auth"
auth_front = "nginx"
trusted_proxies = ["127.0.0.1/32"]
no_use_header = "X-No-Use"
lifetime_header = "X-Lifetime"

[ticket]
keys = "keys.toml"

[store]
url = "sqlite:///s.db"

[[upstream]]
name = "app"
servers = ["{server}"]
health_path = "/health"
health_host = "app.internal"
health_interval_s = 0.1

[[route]]
path = "/login"
first = true
auth = "none"
login = true

[[route]]
path = "/"
host = "shop.example"

[[route]]
path = "/"
host = "shop.example"
methods = ["OPTIONS"]
auth = "none"
"""


def test_what_a_file_says_of_requests(run, tmp_path, origin):
    """Two workers: login for every host, preflight, the way back, what an application sees, the
    endpoint, health checks.
    """
    create_key_file(tmp_path / "keys.toml")
    behind = origin(answer=b"HTTP/1.1 200 OK\r\nX-Ticket-Login: alice\r\nContent-Length: 0\r\n\r\n")
    (tmp_path / "fastticket.toml").write_text(FEATURES.format(server=behind.address))
    at = run("serve", "--config", "fastticket.toml")

    def ask(line, *fields):
        raw = "\r\n".join([f"{line} HTTP/1.1", "Host: shop.example", "Content-Length: 0", *fields, "", ""]).encode()
        head, _ = at.ask(raw)
        return status_of(head), fields_of(head)

    status, fields = ask("GET /cart?x=1", "Accept: text/html")
    assert (status, fields[b"location"]) == (302, b"/login?back=/cart%3Fx%3D1")
    assert ask("OPTIONS /cart")[0] == 200
    assert ask("PUT /cart")[0] == 401
    status, fields = ask("POST /login")
    cookie = f"Cookie: a=1; {fields[b'set-cookie'].split(b';')[0].decode()}; b=2"
    status, fields = ask("GET /cart", cookie, "X-No-Use: 1", "X-Lifetime: ?")
    assert status == 200
    assert re.fullmatch(rb"idle=7\d\d\d, absolute=86\d\d\d", fields[b"x-lifetime"])
    described = ("X-Original-Method: OPTIONS", "X-Original-URI: /cart")
    assert ask("GET /_ticket/auth", *described)[0] == 204
    assert ask("GET /_ticket/auth", *described, "X-Original-URI: /cart")[0] == 403
    assert ask("GET /_ticket/auth")[0] == 401
    wait_until(lambda: any(b" /health " in head for head, _ in behind.requests), "a health check")
    seen = [(head.split()[:2], fields_of(head)) for head, _ in behind.requests]
    assert {fields[b"host"] for line, fields in seen if line[1] == b"/health"} == {b"app.internal"}
    ((_, fields),) = [each for each in seen if each[0] == [b"GET", b"/cart"]]
    assert (fields[b"cookie"], fields[b"x-forwarded-user"]) == (b"a=1; b=2", b"alice")

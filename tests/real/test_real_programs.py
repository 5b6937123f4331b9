"""Three programs as people run them, by Chromium through a gateway: JupyterLab, a socket.io server,
Streamlit. `make real`.

Rule: nobody is in before he has logged in on the page that `login_url` names. Then the program's
page, its WebSocket and an upload work, and it knows the user by the identity header: a name that is
not ASCII, in percent-encoding.
"""

import base64
import contextlib
import hashlib
import os
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import read_body
from lab.chromium import chromium
from lab.redis_servers import free_port, wait_until

HERE = Path(__file__).parent
REAL = Path(os.environ.get("FASTTICKET_REAL", ""))
NAME = "Zoë 张三"
UPLOAD_BYTES = 3_000_000
pytestmark = [
    pytest.mark.skipif("FASTTICKET_REAL" not in os.environ, reason="`make real` runs them: they are heavy"),
    pytest.mark.timeout(300),
]

FORM = """<!doctype html><meta charset="utf-8"><title>login</title>
<form method="post" action="/login"><input name="user"><button>log in</button></form>"""


def login_page(connection):
    """A login page that logs in NAME when the form is sent."""
    while head := connection.read_head():
        read_body(head, connection)
        body = FORM.encode() if head.startswith(b"GET ") else b""
        answer = "200 OK" if body else f"303 See Other\r\nLocation: /\r\nX-Ticket-Login: {NAME}"
        fields = f"Content-Type: text/html\r\nContent-Length: {len(body)}"
        connection.sendall(f"HTTP/1.1 {answer}\r\n{fields}\r\n\r\n".encode() + body)


@contextlib.contextmanager
def running(folder, port, *command, **environment):
    """A program of build/real, until it listens and then until the end."""
    with (folder / "program.log").open("wb") as log:
        process = subprocess.Popen(
            [REAL.resolve() / "venv/bin" / command[0], *map(str, command[1:])],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder), "PYTHONPATH": "", **environment},
        )
        try:
            wait_until(lambda: process.poll() is not None or listens(port), command[0], 60)
            assert process.poll() is None, (folder / "program.log").read_text()[-3000:]
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def enter(gateway, origin, tmp_path):
    """`enter(address)`: a page of the program there, after its login; and the gateway's address."""
    with contextlib.ExitStack() as stack:

        def start(address):
            login = origin(login_page)
            at = gateway(
                gateway={"login_url": "/login", "identity_encoding": "percent"},
                upstream=[{"name": "app", "servers": [address]}, {"name": "login", "servers": [login.address]}],
                routes=[{"path": "/login", "auth": "none", "login": True, "upstream": "login"}, {"path": "/"}],
            )
            page = stack.enter_context(chromium(tmp_path / "profile"))
            url = "http://{}:{}".format(*at.address)
            page.go(url)
            page.wait("document.title === 'login' && document.querySelector('button')")
            page.run("document.querySelector('button').click()")
            return page, url

        yield start


def given(tmp_path):
    """A file to upload, and its SHA-256."""
    path = tmp_path / "given.bin"
    path.write_bytes(os.urandom(UPLOAD_BYTES))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


KERNEL = """(async () => {
    const token = decodeURIComponent(document.cookie.match(/_xsrf=([^;]*)/)[1]);
    const fields = {"X-XSRFToken": token, "Content-Type": "application/json"};
    const kernel = await (await fetch("/api/kernels", {method: "POST", headers: fields, body: "{}"})).json();
    const socket = new WebSocket(`ws://${location.host}/api/kernels/${kernel.id}/channels`);
    const message = (type, content) => JSON.stringify({channel: "shell", header: {msg_id: type, msg_type: type, session: "s",
        username: "", version: "5.3"}, parent_header: {}, metadata: {}, content});
    const said = new Promise((done, fail) => {
        socket.onopen = () => socket.send(message("execute_request", {code: "print(6 * 7)", silent: false}));
        socket.onmessage = (event) => {
            const told = JSON.parse(event.data);
            if (told.msg_type === "stream") done(told.content.text.trim());
        };
        socket.onclose = () => fail(new Error("closed"));
        setTimeout(() => fail(new Error("no word of the kernel")), 25000);
    });
    return await said;
})()"""


def test_jupyterlab(enter, tmp_path):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    port = free_port()
    options = ("--config", HERE / "jupyter_server_config.py", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}")
    with running(tmp_path, port, "jupyter-lab", *options, NOTEBOOKS=str(notebooks)) as address:
        page, _ = enter(address)
        page.wait("document.querySelector('#jp-main-dock-panel')")
        me = page.run("fetch('/api/me').then(answer => answer.json())")
        assert me["identity"]["username"] == NAME
        assert page.run(KERNEL) == "42"
        path, digest = given(tmp_path)
        content = base64.b64encode(path.read_bytes()).decode()
        put = f"""fetch("/api/contents/given.bin", {{method: "PUT", headers: {{"X-XSRFToken":
            decodeURIComponent(document.cookie.match(/_xsrf=([^;]*)/)[1]), "Content-Type": "application/json"}},
            body: JSON.stringify({{type: "file", format: "base64", content: "{content}"}})}}).then(answer => answer.status)"""
        assert page.run(put) == 201
        assert hashlib.sha256((notebooks / "given.bin").read_bytes()).hexdigest() == digest


def test_socket_io(enter, tmp_path):
    port = free_port()
    client = REAL.resolve() / "node_modules/socket.io-client/dist/socket.io.min.js"
    options = ("--app-dir", HERE, "--port", port, "--log-level", "warning", "socketio_application:application")
    with running(tmp_path, port, "uvicorn", *options, SOCKET_IO_CLIENT=str(client)) as address:
        page, _ = enter(address)
        said = "[...document.querySelectorAll('#said li')].map(item => item.textContent)"
        page.wait(f"document.title === 'socket.io' && {said}.length === 3")
        assert sorted(page.run(said)) == ["echoed 300000", "transport websocket", f"welcome {NAME}"]
        upload = f"""(async () => {{
            const bytes = new Uint8Array({UPLOAD_BYTES}).fill(65);
            return await (await fetch("/upload", {{method: "POST", body: bytes}})).text();
        }})()"""
        assert page.run(upload) == hashlib.sha256(b"A" * UPLOAD_BYTES).hexdigest()


def test_streamlit(enter, tmp_path):
    port = free_port()
    options = ("--server.port", port, "--server.address", "127.0.0.1", "--server.headless", "true")
    more = ("--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none")
    with running(tmp_path, port, "streamlit", "run", HERE / "streamlit_application.py", *options, *more) as address:
        page, _ = enter(address)
        page.wait(f"document.querySelector('h1').textContent.includes('hello {NAME}')")  # it came by WebSocket
        page.wait("document.querySelector('input[type=file]')")
        path, digest = given(tmp_path)
        page.choose_file("input[type=file]", path)
        page.wait(f"document.body.innerText.includes('sha256 {digest}')")

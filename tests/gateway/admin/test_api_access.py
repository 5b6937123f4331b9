"""Who may ask the admin API: users by what the kernel says of them, tokens, TLS, and no page of
another site.
"""

import json
import os
import re
import socket
import subprocess

import pytest
from lab.operators import Operator
from lab.processes import BOUND_S
from lab.redis_servers import free_port, wait_until

from fastticket.commands.cli import main
from fastticket.errors import ConfigError
from fastticket.gateway.admin.access import access_of
from fastticket.gateway.admin.audit import REFUSALS_MAX
from fastticket.gateway.reader import read_config
from fastticket.keyfile import create_key_file

TOKEN = "t" * 20 + "0123456789abcdef"
BEHIND = {"upstream": [{"name": "app", "servers": ["127.0.0.1:9"]}], "route": [{"path": "/"}]}


def table(**gateway):
    return {
        "gateway": {"listen": ["127.0.0.1:0"], **gateway},
        "ticket": {"keys": "keys.toml"},
        "store": {"url": "sqlite:///sessions.db"},
        **BEHIND,
    }


@pytest.fixture
def with_token(site, tmp_path):
    """`with_token(**gateway)`: a gateway with a token, and the address of its admin listener."""
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens").write_text(f"# who may\nops {TOKEN}\n")
    (tmp_path / "tokens").chmod(0o600)

    def start(**gateway):
        port = free_port()
        at = site(table(admin=f"127.0.0.1:{port}", admin_token_file="tokens", **gateway))
        return at, ("127.0.0.1", port)

    return start


def test_by_tcp_it_takes_a_token(with_token):
    at, address = with_token()
    assert Operator(address, TOKEN).get("/v1/status")["is_healthy"]
    for token in ("", "x" * 36, TOKEN[:-1]):
        assert Operator(address, token).refused("GET", "/v1/status") == (401, "unauthorized")
    basic = Operator(address, Authorization=f"Basic {TOKEN}")
    assert basic.refused("GET", "/v1/status") == (401, "unauthorized")
    assert Operator(address).ask("GET", "/healthz")[0] == 200  # as it always was
    assert TOKEN not in at.log
    # Another token with the next reload, without a break.
    (at.folder / "tokens").write_text(f"new {'n' * 40}\n")
    assert at.reload().startswith("reloaded")
    assert Operator(address, TOKEN).refused("GET", "/v1/status") == (401, "unauthorized")
    assert Operator(address, "n" * 40).get("/v1/status")
    # A file that cannot be used changes nothing, and the log does not show what is in it.
    (at.folder / "tokens").write_text("new tooshort\n")
    assert "line 1 must be a name and a token of at least 32 characters" in at.reload()
    assert "tooshort" not in at.log
    assert Operator(address, "n" * 40).get("/v1/status")
    assert at.reload(table(admin=f"127.0.0.1:{address[1]}")).startswith("reloaded")
    assert Operator(address, "n" * 40).refused("GET", "/v1/status") == (403, "forbidden")


def test_by_tcp_a_drain_takes_a_token_too(with_token):
    """/drain, which hooks use: where there are tokens, it goes by them, as /v1/drain does."""
    at, address = with_token(admin_audit_log="audit.log")
    known = Operator(address, TOKEN)
    for who in (Operator(address), Operator(address, "x" * 36), Operator(address, Authorization=f"Basic {TOKEN}")):
        assert who.refused("POST", "/drain") == (401, "unauthorized")
        assert known.ask("GET", "/readyz")[0] == 200
    assert known.ask("POST", "/drain")[0] == 503 == Operator(address).ask("GET", "/readyz")[0]
    assert Operator(address).refused("DELETE", "/drain") == (401, "unauthorized")
    assert known.ask("DELETE", "/drain")[0] == 200

    def lines():
        return [json.loads(line) for line in (at.folder / "audit.log").read_text().splitlines()]

    wait_until(lambda: len(lines()) == 6, "a line of each", BOUND_S)
    assert [(line["audit"], line["result"], line["who"].get("name")) for line in lines()] == [
        *[("drain.begin", "unauthorized", None)] * 3,
        ("drain.begin", "done", "ops"),
        ("drain.end", "unauthorized", None),
        ("drain.end", "done", "ops"),
    ]
    assert TOKEN not in at.log


def test_what_is_refused_at_the_door_is_in_the_audit_log(with_token):
    """By whatever it is refused. A token that is not known has a line for whatever it asks."""
    at, address = with_token(admin_audit_log="audit.log")
    operator, stranger = Operator(address, TOKEN), Operator(address, "x" * 36)
    bare = {"X_Fastticket_Admin": None}
    at_door = [
        (stranger, ("DELETE", "/v1/sessions?yes=true"), {}, 401),
        (stranger, ("GET", "/v1/status"), {}, 401),
        (stranger, ("GET", "/v1/nothing"), {}, 401),
        (operator, ("DELETE", "/v1/sessions?yes=true"), bare, 403),
        (operator, ("POST", "/v1/drain"), {"Origin": "http://evil.example"}, 403),
        (operator, ("POST", "/v1/sessions", b"{}"), {"X_Fastticket_Admin": "1", "Content_Type": "text/plain"}, 415),
        (operator, ("POST", "/v1/sessions", b"nonsense"), {}, 400),
        (operator, ("DELETE", "/v1/sessions/short"), {}, 400),
        (operator, ("POST", "/drain"), {"Origin": "http://evil.example"}, 403),
        # No lines: nothing was to change, and it is known who asks, or no token was tried.
        (operator, ("GET", "/v1/nothing"), {}, 404),
        (Operator(address), ("GET", "/v1/status"), {}, 401),
    ]
    for who, what, fields, status in at_door:
        assert who.ask(*what, **fields)[0] == status, what

    def lines():
        return [json.loads(line) for line in (at.folder / "audit.log").read_text().splitlines()]

    wait_until(lambda: len(lines()) == len(at_door) - 2, "a line of each but the last two", BOUND_S)
    assert [(line["audit"], line["result"], line["who"].get("name")) for line in lines()] == [
        ("end_all_sessions", "unauthorized", None),
        ("status", "unauthorized", None),
        ("unknown", "unauthorized", None),
        ("end_all_sessions", "forbidden", "ops"),
        ("drain", "forbidden", None),
        ("issue", "not_json", "ops"),
        ("issue", "bad_request", "ops"),
        ("end_session", "bad_request", "ops"),
        ("drain.begin", "forbidden", None),
    ]
    assert lines()[0]["what"] == {"yes": True}
    assert lines()[0]["who"] == {"address": "127.0.0.1"}
    # Whoever has no token can ask for ever, and does not fill the disk.
    for _ in range(REFUSALS_MAX):
        assert stranger.refused("GET", "/v1/status")[0] == 401
    assert operator.refused("POST", "/v1/drain", **bare)[0] == 403
    wait_until(lambda: lines()[-1]["who"].get("name") == "ops", "the last one", BOUND_S)
    assert len([line for line in lines() if "name" not in line["who"]]) == REFUSALS_MAX
    said = "an admin request with a token that is not known, from 127.0.0.1"
    wait_until(lambda: said in at.log, "the log", BOUND_S)
    assert TOKEN not in at.log + (at.folder / "audit.log").read_text()


def test_by_tls(with_token, tmp_path):
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout tls.key -out tls.pem"
    subprocess.run(
        [*made.split(), "-subj", "/CN=gw", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    _, address = with_token(admin_certificate="tls.pem", admin_key="tls.key")
    operator = Operator(address, TOKEN, tls=tmp_path / "tls.pem")
    assert operator.get("/v1/status")["is_healthy"]
    with operator.events() as stream:
        stream.begin()
    own = {"Origin": f"https://127.0.0.1:{address[1]}", "Sec-Fetch-Site": "same-origin"}
    assert operator.ask("GET", "/v1/status", **own)[0] == 200
    with socket.create_connection(address, BOUND_S) as plain:
        plain.sendall(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    assert operator.get("/v1/status")


def test_commands_come_by_tls_and_trust_whom_they_are_told_to(with_token, tmp_path, capsys):
    """A certificate of an authority of one's own, which no system knows."""
    sign(tmp_path)
    at, (host, port) = with_token(admin_certificate="tls.pem", admin_key="tls.key")
    there = ("--admin", f"https://{host}:{port}")
    trusting = (*there, "--ca", str(tmp_path / "ca.pem"))
    token = ("--token-file", str(tmp_path / "tokens"))
    said = []
    for arguments in (
        ("status", *trusting, *token),
        ("probe", "healthz", *trusting),
        ("keys", "list", str(tmp_path / "keys.toml"), *trusting),
        ("status", *trusting),
        ("status", *there, *token),
        ("status", *there, "--ca", str(tmp_path / "tls.key"), *token),
        ("status", "--admin", f"https://localhost:{port}", *trusting[2:], *token),
    ):
        code = main(arguments)
        said.append((code, "".join(capsys.readouterr())))
    assert [code for code, _ in said] == [0, 0, 0, 1, 1, 2, 1]
    assert f"pid {at.pid}" in said[0][1]
    assert "the gateway has verified 0 tickets by it" in said[2][1]
    assert "/v1/status says 401" in said[3][1]
    assert "--ca FILE names whose certificates to trust" in said[4][1]
    assert f"--ca {tmp_path / 'tls.key'}: no certificates in PEM" in said[5][1]
    assert "localhost" in said[6][1]
    assert "--ca" not in said[6][1]  # nobody's word makes it that name's
    assert not any(TOKEN in text for _, text in said)


def test_a_command_sends_no_token_that_somebody_could_read_along_and_shows_none(tmp_path, capsys):
    (tmp_path / "tokens").write_text(f"ops {TOKEN}\n")
    (tmp_path / "cyrillic").write_text(f"ops {'ю' * 40}\n")
    token, cyrillic = ("--token-file", str(tmp_path / "tokens")), ("--token-file", str(tmp_path / "cyrillic"))
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        there.setblocking(False)
        for arguments, said in (
            (("--admin", f"http://0.0.0.0:{port}", *token), "a token goes to another machine over https:// only"),
            (("--admin", f"http://ops:{TOKEN}@127.0.0.1:{port}"), "a token comes from --token-file"),
            (("--admin", f"http://127.0.0.1:{port}/?token={TOKEN}"), "a token comes from --token-file"),
            (("--admin", f"http://127.0.0.1:{port}", *cyrillic), "a name and a token, of ASCII characters"),
        ):
            assert main(("status", *arguments)) == 2
            shown = "".join(capsys.readouterr())
            assert said in shown
            assert TOKEN not in shown
        with pytest.raises(BlockingIOError):
            there.accept()  # nobody has come


def test_commands_ask_the_gateway_whose_file_is_broken(with_token, capsys):
    """That a file was refused is what an operator asks about then."""
    at, (host, port) = with_token()
    file = at.folder / "fastticket.toml"
    good = file.read_text()

    def said(*arguments):
        code = main((*arguments, "--config", str(file)))
        return code, "".join(capsys.readouterr())

    file.write_text(good.replace("[gateway]", "[gateway]\nthraeds = 2"))
    assert "did you mean threads?" in at.reload()
    assert re.search(r"reload +refused .*did you mean threads\?", said("status")[1])
    assert said("probe", "healthz")[0] == 0
    code, text = said("sessions", "--all", "--count")
    assert (code, "sessions does without the file by --store URL" in text) == (2, True)
    for broken in (good.replace(f"{host}:{port}", "nowhere"), "[gateway"):
        file.write_text(broken)
        code, text = said("status")
        assert (code, "status asks the gateway without the file by --admin ADDRESS; " in text) == (2, True), text


def sign(folder):
    """tls.pem and tls.key for 127.0.0.1, by the authority ca.pem."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for command in (
        f"openssl req -x509 {key} -days 2 -keyout ca.key -out ca.pem -subj /CN=ours",
        f"openssl req -new {key} -keyout tls.key -out tls.csr -subj /CN=gw -addext subjectAltName=IP:127.0.0.1",
        "openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out tls.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def test_no_page_of_another_site(with_token):
    """Not by a name of its own that leads here (DNS rebinding), nor from its own address."""
    _, address = with_token(admin_hosts=["gw.example"])
    operator, port = Operator(address, TOKEN), address[1]
    for host in (f"127.0.0.1:{port}", "[::1]:1", "localhost", "GW.example:9"):
        assert operator.ask("GET", "/v1/status", Host=host)[0] == 200, host
    for host in ("evil.example", f"evil.example:{port}", "admin", "127.0.0.1.evil.example"):
        assert operator.refused("GET", "/v1/status", Host=host) == (403, "forbidden"), host
    for fields in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert operator.refused("GET", "/v1/status", **fields) == (403, "forbidden"), fields
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert operator.ask("GET", "/v1/status", **own)[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_through_the_socket_the_kernel_says_who_it_is(site, tmp_path):
    """Whom the mode of the file lets in is no operator for it."""
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens").write_text(f"ops {TOKEN}\n")
    path = f"/tmp/fastticket-test-{os.getpid()}.sock"  # in a folder that nobody can open
    at = site(table(admin=f"unix:{path}", admin_mode="0666"))

    def as_nobody(*arguments):
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path, *arguments]
        return int(subprocess.run(command, user="nobody", capture_output=True, text=True, check=True).stdout)

    try:
        assert Operator(path).get("/v1/status")
        assert as_nobody("http://admin/healthz") == 200
        assert as_nobody("http://admin/v1/status") == 403
        changed = table(admin=f"unix:{path}", admin_mode="0666", admin_token_file="tokens")
        assert at.reload(changed).startswith("reloaded")
        assert as_nobody("http://admin/v1/status") == 401
        assert as_nobody("-H", f"Authorization: Bearer {TOKEN}", "http://admin/v1/status") == 200
        assert at.reload(table(admin=f"unix:{path}", admin_owner="nobody")).startswith("reloaded")
        assert as_nobody("http://admin/v1/status") == 200
    finally:
        os.unlink(path)


@pytest.mark.parametrize(
    ("gateway", "problem"),
    [
        ({"admin_token_file": "tokens"}, "admin_token_file: is for an admin listener"),
        ({"admin": "unix:a.sock", "admin_hosts": ["a:1"]}, "admin_hosts: must be names of hosts, without ports"),
        ({"admin": "127.0.0.1:1", "admin_key": "k.pem"}, "admin_certificate, admin_key: belong together"),
        (
            {"admin": "unix:a.sock", "admin_certificate": "c.pem", "admin_key": "k.pem"},
            "nobody can read along at a Unix socket",
        ),
        (
            {"admin": "0.0.0.0:1", "admin_networks": ["10.0.0.0/8"], "admin_token_file": "tokens"},
            "a token to 0.0.0.0:1 could be read on the way",
        ),
    ],
)
def test_what_does_not_fit_together(tmp_path, gateway, problem):
    with pytest.raises(ConfigError, match=problem):
        read_config({"gateway": gateway, **BEHIND}, "test", tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file"),
        ("", "has 0 tokens"),
        ("ops\n", "line 1 must be a name and a token"),
        (f"ops {TOKEN}\nops {'x' * 40}\n", "line 2 has the name or the token of another one"),
        (f"ops {TOKEN}\n other {TOKEN}\n", "line 2 has the name or the token of another one"),
    ],
)
def test_a_file_of_tokens_that_can_not_be_used(tmp_path, text, problem):
    if text is not None:
        (tmp_path / "tokens").write_text(text)
    config = read_config({"gateway": {"admin": "unix:a.sock", "admin_token_file": "tokens"}, **BEHIND}, "t", tmp_path)
    with pytest.raises(ConfigError, match=problem) as raised:
        access_of(config)
    assert TOKEN not in str(raised.value)

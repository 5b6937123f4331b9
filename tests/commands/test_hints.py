"""A message about a mistake says what to write instead, and nothing that does not help.

Rule: each line is what somebody has really typed. The message must fit that very mistake: no word
of IPv6 where there is none, of `keygen` where a file is there, of a descriptor where none can
be.
"""

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from lab.commands import Commands

from fastticket.commands.cli import main
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Address, parse_address, parse_server
from fastticket.gateway.binding import listen
from fastticket.keyfile import create_key_file

BOTH = [
    ("9000", "the host is missing; write 127.0.0.1:9000"),
    (":9000", "the host is missing; write 127.0.0.1:9000"),
    ("*:9000", "the host is missing; write 127.0.0.1:9000"),
    ("127.0.0.1", "the port is missing; write 127.0.0.1:80"),
    ("app", "the port is missing; write app:80"),
    ("[::1]", "the port is missing; write [::1]:80"),
    ("::1", "write an IPv6 address in brackets and with a port, as [::1]:80"),
    ("2001:db8::5", "write an IPv6 address in brackets and with a port, as [2001:db8::5]:80"),
    ("::1:9000", "write an IPv6 address in brackets, as [::1]:9000"),
    ("app:http", "http is no port; those are numbers up to 65535"),
    ("app:99999", "99999 is no port"),
    ("app:", "nothing is no port"),
    ("[app]:80", "app is no IPv6 address; brackets are for those"),
    ("[::g]:80", "::g is no IPv6 address"),
    ("a:1,b:2", "write one address; each of several is an entry of its own"),
    ("a b:1", "not an address; write host:port"),
    ("", "not an address; write host:port"),
    ("a:b:1", "not an address; write host:port"),
    ("unix:", "the path is missing; write unix:PATH"),
    ("tcp://a:1", "tcp:// is not spoken here; write host:port"),
    ("redis://a:1", "redis:// is not spoken here; write host:port"),
    ("http://a:9000/app", "an address has no path; write a:9000"),
]
LISTEN = [
    *BOTH,
    ("8080", "0.0.0.0:8080 (and [::]:8080) for every address"),
    ("https://a:443", "TLS ends at the load balancer in front"),
    ("fd:x", "write the number of a descriptor that is handed over, as in fd:3"),
    ("fd:", "write the number of a descriptor"),
]
SERVERS = [
    *BOTH,
    ("https://a:443", "TLS is not spoken to upstreams; write host:port of where plain HTTP is"),
    ("fd:3", "an upstream can not be a descriptor; write host:port, [v6]:port or unix:PATH"),
    ("app:0", "the port of a server is from 1 to 65535"),
]


def said_of(parse, text):
    with pytest.raises(ValueError) as refused:
        parse(text, Path("/base"))
    return str(refused.value)


@pytest.mark.parametrize(("text", "says"), LISTEN)
def test_where_to_listen(text, says):
    assert said_of(parse_address, text).startswith(f"{text}: ")
    assert says in said_of(parse_address, text)


@pytest.mark.parametrize(("text", "says"), SERVERS)
def test_where_a_server_is(text, says):
    assert said_of(parse_server, text).startswith(f"{text}: ")
    assert says in said_of(parse_server, text)
    assert "fd:N" not in said_of(parse_server, text)
    assert "0.0.0.0" not in said_of(parse_server, text)


@pytest.mark.parametrize("parse", [parse_address, parse_server])
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:9000", Address("127.0.0.1", 9000)),
        ("http://127.0.0.1:9000/", Address("127.0.0.1", 9000)),
        ("HTTP://[::1]:9000/", Address("::1", 9000)),
        ("http://app", Address("app", 80)),
        ("http://[::1]/", Address("::1", 80)),
        ("app.example.com:80", Address("app.example.com", 80)),
        ("[2001:db8::5]:80", Address("2001:db8::5", 80)),
        ("bücher.example:80", Address("bücher.example", 80)),
        ("unix:run/a.sock", Address(path="/base/run/a.sock")),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
        ("unix:///run/a.sock", Address(path="/run/a.sock")),
    ],
)
def test_what_works(parse, text, address):
    assert parse(text, Path("/base")) == address


def test_what_works_to_listen_on_alone():
    assert parse_address("fd:3", Path()) == Address(fd=3)
    assert parse_address("127.0.0.1:0", Path()) == Address("127.0.0.1", 0)


# ------------------------------------------------------------------------------ by the command line


@pytest.fixture(scope="module")
def started():
    """`started(**environment)`: what runs commands in a Python that has started with it."""
    made = {}

    def start(**environment):
        key = tuple(environment.items())
        if key not in made:
            made[key] = running.enter_context(contextlib.closing(Commands(**environment)))
        return made[key]

    with contextlib.ExitStack() as running:
        yield start


@pytest.fixture
def refusal(started, tmp_path, monkeypatch):
    """The line that a command is refused with."""
    create_key_file(tmp_path / "keys.toml")
    for secret in ("FASTTICKET_KEYS", "FASTTICKET_STORE"):
        monkeypatch.delenv(secret, raising=False)

    def run(*arguments):
        code, output, error = started().run(*arguments, cwd=tmp_path)
        assert (code, output, error.count(b"\n")) == (2, b"", 1), error
        return error.decode().removeprefix("fastticket: ").removesuffix("\n")

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--upstream", "https://127.0.0.1:9000"], "--upstream: https://127.0.0.1:9000: TLS is not spoken"),
        (["--upstream", "9000"], "--upstream: 9000: the host is missing; write 127.0.0.1:9000"),
        (["--listen", "8080"], "--listen: 8080: the host is missing; write 127.0.0.1:8080 for this machine alone"),
        (["--threads", "1000"], "--threads: must be from 1 to 64"),
        (["--workers", "1000"], "--workers: must be from 1 to 64"),
        (["--store", "x.db"], "--store: no scheme: write sqlite:///x.db"),
        (["--store", "/var/x"], "--store: no scheme: write sqlite:////var/x"),
        (["--store", "127.0.0.1:6379"], "--store: no scheme: write redis://host:6379/0"),
        (["--store", "mysql://h"], "--store: mysql: known are sqlite://"),
        (["--keys", "none.toml"], "none.toml: No such file or directory; make it with `fastticket keygen`"),
        (["--keys", "folder"], "folder: Is a directory"),
        (["--keys", "keys.toml/x"], "keys.toml/x: Not a directory"),
        ([], "--keys: not given, and FASTTICKET_KEYS is not set; make a file with `fastticket keygen`"),
        (
            ["--keys", "keys.toml", "--listen", "unix:keys.toml"],
            "listen unix:keys.toml: there is a file that is not a socket",
        ),
        (
            ["--keys", "keys.toml", "--listen", "fd:999"],
            "fd:999: Bad file descriptor: no descriptor of that number was",
        ),
        (
            ["--keys", "keys.toml", "--listen", "192.0.2.1:1"],
            "Cannot assign requested address: this machine has no such address",
        ),
    ],
)
def test_what_serve_says(refusal, tmp_path, arguments, says):
    (tmp_path / "folder").mkdir()
    upstream = [] if "--upstream" in arguments else ["--upstream", "127.0.0.1:9"]
    listening = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
    said = refusal("serve", *arguments, *upstream, *listening)
    assert says in said
    if "keygen" not in says:
        assert "keygen" not in said


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("keys.toml", "keys.toml: File exists; a key file is not overwritten"),
        ("none/keys.toml", "none/keys.toml: No such file or directory"),
        ("keys.toml/x", "keys.toml/x: Not a directory"),
    ],
)
def test_what_keygen_says(refusal, out, says):
    assert refusal("keygen", "--out", out) == says


GOOD = '[ticket]\nkeys = "keys.toml"\n[[upstream]]\nname = "a"\nservers = ["127.0.0.1:9"]\n[[route]]\npath = "/"\n'


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (GOOD.encode("utf-16"), "a.toml: is UTF-16; save it as UTF-8"),
        (b"# fine\n# \xe9\n" + GOOD.encode(), "a.toml: not TOML: line 2 is not UTF-8"),
        (b"a = " + b"[" * 5000, "a.toml: not TOML: "),
        (b"a = " + b"9" * 5000, "a.toml: not TOML: "),
    ],
)
@pytest.mark.parametrize("command", [["check-config", "--config"], ["keys", "list"]])
def test_a_file_that_is_not_toml(refusal, tmp_path, command, raw, says):
    (tmp_path / "a.toml").write_bytes(raw)
    assert refusal(*command, "a.toml").startswith(says)


def test_a_byte_order_mark_before_toml_means_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    create_key_file(tmp_path / "keys.toml")
    for name, raw in (("keys.toml", (tmp_path / "keys.toml").read_bytes()), ("a.toml", GOOD.encode())):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + raw)
    assert main(["check-config", "--config", "a.toml"]) == 0
    assert main(["keys", "list", "keys.toml"]) == 0
    assert "1" in capsys.readouterr().out


def test_a_password_file_is_utf_8_whatever_the_locale_is(tmp_path):
    (tmp_path / "password").write_bytes("\ufeffZoë\r\n".encode())
    program = (
        "from pathlib import Path; from fastticket.stores.redis.address import parse_url\n"
        "print(ascii(parse_url('redis://h?password_file=password', Path()).password))"
    )
    assert run_python("-c", program, folder=tmp_path, locale="C") == "'Zo\\xeb'\n"


def test_a_listener_refuses_a_file_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="there is a file that is not a socket"):
        listen(Address(path=str(tmp_path / "file")), shared=False)
    assert (tmp_path / "file").exists()


# --------------------------------------------------------------------- terminals that are not UTF-8

NOT_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


def run_python(*arguments, folder, locale="C", encoding="", stdin=b""):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **NOT_UTF8, "LC_ALL": locale}
    if encoding:
        environment["PYTHONIOENCODING"] = encoding
    run = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, input=stdin, capture_output=True, timeout=30
    )
    assert b"Traceback" not in run.stderr, run.stderr.decode(errors="replace")
    return run.stdout.decode(encoding.partition(":")[0] or "ascii")


@pytest.fixture
def commands(started, tmp_path):
    """Commands on a store with the session of a user of that name; their standard output."""
    create_key_file(tmp_path / "keys.toml")
    store = ["--store", "sqlite:///s.db"]

    def run(*arguments, encoding, stdin=b"", needs_store=True):
        options = [*store, *(["--keys", "keys.toml"] if arguments[0] == "issue" else [])] if needs_store else []
        by = started(**NOT_UTF8, PYTHONIOENCODING=encoding)
        _, output, error = by.run(*arguments, *options, cwd=tmp_path, stdin=stdin)
        assert b"Traceback" not in error, error.decode(errors="replace")
        return output.decode(encoding.partition(":")[0])

    return run


@pytest.mark.parametrize("name", ["张三", "Zoë", "🎫 user"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "utf-8"])
def test_every_name_can_be_shown(commands, name, encoding):
    ticket = commands("issue", name, encoding=encoding).strip()
    inspected = json.loads(commands("inspect", "--keys", "keys.toml", ticket, encoding=encoding, needs_store=False))
    assert (inspected["verdict"], inspected["principal"]) == ("authentic", name)
    (session,) = json.loads(commands("sessions", "--user", name, "--json", encoding=encoding))
    assert session["principal"] == name
    assert session["id"] in commands("sessions", "--user", name, encoding=encoding)
    shown = name.encode(encoding.partition(":")[0], "backslashreplace").decode(encoding.partition(":")[0])
    assert shown in commands("events", encoding=encoding)
    assert json.loads(commands("events", "--json", encoding=encoding).splitlines()[0])["principal"] == name
    assert f"1 session of {shown} ended" in commands("revoke", "--user", name, encoding=encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_configuration_is_printed_as_toml(tmp_path, encoding):
    create_key_file(tmp_path / "keys.toml")
    text = GOOD + 'response_headers = { X-A = "Zoë" }\n[store]\nurl = "sqlite:///文🎫.db"\n'
    (tmp_path / "a.toml").write_text(text, "utf-8")
    printed = run_python("-m", "fastticket", "check-config", "--config", "a.toml", folder=tmp_path, encoding=encoding)
    table = tomllib.loads(printed)
    assert table["store"]["url"] == "sqlite:///文🎫.db"
    assert table["route"][0]["response_headers"] == {"X-A": "Zoë"}


def test_what_no_encoding_reads(commands):
    """Bytes on standard input, and an argument, that are no text."""
    assert json.loads(
        commands("inspect", "--keys", "keys.toml", "-", encoding="utf-8", stdin=b"\xff\xfe\n", needs_store=False)
    ) == {"verdict": "malformed"}
    assert commands("sessions", "--user", os.fsdecode(b"\xff"), encoding="utf-8") == ""

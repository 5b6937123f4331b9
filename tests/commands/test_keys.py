"""`fastticket keys`: a key comes into a fleet and leaves it, and the file stays whose it was,
whoever changes it.
"""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import BOUND_S, Client, fields_of, status_of
from lab.processes import Site
from lab.redis_servers import Server, wait_until

import fastticket.keyfile
from fastticket.commands.cli import main
from fastticket.errors import ConfigError
from fastticket.keyfile import add_key, create_key_file, key_file_text, promote_key, read_keys, read_ring

NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    return tmp_path / "keys.toml"


@pytest.fixture
def keys(path, monkeypatch, capsys):
    """`keys("add", ...)` on the key file: (exit code, output, error output)."""

    def run(command, *arguments):
        code = main(["keys", command, str(path), *arguments])
        return code, *capsys.readouterr()

    return run


def command(*arguments, stdin="", **options):
    """A process of its own: (exit code, output, error output).

    -B: a compiled module that a full disk had cut off would stay, for every process after it.
    """
    done = subprocess.run(
        [sys.executable, "-B", "-m", "fastticket", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )
    return done.returncode, done.stdout, done.stderr


def ids(path):
    return [key.id for key in read_ring(path)]


def test_a_key_comes_and_another_goes(keys, path):
    old = read_keys(path)
    assert keys("add")[:2] == (0, "2\n")
    assert read_keys(path)[1:] == old  # it does not sign yet
    assert ids(path) == [2, 1]
    assert keys("retire", "1")[0] == 2
    assert keys("promote", "2")[0] == 0
    assert read_keys(path)[:1] == old
    assert ids(path) == [1, 2]
    assert keys("promote", "1")[0] == 0  # and back
    assert keys("promote", "2")[0] == 0
    assert keys("promote", "2")[0] == 0
    assert ids(path) == [1, 2]
    assert keys("retire", "1")[0] == 0
    assert ids(path) == [2]
    assert keys("add")[1] == "3\n"
    assert keys("add", "--id", "0")[1] == "0\n"
    assert ids(path) == [3, 0, 2]


def test_the_id_of_a_key_that_has_gone_is_not_given_to_another(keys, path):
    """Old tickets under it would be forgeries to a gateway, in place of leftovers."""
    for key_id in (2, 3):
        assert keys("add")[1] == f"{key_id}\n"
    for key_id in (3, 2):
        assert keys("retire", str(key_id))[0] == 0
    assert ids(path) == [1]
    assert keys("add")[1] == "4\n"
    assert keys("retire", "4")[0] == 0
    assert keys("add", "--id", "7")[1] == "7\n"
    assert keys("promote", "7")[0] == 0
    assert keys("retire", "1")[0] == 0
    assert "# The highest" not in path.read_text()  # 7 is there itself
    assert keys("add")[1] == "8\n"


def test_after_255_ids_begin_again_at_0(keys, path):
    keys("add", "--id", "255")
    keys("retire", "255")
    assert keys("add")[1] == "0\n"
    assert keys("add")[1] == "2\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retire", "1"), "key 1 signs"),
        (("retire", "7"), "there is no key 7; the ring has: 1"),
        (("promote", "7"), "there is no key 7"),
        (("add", "--id", "1"), "key id 1 is taken"),
        (("add", "--from", "none.toml"), "none.toml: No such file"),
        (("list", "--admin", "ftp://x"), "--admin ftp://x: must be unix:PATH, http"),
    ],
)
def test_what_can_not_be_done_changes_nothing(keys, path, arguments, said):
    before = path.read_bytes()
    code, output, error = keys(*arguments)
    assert (code, output) == (2, "")
    assert said in error
    assert path.read_bytes() == before


def test_the_ring_has_room_for_256(path):
    path.write_text(key_file_text([(number, bytes(32)) for number in range(256)]))
    with pytest.raises(ConfigError, match="every key id is taken"):
        add_key(path)
    path.write_text(key_file_text([(number, bytes(32)) for number in range(1, 256)]))
    assert add_key(path) == 0


def test_keygen_rotate_says_what_to_use(keys, path, capsys):
    before = path.read_bytes()
    assert main(["keygen", "--rotate", str(path)]) == 2
    assert "fastticket keys add" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_list_shows_ids_ages_and_which_one_signs_and_no_secret(keys, path):
    path.write_text(re.sub(r"created = .*", "", path.read_text()))  # as files of before are
    keys("add")
    code, output, error = keys("list")
    assert (code, error) == (0, "")
    new, old = (line.split() for line in output.splitlines())
    assert (new[:3], new[-2:]) == (["2", "verifies", "created"], ["s", "old"])
    assert old == ["1", "signs", "age", "unknown"]
    table = json.loads(keys("list", "--json")[1])
    assert [(row["id"], row["state"]) for row in table] == [(2, "verifies"), (1, "signs")]
    assert 0 <= table[0]["age_s"] <= BOUND_S
    assert table[1]["created"] is None
    for secret in re.findall(r'"(.*)"', path.read_text()):
        assert secret not in output
    path.chmod(0o644)
    assert "everybody on this machine can read it" in keys("list")[2]


@pytest.mark.parametrize("created", ['"yesterday"', "5", "2026-01-31T12:00:00", "2026-01-31"])
def test_when_a_key_was_created_is_a_time(path, created):
    path.write_text(re.sub(r"created = .*", f"created = {created}", path.read_text()))
    with pytest.raises(ConfigError, match="created must be a time like"):
        read_keys(path)


# --- the file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_services_file_stays_the_services_when_root_changes_it(path):
    """`keygen --rotate` made it root's, mode 600: the next worker to be replaced was an outage."""
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o640)
    assert command("keys", "add", path)[0] == 0
    assert command("keys", "promote", path, 2)[0] == 0
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, NOBODY, 0o640)
    assert ids(path) == [1, 2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_can_not_keep_the_owner_changes_nothing(path):
    before = path.read_bytes()
    path.chmod(0o644)
    folder = tempfile.mkdtemp()  # where somebody else may write
    try:
        os.chmod(folder, 0o777)
        theirs = shutil.copy(path, folder)
        hearing, telling = os.pipe()
        if (pid := os.fork()) == 0:  # a new program would need Python where somebody else can read it
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                add_key(Path(theirs))
            except ConfigError as error:
                os.write(telling, str(error).encode())
            finally:
                os._exit(0)
        os.close(telling)
        os.waitpid(pid, 0)
        with os.fdopen(hearing) as said:
            assert "Operation not permitted; nothing has changed" in said.read()
        assert Path(theirs).read_bytes() == before
        assert os.listdir(folder) == ["keys.toml"]
    finally:
        shutil.rmtree(folder)


def test_access_lists_and_links_stay(path, tmp_path):
    try:
        os.setxattr(path, "user.who", b"the service")
    except OSError:
        pytest.skip("a file system without extended attributes")
    link = tmp_path / "link.toml"
    link.symlink_to("keys.toml")
    assert command("keys", "add", link)[0] == 0
    assert link.is_symlink()
    assert ids(path) == [2, 1]
    assert os.getxattr(path, "user.who") == b"the service"


def test_a_full_disk_leaves_the_file_as_it_was(path, tmp_path):
    before = path.read_bytes()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # noqa: E731
    code, _, error = command("keys", "add", path, preexec_fn=limit)
    assert code == 2
    assert "File too large; nothing has changed" in error
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["keys.toml"]


def test_changes_at_the_same_time_do_not_lose_each_other(path):
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "fastticket", "keys", "add", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(6)
    ]
    told = {int(each.communicate(timeout=BOUND_S)[0]) for each in commands}
    assert told == {2, 3, 4, 5, 6, 7}
    assert sorted(ids(path)) == [1, *sorted(told)]
    assert ids(path)[-1] == 1


def test_one_that_does_not_end_is_not_waited_for_for_ever(keys, path, tmp_path, monkeypatch):
    monkeypatch.setattr(fastticket.keyfile, "LOCK_TIMEOUT_S", 0.1)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    code, _, error = keys("add")
    os.close(folder)
    assert code == 2
    assert "somebody else changes it" in error
    assert keys("add")[0] == 0


# --- a running gateway's uses


@pytest.fixture
def metrics():
    """A gateway's `/metrics`, as the pages of one after the other request: its address."""
    pages = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            text = pages.pop(0) if len(pages) > 1 else pages[0]
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def show(*uses):
        lines = [
            "\n".join(f'fastticket_key_uses_total{{key_id="{k}"}} {n}.0' for k, n in each.items()) for each in uses
        ]
        pages[:] = [f"# TYPE fastticket_key_uses counter\n{each}\n" for each in lines]
        return f"http://127.0.0.1:{server.server_port}"

    yield show
    server.shutdown()
    thread.join(BOUND_S)
    server.server_close()


def test_list_shows_the_uses_on_a_gateway(keys, path, metrics):
    keys("add")
    address = metrics({1: 12, 9: 3})
    code, output, error = keys("list", "--admin", address)
    assert code == 0
    assert [line.partition("; ")[2] for line in output.splitlines()] == [
        "the gateway has not loaded it",
        "the gateway has verified 12 tickets by it",
    ]
    assert "the gateway has used other keys, too, since its start: 9" in error
    assert [row["uses"] for row in json.loads(keys("list", "--json", "--admin", address)[1])] == [None, 12]


def test_a_key_that_is_used_does_not_retire(keys, path, metrics):
    promote_key(path, add_key(path))
    watched = ("retire", "1", "--watch-s", "0", "--admin")
    code, _, error = keys(*watched, metrics({1: 12, 2: 3}, {1: 14, 2: 5}))
    assert code == 1
    assert "key 1 stays: the gateway has verified 2 tickets by it" in error
    assert ids(path) == [1, 2]
    code, _, error = keys(*watched, metrics({2: 3}))
    assert code == 1
    assert "does not say how often key 1 is used" in error
    assert ids(path) == [1, 2]
    code, _, error = keys(*watched, metrics({1: 14, 2: 3}, {1: 14, 2: 9}))
    assert code == 0
    assert "no uses of key 1 seen in 0 s; that proves nothing for sessions that gateways hold" in error
    assert ids(path) == [2]


def test_a_gateway_that_is_not_there(keys, path, tmp_path):
    code, output, error = keys("list", "--admin", f"unix:{tmp_path}/none.sock")
    assert (code, output) == (1, "")
    assert "No such file" in error


# --- the procedure of docs/reference/ticket-format.md, through a fleet of two


class Application:
    """Logs in whoever says so, and names whom the gateway has named."""

    def __init__(self, origin):
        self.made = origin(self.serve)

    def serve(self, connection):
        while True:
            head, _ = self.made.request(connection)
            fields = fields_of(head)
            name = fields.get(b"x-user") if head.startswith(b"GET /login ") else fields.get(b"x-forwarded-user")
            login = b"X-Ticket-Login: %s\r\n" % name if head.startswith(b"GET /login ") else b""
            connection.sendall(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (login, len(name), name))


class Load:
    """Users who log in through one gateway and ask through both, over and over; what came out."""

    def __init__(self, gateways, users=4):
        self._gateways = gateways
        self._stop = threading.Event()
        self.statuses = Counter()
        self.rounds = [0] * users
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(users)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        while not self._stop.is_set():
            gateway, other = self._gateways if self.rounds[number] % 2 else self._gateways[::-1]
            try:
                self._visit(f"user{number}".encode(), gateway, other)
            except (OSError, AssertionError) as error:
                self.statuses[type(error).__name__] += 1
            self.rounds[number] += 1

    def _visit(self, name, gateway, other):
        status, fields, _ = ask(gateway, b"GET /login HTTP/1.1\r\nHost: a\r\nX-User: %s\r\n\r\n" % name)
        self.statuses[status] += 1
        cookie = fields[b"set-cookie"].split(b";")[0]
        for at in (other, gateway, other, gateway):
            status, _, body = ask(at, b"GET /whoami HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n" % cookie)
            self.statuses[status if status != 200 or body == name else "another"] += 1

    def goes_on(self):
        """Until everybody who was under way has been served, and has then logged in at each."""
        before = list(self.rounds)
        wait_until(lambda: all(now >= then + 3 for now, then in zip(self.rounds, before, strict=True)), "load", BOUND_S)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(BOUND_S)
        return self.statuses


def ask(site, request):
    with Client(site.address) as client:
        client.sendall(request)
        head, body = client.read_response()
        return status_of(head), fields_of(head), body


@pytest.fixture
def two(tmp_path, origin):
    """Two gateways, each with a key file of its own that says the same, on one Redis."""
    server = Server(tmp_path)
    application = Application(origin)
    create_key_file(tmp_path / "keys.toml")
    started = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(tmp_path / "keys.toml", folder)
        table = {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 2.0},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://{server.address}/0?timeout_ms=5000"},
            "upstream": [{"name": "app", "servers": [application.made.address]}],
            "route": [{"path": "/login", "auth": "none", "login": True}, {"path": "/"}],
        }
        started.append(Site(folder, table))
    yield started
    for each in started:
        each.stop()
    server.kill()


def key_files(gateways):
    return [gateway.folder / "keys.toml" for gateway in gateways]


def test_a_key_rolls_through_a_fleet_under_load(two):
    """Add on both, reload; promote on both, reload; retire on both, reload: nobody notices."""
    first, second = key_files(two)
    load = Load(two)

    def everywhere(*steps):
        for gateway, file in zip(two, (first, second), strict=True):
            for step in steps:
                assert command("keys", step, file, "2" if step == "promote" else "1")[0] == 0
            assert gateway.reload().startswith("reloaded")
            load.goes_on()

    load.goes_on()
    assert command("keys", "add", first)[1] == "2\n"
    assert command("keys", "add", second, "--from", "-", stdin=first.read_text())[1] == "2\n"
    everywhere()
    assert ids(first) == ids(second) == [2, 1]
    everywhere("promote")
    assert ids(first) == ids(second) == [1, 2]
    everywhere("retire")
    assert ids(first) == ids(second) == [2]
    assert read_keys(first) == read_keys(second)
    statuses = load.stop()
    print(f"\nrequests by status: {dict(statuses)}")
    assert set(statuses) == {200}
    assert statuses[200] > 100


def test_a_key_that_signs_at_once_logs_people_out(two):
    """What the three steps are for, and that the load above would have seen it."""
    load = Load(two)
    load.goes_on()
    (first, _) = key_files(two)
    promote_key(first, add_key(first))
    assert two[0].reload().startswith("reloaded")
    load.goes_on()
    assert load.stop()[401] > 0
    assert two[0].at.end(signal.SIGTERM) == 0


def test_a_running_gateway_says_how_often_its_keys_are_used(two):
    """`list` and `retire` by the figures of a real gateway, whose users still log in under the key
    that is to go.
    """
    (first, _), admin = key_files(two), f"unix:{two[0].folder}/admin.sock"
    promote_key(first, add_key(first))  # not in force before a reload
    load = Load(two)
    load.goes_on()
    code, output, error = command("keys", "retire", first, "1", "--watch-s", "2.5", "--admin", admin)
    assert code == 1, output
    assert re.search(r"key 1 stays: the gateway has verified \d+ tickets by it", error)
    load.stop()
    shown = json.loads(command("keys", "list", first, "--json", "--admin", admin)[1])
    assert [(row["id"], (row["uses"] or 0) > 0) for row in shown] == [(1, True), (2, False)]

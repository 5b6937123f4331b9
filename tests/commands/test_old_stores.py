"""What is wrong with another system's store is said before a start, and by its own name after."""

import contextlib
import json
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.commands import Commands
from lab.linkis_installation import ask
from lab.linkis_tickets import COOKIE, HASH, Tickets, now_ms
from lab.linkis_users import User
from lab.processes import Site
from lab.redis_servers import free_port, wait_until

from fastticket.keyfile import create_key_file

WITHOUT_PACKAGES = """
import sys
sys.modules["cryptography"] = sys.modules["msgpack"] = None
from fastticket.commands.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def commands():
    with contextlib.closing(Commands()) as made:
        yield made


def configuration(url, admin):
    return {
        "gateway": {"listen": ["127.0.0.1:0"], "admin": admin},
        "ticket": {"keys": "keys.toml"},
        "upstream": [{"name": "app", "servers": ["127.0.0.1:1"]}],
        "route": [{"path": "/"}],
        "migration": [{"source": "linkis", "url": url, "until": "2999-01-31"}],
    }


def test_what_it_is_missing_is_said_before_and_after_a_start(commands, tmp_path, redis_server):
    create_key_file(tmp_path / "keys.toml")
    admin = f"127.0.0.1:{free_port()}"
    redis_server.admin("CONFIG", "SET", "requirepass", "hush")
    at = redis_server.address
    ticket = Tickets("1.8").make("alice", now_ms())
    with contextlib.closing(redis_server.client(password="hush")) as client:
        client.hset(HASH, ticket, now_ms())
        client.execute_command("ACL SETUSER looker on >hush ~* +hmget +select +client")
        before = client.dump(HASH)
        site = Site(tmp_path, configuration(f"redis://{at}/0", admin))
        try:
            for url, says in (
                (f"redis://{at}/0", "Authentication required"),
                (f"redis://looker:hush@{at}/0", "no permissions"),
                (f"redis://:hush@{at}/0", ""),
            ):
                site.configure(configuration(url, admin))
                code, _, error = commands.run("check-config", "--live", "--config", "fastticket.toml", cwd=tmp_path)
                assert (code, says in error.decode()) == (int(bool(says)), True), (url, error)
                assert not says or "[[migration]] linkis: url: redis://" in error.decode()
                assert b"hush" not in error
            assert (client.dump(HASH), client.dbsize()) == (before, 1)

            # The gateway has begun without the password.
            status, said = ask(site.address, User("alice", **{COOKIE: ticket}), "/")
            assert (status, said["reason"]) == (503, "old_store_unavailable")
            wait_until(lambda: "[[migration]] linkis: the old store does not answer" in site.log, "a line", BOUND_S)
            probe = ("probe", "--config", "fastticket.toml")
            ready = wait_until(
                lambda: (told := json.loads(commands.run(*probe, cwd=tmp_path)[1]))["away"] and told,
                "it is told",
                BOUND_S,
            )
            assert (ready["ready"], ready["away"]) == (True, ["old store linkis"])
            assert site.reload().startswith("reloaded")
            wait_until(
                lambda: ask(site.address, User("alice", **{COOKIE: ticket}), "/")[0] == 502, "it is exchanged", BOUND_S
            )
        finally:
            site.stop()


def test_missing_packages_are_said_all_at_once_and_by_both(tmp_path):
    create_key_file(tmp_path / "keys.toml")
    text = (
        '[ticket]\nkeys = "keys.toml"\n[[upstream]]\nname = "app"\nservers = ["127.0.0.1:1"]\n[[route]]\npath = "/"\n'
    )
    text += '[gateway]\nlisten = ["127.0.0.1:0"]\n'
    text += '[[migration]]\nsource = "spring"\nurl = "redis://127.0.0.1:1/0"\nuntil = "2999-01-31"\n'
    (tmp_path / "a.toml").write_text(text)
    for command in ("check-config", "serve"):
        arguments = [sys.executable, "-c", WITHOUT_PACKAGES, command, "--config", "a.toml"]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_S)
        assert done.returncode == 2, (command, done.stderr)
        assert 'needs cryptography and msgpack: pip install "fastticket[migration]"' in done.stderr

"""The pages about moving in: their commands, with sessions that the old systems' libraries made."""

import base64
import contextlib
import os
import time
import tomllib

import redis
from lab.documents import DOCS, blocks_of
from lab.old_systems import flask_logins, now_ms, put_spring_session, star_logins
from lab.pages import shown
from lab.redis_servers import wait_until
from lab.snippets import blocks
from moving.test_oauth2_proxy_session import sealed, signed, ticket_text

EXPORT = "SESSION_ID,CREATION_TIME,LAST_ACCESS_TIME,MAX_INACTIVE_INTERVAL,PRINCIPAL_NAME\n"


@contextlib.contextmanager
def at_the_old_system(at):
    """A client of the Redis that is the old system's, and its port."""
    port = int(at.here("6379"))
    with contextlib.closing(redis.Redis(port=port)) as there:
        yield there, port


def run_commands(at, page):
    for kind, _, text in blocks(page):
        if kind == "console":
            at.run(text)


def test_from_spring_session(tmp_path):
    page = "how-to/from-spring-session.md"
    with shown("how-to/from-spring-session.md", tmp_path) as at, at_the_old_system(at) as (there, _):
        context = {"SPRING_SECURITY_CONTEXT": b"\xac\xed\x00\x05sr\x00"}
        for user in ("alice", "bob"):
            put_spring_session(there, f"id-of-{user}", user=user, **context)
        put_spring_session(there, "anonymous", cart=b"[]")
        put_spring_session(there, "old", user="carol", used_ms=now_ms() - 2_000_000)
        (tmp_path / "cookie").write_text(base64.b64encode(b"id-of-alice").decode())
        rows = "".join(f"id-{name},{now_ms()},{now_ms()},1800,{name}\n" for name in ("dora", "emil", ""))
        (tmp_path / "sessions.csv").write_text(EXPORT + rows)
        run_commands(at, page)


def test_from_flask_session(tmp_path):
    page = "how-to/from-flask-session.md"
    with shown("how-to/from-flask-session.md", tmp_path) as at, at_the_old_system(at) as (there, port):
        cookies = flask_logins(port, ["alice", "bob", "nobody"])
        (tmp_path / "cookie").write_text(cookies[0])
        run_commands(at, page)
        at.run(f'$ curl -s -c jar --cookie "session={cookies[1]}" http://127.0.0.1:8080/\nbob has …\n')
        at.run(f'$ curl -s -b jar --cookie "session={cookies[1]}" -X POST http://127.0.0.1:8080/logout\n')
        wait_until(lambda: not there.exists(f"session:{cookies[1]}"), "a logout ends both")
        assert there.exists(f"session:{cookies[0]}")


def test_from_starsessions(tmp_path):
    page = "how-to/from-starsessions.md"
    with shown("how-to/from-starsessions.md", tmp_path) as at, at_the_old_system(at) as (_, port):
        cookies = star_logins(port, ["alice", "bob", "nobody"], lifetime=3600)
        (tmp_path / "cookie").write_text(cookies[0])
        run_commands(at, page)


def test_from_oauth2_proxy(tmp_path):
    page = "how-to/from-oauth2-proxy.md"
    with shown("how-to/from-oauth2-proxy.md", tmp_path) as at, at_the_old_system(at) as (there, _):
        secret, key, now_s = os.urandom(16), "_shop_proxy-0123", int(time.time())
        there.set(key, sealed(secret, u="alice", e="alice@shop.test", ca=now_s - 60, eo=now_s + 600), ex=3600)
        cookie = signed(ticket_text(key, secret), now_s, name="_shop_proxy", secret="sixteen-bytes-ok")
        (tmp_path / "cookie").write_text(cookie)
        there.config_set("requirepass", "of-redis")
        first, *others = (text for kind, _, text in blocks(page) if kind == "console")
        at.run(first)
        shown_table = next(block.text for block in blocks_of(DOCS / page) if block.why_not and block.kind == "toml")
        text = (tmp_path / "fastticket.toml").read_text()
        (written,) = tomllib.loads(text)["migration"]
        assert written | {"until": ""} == tomllib.loads(at.here(shown_table))["migration"][0] | {"until": ""}
        patient = text.replace("?password_file", "?timeout_ms=10000&password_file")  # as Terminal.here
        (tmp_path / "fastticket.toml").write_text(patient)
        for block in others:
            at.run(block)
        at.run(f'$ curl -s -c jar -b "_shop_proxy={cookie}" http://127.0.0.1:8080/\nhello alice\n')
        at.run(f'$ curl -s -b jar -b "_shop_proxy={cookie}" -X POST http://127.0.0.1:8080/logout\nbye\n')
        wait_until(lambda: not there.exists(key), "a logout ends both")


MADE = """
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
users = get_user_model()
users.objects.all().delete()
for name in ("alice", "bob", "gone"):
    user = users.objects.create_user(name, password=name)
    browser = Client()
    browser.force_login(user)
users.objects.get(username="gone").delete()
visitor = SessionStore()
visitor["cart"] = ["tea"]
visitor.save()
"""


def test_from_django_sessions(tmp_path):
    page = "how-to/from-django-sessions.md"
    with shown("how-to/from-django-sessions.md", tmp_path) as at:
        at.run("$ python -m django startproject shop .\n$ python manage.py migrate -v 0\n")
        (tmp_path / "made.py").write_text(MADE)
        at.run("$ python manage.py shell -v 0 < made.py\n")
        (text,) = [text for kind, _, text in blocks(page) if kind == "python"]
        with (tmp_path / "shop/settings.py").open("a") as settings:
            settings.write(at.here(text))
        run_commands(at, page)

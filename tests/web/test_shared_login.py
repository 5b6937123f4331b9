"""One login, for applications in four frameworks: each served by two processes, sharing nothing but
a Redis and the keys.

Each application is as its framework's users write it. Two are Django projects with tables of users
in which the same people have other numbers, and with secrets of their own.
"""

import contextlib

import pytest
from conftest import BOUND_S
from lab.processes import Nginx
from lab.redis_servers import free_port, wait_until
from lab.web_sites import Place, Visitor

SITES = ("fastapi", "flask", "django", "django of others", "wsgi")

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream applications {{ {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://applications; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The addresses of all applications, by name."""
    place = Place(tmp_path_factory.mktemp("shared"))
    with contextlib.ExitStack() as running:
        running.callback(place.redis.kill)
        start = running.enter_context
        yield {
            "fastapi": start(place.uvicorn("session_fastapi")),
            "flask": start(place.gunicorn("session_flask", "gthread")),
            "django": start(place.django("gthread")),
            "django of others": start(
                place.django("sync", users=("bob", "carol", "alice"), secret="of another project")
            ),
            "wsgi": start(place.gunicorn("session_wsgi")),
        }


def seen_everywhere(addresses, ticket, path):
    """The answer of each process of each application to a visitor with this ticket."""
    return [value for address in addresses.values() for value in Visitor(address, ticket).get_of_each(path)]


@pytest.mark.parametrize("name", SITES)
def test_a_login_at_one_is_known_to_all(addresses, name):
    visitor = Visitor(addresses[name])
    visitor.get("/login?user=alice")
    assert seen_everywhere(addresses, visitor.ticket, "/who") == ["alice"] * 2 * len(SITES)


@pytest.mark.parametrize("name", SITES)
def test_an_attribute_of_one_is_read_by_all(addresses, name):
    visitor = Visitor(addresses[name])
    visitor.get("/login?user=alice")
    visitor.get("/put?color=red")
    assert seen_everywhere(addresses, visitor.ticket, "/get?name=color") == ["red"] * 2 * len(SITES)


@pytest.mark.parametrize("name", SITES)
def test_a_logout_at_one_is_one_at_all(addresses, name):
    visitor = Visitor(addresses[name])
    visitor.get("/login?user=bob")
    ticket = visitor.ticket
    assert seen_everywhere(addresses, ticket, "/who") == ["bob"] * 2 * len(SITES)
    visitor.get("/logout")
    nobody = [None] * 2 * len(SITES)
    wait_until(lambda: seen_everywhere(addresses, ticket, "/who") == nobody, "all have heard of the logout", BOUND_S)


def test_a_project_takes_no_others_numbers_for_its_own(addresses):
    """A user who logs in again at another project is the same user, although that project has
    another number for the name; the session goes on.
    """
    visitor = Visitor(addresses["django"])
    visitor.get("/login?user=alice")
    visitor.get("/put?color=red")
    again = Visitor(addresses["django of others"], visitor.ticket)
    again.get("/login?user=alice")
    assert again.ticket == visitor.ticket
    assert seen_everywhere(addresses, visitor.ticket, "/get?name=color") == ["red"] * 2 * len(SITES)


def test_behind_nginx_all_of_them_are_one_application(addresses, tmp_path):
    port = free_port()
    servers = " ".join(f"server {address};" for address in addresses.values())
    nginx = Nginx(tmp_path, NGINX.format(folder=tmp_path, servers=servers, port=port), ("127.0.0.1", port))
    try:
        visitor = Visitor(f"127.0.0.1:{port}")
        visitor.get("/login?user=alice")
        visitor.get("/put?color=blue")
        processes = 2 * len(SITES)
        assert visitor.get_of_each("/who", processes) == ["alice"] * processes
        assert visitor.get_of_each("/get?name=color", processes) == ["blue"] * processes
    finally:
        nginx.stop()

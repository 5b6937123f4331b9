"""FastAPI and Starlette, served by uvicorn in two processes that share a Redis, and asked over
sockets.
"""

import contextlib
import http.client
import json
import socket
from http.cookies import SimpleCookie
from typing import NamedTuple

import pytest
from conftest import BOUND_S, Client
from lab.real_programs import uvicorn
from lab.redis_servers import Server, wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import unix_connect

from fastticket.keyfile import create_key_file

FASTAPI, STARLETTE = "web_applications:of_fastapi", "web_applications:of_starlette"
PLEASE_LOG_IN = {"detail": "please log in"}
REMEMBERED_S = 30 * 86400


class Connection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def __init__(self, path):
        super().__init__("shop", timeout=3 * BOUND_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer(NamedTuple):
    status: int
    fields: http.client.HTTPMessage
    said: object


class Browser:
    """Keeps cookies, whichever of the processes sets them."""

    def __init__(self):
        self.cookies = {}

    @property
    def fields(self):
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": cookies} if cookies else {}

    def ask(self, at, method, path):
        with contextlib.closing(Connection(at)) as connection:
            connection.request(method, path, headers=self.fields)
            response = connection.getresponse()
            body = response.read()
        self._take_cookies(response.headers)
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        return Answer(response.status, response.headers, json.loads(body) if is_json else body)

    def get(self, at, path):
        answer = self.ask(at, "GET", path)
        assert answer.status == 200
        return answer.said

    def post(self, at, path, method="POST"):
        answer = self.ask(at, method, path)
        assert answer.status == 200
        return answer.said

    def gets_soon(self, at, path, said):
        """The other process hears of what was done at one."""
        wait_until(lambda: self.ask(at, "GET", path).said == said, f"{path} says {said}", BOUND_S)

    def _take_cookies(self, fields):
        for line in fields.get_all("Set-Cookie", []):
            for name, cookie in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if cookie["max-age"] != "0" and "1970" not in cookie["expires"]:
                    self.cookies[name] = cookie.value


class Site(NamedTuple):
    """Two processes of one application: the paths of their sockets."""

    here: str
    there: str
    redis: Server


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@contextlib.contextmanager
def site(application, redis, folder):
    create_key_file(folder / "keys.toml")
    environment = {"STORE_URL": f"redis://{redis.address}/0?timeout_ms=10000", "KEY_FILE": str(folder / "keys.toml")}
    with contextlib.ExitStack() as stack:
        paths = []
        for name in ("here", "there"):
            (folder / name).mkdir()
            address = stack.enter_context(uvicorn(folder / name, application, environment))
            paths.append(address.removeprefix("unix:"))
        yield Site(*paths, redis)


@pytest.fixture(scope="module")
def fastapi(redis, tmp_path_factory):
    with site(FASTAPI, redis, tmp_path_factory.mktemp("fastapi")) as at:
        yield at


@pytest.fixture(scope="module")
def starlette(redis, tmp_path_factory):
    with site(STARLETTE, redis, tmp_path_factory.mktemp("starlette")) as at:
        yield at


def logged_in(at, name):
    browser = Browser()
    browser.post(at.here, f"/login/{name}")
    return browser


# --- FastAPI


def test_who_logs_in_at_one_process_is_known_to_the_other(fastapi):
    browser = logged_in(fastapi, "alice")
    assert browser.get(fastapi.there, "/me") == "alice"
    assert browser.get(fastapi.here, "/greeting") == "hello alice"


def test_nobody_is_asked_to_log_in(fastapi):
    answer = Browser().ask(fastapi.here, "GET", "/me")
    assert (answer.status, answer.said) == (401, PLEASE_LOG_IN)
    assert answer.fields["WWW-Authenticate"] is None
    assert answer.fields["Vary"] == "Cookie"
    assert Browser().get(fastapi.here, "/greeting") == "hello stranger"


def test_attributes_are_shared(fastapi):
    browser = logged_in(fastapi, "bob")
    browser.post(fastapi.here, "/session/color?value=red", "PUT")
    assert browser.get(fastapi.there, "/session") == {"user": "bob", "color": "red"}
    browser.post(fastapi.here, "/session/color?value=blue", "PUT")
    browser.gets_soon(fastapi.there, "/session", {"user": "bob", "color": "blue"})


def test_a_logout_is_one_everywhere_soon(fastapi):
    browser = logged_in(fastapi, "carol")
    assert browser.get(fastapi.there, "/me") == "carol"
    ticket = browser.cookies["ticket"]
    browser.post(fastapi.here, "/logout")
    assert "ticket" not in browser.cookies

    browser.cookies["ticket"] = ticket
    browser.gets_soon(fastapi.there, "/me", PLEASE_LOG_IN)


def test_logout_everywhere_but_here(fastapi):
    browsers = [logged_in(fastapi, "dave") for _ in range(3)]
    assert browsers[0].post(fastapi.there, "/logout-everywhere") == 2
    assert browsers[0].get(fastapi.here, "/me") == "dave"
    for browser in browsers[1:]:
        browser.gets_soon(fastapi.here, "/me", PLEASE_LOG_IN)
    assert browsers[0].post(fastapi.there, "/logout-everywhere?keep=false") == 1
    assert browsers[0].cookies == {}


def test_a_remembered_login(fastapi):
    answer = Browser().ask(fastapi.here, "POST", "/login/erin?remember=true")
    assert answer.fields["Set-Cookie"].endswith(f"; Max-Age={REMEMBERED_S}")
    assert answer.fields["Cache-Control"] == "no-store"


def test_http_1_0_without_a_host(fastapi):
    with Client(fastapi.here) as client:
        client.sendall(b"POST /login/heidi HTTP/1.0\r\n\r\n")
        head = client.read_head()
    assert b"\r\nset-cookie: ticket=" in head.lower()


def test_what_fails_writes_nothing_and_what_is_refused_is_an_answer(fastapi):
    browser = logged_in(fastapi, "frank")
    assert browser.ask(fastapi.here, "PUT", "/failing/a").status == 500
    assert browser.ask(fastapi.here, "PUT", "/failing/b?status=404").status == 404
    assert browser.ask(fastapi.here, "PUT", "/failing/c?status=501").status == 501
    assert browser.get(fastapi.there, "/session") == {"user": "frank", "b": "set"}


def test_an_anonymous_attribute_without_a_place_is_an_error(fastapi):
    assert Browser().ask(fastapi.here, "PUT", "/session/color?value=red").status == 500


def test_openapi_names_the_cookie(fastapi):
    schema = Browser().get(fastapi.here, "/openapi.json")
    scheme = schema["components"]["securitySchemes"]["ticket"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "cookie", "ticket")
    assert schema["paths"]["/me"]["get"]["security"] == [{"ticket": []}]
    assert "security" not in schema["paths"]["/logout"]["post"]


def test_a_websocket_knows_the_user_and_keeps_what_is_set(fastapi):
    browser = logged_in(fastapi, "grace")
    with unix_connect(fastapi.there, "ws://shop.test/chat", additional_headers=browser.fields) as socket:
        socket.send("hello")
        assert socket.recv(BOUND_S) == "grace: hello"
    browser.gets_soon(fastapi.here, "/session", {"user": "grace", "last": "hello"})
    with pytest.raises(InvalidStatus, match="403"):
        unix_connect(fastapi.there, "ws://shop.test/chat")


@pytest.fixture
def own_redis(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def test_an_outage_logs_nobody_out(own_redis, tmp_path):
    with site(FASTAPI, own_redis, tmp_path) as at:
        browser = logged_in(at, "alice")
        browser.post(at.here, "/session/color?value=red", "PUT")
        assert browser.get(at.here, "/session") == {"user": "alice", "color": "red"}
        own_redis.kill()
        for _ in range(20):
            assert browser.get(at.here, "/me") == "alice"
            assert browser.get(at.here, "/session") == {"user": "alice", "color": "red"}
        for path in ("/me", "/session", "/greeting"):
            answer = browser.ask(at.there, "GET", path)
            assert (answer.status, answer.fields["Retry-After"]) == (503, "1")
        assert browser.ask(at.here, "PUT", "/session/color?value=blue").status == 503
        assert browser.ask(at.here, "POST", "/logout").status == 503
        assert Browser().ask(at.here, "POST", "/login/bob").status == 503
        with pytest.raises(InvalidStatus, match="503"):
            unix_connect(at.there, "ws://shop.test/chat", additional_headers=browser.fields)
        assert Browser().get(at.there, "/greeting") == "hello stranger"
        assert "ticket" in browser.cookies


# --- Starlette


def test_an_anonymous_cart_moves_into_the_session(starlette):
    browser = Browser()
    browser.post(starlette.here, "/cart?add=tea")
    assert browser.post(starlette.there, "/cart?add=milk") == {"cart": ["tea", "milk"]}
    assert set(browser.cookies) == {"session"}

    browser.post(starlette.here, "/sign-in?name=alice")
    assert set(browser.cookies) == {"ticket"}
    assert browser.get(starlette.there, "/session") == {"user": "alice", "cart": ["tea", "milk"]}
    assert browser.post(starlette.there, "/cart?add=salt") == {"user": "alice", "cart": ["tea", "milk", "salt"]}

    assert browser.post(starlette.there, "/sign-out") == {}
    assert set(browser.cookies) == set()


def test_starlettes_own_way_to_require_a_user(starlette):
    browser = Browser()
    assert browser.ask(starlette.here, "GET", "/private").status == 401
    browser.post(starlette.here, "/sign-in?name=bob")
    assert browser.get(starlette.there, "/private") == "bob"


def test_a_change_of_privileges_is_a_change_of_tickets(starlette):
    browser = Browser()
    browser.post(starlette.here, "/sign-in?name=carol")
    before = dict(browser.cookies)
    browser.post(starlette.here, "/become-admin")
    assert browser.get(starlette.there, "/session") == {"user": "carol", "role": "admin"}
    assert browser.cookies != before


@pytest.mark.parametrize(
    ("method", "path", "left"), [("POST", "/later", {"later": "done"}), ("GET", "/stream", {"piece": 2})]
)
def test_what_is_set_after_the_response_has_begun(starlette, method, path, left):
    browser = Browser()
    browser.post(starlette.here, "/sign-in?name=dave")
    assert browser.ask(starlette.here, method, path).status == 200
    browser.gets_soon(starlette.there, "/session", {"user": "dave"} | left)

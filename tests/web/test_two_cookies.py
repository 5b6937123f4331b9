"""Two cookies of one name lock nobody out: in a real browser, before the gateway and each kind of
middleware.
"""

import json

import pytest
from conftest import fields_of
from lab.chromium import browser as browser_of
from lab.chromium import tab
from lab.processes import Nginx
from lab.redis_servers import free_port, make_certificates
from lab.web_sites import Place

ROUTES = [
    {"path": "/login", "auth": "none", "login": True},
    {"path": "/optional", "auth": "optional", "login": True},
    {"path": "/"},
]
HOST = "www.shop.test"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser_of(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture
def browser(chromium):
    """A tab without cookies."""
    with tab(chromium) as made:
        yield made


@pytest.fixture
def application(origin):
    """`/login` and `/optional/login` log alice in, `/logout` out, `/rotate` takes another ticket.
    Each page says who asks.
    """
    wishes = {"login": "X-Ticket-Login: alice", "logout": "X-Ticket-Logout: session", "rotate": "X-Ticket-Rotate: 1"}

    def serve(connection):
        while True:
            head, _ = made.request(connection)
            wish = wishes.get(head.split(b" ")[1].decode().rpartition("/")[2], "X-Nothing: x")
            user = fields_of(head).get(b"x-forwarded-user", b"nobody").decode()
            page = f'<link rel="icon" href="data:,">{user}'  # or the browser asks for one when it likes to, with its cookies
            fields = f"Content-Type: text/html\r\nContent-Length: {len(page)}"
            connection.sendall(f"HTTP/1.1 200 OK\r\n{wish}\r\n{fields}\r\n\r\n{page}".encode())

    made = origin(serve)
    return made


@pytest.fixture
def start(gateway, application):
    """A gateway with these settings of its cookie; each has a port of its own, which is nothing to
    cookies, and the same sessions.
    """

    def start(host=HOST, **ticket):
        made = gateway(application, routes=ROUTES, ticket={"cookie_secure": False, **ticket})
        return f"http://{host}:{made.address[1]}", made

    return start


@pytest.mark.parametrize(
    ("host", "levels"),
    [(HOST, (0, 2)), ("a.b.shop.test", (2, 3, 4, 0)), ("shop.test", (0, 2)), ("app.localhost", (2, 0))],
)
def test_another_domain_level_locks_nobody_out(start, browser, host, levels):
    """Log in, change `cookie_domain_level`, log in again; and back."""
    urls = [start(host, cookie_domain_level=level)[0] for level in (*levels, levels[0])]
    for url in urls:
        browser.go(f"{url}/login")
        assert (browser.go(f"{url}/x"), browser.status) == ("alice", 200)


@pytest.mark.parametrize("path", ["/", "/x", "/x/"])
def test_a_cookie_that_a_sibling_has_planted_locks_nobody_out(start, browser, path):
    """Nobody becomes mallory, and after one answer alice can log in and go on."""
    url, at = start()
    browser.go(f"{url}/login")
    browser.go(url.replace("www", "evil") + "/login/page")
    browser.run(f"document.cookie = 'ticket={at.login('mallory')}; domain=shop.test; path={path}'")
    assert "ambiguous" in browser.go(f"{url}/x/y")
    assert browser.status == 400
    assert "missing" in browser.go(f"{url}/x/y")
    browser.go(f"{url}/login")
    assert browser.go(f"{url}/x/y") == "alice"


def test_a_login_route_with_optional_tickets_is_open_to_who_has_two(start, browser):
    url, at = start()
    browser.go(f"{url}/login")
    browser.run(f"document.cookie = 'ticket={at.login('mallory')}; domain=shop.test'")
    assert browser.go(f"{url}/optional/x") == "nobody"
    browser.run(f"document.cookie = 'ticket={at.login('mallory')}; domain=shop.test'")
    browser.run(f"document.cookie = 'ticket={at.login('mallory')}; domain=www.shop.test'")
    browser.go(f"{url}/optional/login")
    assert browser.go(f"{url}/x") == "alice"
    assert browser.cookies() == [("ticket", HOST, "/")]


def test_a_logout_leaves_no_cookie(start, browser):
    url, _ = start(cookie_domain_level=2)
    browser.go(f"{url}/login")
    assert browser.cookies() == [("ticket", ".shop.test", "/")]
    browser.go(f"{url}/logout")
    assert browser.cookies() == []


def test_a_browser_is_sent_to_the_login_page_and_its_cookies_go(gateway, application, browser):
    routes = [*ROUTES, {"path": "/page", "auth": "none"}]
    at = gateway(application, routes=routes, ticket={"cookie_secure": False}, gateway={"login_url": "/page"})
    url = f"http://{HOST}:{at.address[1]}"
    browser.go(f"{url}/login")
    browser.run(f"document.cookie = 'ticket={at.login('mallory')}; domain=shop.test'")
    assert browser.go(f"{url}/x") == "nobody"
    assert browser.run("location.pathname") == "/page"
    assert browser.cookies() == []


def test_a_rotation_leaves_one_cookie(start, browser):
    """The ticket that is exchanged may have come by a cookie of another domain level."""
    url, at = start(cookie_domain_level=2)
    browser.go(f"{url}/optional/x")
    browser.run(f"document.cookie = 'ticket={at.login()}; path=/'")
    for _ in range(2):
        assert (browser.go(f"{url}/rotate"), browser.status) == ("alice", 200)
        assert browser.cookies() == [("ticket", ".shop.test", "/")]


# --- what browsers take, over https


@pytest.fixture
def https(tmp_path):
    """`https(gateway's port)`: nginx before it, which tells how the client came. Its port."""
    servers = []

    def start(behind):
        folder, port = tmp_path / str(behind), free_port()
        folder.mkdir()
        files = make_certificates(folder)
        config = f"""
            daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}
            http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
              fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
              server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {files["server"]}; ssl_certificate_key {files["server_key"]};
                location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_set_header Host $http_host;
                  proxy_set_header X-Forwarded-Proto $scheme; }} }} }}"""
        servers.append(Nginx(folder, config, ("127.0.0.1", port)))
        return port

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("ticket", "kept"),
    [
        ({}, {"secure": True, "sameSite": "Lax", "path": "/", "httpOnly": True, "domain": HOST}),
        ({"cookie": "__Host-ticket"}, {"secure": True}),
        ({"cookie": "__Host-Http-ticket", "cookie_same_site": "Strict"}, {"sameSite": "Strict"}),
        ({"cookie": "__Secure-ticket", "cookie_domain_level": 2}, {"domain": ".shop.test"}),
        ({"cookie_path": "/x"}, {"path": "/x"}),
        ({"cookie_same_site": "None"}, {"sameSite": "None", "secure": True}),
        ({"cookie_same_site": "None", "cookie_partitioned": True}, {"partition": "https://shop.test"}),
    ],
)
def test_a_browser_takes_the_cookie_and_lets_it_go(gateway, application, browser, https, ticket, kept):
    at = gateway(application, routes=ROUTES, ticket=ticket, gateway={"trusted_proxies": ["127.0.0.1/32"]})
    url = f"https://{HOST}:{https(at.address[1])}"
    browser.go(f"{url}/login")
    found = browser.kept(ticket.get("cookie", "ticket"))
    found["partition"] = found.get("partitionKey", {}).get("topLevelSite")
    assert {name: found[name] for name in kept} == kept
    assert browser.go(f"{url}/x") == "alice"
    browser.go(f"{url}/x/logout")
    assert browser.cookies() == []


def test_cookies_of_one_name_in_and_out_of_a_partition_lock_nobody_out(gateway, application, browser, https):
    """Log in, set `cookie_partitioned`, log in again, take it back: that takes one more login."""
    urls = []
    for partitioned in (False, True):
        ticket = {"cookie": "__Host-ticket", "cookie_same_site": "None", "cookie_partitioned": partitioned}
        at = gateway(application, routes=ROUTES, ticket=ticket, gateway={"trusted_proxies": ["127.0.0.1/32"]})
        urls.append(f"https://{HOST}:{https(at.address[1])}")
    before, after = urls
    for url in (before, after):
        browser.go(f"{url}/login")
        assert browser.go(f"{url}/x") == "alice"
    browser.go(f"{before}/login")
    assert "ambiguous" in browser.go(f"{before}/x")
    browser.go(f"{before}/login")
    assert browser.go(f"{before}/x") == "alice"


# --- the middleware

SHOP, SIBLING = "www.shop.localhost", "evil.shop.localhost"


@pytest.fixture(params=["fastapi", "wsgi", "flask", "django"])
def site(request, tmp_path):
    """(port, a ticket of mallory's) of an application with its defaults; loopback hosts, so that
    plain http will do.

    Browsers open connections that they may not use: each has a thread.
    """
    place = Place(tmp_path)
    kinds = {
        "fastapi": lambda: place.uvicorn("session_fastapi", processes=1),
        "wsgi": lambda: place.gunicorn("session_wsgi", "gthread", processes=1),
        "flask": lambda: place.gunicorn("session_flask", "gthread", processes=1),
        "django": lambda: place.django("gthread", processes=1),
    }
    try:
        with kinds[request.param]() as address, place.cache() as cache:
            yield address.rpartition(":")[2], cache.login("mallory")
    finally:
        place.redis.kill()


def tickets(browser):
    return [cookie for cookie in browser.cookies() if cookie[0].startswith("ticket")]


def who(browser, url):
    return json.loads(browser.go(f"{url}/who"))["value"]


def plant(browser, url, ticket, *attributes):
    """By a page of a host beside it."""
    browser.go(url.replace(SHOP, SIBLING) + "/who")
    browser.run(f"document.cookie = '{'; '.join([f'ticket={ticket}', 'domain=shop.localhost', *attributes])}'")


@pytest.mark.parametrize("path", ["path=/", "path=/who"])
def test_behind_the_middleware_a_planted_cookie_locks_nobody_out(site, browser, path):
    port, mallorys = site
    url = f"http://{SHOP}:{port}"
    plant(browser, url, mallorys)
    browser.go(f"{url}/login?user=alice")
    assert who(browser, url) == "alice"  # the login has cleared it
    plant(browser, url, mallorys, path)
    assert who(browser, url) is None
    assert tickets(browser) == []
    browser.go(f"{url}/login?user=alice")
    assert who(browser, url) == "alice"
    plant(browser, url, mallorys)
    browser.go(f"{url}/logout")
    assert tickets(browser) == []

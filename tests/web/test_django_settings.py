"""Settings of a Django project: which store its tests have, what `manage.py check` says, the
cookie's Domain.
"""

import pytest
from lab.django_projects import TICKET, value

OURS = "fastticket.django.middleware.TicketMiddleware"
DJANGOS = "django.contrib.auth.middleware.AuthenticationMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"


# --- while tests run


@pytest.fixture
def testing(project, monkeypatch):
    """`testing(**more)`: Django's test environment is set up, with such settings; the cache of the
    tests.
    """
    from django.conf import settings
    from django.test.utils import setup_test_environment, teardown_test_environment

    from fastticket.django import _cache_of_settings, ticket_cache

    opened = []
    real = "redis://127.0.0.1:1/0"

    def open_store(url):
        from fastticket import open_store

        opened.append(url)
        return open_store(url)

    monkeypatch.setattr("fastticket.django.open_store", open_store)
    _cache_of_settings.cache_clear()
    caches = []

    def begin(**more):
        said = {"store": real, "keys": "no such file", "idle_timeout_s": 77, **more}
        monkeypatch.setattr(settings, "FASTTICKET", said)
        setup_test_environment()
        caches.append(ticket_cache())
        return caches[0]

    yield begin, opened
    teardown_test_environment()
    for cache in caches:
        cache.close()
    _cache_of_settings.cache_clear()


def test_tests_have_a_store_in_memory_and_keys_of_their_own(testing):
    begin, opened = testing
    cache = begin()
    assert opened == ["sqlite://:memory:"]
    assert cache.authenticate(cache.login("alice")).principal == "alice"
    assert cache.idle_timeout_s == 77


def test_a_test_client_logs_in_there(testing):
    from django.contrib.auth.models import User
    from django.test import Client

    begin, _ = testing
    cache = begin()
    client = Client()
    client.force_login(User.objects.get(username="alice"))
    assert len(cache.sessions("alice")) == 1
    assert value(client.get("/who")) == "alice"


def test_tests_may_have_another_store_if_the_settings_say_so(testing, tmp_path):
    from fastticket.keyfile import create_key_file

    begin, opened = testing
    create_key_file(tmp_path / "keys.toml")
    store = f"sqlite:///{tmp_path}/sessions.db"
    cache = begin(test={"store": store, "keys": str(tmp_path / "keys.toml"), "idle_timeout_s": 78})
    assert opened == [store]
    assert cache.idle_timeout_s == 78


def test_store_and_keys_may_be_objects(testing):
    from fastticket import Keyring, open_store

    begin, opened = testing
    keys = Keyring.generate()
    cache = begin(test={"store": open_store("sqlite://:memory:"), "keys": keys})
    assert opened == []
    assert keys.verify(cache.login("alice"), 0).principal == "alice"


def test_a_cache_that_was_made_before_the_tests_is_not_theirs(at, monkeypatch):
    from django.test.utils import setup_test_environment, teardown_test_environment

    from fastticket.django import ticket_cache

    setup_test_environment()
    try:
        assert ticket_cache() is not at.cache
    finally:
        teardown_test_environment()
    assert ticket_cache() is at.cache


def test_a_mail_backend_in_memory_is_no_test(at, monkeypatch):
    from django.core import mail

    from fastticket.django import ticket_cache

    monkeypatch.setattr(mail, "outbox", [], raising=False)
    assert ticket_cache() is at.cache


# --- what `manage.py check` says


def __getattr__(name):
    """What MIDDLEWARE may name, too; Django's classes can be imported only in a project."""
    if name != "OwnMiddleware":
        raise AttributeError(name)
    from fastticket.django.middleware import TicketMiddleware

    return type(name, (TicketMiddleware,), {})


def middleware_function(get_response):
    return get_response


def said_of(at, *middleware, **settings):
    from django.core.checks import run_checks

    with at.override(MIDDLEWARE=list(middleware), **settings):
        return [message.id for message in run_checks() if message.id.startswith("fastticket")]


def test_a_check_finds_what_is_wrong_with_the_middleware(at):
    assert said_of(at, SESSIONS, CSRF, OURS) == []
    assert said_of(at, SESSIONS, f"{__name__}.OwnMiddleware", f"{__name__}.middleware_function") == []
    assert said_of(at, SESSIONS, f"{__name__}.is_not_there") == []
    assert said_of(at, SESSIONS, DJANGOS) == ["fastticket.E001"]
    assert said_of(at, SESSIONS, OURS, DJANGOS) == ["fastticket.W001"]
    assert said_of(at, SESSIONS, CSRF, OURS, CSRF_USE_SESSIONS=True) == ["fastticket.W002"]
    assert said_of(at, SESSIONS, OURS, CSRF, CSRF_USE_SESSIONS=True) == []
    assert said_of(at, DJANGOS, SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies") == []


def test_a_check_finds_that_the_key_ring_cannot_be_read(at, tmp_path, monkeypatch):
    """Otherwise the first login would be a 500."""
    from fastticket.keyfile import create_key_file

    def said(keys, **settings):
        return said_of(at, SESSIONS, OURS, FASTTICKET={"store": "sqlite://:memory:", **keys}, **settings)

    path = tmp_path / "keys.toml"
    assert said({"keys": path}) == ["fastticket.W003"]
    create_key_file(path)
    assert said({"keys": path}) == []
    monkeypatch.delenv("FASTTICKET_KEYS", raising=False)
    assert said({}) == ["fastticket.W003"]
    elsewhere = "django.contrib.sessions.backends.signed_cookies"
    assert said({}, SESSION_ENGINE=elsewhere) == []


def test_the_middleware_that_django_begins_a_project_with_needs_one_other_line(at):
    """And no other is lost."""
    from pathlib import Path

    import django.conf

    template = Path(django.conf.__file__).parent / "project_template/project_name/settings.py-tpl"
    begun = template.read_text().partition("MIDDLEWARE = [")[2].partition("]")[0]
    middleware = [line.strip(" ',\"") for line in begun.strip().splitlines()]
    assert DJANGOS in middleware
    assert "django.middleware.clickjacking.XFrameOptionsMiddleware" in middleware
    with at.override(MIDDLEWARE=[OURS if each == DJANGOS else each for each in middleware]):
        client = at.client()
        response = client.get("/login?user=alice")
        assert value(response) == "alice"
        assert response["X-Frame-Options"] == "DENY"
        assert at.cache.authenticate(client.cookies[TICKET].value).principal == "alice"
        assert value(client.get("/put?a=1")) is None
        assert value(client.get("/get?name=a")) == "1"
        assert client.get("/logout").cookies[TICKET]["max-age"] == 0


# --- the Domain of the cookie


@pytest.mark.parametrize("at", [{"cookie_domain_level": 2}], indirect=True)
def test_the_cookie_is_for_the_last_labels_of_the_host(at):
    hosts = {"www.shop.test": "shop.test", "shop.test": "shop.test", "localhost": "", "127.0.0.1": ""}
    for host, domain in hosts.items():
        client, said = at.client(), []
        for path in ("/login?user=alice", "/put?a=1", "/logout"):
            cookies = client.get(path, headers={"Host": host}).cookies
            said += [cookies[name]["domain"] for name in (TICKET, "ticket-seen") if name in cookies]
        assert said == [domain] * 4  # both are set, and both are cleared


@pytest.mark.parametrize("at", [{"cookie_domain_level": 1}], indirect=True)
def test_a_domain_level_that_browsers_would_not_take_is_said_at_the_start(at):
    from django.core.exceptions import ImproperlyConfigured

    from fastticket.django.middleware import TicketMiddleware

    with pytest.raises(ImproperlyConfigured, match=r'FASTTICKET\["cookie_domain_level"\]: must be 0, or 2'):
        TicketMiddleware(lambda request: None)

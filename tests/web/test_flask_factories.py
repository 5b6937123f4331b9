"""Applications that are made over and over, as tests make them: each has a cache, and a cache has
threads.
"""

import gc
import threading

import flask
from conftest import BOUND_S
from lab.redis_servers import wait_until

from fastticket import Keyring, open_store
from fastticket.flask import TicketSessions, login
from fastticket.sync import TicketCache


def create_app(store="sqlite://:memory:"):
    app = flask.Flask(__name__)
    app.secret_key = "of this application"
    cache = TicketCache(open_store(store), Keyring.generate())
    app.session_interface = TicketSessions(cache)

    @app.get("/")
    def index():
        login("alice")
        return flask.render_template_string("{{ session.user }}")

    return app


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("fastticket")}


def test_an_application_that_is_not_used_has_no_thread():
    before = threads()
    apps = [create_app() for _ in range(20)]
    assert threads() <= before  # one of a test before may have ended meanwhile
    assert len(apps) == 20


def test_the_threads_of_applications_that_are_gone_end():
    before = threads()
    for _ in range(20):
        assert create_app().test_client().get("/").text == "alice"
    gc.collect()
    wait_until(lambda: threads() <= before, "their threads have ended", BOUND_S)


def test_a_cache_that_is_gone_has_written_its_touches(tmp_path):
    """As one that is closed."""
    store = f"sqlite:///{tmp_path}/sessions.db"
    keys = Keyring.generate()
    settings = {"flush_interval_ms": 60_000, "lease_ms": 120_000}

    def deadline_ms(cache):
        return cache.sessions("alice")[0].idle_deadline_ms

    before = threads()
    cache = TicketCache(open_store(store), keys, **settings)
    ticket = cache.login("alice", idle_timeout_s=7200)
    was = deadline_ms(cache)
    at = {"ms": cache.authenticate(ticket).idle_deadline_ms}
    del cache
    gc.collect()
    wait_until(lambda: threads() <= before, "its threads have ended", BOUND_S)
    with TicketCache(open_store(store), keys, **settings) as another:
        assert was <= deadline_ms(another) <= at["ms"]


def test_what_has_the_cache_keeps_it():
    """Attributes, and a method of it."""
    cache = TicketCache(open_store("sqlite://:memory:"), Keyring.generate())
    ticket = cache.login("alice")
    attributes, authenticate = cache.attributes(cache.authenticate(ticket)), cache.authenticate
    del cache
    gc.collect()
    attributes["a"] = 1
    assert attributes.save()
    assert authenticate(ticket).principal == "alice"


def test_a_cache_that_another_thread_lets_go_of_does_not_wait():
    """The garbage collector runs in whichever thread; in that of another cache, too."""
    outer = TicketCache(open_store("sqlite://:memory:"), Keyring.generate())
    inner = TicketCache(open_store("sqlite://:memory:"), Keyring.generate())
    inner.login("alice")
    held = [inner]
    del inner
    before = threads()

    def let_go(ticket):
        held.clear()
        gc.collect()
        return True

    assert outer.login("bob", suits=let_go)
    wait_until(lambda: len(threads()) < len(before) + 2, "its thread ends", BOUND_S)
    outer.close()

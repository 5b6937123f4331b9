"""Flask's visitors who are not logged in: what changes in their signed cookie, and logins that are
none.
"""

import copy
import datetime
import json
import logging

import flask
import pytest
from flask import session
from lab.web_stores import CountedStore, quiet_cache

import fastticket.flask
from fastticket import NotLoggedIn
from fastticket.flask import TicketSessions
from fastticket.web.cookies import TicketCookie


@pytest.fixture
def cache():
    with quiet_cache(CountedStore()) as made:
        yield made


@pytest.fixture
def app(cache):
    made = flask.Flask(__name__)
    made.secret_key = "of this application"
    made.testing = True
    made.session_interface = TicketSessions(cache, cookie=TicketCookie(is_secure=False))
    made.add_url_rule("/", view_func=lambda: flask.jsonify(dict(session)))
    return made


@pytest.fixture
def doing(app):
    """`doing(client, do)`: the response to a request whose view does this."""
    to_do = []

    @app.get("/do")
    def do():
        to_do.pop()()
        return ""

    def ask(client, what):
        to_do.append(what)
        return client.get("/do")

    return ask


@pytest.fixture(autouse=True)
def not_warned_yet():
    fastticket.flask._warned_of.clear()


# --- changes within a value


def as_text(value):
    return json.dumps(value, sort_keys=True, default=str)


CHANGES = {
    "an append": lambda cart, tags: tags.append("b"),
    "an entry of a dictionary": lambda cart, tags: cart.update(note="x"),
    "a list in a dictionary": lambda cart, tags: cart["items"].append({"name": "milk"}),
    "a dictionary in a list": lambda cart, tags: cart["items"][0].update(count=2),
    "a removal": lambda cart, tags: cart["items"].clear(),
    "false for 0": lambda cart, tags: cart.update(paid=0),
    "a date": lambda cart, tags: tags.append(datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)),
}


def begin():
    session["cart"] = {"items": [{"name": "tea", "count": 1}], "paid": False}
    session["tags"] = ["a"]


@pytest.mark.parametrize("is_logged_in", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_within_a_value_is_noticed(app, doing, change, is_logged_in):
    if is_logged_in and change == "a date":
        pytest.skip("attributes are JSON")
    client = app.test_client()
    if is_logged_in:
        doing(client, lambda: session.update(user="alice"))
    doing(client, begin)
    expected = []

    def do():
        before = session.modified
        CHANGES[change](session["cart"], session["tags"])
        expected.append(copy.deepcopy([session["cart"], session["tags"]]))
        assert (before, session.modified) == (False, True)

    doing(client, do)
    found = []
    doing(client, lambda: found.append([session["cart"], session["tags"]]))
    assert as_text(found) == as_text(expected)


def test_a_look_at_a_value_is_no_change(app, doing):
    client = app.test_client()
    doing(client, begin)
    response = doing(client, lambda: [session["cart"], dict(session), session.get("tags"), session.modified])
    assert response.headers.getlist("Set-Cookie") == []
    assert response.headers["Vary"] == "Cookie"


def test_a_change_that_is_undone_is_none(app, doing):
    client = app.test_client()
    doing(client, begin)
    assert (
        doing(client, lambda: session["tags"].append("b") or session["tags"].pop()).headers.getlist("Set-Cookie") == []
    )


def test_who_says_that_nothing_changed_is_believed(app, doing):
    """As in Flask; what changes after that is noticed again."""
    client = app.test_client()
    doing(client, begin)

    def do():
        session["tags"].append("b")
        session.modified = False

    assert doing(client, do).headers.getlist("Set-Cookie") == []

    def do_more():
        do()
        session["cart"]["paid"] = True

    assert doing(client, do_more).headers.getlist("Set-Cookie")


def test_a_visitor_without_a_cookie_gets_none_for_looking(app, doing):
    response = doing(app.test_client(), lambda: session.get("cart"))
    assert response.headers.getlist("Set-Cookie") == []


def test_a_value_that_no_cookie_holds_is_flasks_error(app, doing):
    client = app.test_client()
    doing(client, begin)
    with pytest.raises(TypeError, match="not JSON serializable"):
        doing(client, lambda: session["tags"].append(object()))


def test_what_was_changed_within_a_value_moves_into_the_session(app, doing, cache):
    client = app.test_client()
    doing(client, begin)

    def do():
        session["tags"].append("b")
        session["user"] = "alice"

    doing(client, do)
    assert client.get_cookie("session") is None
    assert client.get("/").json["tags"] == ["a", "b"]


# --- logins that are none


def test_an_entry_that_looks_like_a_login_is_warned_of_once(app, doing, caplog):
    client = app.test_client()
    doing(client, lambda: session.update(user_id=17))
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert said.name == "fastticket.flask"
    assert "TicketSessions(cache, principal_key='user_id')" in said.getMessage()
    assert "17" not in said.getMessage()
    doing(app.test_client(), lambda: session.update(user_id=18))
    client.get("/")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["_user_id", "userid", "username"])
def test_its_other_names(app, doing, caplog, name):
    doing(app.test_client(), lambda: session.update({name: "alice"}))
    assert f"principal_key={name!r}" in caplog.text


def test_it_is_seen_without_any_logging_set_up(tmp_path):
    """As a beginner runs it."""
    import subprocess
    import sys

    script = """
import flask
from fastticket import Keyring, open_store
from fastticket.flask import TicketSessions
from fastticket.sync import TicketCache
app = flask.Flask("app")
app.secret_key = "x"
app.session_interface = TicketSessions(TicketCache(open_store("sqlite://:memory:"), Keyring.generate()))
app.add_url_rule("/", view_func=lambda: flask.session.update(user_id=1) or "")
app.test_client().get("/")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "principal_key='user_id'" in done.stderr


@pytest.mark.parametrize("key", ["user", "user_id", "_user_id"])
def test_who_has_chosen_the_entry_is_not_warned(app, cache, doing, caplog, key):
    app.session_interface = TicketSessions(cache, principal_key=key)
    doing(app.test_client(), lambda: session.update({"user_id": "1", "_user_id": "1", "username": "x"}))
    assert caplog.records == []


def test_such_an_entry_beside_a_login_is_an_attribute(app, doing, caplog):
    client = app.test_client()
    doing(client, lambda: session.update(user_id=17, user="alice"))
    doing(client, lambda: session.update(username="Alice"))
    assert caplog.records == []
    assert client.get("/").json == {"user": "alice", "user_id": 17, "username": "Alice"}


def test_another_entry_is_warned_of_by_nobody(app, doing, caplog):
    doing(app.test_client(), lambda: session.update(cart=["tea"]))
    assert caplog.records == []


def test_without_a_secret_key_the_error_says_it(app, doing):
    app.secret_key = None
    with pytest.raises(NotLoggedIn, match=r"principal_key='user_id'"):
        doing(app.test_client(), lambda: session.update(user_id="17"))


def test_the_tutorials_login_with_its_entry_named(app, doing, cache):
    app.session_interface = TicketSessions(cache, cookie=TicketCookie(is_secure=False), principal_key="user_id")

    def log_in():
        session.clear()
        session["user_id"] = str(17)

    client = app.test_client()
    doing(client, log_in)
    assert len(cache.sessions("17")) == 1
    assert client.get("/").json == {"user_id": "17"}
    doing(client, lambda: session.clear())
    assert cache.sessions("17") == []

"""A plugin of pytest: every Flask application has our sessions, unless it chooses others.
SUITE_SESSIONS says for which visitors.

anonymous    visitors who are not logged in, as in all of Flask's own tests
flask_login  the same, with `_user_id` as the user who is logged in; as text: its tests have
             numbers, which its documentation does not allow
ticket       visitors who are logged in from the start
"""

import os

import _pytest.monkeypatch
import flask
import flask.testing

import fastticket.flask
from fastticket import Keyring, open_store
from fastticket.flask import TicketSession, TicketSessions
from fastticket.sync import TicketCache
from fastticket.web.cookies import TicketCookie

if not hasattr(_pytest.monkeypatch, "notset"):  # as it was called when Flask's tests were written
    _pytest.monkeypatch.notset = _pytest.monkeypatch.NOTSET


class ByNumber(TicketSession):
    """Its principals are written as numbers, too."""

    def __setitem__(self, name, value):
        super().__setitem__(name, str(value) if isinstance(value, int) and name == "_user_id" else value)


def pytest_configure():
    kind = os.environ["SUITE_SESSIONS"]
    if kind == "own":
        return
    cache = TicketCache(open_store("sqlite://:memory:"), Keyring.generate(), near_attributes_bytes=1_000_000)
    key = "_user_id" if kind == "flask_login" else "user"
    if kind == "ticket":
        _come_with_tickets(flask.testing.FlaskClient, cache)
    if kind == "flask_login":
        fastticket.flask.TicketSession = ByNumber
    flask.Flask.session_interface = TicketSessions(cache, cookie=TicketCookie(is_secure=False), principal_key=key)


def _come_with_tickets(client, cache):
    begin = client.__init__

    def begin_logged_in(self, *arguments, **options):
        begin(self, *arguments, **options)
        if self._cookies is not None:
            self.set_cookie("ticket", cache.login("alice"))

    client.__init__ = begin_logged_in

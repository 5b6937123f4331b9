"""A Flask application, for gunicorn."""

import os

import flask
from session_views import AFTER_POST, VIEWS, answer, cache

from fastticket.flask import TicketSessions
from fastticket.sync import TicketCache

application = flask.Flask(__name__)
application.secret_key = "of all processes"
application.session_interface = TicketSessions(cache(TicketCache))


def view():
    body = answer(flask.session, flask.request.path, flask.request.query_string.decode())
    if flask.request.method == "POST":
        return flask.redirect(AFTER_POST, 303)
    return flask.Response(body, mimetype="application/json")


@application.route("/flash")
def flash():
    flask.flash(flask.request.args["text"])
    return {"value": None, "process": os.getpid()}


@application.route("/messages")
def messages():
    return {"value": flask.get_flashed_messages(), "process": os.getpid()}


for path in VIEWS:
    application.add_url_rule(path, path, view, methods=["GET", "POST"])

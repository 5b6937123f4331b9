"""A Flask application, for gunicorn."""

import flask
from session_views import VIEWS, answer, cache

from fastticket.flask import TicketSessions
from fastticket.sync import TicketCache

application = flask.Flask(__name__)
application.secret_key = "of all processes"
application.session_interface = TicketSessions(cache(TicketCache))


def view():
    return flask.Response(
        answer(flask.session, flask.request.path, flask.request.query_string.decode()), mimetype="application/json"
    )


for path in VIEWS:
    application.add_url_rule(path, path, view)

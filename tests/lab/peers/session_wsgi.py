"""A WSGI application without any framework, for gunicorn."""

from session_views import AFTER_POST, answer, cache

from fastticket.sync import TicketCache
from fastticket.wsgi import SessionMiddleware


def hello(environ, start_response):
    body = answer(environ["fastticket.session"], environ["PATH_INFO"], environ["QUERY_STRING"])
    if environ["REQUEST_METHOD"] == "POST":
        start_response("303 See Other", [("Location", AFTER_POST), ("Content-Length", "0")])
        return []
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


application = SessionMiddleware(hello, cache(TicketCache))

"""The views that the applications of web_sites.py have in common, on whatever session their
framework has.

Each gets the session and the query, and returns what is answered as JSON, with the number of the
process.
"""

import json
import os
import threading
from urllib.parse import parse_qsl

import fastticket

_both_are_here = threading.Barrier(2)


def cache(kind):
    """A TicketCache of either kind, as the environment has it; in Django's form."""
    said = json.loads(os.environ["FASTTICKET"])
    store, keys = fastticket.open_store(said.pop("store")), fastticket.Keyring.from_file(said.pop("keys"))
    if os.environ.get("IS_DEAF"):
        store.on_doorbell = lambda _: None
    return kind(store, keys, **said)


def login(session, user):
    session["user"] = user


def logout(session):
    session.pop("user", None)


def who(session):
    return session.get("user")


def put(session, **values):
    session.update(values)


def get(session, name):
    return session.get(name)


def put_together(session, **values):
    """Two requests are here at once, and have both read the session, before either writes."""
    session.get("anything")
    _both_are_here.wait(20)
    session.update(values)


def add(session, item):
    session.setdefault("cart", []).append(item)


def cart(session):
    return session.get("cart")


VIEWS = {f"/{view.__name__}": view for view in (login, logout, who, put, get, put_together, add, cart)}
AFTER_POST = "/cart"  # where a POST, whatever it does, sends the visitor on


def answer(session, path, query):
    """The body of the response."""
    value = VIEWS[path](session, **dict(parse_qsl(query)))
    return json.dumps({"value": value, "process": os.getpid()}).encode()

"""The page of the admin listener, at `/`: files of this folder, which are served as they are.

    index.html     what there is to see, empty
    page.css       how it looks: light, dark, narrow
    page.js        begins: asks the API again and again, and shows what it says
    api.js         how the API is asked; the token, in the page's memory only
    elements.js    tables and lists that are filled anew without losing the focus
    figures.js     numbers and times as text
    chart.js       lines of the last ten minutes, with their table
    fleet.js       the gateways of the fleet
    gateway.js     this gateway and its store: figures, reload, drain, log level
    keys.js        the keys, which can be added, promoted and retired
    upstreams.js   servers, which can be drained
    sessions.js    a user's sessions, which can be ended
    events.js      what becomes of sessions, as it happens
    changes.js     changes that are made here, and what is different from the last look

Rules of this folder
- Nothing is loaded from anywhere else, and no program or style stands in the page itself: POLICY
  lets the browser refuse whatever somebody might bring in.
- All that the API says is put in as text, never as HTML.
- What grows has a bound: rows, events, points of a line.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files

from fastticket.gateway.admin.dispatch import Answer

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
)
FIELDS = (("Content-Security-Policy", POLICY), ("Referrer-Policy", "no-referrer"))
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FRONT = "index.html"


def page_files() -> dict[str, Answer]:
    """The files, by the paths at which they are served: the front page at `/`, the others below
    `/page/`.
    """
    served = {}
    for file in files(__name__).iterdir():
        name, dot, suffix = file.name.rpartition(".")
        if name and dot + suffix in TYPES:
            path = "/" if file.name == FRONT else f"/page/{file.name}"
            served[path] = Answer(HTTPStatus.OK, file.read_bytes(), TYPES[dot + suffix], FIELDS)
    return served

"""Paths that need no ticket, and paths that do, in three layouts of routes; and a run of one over a
socket.

Rule: a path that needs none arrives at the service as it was sent, byte by byte; one that does is
answered with 401 and arrives nowhere.
"""

from dataclasses import dataclass, field
from urllib.parse import quote

from conftest import OK, status_of

from lab.deliveries import send

LAYOUTS = {
    "exempt inside": {"/": "required", "/open": "none"},
    "exempt around": {"/": "none", "/private": "required"},
    "nested": {"/": "none", "/private": "required", "/private/open": "none", "/private/open/not": "required"},
}

# How a separator may be spelled, and what may stand before and behind a protected path.
SLASHES = [
    *("/", "//", "/./", "/.//", "/;/", "/;a=b/", "/x/../", "/x/...//../", "\\", "/x\\..\\", "/x/..;/", "/%20/"),
    *("%2f", "%2F", "%252f", "%25252F", "%5c", "%255C", "/%2e/", "/x/%2e%2e/", "/x/.%2E/", "/x%2f..%2f", "/x/..%2f"),
    *("%c0%af", "%e0%80%af", "%ef%bc%8f", "/x/%c0%ae%c0%ae/", "%u002f", "/x/%u002e%u002e/", "%00/", "/%00/"),
]
BEFORE = [
    *("", "/.", "//a", "http://a", "HTTP://a:80", "https://a/open/..", "/open/.", "/open/..", "/open;/..", "/open/..;"),
    *("/open/%2e%2e", "/open/%252e%252e", "/open\\..", "/open%2f..", "/private/open/..", "/private/open/../.."),
]
AFTER = [
    *("", "/", "//", "/key", "?x", "?/../open", "#f", ";a=b", "%3b", "%00", "%20", "%09", ".", "%2e", "/.", "/.."),
    *("%", "%zz", "%25", "%2f", "%5c", "/../open", "/%2e%2e/open", "/..%2fopen", "/../../open", ";/../open"),
    "\\..\\open",
]

PUBLIC = {
    "exempt inside": ["/open/%C3%A9", "/open/文.png", "/open/100%25", "/open/a;v=1", "/open/what%3F", "/open/a%2eb"],
    "exempt around": ["/новости/2024", "/größe", "/100%25", "/a;v=1/b", "/what%3F", "/文/b", "/.a%E6%96%87/b"],
    "nested": ["/новости/2024", "/private/open/文", "/open/é;x=1"],
}
NOT_PUBLIC = {
    "exempt inside": [
        "/open;x",
        "/文/open",
        "/%C3%A9",
        "/open%3F",
        "/open/%C0%AF",
        "/open/%E9",
        "/open/..;/x",
        "/open/%252e",
    ],
    "exempt around": [
        "/private;x",
        "/private文",
        "/文/private",
        "/privat%C3%A9",
        "/private%3F",
        "/priv\u200cate",
        "/priv%E6%96%87ate",
    ],
    "nested": ["/private/open/not文", "/private/open/文/not", "/private/ope%C3%B1", "/private/é"],
}


@dataclass
class PathEntry:
    """One path in a layout."""

    layout: str
    path: str
    verdict: int  # the status

    @property
    def id(self):
        return self.path.encode("ascii", "backslashreplace").decode()[:34]

    @property
    def group(self):
        return self.layout

    @property
    def target(self):
        return quote(self.path, safe="/%;=")

    def raw(self):
        return f"GET {self.target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


PATHS = [
    PathEntry(layout, path, status)
    for status, table in ((200, PUBLIC), (401, NOT_PUBLIC))
    for layout, paths in table.items()
    for path in paths
]


@dataclass
class PathStage:
    """A gateway with a layout's routes, and the service behind it."""

    gateway: object
    behind: object
    seen: str = ""  # in the last run
    arrived: list = field(default_factory=list)


def set_stage(layout, start_gateway, start_origin):
    def serve(connection):
        while True:
            stage.behind.request(connection)
            connection.sendall(OK)

    behind = start_origin(serve)
    routes = [{"path": path, "auth": auth} for path, auth in LAYOUTS[layout].items()]
    stage = PathStage(start_gateway(behind, routes=routes), behind)
    return stage


def run(stage, entry, pieces):
    """AssertionError, if anything is not as the verdict says."""
    before = len(stage.behind.requests)
    with stage.gateway.connect() as client:
        send(stage.gateway, client, pieces)
        stage.seen = str(status_of(client.read_response()[0]))
    assert stage.seen == str(entry.verdict)
    arrived = [head.split(b" ")[1].decode() for head, _ in stage.behind.requests[before:]]
    assert arrived == ([entry.target] if entry.verdict == 200 else [])

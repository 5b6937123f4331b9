"""An operator at the admin API of a gateway, through a Unix socket or TCP, as curl would be."""

import contextlib
import http.client
import json
import socket
import ssl
import urllib.parse

from conftest import BOUND_S


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("admin", timeout=3 * BOUND_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Operator:
    """`at`: a path, or (host, port). `fields`: of every request. `tls`: the file to trust."""

    def __init__(self, at, token="", tls=None, **fields):
        self._at = at
        self._tls = tls
        self.fields = ({"Authorization": f"Bearer {token}"} if token else {}) | fields

    def _connect(self):
        if isinstance(self._at, str):
            return _Connection(self._at)
        if self._tls:
            context = ssl.create_default_context(cafile=str(self._tls))
            return http.client.HTTPSConnection(*self._at, timeout=3 * BOUND_S, context=context)
        return http.client.HTTPConnection(*self._at, timeout=3 * BOUND_S)

    def ask(self, method, path, body=None, **fields):
        """(status, what the JSON says, fields)."""
        with contextlib.closing(self._connect()) as connection:
            given = {name.replace("_", "-"): value for name, value in fields.items()}
            of_body = {"Content-Type": "application/json"} if body is not None else {}
            of_change = {"X-Fastticket-Admin": "1"} if method not in ("GET", "HEAD") and body is None else {}
            text = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
            sent = {**of_body, **of_change, **self.fields, **given}
            connection.request(method, path, text, {name: value for name, value in sent.items() if value is not None})
            with connection.getresponse() as response:  # it may break off
                data = response.read()
            return response.status, json.loads(data) if data else None, response.headers

    def get(self, path, **query):
        """What the JSON says, of 200."""
        return self._good("GET", path, None, query)

    def do(self, method, path, body=None, **query):
        """What the JSON says of a change that was made."""
        return self._good(method, path, body, query)

    def refused(self, method, path, body=None, **fields):
        """(status, slug) of what is refused."""
        status, said, _ = self.ask(method, path, body, **fields)
        assert set(said) == {"error", "message"}, said
        return status, said["error"]

    def _good(self, method, path, body, query):
        status, said, _ = self.ask(method, f"{path}?{urllib.parse.urlencode(query)}" if query else path, body)
        assert status in (200, 201), (status, said)
        return said

    @contextlib.contextmanager
    def events(self, path="/v1/events", **fields):
        """Follow the events, as `Stream`."""
        connection = self._connect()
        connection.request("GET", path, headers={**self.fields, **fields})
        response = connection.getresponse()
        if response.status != 200:
            with response:
                raise AssertionError(response.read())
        assert response.headers["Content-Type"] == "text/event-stream"
        try:
            yield Stream(response)
        finally:
            response.close()
            connection.close()


class Stream:
    """Server-sent events, one by one; `last_id`: of the last that was read."""

    def __init__(self, response):
        self._response = response
        self.last_id = ""

    def begin(self):
        """Read up to the position of now."""
        while not self.last_id:
            self._read()

    def next(self):
        """The next event, as (kind, data)."""
        while not (event := self._read()):
            pass
        return event

    def is_over(self):
        """Read to the end."""
        return self._response.read() is not None

    def _read(self):
        found = {}
        while line := self._response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            found[name] = value
        self.last_id = found.get("id", self.last_id)
        assert found or self._response.fp, "the stream has ended"
        return (found["event"], json.loads(found["data"])) if "event" in found else None

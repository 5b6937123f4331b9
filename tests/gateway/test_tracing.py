"""Traces of a real gateway, received by a collector of OTLP that decodes what it gets."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import BOUND_S, OK, fields_of, status_of
from lab.processes import Site
from lab.redis_servers import free_port, wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fastticket.gateway import tracing
from fastticket.keyfile import create_key_file

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
WISHES = {
    b"/login": b"X-Ticket-Login: alice-the-user",
    b"/rotate": b"X-Ticket-Rotate: 1",
    b"/logout": b"X-Ticket-Logout: session",
}


class Collector:
    """Keeps the spans that are sent to it. `hangs`: it takes connections and answers nothing."""

    def __init__(self):
        self.spans = []
        self.raw = b""
        self.service = ""
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                for group in request.resource_spans:
                    named = {each.key: each.value.string_value for each in group.resource.attributes}
                    collector.service = named["service.name"]
                    collector.spans += [span for scope in group.scope_spans for span in scope.spans]
                collector.raw += body
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def under(self, span):
        return {each.name for each in self.spans if each.parent_span_id == span.span_id}


def attributes(span):
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path, redis_server, origin, monkeypatch):
    """`start(url)`: a gateway that sends its traces there."""

    def serve(connection):
        while True:
            path = connection.read_head().split(b" ")[1]
            wish = WISHES.get(path)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n\r\n" % wish if wish else OK)

    create_key_file(tmp_path / "keys.toml")
    behind = origin(serve)
    started = []

    def begin(url, **variables):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100", **variables}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        table = {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 1.0, "threads": 2},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://{redis_server.address}/0"},
            "upstream": [{"name": "app", "servers": [behind.address]}],
            "route": [{"path": "/login", "auth": "none", "login": True}, {"path": "/"}],
        }
        started.append(Site(tmp_path, table))
        started[-1].table = table
        return started[-1]

    yield begin
    for each in started:
        each.stop()


def get(path, ticket="", trace=""):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    traced = f"TraceParent: 00-{trace}-{PARENT}-01\r\n" if trace else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}{traced}\r\n".encode()


def ticket_in(answer):
    return fields_of(answer[0])[b"set-cookie"].partition(b"=")[2].partition(b";")[0].decode()


def test_what_the_control_plane_does_for_a_request_is_part_of_its_trace(start, collector, redis_server):
    at = start(collector.url, OTEL_SERVICE_NAME="edge")
    ticket = ticket_in(at.ask(get("/login", trace=TRACE)))
    assert status_of(at.ask(get("/x", ticket, trace=TRACE[::-1]))[0]) == 200
    rotated = ticket_in(at.ask(get("/rotate", ticket)))
    assert status_of(at.ask(get("/x", ticket))[0]) == 401
    assert status_of(at.ask(get("/logout", rotated))[0]) == 200
    kept = ticket_in(at.ask(get("/login")))
    # A use in the same moment as the login moves no deadline: there is nothing to flush.
    wait_until(lambda: status_of(at.ask(get("/x", kept))[0]) == 200 and collector.named("flush"), "a flush", BOUND_S)
    assert at.reload({**at.table, "ticket": {"keys": "keys.toml", "idle_timeout_s": 999}}).startswith(
        "reloaded: the worker"
    )
    with redis_server.client() as redis:
        redis.flushall()  # the log is gone: what this gateway has heard is made again there
    expected = {"login", "load", "rotate", "logout", "flush", "reload", "failover"}
    wait_until(lambda: expected <= {span.name for span in collector.spans}, "the spans", 3 * BOUND_S)
    assert collector.service == "edge"

    login = next(span for span in collector.named("login") if span.trace_id.hex() == TRACE)
    assert login.parent_span_id.hex() == PARENT
    assert collector.under(login) == {"store create"}
    load = next(span for span in collector.named("load") if span.trace_id.hex() == TRACE[::-1])
    assert "store exchange" in collector.under(load)
    assert collector.under(collector.named("logout")[0]) == {"store revoke"}
    assert collector.under(collector.named("flush")[0]) == {"store exchange"}
    assert attributes(collector.named("flush")[0])["fastticket.touches"] >= 1
    assert all(not span.parent_span_id for span in collector.named("flush"))
    assert not collector.named("store time_ms")  # nobody's request
    # Nothing that would let its reader in, or tell whom it is about.
    for secret in (ticket, rotated, kept, ticket[:12], "alice-the-user", "canary"):
        assert secret.encode() not in collector.raw
    ended = at.at.end(signal.SIGTERM)
    assert ended == 0


@pytest.mark.parametrize("is_there", [True, False], ids=["hangs", "away"])
def test_a_collector_that_does_not_answer_holds_up_nobody(start, is_there):
    """Neither requests, nor the end; and what waits for it has a bound."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1] if is_there else free_port()}"
        at = start(url, OTEL_BSP_MAX_QUEUE_SIZE="16", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8")
        for _ in range(100):
            assert status_of(at.ask(get("/login"))[0]) == 200
        began_s = time.monotonic()
        assert at.at.end(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < tracing.END_S + BOUND_S


def test_without_a_collector_nothing_of_it_is_imported(tmp_path):
    program = (
        "import sys; from fastticket.gateway import tracing, worker\n"
        "assert tracing.begin() is None\n"
        "ours = ('opentelemetry.exporter', 'opentelemetry.sdk.trace')  # redis-py imports the rest itself\n"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "no traces: they are sent by http/protobuf, not by grpc (OTEL_EXPORTER_OTLP_PROTOCOL)",
        ),
    ],
    ids=["unset", "disabled", "none", "grpc"],
)
def test_when_there_are_no_traces(monkeypatch, caplog, variables, said):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.begin() is None
    assert [record.getMessage() for record in caplog.records] == ([said] if said else [])


def test_a_missing_extra_is_said_and_no_obstacle(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "EXPORTER", "opentelemetry.no.such.exporter")
    assert tracing.begin() is None
    assert "pip install 'fastticket[otel]'" in caplog.text

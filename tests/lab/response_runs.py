"""One response of the corpus sent by a service, and whether what came of it is what its verdict
says.

Rule: after every response the gateway is asked once more, over the same client's connection if that
is still open. So whatever was left over of the response, on either side, is seen: the client would
read it as the answer, or the service would be asked over a connection that it has spoilt.
"""

import threading
from dataclasses import dataclass, field

from conftest import BOUND_S, Gateway, Origin, read_body, status_of

from lab.deliveries import send, settle

ONCE_MORE = b"GET /more HTTP/1.1\r\nHost: a\r\n\r\n"
# It closes, so that each run has its own connections.
NO_MORE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmore"


@dataclass
class Script:
    """The service's part in one request."""

    answer: object
    pieces: list[bytes]
    is_read: threading.Event = field(default_factory=threading.Event)  # the client has what it will get
    is_over: threading.Event = field(default_factory=threading.Event)


@dataclass
class Stage:
    """A gateway, the service behind it, and what that is to do next."""

    gateway: Gateway = None
    behind: Origin = None
    script: Script = None
    seen: str = ""  # by the client in the last run

    def serve(self, connection):
        head, _ = self.behind.request(connection)
        if head.split(b" ")[1] != b"/more":
            self.play(connection)
            self.behind.request(connection)
        connection.sendall(NO_MORE)

    def play(self, connection):
        script = self.script
        send(self.gateway, connection, script.pieces)
        if script.answer.later and script.is_read.wait(BOUND_S):
            send(self.gateway, connection, [script.answer.later.encode("latin-1")])
        if script.answer.ends:
            connection.close()
            settle(self.gateway)
        script.is_over.set()


def set_stage(start_gateway, start_origin):
    stage = Stage()
    stage.behind = start_origin(stage.serve)
    stage.gateway = start_gateway(stage.behind)
    return stage


def run(stage, answer, pieces):
    """AssertionError, if anything is not as the verdict says."""
    stage.script = script = Script(answer, pieces)
    connections_before = len(stage.behind.connections)
    with stage.gateway.connect() as client:
        client.sendall(f"{answer.method} /x HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head, body = read_response(client, answer)
        stage.seen = f"{status_of(head)}" if body is not None else "cut"
        script.is_read.set()
        assert script.is_over.wait(BOUND_S)
        check_read(answer.verdict, head, body)
        with client if body is not None else stage.gateway.connect() as asker:
            ask_once_more(asker)
    connections = len(stage.behind.connections) - connections_before
    stage.seen += ", kept" if connections == 1 else ", not kept"
    assert connections == (1 if answer.verdict.is_kept else 2)


def read_response(client, answer):
    """Head and body; no body, if the connection ended before that did."""
    head = client.read_head()
    if answer.method == "HEAD" or status_of(head) in (204, 304):
        return head, b""
    try:
        return head, read_body(head, client)
    except EOFError:
        return head, None


def ask_once_more(client):
    client.sendall(ONCE_MORE)
    head, body = client.read_response()
    assert (status_of(head), body) == (200, b"more")
    assert client.buffer == b""


def check_read(verdict, head, body):
    if body is None:
        assert verdict.may_cut
    elif status_of(head) == 502:
        assert verdict.may_refuse
    else:
        assert verdict.read is not None
        check_is(verdict.read, head, body)


def check_is(read, head, body):
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    assert status_of(head) == read.status
    assert body == read.body.encode("latin-1")
    assert set(read.has) <= set(lines)
    assert not {line.lower() for line in read.lacks} & {line.lower() for line in lines}
    framing = [line for line in lines if line.lower().startswith(("content-length:", "transfer-encoding:"))]
    assert len(framing) <= 1

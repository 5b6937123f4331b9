"""Every node has a copy of every session, as with Tomcat's DeltaManager: a change at one node is
sent to each of the others.

There are three messages, one line of JSON each. Each is acknowledged before the request is
answered:

    sessions   ids and values: of one session that was written here, or of all for a node that joins
    used       a session was read here that another node had used last: this node is responsible for
               its deadline from now on
    join       the port of a node that has started: it asks for all sessions and all later changes
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from typing import Any

Message = dict[str, Any]


class Replicas:
    """The sessions of one node. `listener` is the descriptor of the socket for the other nodes,
    `ports` are the ports of those nodes.
    """

    def __init__(self, listener: int, *ports: int) -> None:
        self._values: dict[str, str] = {}
        self._used_here: set[str] = set()
        self._peers: dict[int, Peer] = {port: Peer(port) for port in ports}
        self._messages = 0
        self._bytes = 0
        self._lock = threading.Lock()
        mine = socket.socket(fileno=listener)
        self._listen(mine)
        self._join(mine.getsockname()[1])

    def _join(self, port: int) -> None:
        """Announce this node to the others; the first of them sends all sessions."""
        for number, peer in enumerate(list(self._peers.values())):
            self._values |= peer.tell({"join": port, "wants": number == 0}).get("sessions", {})

    def __setitem__(self, session_id: str, value: str) -> None:
        self._values[session_id] = value
        self._used_here.add(session_id)
        self._tell_all({"sessions": {session_id: value}})

    def __getitem__(self, session_id: str) -> str:
        if session_id not in self._used_here:
            self._used_here.add(session_id)
            self._tell_all({"used": session_id})
        return self._values[session_id]

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._values

    def counters(self) -> dict[str, int]:
        held = sum(len(session_id) + len(value) for session_id, value in self._values.items())
        return {
            "sessions": len(self._values),
            "bytes_held": held,
            "messages": self._messages,
            "bytes_sent": self._bytes,
        }

    def _tell_all(self, message: Message) -> None:
        with self._lock:
            for port, peer in list(self._peers.items()):
                try:
                    peer.tell(message)
                except OSError:  # it has left
                    del self._peers[port]
                else:
                    self._count(message)

    def _count(self, message: Message) -> None:
        self._messages += 1
        self._bytes += len(_line(message))

    def _hear(self, message: Message) -> Message:
        """Handle a message. Returns the answer; an empty one acknowledges."""
        if "join" in message:
            with self._lock:
                self._peers.setdefault(message["join"], Peer(message["join"]))
                answer = {"sessions": self._values} if message["wants"] else {}
                self._count(answer)
                return answer
        self._values |= message.get("sessions", {})
        self._used_here -= {message["used"]} if "used" in message else message["sessions"].keys()
        return {}

    def _listen(self, listener: socket.socket) -> None:
        hear = self._hear

        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                for line in self.rfile:
                    self.wfile.write(_line(hear(json.loads(line))))

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.daemon_threads = True
        server.socket.close()
        server.socket = listener
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Peer:
    """Another node. It is connected when there is a message for it. One thread at a time may use
    it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: Any = None

    def tell(self, message: Message) -> Message:
        """Send a message. Returns the node's answer. OSError: the node has left."""
        if self._stream is None:
            connection = socket.create_connection(("127.0.0.1", self._port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stream = connection.makefile("rwb")
        self._stream.write(_line(message))
        self._stream.flush()
        line = self._stream.readline()
        if not line:
            raise ConnectionResetError
        return json.loads(line)


def _line(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"

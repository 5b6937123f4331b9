"""A socket.io server with a page, and an upload: python-socketio on uvicorn. `SOCKET_IO_CLIENT`:
the client's script.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote

import socketio

PAGE = b"""<!doctype html><title>socket.io</title><script src="/client.js"></script><ul id="said"></ul><script>
const say = (text) => { const item = document.createElement("li"); item.textContent = text; said.append(item); };
const socket = io();
socket.on("welcome", (name) => say("welcome " + name));
socket.on("connect", () => {
    const look = () => socket.io.engine.transport.name === "websocket" ? say("transport websocket") : setTimeout(look, 50);
    look();
    socket.emit("echo", new Uint8Array(300000).fill(7), (size) => say("echoed " + size));
});
</script>"""

CLIENT = Path(os.environ.get("SOCKET_IO_CLIENT", os.devnull)).read_bytes()

sockets = socketio.AsyncServer(async_mode="asgi")


@sockets.event
async def connect(sid, environ):
    await sockets.emit("welcome", unquote(environ["HTTP_X_FORWARDED_USER"]), to=sid)


@sockets.event
async def echo(sid, data):
    return len(data)


async def body_of(receive):
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            return body


async def pages(scope, receive, send):
    if scope["type"] != "http":
        return
    kind, body = b"text/html", PAGE
    if scope["path"] == "/client.js":
        kind, body = b"text/javascript", CLIENT
    elif scope["path"] == "/upload":
        kind, body = b"text/plain", hashlib.sha256(await body_of(receive)).hexdigest().encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


application = socketio.ASGIApp(sockets, pages)

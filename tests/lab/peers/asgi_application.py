"""An application for uvicorn: it echoes bodies and WebSocket messages, names the user, hands a
message from a client to another.
"""

import asyncio
import json
from collections import defaultdict
from pathlib import Path

PAGE = (Path(__file__).parent / "page.html").read_bytes()

waiting = defaultdict(asyncio.Queue)  # topic, as the query names it: a future for each who wants its next message


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await echo_messages(receive, send)
    elif scope["type"] == "http":
        await PATHS[scope["path"]](scope, receive, send)


async def page(scope, receive, send):
    await answer(send, PAGE, (b"content-type", b"text/html; charset=utf-8"))


async def login(scope, receive, send):
    """Log in the user that the body names."""
    principal = b"".join([piece async for piece in pieces_of(receive)])
    await answer(send, b"welcome", (b"x-ticket-login", principal))


async def whoami(scope, receive, send):
    await answer(send, dict(scope["headers"])[b"x-forwarded-user"])


async def fields(scope, receive, send):
    """The request's fields, as they came here."""
    await answer(send, json.dumps([[name.decode(), value.decode()] for name, value in scope["headers"]]).encode())


async def echo(scope, receive, send):
    """The body, each piece as soon as it is here."""
    await begin(send, (b"content-type", b"application/octet-stream"))
    async for piece in pieces_of(receive):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def poll(scope, receive, send):
    """The topic's next message: a long poll."""
    await answer(send, await next_message(scope))


async def events(scope, receive, send):
    """Every message of the topic as a server-sent event, until one is `end`."""
    await begin(send, (b"content-type", b"text/event-stream"))
    message = b""
    while message != b"end":
        message = await next_message(scope)
        await send({"type": "http.response.body", "body": b"data: %b\n\n" % message, "more_body": True})
    await send({"type": "http.response.body"})


async def publish(scope, receive, send):
    """Hand a message to somebody who waits for one. It is not kept: this waits until there is
    somebody.
    """
    message = b"".join([piece async for piece in pieces_of(receive)])
    (await waiting[scope["query_string"]].get()).set_result(message)
    await answer(send, b"")


async def stay(scope, receive, send):
    """The topic's next message, and no end after it. When the reader has left, whoever polls the
    topic hears of that.
    """
    await begin(send)
    await send({"type": "http.response.body", "body": await next_message(scope), "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    (await waiting[scope["query_string"]].get()).set_result(b"left")


async def next_message(scope):
    message = asyncio.get_running_loop().create_future()
    waiting[scope["query_string"]].put_nowait(message)
    return await message


async def echo_messages(receive, send):
    """Until one says `bye`, which is answered with a close."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
            return
        await send({**event, "type": "websocket.send"})


async def pieces_of(receive):
    """A request body as it comes."""
    while True:
        event = await receive()
        yield event.get("body", b"")
        if not event.get("more_body"):
            return


async def begin(send, *fields):
    await send({"type": "http.response.start", "status": 200, "headers": fields})


async def answer(send, body, *fields):
    await begin(send, (b"content-length", b"%d" % len(body)), *fields)
    await send({"type": "http.response.body", "body": body})


PATHS = {
    "/page": page,
    "/login": login,
    "/whoami": whoami,
    "/fields": fields,
    "/echo": echo,
    "/poll": poll,
    "/events": events,
    "/publish": publish,
    "/stay": stay,
}

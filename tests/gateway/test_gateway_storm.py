"""A storm: hostile clients and a moody upstream, at random but seeded, against one gateway with a
near cache far too small.

What must hold whatever happens: the application only ever sees the identity that the request's own
ticket carries (P1, P10), nothing of a request that was refused, and when the storm is over every
connection and descriptor is gone (P9). Run it on a build with FASTTICKET_SANITIZE=1 to have memory
looked after, too. FASTTICKET_FUZZ scales its length.
"""

import asyncio
import contextlib
import os
import random

import uvloop

import fastticket
from fastticket.gateway.addresses import parse_address
from fastticket.gateway.binding import listen
from fastticket.gateway.inheritance import Given
from fastticket.gateway.reader import read_config
from fastticket.gateway.worker import Worker
from fastticket.keyfile import create_key_file

STORM_S = 4 * float(os.environ.get("FASTTICKET_FUZZ", "1"))
CLIENTS = 40
PATHS = ["/", "/a?b=c", "/login", "/open/x", "/optional", "/a/../open/b", "/%6f%70en"]
SPELLINGS = ["X-Forwarded-User", "x_forwarded_user", "X.Forwarded-User"]


class Upstream:
    """Answers, or misbehaves; and checks whom the gateway lets in."""

    def __init__(self, keys, rnd):
        self.keys, self.rnd = keys, rnd
        self.problems = []
        self.seen = 0
        self.connections = set()

    async def serve(self, reader, writer):
        self.connections.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.check(head)
                if not await self.read_body(head.lower(), reader) or not await self.answer(head, writer):
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def check(self, head):
        self.seen += 1
        fields = [line.partition(b": ") for line in head.split(b"\r\n")[1:-2]]
        named = [
            value
            for name, _, value in fields
            if name.lower().replace(b"_", b"-").replace(b".", b"-") == b"x-forwarded-user"
        ]
        tickets = [
            part for name, _, value in fields if name == b"Cookie" for part in value.split(b"; ") if b"ticket=" in part
        ]
        exempt = head.split()[1].startswith((b"/login", b"/open", b"/optional", b"/%6f"))
        if len(named) > 1 or (not named and not exempt):
            self.problems.append(head)
        if named:
            ticket = self.keys.verify(tickets[0].removeprefix(b"ticket="), 0)
            if not isinstance(ticket, fastticket.Ticket) or ticket.principal.encode() != named[0]:
                self.problems.append(head)

    async def read_body(self, head, reader):
        if b"content-length: " in head:
            size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            if self.rnd.random() < 0.05:
                return False
            await reader.readexactly(size)
        elif b"transfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        return True

    async def answer(self, head, writer):
        mood = self.rnd.random()
        if mood < 0.02:
            return False
        if mood < 0.04:
            writer.write(b"garbage\r\n\r\n")
            return False
        if mood < 0.06:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            return False
        if mood < 0.15:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for size in self.rnd.choices([1, 10, 5000, 70000], k=self.rnd.randrange(5)):
                writer.write(b"%x\r\n%b\r\n" % (size, b"x" * size))
            writer.write(b"0\r\n\r\n")
        elif mood < 0.2:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * self.rnd.randrange(100_000))
            return False
        else:
            wish = (
                b"X-Ticket-Login: bob\r\nX-Ticket-Remember: 1\r\n"
                if b" /login" in head
                else b"X-Ticket-Logout: session\r\n"
                if mood < 0.21
                else b"X-Ticket-Rotate: 1\r\n"
                if mood < 0.22
                else b""
            )
            body = b"z" * self.rnd.choice([0, 5, 300, 200_000])
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (wish, len(body), body))
        await writer.drain()
        return True


def a_request(rnd, tickets):
    ticket = rnd.choice(tickets)
    if rnd.random() < 0.1:
        ticket = ticket[:50] + rnd.choice("ABC") + ticket[51:]
    fields = ["Host: a"]
    for line, chance in [
        (f"User-Agent: {'u' * rnd.choice([0, 9, 2000])}", 0.5),
        (f"Cookie: x=y; ticket={ticket}", 0.9),
        (f"{rnd.choice(SPELLINGS)}: mallory", 0.3),
        ("Connection: close", 0.05),
        ("Expect: 100-continue", 0.05),
    ]:
        if rnd.random() < chance:
            fields.append(line)
    method = rnd.choice(["GET", "GET", "HEAD", "DELETE", "POST", "PUT"])
    body = b""
    if method in ("POST", "PUT"):
        body = b"b" * rnd.choice([0, 3, 3000, 150_000])
        if rnd.random() < 0.5:
            fields.append(f"Content-Length: {len(body)}")
        else:
            fields.append("Transfer-Encoding: chunked")
            step = rnd.choice([100, 9000])
            pieces = [body[at : at + step] for at in range(0, len(body), step)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    line = f"{method} {rnd.choice(PATHS)} HTTP/1.{rnd.choice('1110')}"
    raw = "\r\n".join([line, *fields, "", ""]).encode() + body
    if rnd.random() < 0.05:
        at = rnd.randrange(len(raw))
        raw = raw[:at] + bytes([rnd.randrange(256)]) + raw[at + 1 :]
    return raw


async def a_client(rnd, port, tickets):
    """Send some requests in pieces, perhaps cut off; read answers for a while, or not at all."""
    with contextlib.suppress(ConnectionError, OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.create_task(read_all(reader, rnd.choice([100, 65536])))
        try:
            raw = b"".join(a_request(rnd, tickets) for _ in range(rnd.choice([1, 1, 2, 5, 20])))
            while raw and rnd.random() > 0.003:
                size = rnd.choice([1, 7, 200, 5000, len(raw)])
                writer.write(raw[:size])
                raw = raw[size:]
                await writer.drain()
            if rnd.random() < 0.3:
                writer.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rnd.choice([0.02, 0.2])):
                    await reading
        finally:
            reading.cancel()
            writer.transport.abort()
            await asyncio.wait([reading])


async def read_all(reader, size):
    with contextlib.suppress(ConnectionError):
        while await reader.read(size):
            pass


def configuration(folder, ports):
    create_key_file(folder / "keys.toml")
    return read_config(
        {
            "ticket": {"keys": "keys.toml", "login_details": ["address", "user_agent"], "sessions_max": 20},
            "store": {"url": "sqlite:///sessions.db"},
            "cache": {"capacity": 20},
            "timeouts": {"request_head_s": 0.5, "keep_alive_s": 0.5, "request_body_window_s": 0.5, "linger_s": 0.5},
            "upstream": [{"name": "app", "servers": [*(f"127.0.0.1:{port}" for port in ports), "127.0.0.1:1"]}],
            "route": [
                {"path": "/login", "auth": "optional", "login": True},
                {"path": "/open", "auth": "none"},
                {"path": "/optional", "auth": "optional"},
                {"path": "/"},
            ],
        },
        "storm",
        folder,
    )


async def storm(folder, seed):
    rnd = random.Random(seed)
    keys = fastticket.Keyring.generate()
    upstream = Upstream(keys, rnd)
    servers = [await asyncio.start_server(upstream.serve, "127.0.0.1", 0) for _ in range(2)]
    config = configuration(folder, [server.sockets[0].getsockname()[1] for server in servers])
    upstream.keys = config.keyring()
    descriptors = len(os.listdir("/proc/self/fd"))
    listener = listen(parse_address("127.0.0.1:0", folder), shared=False)
    port = listener.getsockname()[1]
    worker = Worker(Given(config, config.key_pairs()), [[listener]])
    async with fastticket.TicketCache(config.open_store(), config.keyring()) as cache:
        tickets = [await cache.login(f"user{number}") for number in range(60)]
    await worker.start()
    end = asyncio.get_running_loop().time() + STORM_S

    async def clients():
        while asyncio.get_running_loop().time() < end:
            await a_client(rnd, port, tickets)

    await asyncio.gather(*(clients() for _ in range(CLIENTS)))
    stats = worker.proxy.stats
    await worker.stop()
    left = worker.proxy.connection_count
    del worker
    for server in servers:
        server.close()
    await asyncio.wait(upstream.connections, timeout=10)
    return upstream, stats, left, len(os.listdir("/proc/self/fd")) - descriptors


def test_a_storm_of_clients(tmp_path):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        upstream, stats, left, descriptors = runner.run(storm(tmp_path, seed=20))
    assert upstream.problems == []
    assert upstream.seen > 200
    assert stats["admitted"] > 200
    assert stats["refused"]["bad_signature"] > 20
    assert "store_unavailable" not in stats["refused"]
    assert left == 0
    assert descriptors <= 0

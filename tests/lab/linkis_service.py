"""A stand-in for Apache Linkis: a process that is a linkis-gateway, or a service behind one.

As a gateway it answers login, logout, userInfo and heartbeat itself, knows tokens, and forwards
everything else to the services (`--service`). A service reads the user from the ticket's cookie
itself, as Linkis' SecurityFilter does. Both judge tickets by `linkis_tickets`.

    python linkis_service.py gateway --redis PORT [--service HOST:PORT]... [--token CODE]...
    python linkis_service.py service --redis PORT
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import redis.asyncio

sys.path.insert(0, str(Path(__file__).parents[1]))
from lab.linkis_tickets import COOKIE, CRYPT_KEY, IllegalTicketError, LoginError, SSOUtils, Tickets

USER_URI = "/api/rest_j/v1/user/"


class Request:
    """A request's head and body, both small."""

    def __init__(self, method: str, target: str, fields: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = target.partition("?")[0]
        self.fields = fields
        self.body = body
        pairs = (pair.strip().partition("=") for pair in fields.get("cookie", "").split(";"))
        self.cookies = {name: value for name, _, value in pairs if name}


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """None: the connection has ended."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return Request(*first.split(" ")[:2], fields, body)


class Answer:
    """What is answered, in the form of Linkis' Message."""

    def __init__(self, status: int, message: str, *cookies: str, **data: object) -> None:
        self.status = status
        self.cookies = cookies
        self.said = {"status": {200: 0, 401: -1}.get(status, 1), "message": message, "data": data}

    def raw(self, method: str) -> bytes:
        body = json.dumps({"method": method, **self.said}).encode()
        lines = [f"HTTP/1.1 {self.status} Answer", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"Set-Cookie: {cookie}" for cookie in self.cookies]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Service:
    """A service behind a gateway."""

    def __init__(self, options: argparse.Namespace) -> None:
        client = redis.asyncio.Redis(port=options.redis, decode_responses=True)
        tickets = Tickets(options.era, options.crypt_key)
        self.sso = SSOUtils(client, tickets, options.timeout_ms)
        self.name = options.name

    async def answer(self, request: Request) -> Answer:
        user = await self.user_of(request)
        return Answer(
            200,
            "OK",
            user=user,
            by=self.name,
            identity=request.fields.get("x-forwarded-user"),
            token=request.fields.get("token-code"),
            cookies=sorted(request.cookies),
        )

    async def user_of(self, request: Request) -> str:
        """LoginError, IllegalTicketError."""
        return await self.sso.get_login_user(request.cookies.get(COOKIE, ""))


class Gateway(Service):
    """A linkis-gateway."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._tokens = set(options.token)
        self._services = [service.split(":") for service in options.service]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._turn = 0

    async def answer(self, request: Request) -> Answer:
        if request.path.startswith(USER_URI):
            return await self._answer_user(request, request.path.removeprefix(USER_URI))
        if "token-code" in request.fields and "token-user" in request.fields:
            if request.fields["token-code"] not in self._tokens:
                return Answer(401, "Token Authentication Failed")
            user = request.fields["token-user"]
            request.cookies[COOKIE] = await self.sso.set_login_user(user)
        else:
            user = await self.user_of(request)
        if not self._services:
            return await super().answer(request)
        return await self._forward(request)

    async def _answer_user(self, request: Request, act: str) -> Answer:
        if act == "login":
            said = json.loads(request.body)
            if said["userName"] != said["password"]:
                return Answer(400, "login failed")
            ticket = await self.sso.set_login_user(said["userName"])
            return Answer(200, "login successful", f"{COOKIE}={ticket}; Path=/", userName=said["userName"])
        if act == "logout":
            await self.sso.remove_login_user(request.cookies.get(COOKIE, ""))
            return Answer(200, "Logout successful!", f"{COOKIE}=; Path=/; Max-Age=0")
        user = await self.user_of(request)
        return Answer(200, "OK", userName=user) if act in ("userInfo", "heartbeat") else Answer(404, "no such method")

    async def _forward(self, request: Request) -> Answer:
        """To the services in turn, with the ticket in the cookie."""
        try:
            reader, writer = self._idle.pop() if self._idle else await self._connect()
            cookies = "; ".join(f"{name}={value}" for name, value in request.cookies.items())
            writer.write(f"GET {request.path} HTTP/1.1\r\nHost: service\r\nCookie: {cookies}\r\n\r\n".encode())
            status = int((await reader.readline()).split()[1])
            fields = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(fields.partition(b"content-length:")[2].split(b"\r\n")[0])
            said = json.loads(await reader.readexactly(length))
        except (OSError, IndexError, asyncio.IncompleteReadError):
            return Answer(502, "the service has gone")
        self._idle.append((reader, writer))
        return Answer(status, said["message"], **said["data"])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        return await asyncio.open_connection(*self._services[self._turn % len(self._services)])


async def serve(service: Service) -> None:
    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while request := await read_request(reader):
                try:
                    answer = await service.answer(request)
                except (LoginError, IllegalTicketError) as error:
                    answer = Answer(401, str(error))
                writer.write(answer.raw(request.path))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_client, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    has_ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, has_ended.set)
    await has_ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("gateway", "service"))
    parser.add_argument("--redis", type=int, required=True)
    parser.add_argument("--era", choices=("1.8", "later"), default="1.8")
    parser.add_argument("--crypt-key", default=CRYPT_KEY)
    parser.add_argument("--timeout-ms", type=int, default=7_200_000)
    parser.add_argument("--service", action="append", default=[])
    parser.add_argument("--token", action="append", default=[])
    parser.add_argument("--name", default="linkis")
    options = parser.parse_args()
    asyncio.run(serve(Gateway(options) if options.role == "gateway" else Service(options)))


if __name__ == "__main__":
    main()

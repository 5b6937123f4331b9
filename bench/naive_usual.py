"""The naive path as most would write it: aiohttp on both sides, itsdangerous, redis-py; every
request asks Redis, awaited.

    python bench/naive_usual.py UPSTREAM-PORT REDIS-PORT SECRET

On uvloop, with hiredis and pooled connections; GET and EXPIRE a request. Serves GET. Prints
{"listening": PORT}. `naive.py` is the same path done well.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import aiohttp
import itsdangerous
import redis.asyncio
import uvloop
from aiohttp import web

IDLE_TIMEOUT_S = 7200
LIFETIME_S = 86_400
NOT_FORWARDED = ("connection", "x-forwarded-user", "content-length", "transfer-encoding")


async def serve(options: argparse.Namespace) -> None:
    client = redis.asyncio.Redis(port=options.redis_port, protocol=2)
    signer = itsdangerous.TimestampSigner(options.secret)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as upstream:

        async def gateway(request: web.Request) -> web.Response:
            try:
                signed = signer.unsign(request.cookies.get("ticket", ""), max_age=LIFETIME_S).decode()
            except itsdangerous.BadSignature:
                return web.Response(status=401)
            session_id, _, principal = signed.partition("|")
            if await client.get(f"session:{session_id}") is None:
                return web.Response(status=401)
            await client.expire(f"session:{session_id}", IDLE_TIMEOUT_S)
            headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_FORWARDED}
            headers["X-Forwarded-User"] = principal
            url = f"http://127.0.0.1:{options.upstream_port}{request.rel_url}"
            async with upstream.request(request.method, url, headers=headers) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_FORWARDED}
                return web.Response(status=answer.status, headers=kept, body=await answer.read())

        application = web.Application()
        application.router.add_route("GET", "/{path:.*}", gateway)
        runner = web.AppRunner(application, access_log=None, keepalive_timeout=600)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        print(json.dumps({"listening": runner.addresses[0][1]}), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A gateway as most would write it.")
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("redis_port", type=int)
    parser.add_argument("secret")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

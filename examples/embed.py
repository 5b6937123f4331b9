"""fastticket without its gateway: authenticate in your own asyncio program.

python examples/embed.py
"""

import asyncio

import fastticket


async def main() -> None:
    keys = fastticket.Keyring.generate()  # a real program: Keyring.from_file("keys.toml")
    store = fastticket.open_store("sqlite://:memory:")
    async with fastticket.TicketCache(store, keys, idle_timeout_s=7200, absolute_lifetime_s=86400) as cache:
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)  # loads the session once
        print(session.principal, session.id)

        verdict = cache.check(ticket)  # the hot path: no waiting, no store; MISS and REFRESH: ask authenticate
        print("admitted" if verdict else f"refused: {verdict.reason}")

        await cache.logout(ticket)
        try:
            await cache.authenticate(ticket)
        except fastticket.TicketRefused as refused:
            print("refused:", refused.reason)


asyncio.run(main())

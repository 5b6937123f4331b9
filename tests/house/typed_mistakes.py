"""What a strict type checker must say no to: each line that is wrong names the error, and
test_typing.py wants those and no others.

Nobody runs this.
"""

import fastticket


def of_a_ring(keys: fastticket.Keyring) -> None:
    fastticket.Keyring([("1", b"secret")])  # error: list-item
    fastticket.Keyring.from_file(keys=keys)  # error: call-arg
    keys.mint(b"alice", 0)  # error: arg-type
    keys.mint("alice")  # error: call-arg
    keys.verify("ticket", 0).principal  # error: union-attr
    keys.ids = (1,)  # error: misc
    keys.secrets  # error: attr-defined


def of_a_check(cache: fastticket.TicketCache) -> str:
    cache.check(5)  # error: arg-type
    cache.check("ticket", touches=True)  # error: call-arg
    verdict = cache.check("ticket")
    verdict.principal  # error: union-attr
    if verdict:
        verdict.reason  # error: attr-defined
        verdict.nope  # error: attr-defined
        return verdict.id
    return verdict.id  # error: attr-defined, no-any-return


async def of_a_cache(store: fastticket.Store, keys: fastticket.Keyring) -> None:
    fastticket.TicketCache(keys, store)  # error: arg-type, arg-type
    fastticket.TicketCache("sqlite://:memory:", [(1, bytes(32))])  # error: arg-type
    cache = fastticket.TicketCache(store, keys, outage_policy="sometimes")  # error: arg-type
    with cache:  # error: attr-defined, attr-defined
        pass
    await cache.login(7)  # error: arg-type
    await cache.authenticate("ticket", consistency="stronger")  # error: arg-type
    await cache.authenticate("ticket", True)  # error: call-arg
    cache.login("alice").encode()  # error: attr-defined
    for session in await cache.sessions("alice"):
        session.idle_deadline_ms = 0  # error: misc
        session.idle_deadline_s  # error: attr-defined


class Half:
    """No store: it lacks nearly everything."""

    shards: int = 1

    async def open(self) -> None: ...


def of_a_store() -> fastticket.Store:
    fastticket.open_store("sqlite://:memory:", base="folder")  # error: arg-type
    return Half()  # error: return-value


def of_errors() -> None:
    try:
        of_a_store()
    except fastticket.StoreUnavailable as away:
        away.verdict  # error: attr-defined

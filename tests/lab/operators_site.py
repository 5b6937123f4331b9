"""What an operator has in front of him: a running gateway, its keys and its configuration in one
folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from conftest import BOUND_S

from fastticket.commands.keys import read_uses
from fastticket.keyfile import add_key, create_key_file
from lab.processes import Site
from lab.redis_servers import wait_until

CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
admin = "unix:admin.sock"
[ticket]
keys = "keys.toml"
[store]
url = "{store}"
[[upstream]]
name = "app"
servers = ["{application}"]
[[route]]
path = "/login"
auth = "none"
login = true
[[route]]
path = "/"
"""


def with_more(settings: str, tables: str) -> str:
    """CONFIG with more settings of the gateway, and more upstreams and routes."""
    return CONFIG.replace("[ticket]", f"{settings}[ticket]").replace("[[route]]", f"{tables}[[route]]", 1)


@contextlib.contextmanager
def operators_site(
    folder: Path,
    keys: int = 1,
    store: str = "sqlite:///fastticket.db",
    application: str = "127.0.0.1:1",
    more: str = "",
) -> Iterator[Site]:
    """The gateway, which has a ring of so many keys: the first signs. 0: the ring that is there.
    Without an application, nobody is at its address. `more`: tables of its configuration.
    """
    if keys:
        create_key_file(folder / "keys.toml")
    for _ in range(keys - 1):
        add_key(folder / "keys.toml")
    site = Site(folder, CONFIG.format(store=store, application=application) + more)
    try:
        yield site
    finally:
        site.stop()


def use(site: Site, ticket: str) -> None:
    """Ask for a page with a ticket, whatever the answer is, until the gateway says that it has
    verified one by key 1.
    """
    site.ask(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())
    address = f"unix:{site.folder}/admin.sock"
    wait_until(lambda: read_uses(address).get(1), "key 1 was used", BOUND_S)

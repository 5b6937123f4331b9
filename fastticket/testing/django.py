"""`log_in`: for Django's test client, a visitor who has logged in at another application.

    client = log_in(Client(), "alice")

Django's own `client.force_login(user)` logs in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.test import Client

from fastticket.django import ticket_cache

__all__ = ["log_in"]


def log_in(client: Client, principal: str, attributes: Mapping[str, Any] | None = None) -> Client:
    """Begin a session of `principal`, with these attributes, as another application does, and give
    the client its ticket. The client is returned.

    It begins in the store that the settings name. The errors of `TicketCache.login` and of
    attributes.
    """
    cache = ticket_cache()
    ticket = cache.login(principal)
    with cache.attributes(cache.authenticate(ticket)) as there:
        there.update(attributes or {})
    client.cookies[settings.SESSION_COOKIE_NAME] = ticket
    return client

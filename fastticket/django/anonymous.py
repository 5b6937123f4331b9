"""The session of a visitor who is not logged in: Django's session key is its content, signed, as in
django.contrib.sessions.backends.signed_cookies.

A signed session has colons, a ticket has none; so the key itself says which of them it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core import signing

from fastticket.django.expiry import EXPIRY, is_past

SALT = "fastticket.django.sessions"


def is_ticket(session_key: str | None) -> bool:
    """Whether a session key is a ticket, and not a signed session."""
    return bool(session_key) and ":" not in str(session_key)


def signed(data: Mapping[str, Any], serializer: Any) -> str:
    """The session key of an anonymous session with this content. `serializer`: Django's."""
    return signing.dumps(dict(data), salt=SALT, serializer=serializer, compress=True)


def unsigned(session_key: str, serializer: Any, max_age_s: float) -> dict[str, Any] | None:
    """The content of a signed session. None: it is forged, over, or of another serializer.

    `max_age_s`: how old it may be, unless `set_expiry` has left another limit in it.
    """

    def loaded(age_s: float) -> dict[str, Any]:
        return signing.loads(session_key, salt=SALT, serializer=serializer, max_age=age_s)

    try:
        data = loaded(max_age_s)
        expiry = data.get(EXPIRY)
        if expiry and not isinstance(expiry, str):
            data = loaded(expiry)
    except Exception:  # a serializer may raise anything
        return None
    return None if is_past(data.get(EXPIRY)) else data

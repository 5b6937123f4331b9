"""`log_in`: for Flask's test client, without the application's login page.

client = log_in(app.test_client(), "alice")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask.testing import FlaskClient

from fastticket.errors import ConfigError
from fastticket.flask import TicketSessions

__all__ = ["log_in"]


def log_in(client: FlaskClient, principal: str, attributes: Mapping[str, Any] | None = None) -> FlaskClient:
    """Begin a session of `principal`, with these attributes, and give the client its ticket. The
    client is returned.

    ConfigError: the application's sessions are not fastticket's. The errors of
    `fastticket.flask.login`.
    """
    sessions = client.application.session_interface
    if not isinstance(sessions, TicketSessions):
        raise ConfigError("app.session_interface is not fastticket.flask.TicketSessions")
    with client.session_transaction() as session:
        session[sessions._principal_key] = principal
        session.update(attributes or {})
    return client

"""JupyterLab behind the gateway: who somebody is, the gateway has found out. Nothing here asks for
a password or a token.
"""

import os
from urllib.parse import unquote

from jupyter_server.auth.identity import IdentityProvider, User


class OfTheGateway(IdentityProvider):
    """The user whom the identity header names; nobody but the gateway can set it."""

    def get_user(self, handler):
        name = unquote(handler.request.headers.get("X-Forwarded-User", ""))
        return User(username=name, name=name) if name else None


c.ServerApp.identity_provider_class = OfTheGateway  # noqa: F821 -- Jupyter's
c.ServerApp.allow_root = True  # noqa: F821
c.ServerApp.open_browser = False  # noqa: F821
c.ServerApp.root_dir = os.environ["NOTEBOOKS"]  # noqa: F821

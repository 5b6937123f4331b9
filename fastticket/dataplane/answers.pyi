"""Answers of the data plane's own, what follows an answer, and the access log."""

from typing_extensions import disjoint_base

from fastticket.dataplane.accesslog import AccessLog
from fastticket.dataplane.connections import Connections
from fastticket.dataplane.routes import Routes

@disjoint_base
class Answers(Connections):
    """Connections on which the gateway answers by itself."""

    routes: Routes
    log: AccessLog | None

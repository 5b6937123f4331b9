"""Connections to the servers of upstream groups."""

from typing_extensions import disjoint_base

from fastticket.dataplane.answers import Answers
from fastticket.dataplane.balance import Upstreams

@disjoint_base
class Links(Answers):
    """Connections to the servers of upstream groups."""

    upstreams: Upstreams

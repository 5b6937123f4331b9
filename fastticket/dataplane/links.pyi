"""Connections to the servers of upstream groups."""

from typing import Any

from typing_extensions import disjoint_base

from fastticket.dataplane.answers import Answers
from fastticket.dataplane.upstreams import Upstreams

@disjoint_base
class Links(Answers):
    """Connections to the servers of upstream groups."""

    upstreams: Upstreams

    @property
    def upstream_counts(self) -> list[dict[str, Any]]:
        """What was counted of each upstream, in the order of their numbers: `answers` by class of
        status, `latency_us` and `latency_us_sum` as `read_counters` has them, from the request's
        last attempt to the head of its response.
        """

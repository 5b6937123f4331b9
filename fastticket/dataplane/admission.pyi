"""Whether a request may pass."""

from typing_extensions import disjoint_base

from fastticket.core.check import Checker
from fastticket.dataplane.exchange import Exchange

@disjoint_base
class Admission(Exchange):
    """What decides whether a request may pass."""

    checker: Checker

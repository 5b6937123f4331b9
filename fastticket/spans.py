"""Spans: what the control plane does, and for how long, for whoever traces it. Nobody does unless
`follow` was called, which the gateway does where traces are configured (gateway/tracing.py).

Rule of this file: no span has a ticket, a principal or a session's id.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

Value = str | int | float


class Tracer(Protocol):
    """Who is told."""

    def span(self, name: str, traceparent: str) -> contextlib.AbstractContextManager[object]:
        """A span from now until the end of the block, inside the one that is open here; else inside
        that of `traceparent`, if there is one.
        """

    def note(self, name: str, value: Value) -> None:
        """Say something of the span that is open here."""

    @property
    def is_inside(self) -> bool:
        """Whether a span is open here."""


_NOTHING = contextlib.nullcontext()
_tracer: Tracer | None = None


def follow(tracer: Tracer | None) -> None:
    """Tell this one from now on; None: nobody."""
    global _tracer
    _tracer = tracer


def span(name: str, traceparent: str = "") -> contextlib.AbstractContextManager[object]:
    """A span for the block. `traceparent`: as W3C's Trace Context has it."""
    return _tracer.span(name, traceparent) if _tracer else _NOTHING


def step(name: str) -> contextlib.AbstractContextManager[object]:
    """A span for the block, if it is part of another one."""
    return _tracer.span(name, "") if _tracer and _tracer.is_inside else _NOTHING


def note(name: str, value: Value) -> None:
    """Say something of the span that is open here."""
    if _tracer:
        _tracer.note(name, value)

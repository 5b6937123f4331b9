"""Traces of the control plane, sent to a collector by OTLP: the extra `otel`.

Configured by OpenTelemetry's own environment variables, so that a gateway needs no settings of its
own for what every other program of a deployment is told by them: there are traces if
OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set. Without it, this imports
nothing of OpenTelemetry. (redis-py imports what is installed, for metrics of its own.)

Rules of this file
- The collector is talked to by a thread of the SDK's, out of a bounded queue: what has no room is
  dropped. The loop waits for nothing, and the end of the process END_S at most.
- It begins in the worker, after the fork: the supervisor has no threads.
- Of an exception the span has the reason or the type, never the message.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import fastticket
from fastticket import spans
from fastticket.errors import FastticketError

log = logging.getLogger("fastticket.gateway")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER = "opentelemetry.exporter.otlp.proto.http"
END_S = 2.0  # for the last spans to be sent


def are_wanted() -> bool:
    """Whether this process's environment asks for traces."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    is_other = os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not is_off and not is_other and any(os.environ.get(name) for name in ENDPOINTS)


def begin() -> Tracing | None:
    """Trace this process from now on, if that is wanted and possible; what is missing is logged."""
    if not are_wanted():
        return None
    spoken = next((value for name in PROTOCOLS if (value := os.environ.get(name))), "http/protobuf")
    if spoken != "http/protobuf":
        log.warning("no traces: they are sent by http/protobuf, not by %s (OTEL_EXPORTER_OTLP_PROTOCOL)", spoken)
        return None
    try:
        is_installed = importlib.util.find_spec(EXPORTER) is not None
    except ModuleNotFoundError:
        is_installed = False
    if not is_installed:
        log.warning("no traces, though OTEL_EXPORTER_OTLP_ENDPOINT asks for them: pip install 'fastticket[otel]'")
        return None
    tracing = Tracing()
    spans.follow(tracing)
    return tracing


class Tracing:
    """A `spans.Tracer` on OpenTelemetry's SDK."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "fastticket")
        resource = Resource.create({"service.name": name, "service.version": fastticket.__version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("fastticket", fastticket.__version__)
        self._propagator = TraceContextTextMapPropagator()
        self._trace: Any = trace

    @contextlib.contextmanager
    def span(self, name: str, traceparent: str) -> Iterator[None]:
        """See `spans.Tracer`."""
        context = None
        if traceparent and not self.is_inside:
            context = self._propagator.extract({"traceparent": traceparent})
        with self._tracer.start_as_current_span(
            name, context=context, record_exception=False, set_status_on_exception=False
        ):
            try:
                yield
            except BaseException as error:
                self.note("error", error.reason if isinstance(error, FastticketError) else type(error).__name__)
                self._trace.get_current_span().set_status(self._trace.StatusCode.ERROR)
                raise

    def note(self, name: str, value: spans.Value) -> None:
        """See `spans.Tracer`."""
        self._trace.get_current_span().set_attribute(f"fastticket.{name}", value)

    @property
    def is_inside(self) -> bool:
        """See `spans.Tracer`."""
        return bool(self._trace.get_current_span().get_span_context().is_valid)

    async def end(self) -> None:
        """Send what is left, for END_S at most, and trace no more."""
        spans.follow(None)
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(is_over.set)

        threading.Thread(target=end, name="fastticket-tracing", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), END_S)

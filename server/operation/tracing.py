"""OpenTelemetry traces, for those who install the extra `tracing` and ask for them.

Where spans go and what they are sampled by is configured as everywhere, by the `OTEL_...` variables.

tracing = start_tracing()  # or Untraced()
tracing.trace_requests(app)
with tracing.call(name, metadata, context) as outcome: ...  # of a transport that is not HTTP
await tracing.send_last()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import EventDict, WrappedLogger

from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.spans import Outcome
from mass_serve.server.settings import SettingsError
from mass_serve.server.web.middleware import PROBES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

# How long the end of the process waits for a collector that does not answer.
LAST_SPANS_SECONDS = 5.0


class Untraced:
    """Traces nothing."""

    def trace_requests(self, app: FastAPI) -> None:
        """Leaves the application as it is."""

    @contextmanager
    def call(
        self,
        name: str,  # noqa: ARG002 - as `Traced` has it
        metadata: Mapping[str, Sequence[str]],  # noqa: ARG002
        context: RequestContext,  # noqa: ARG002
    ) -> Iterator[Outcome]:
        """Makes no span."""
        yield Outcome()

    async def send_last(self) -> None:
        """Has nothing to send."""


class Traced:
    """Makes a span of every request and call, with its id, inputs and stages; headers are not recorded."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._last = LastSpans(provider.shutdown)

    def trace_requests(self, app: FastAPI) -> None:
        """Makes a span of every request of HTTP that is no probe."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        app.add_middleware(_StagesInSpan)
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=",".join(f"{path}$" for path in PROBES),
            exclude_spans=["receive", "send"],
        )

    @contextmanager
    def call(
        self, name: str, metadata: Mapping[str, Sequence[str]], context: RequestContext
    ) -> Iterator[Outcome]:
        """Makes a span of a call, in the trace that its metadata name, or in one of its own."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        outcome = Outcome()
        tracer = self._provider.get_tracer(__name__)
        with tracer.start_as_current_span(name, extract(metadata), SpanKind.SERVER) as span:
            try:
                yield outcome
            finally:
                _describe(span, context)
                span.set_attributes(outcome.attributes)
                if outcome.status >= 500:
                    span.set_status(StatusCode.ERROR)

    async def send_last(self) -> None:
        """Sends the last spans off, and waits for that no longer than LAST_SPANS_SECONDS."""
        await self._last.send()


class LastSpans:
    """Ends the tracing when told to, on a thread that is there already: later there may be none to have."""

    def __init__(self, shutdown: Callable[[], None]) -> None:
        self._shutdown = shutdown
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="last-spans", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._told.wait()
        self._shutdown()

    async def send(self) -> None:
        """Sends the last spans off, and waits for that no longer than LAST_SPANS_SECONDS."""
        self._told.set()
        await becomes_true(lambda: not self._thread.is_alive(), LAST_SPANS_SECONDS)


def start_tracing() -> Traced:
    """Begins to send spans off. Raises SettingsError where the packages are missing."""
    try:
        import opentelemetry.instrumentation.fastapi  # noqa: F401 - needed once there is an application
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"tracing: {error.name} is not installed; install 'mass-serve[tracing]'"
        ) from error
    resource = Resource({SERVICE_NAME: "mass-serve"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traced(provider)


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds the ids of the trace and span that a log line belongs to, where it does to one."""
    from opentelemetry import trace

    of = trace.get_current_span().get_span_context()
    if of.is_valid:
        event["trace_id"] = trace.format_trace_id(of.trace_id)
        event["span_id"] = trace.format_span_id(of.span_id)
    return event


class _StagesInSpan:
    """Puts what the log line of a request tells into its span too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry import trace

        async def send_with_stages(message: Message) -> None:
            if message["type"] == "http.response.start":  # the span ends with the response's last byte
                _describe(trace.get_current_span(), scope["state"]["context"])
            await send(message)

        wrapped = send_with_stages if scope["type"] == "http" else send
        await self._app(scope, receive, wrapped)


def _describe(span: Span, context: RequestContext) -> None:
    span.set_attribute("mass.request_id", context.request_id)
    span.set_attribute("mass.images", context.images)
    for stage, seconds in context.stage_seconds.items():
        span.set_attribute(f"mass.{stage}_seconds", seconds)

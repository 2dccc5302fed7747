"""OpenTelemetry traces, for those who install the extra `tracing` and ask for them.

Where spans go and what they are sampled by is configured as everywhere, by the `OTEL_...` variables.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.settings import SettingsError
from mass_serve.server.web.middleware import PROBES

Shutdown = Callable[[], Awaitable[None]]
# How long the end of the process waits for a collector that does not answer.
LAST_SPANS_SECONDS = 5.0


async def no_spans() -> None:
    """Sends nothing, where nothing is traced."""


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


def trace_requests(app: FastAPI) -> Shutdown:
    """Makes a span of every request, with its id, images and stages. Returns what sends the last ones off.

    Headers are not recorded. Raises SettingsError where the packages are missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
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
    app.add_middleware(_StagesInSpan)
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=",".join(f"{path}$" for path in PROBES),
        exclude_spans=["receive", "send"],
    )
    return LastSpans(provider.shutdown).send


class _StagesInSpan:
    """Puts what the log line of a request tells into its span too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_stages(message: Message) -> None:
            if message["type"] == "http.response.start":  # the span ends with the response's last byte
                _describe(scope["state"]["context"])
            await send(message)

        wrapped = send_with_stages if scope["type"] == "http" else send
        await self._app(scope, receive, wrapped)


def _describe(context: RequestContext) -> None:
    from opentelemetry import trace

    span = trace.get_current_span()
    span.set_attribute("mass.request_id", context.request_id)
    span.set_attribute("mass.images", context.images)
    for stage, seconds in context.stage_seconds.items():
        span.set_attribute(f"mass.{stage}_seconds", seconds)

"""The application: routes, middleware and lifespan around one service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from mass_serve import __version__
from mass_serve.engine import EngineSource
from mass_serve.server.operation import description_page, health_routes, metrics_routes
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.operation.page import routes as page
from mass_serve.server.operation.page.samples import offered_samples
from mass_serve.server.operation.tracing import Traced, Untraced, start_tracing
from mass_serve.server.protocols.embeddings import routes as embeddings
from mass_serve.server.protocols.embeddings.embed_requests import FRAME_OF_EMBED, FRAME_OF_EMBEDDINGS
from mass_serve.server.protocols.hugging_face import info_routes
from mass_serve.server.protocols.hugging_face import routes as hugging_face
from mass_serve.server.protocols.hugging_face.image_requests import FRAME_OF_JSON
from mass_serve.server.protocols.hugging_face.text_requests import FRAME_OF_TEXTS
from mass_serve.server.protocols.kserve import routes as kserve
from mass_serve.server.protocols.kserve.predict_requests import FRAME_OF_INSTANCES
from mass_serve.server.protocols.native import routes as native
from mass_serve.server.protocols.native import task_routes
from mass_serve.server.protocols.native.classify_requests import FILES_OF_JSON
from mass_serve.server.protocols.open_inference import repository_routes
from mass_serve.server.protocols.open_inference import routes as open_inference
from mass_serve.server.protocols.open_inference.binary_form import TO_BINARY_FORM
from mass_serve.server.protocols.open_inference.model_statistics import Statistics
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.tls import TlsFiles
from mass_serve.server.settings import Settings, SettingsError
from mass_serve.server.web.answering import AnsweringMiddleware
from mass_serve.server.web.cross_origin import CrossOrigin
from mass_serve.server.web.direct_routes import DirectRoutes, direct_routes
from mass_serve.server.web.error_handlers import install_error_handlers
from mass_serve.server.web.middleware import RequestMiddleware
from mass_serve.server.web.openapi import DescribedApplication

if TYPE_CHECKING:
    from mass_serve.server.rpc.transport import Transport

ROUTES = (
    native,
    embeddings,
    hugging_face,
    info_routes,
    kserve,
    open_inference,
    repository_routes,
    task_routes,
    health_routes,
    metrics_routes,
    page,
    description_page,
)
# What routes read by themselves, for the description.
BODIES = (
    *native.BODIES,
    *embeddings.BODIES,
    *hugging_face.BODIES,
    *kserve.BODIES,
    *open_inference.BODIES,
)
# What worker processes parse, because it would hold the event loop up.
PARSING = (
    FILES_OF_JSON,
    FRAME_OF_EMBEDDINGS,
    FRAME_OF_EMBED,
    FRAME_OF_INSTANCES,
    FRAME_OF_JSON,
    FRAME_OF_TEXTS,
    TO_BINARY_FORM,
)
DESCRIPTION = """Many classifiers behind one encoder: send an image or a text, get its label and its task.

Every error is `{"error": "<one sentence>"}`, and every response carries `X-Request-Id`."""


def create_app(settings: Settings, source: EngineSource) -> FastAPI:
    """Builds the application; it loads its engine once it is started. `app.state.service` is its service.

    Raises SettingsError for settings that do not fit this machine.
    """
    metrics = Metrics(settings.engine_options.labels, settings.max_task_labels)
    others = transports(settings)
    parsing = [*PARSING, *(function for transport in others for function in transport.PARSING)]
    service = Service(settings, source, metrics, parsing)
    metrics.watch_readiness(lambda: service.ready)
    metrics.watch_queue(service.places)
    metrics.watch_answer_cache(lambda: service.answer_cache.nbytes)
    metrics.watch_streams(lambda: len(service.streams))
    metrics.watch_learned_priors(service.learned_priors)
    metrics.watch_ages(service.ages)
    metrics.ages_are_bounded(service.age_limits())
    metrics.watch_held_bytes(lambda: service.held_bytes)
    metrics.held_bytes_are_bounded(settings.max_held_bytes)
    scrapes = metrics_routes.Scrapes(metrics)
    tracing: Traced | Untraced = start_tracing() if settings.tracing else Untraced()
    statistics = Statistics()
    tls = TlsFiles.of(settings)
    beside = [transport(service, statistics, tracing, tls) for transport in others]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        for transport in beside:
            await transport.stop()
        await service.close()
        scrapes.close()
        await tracing.send_last()

    app = DescribedApplication(
        settings,
        BODIES,
        title="MASS Serve",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect names the host that the caller named, whoever that is
    )
    app.state.service = service
    app.state.metrics = metrics
    app.state.scrapes = scrapes
    app.state.task_lists = task_routes.TaskLists(service.parsers, settings.engine_options.chosen_dtype)
    app.state.statistics = statistics
    app.state.beside = beside
    app.state.tls = tls
    app.state.samples = offered_samples(settings)
    for routes in ROUTES:
        app.include_router(routes.router)
    install_error_handlers(app, service)
    direct = [route for routes in ROUTES for route in direct_routes(routes.router.routes)]
    app.add_middleware(DirectRoutes, routes=direct, handlers=app.exception_handlers)
    app.add_middleware(AnsweringMiddleware, service=service)
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(RequestMiddleware, service=service)
    tracing.trace_requests(app)
    return app


def transports(settings: Settings) -> list[type[Transport]]:
    """Returns what serves beside HTTP: gRPC, if it has a port. Raises SettingsError without its packages."""
    if settings.grpc_port is None:
        return []
    try:
        from mass_serve.server.rpc.transport import Transport
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"grpc_port: {error.name} is not installed; install 'mass-serve[grpc]'"
        ) from error
    return [Transport]

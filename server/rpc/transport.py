"""The gRPC server beside the HTTP server, on the same event loop, with its health and its reflection.

transport = Transport(service, statistics, spans, tls)
await transport.start()
...
await transport.stop()  # answers what was accepted
"""

from __future__ import annotations

import asyncio
import math

import grpc
import structlog
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mass_serve.server.protocols.open_inference.model_statistics import Statistics
from mass_serve.server.rpc.calls import Calls
from mass_serve.server.rpc.credentials import credentials
from mass_serve.server.rpc.infer_requests import TO_BINARY_FORM
from mass_serve.server.rpc.methods import Methods
from mass_serve.server.rpc.schema import FILE, SERVICE
from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.spans import Spans
from mass_serve.server.serving.tls import TlsFiles
from mass_serve.server.settings import Settings, SettingsError

# How old the health that is told may be.
HEALTH_SECONDS = 0.1
CALLS_A_CONNECTION = 100
LAST_ANSWERS_SECONDS = 1.0

Status = health_pb2.HealthCheckResponse.ServingStatus

log = structlog.get_logger(__name__)


class Transport:
    """Serves gRPC from `start` to `stop`, both on the event loop of the service."""

    # What worker processes parse for it.
    PARSING = (TO_BINARY_FORM,)

    def __init__(self, service: Service, statistics: Statistics, spans: Spans, tls: TlsFiles | None) -> None:
        self._service = service
        self._tls = tls
        self._methods = Methods(service, statistics).all()
        self._calls = Calls(service, spans)
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens. Raises SettingsError where the port is not to be had."""
        settings = self._service.settings
        server = grpc.aio.server(options=list(_options(settings).items()))
        handlers = {method.name.rpartition("/")[2]: self._calls.handler(method) for method in self._methods}
        generic = grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)
        server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=_reflected())
        try:
            port = self._listen(server, f"{_host(settings)}:{settings.grpc_port}")
        except RuntimeError as error:
            raise SettingsError(
                f"cannot listen on {settings.host} port {settings.grpc_port}; choose another --grpc-port"
            ) from error
        await server.start()
        self._server = server
        self._telling = asyncio.create_task(self._tell_health())
        log.info("gRPC listens", address=f"{_host(settings)}:{port}")

    def _listen(self, server: grpc.aio.Server, address: str) -> int:
        """Returns the port. Raises RuntimeError where it is not to be had."""
        if self._tls is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials(self._tls))
        return port

    async def stop(self) -> None:
        """Takes no more calls, and waits for those that were accepted, within `request_timeout`.

        May be called again, while the first call waits or later.
        """
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        self._calls.end_streams()
        # Whoever is still sending then has had its full time.
        longest = self._service.settings.request_timeout + 1
        stopping = asyncio.ensure_future(self._server.stop(longest))
        await becomes_true(lambda: stopping.done() or not self._calls.open, longest)
        # The last answers are on their way. Others, who watch the health, would never end by themselves.
        await self._server.stop(LAST_ANSWERS_SECONDS)
        await stopping
        if self._telling is not None:
            self._telling.cancel()

    async def _tell_health(self) -> None:
        told = None
        while True:
            serves = self._service.ready
            if serves != told:
                for name in ("", SERVICE.full_name):
                    await self._health.set(name, Status.SERVING if serves else Status.NOT_SERVING)
                told = serves
            await asyncio.sleep(HEALTH_SECONDS)


def _options(settings: Settings) -> dict[str, int]:
    """Returns gRPC's own limits, which are those of HTTP where both have such."""
    return {
        # Alone, or another server would be given half of the connections, unnoticed. Front ends share a port
        # that their parent has made sure of.
        "grpc.so_reuseport": int(settings.front_ends > 1),
        "grpc.max_receive_message_length": settings.max_body_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.max_allowed_incoming_connections": settings.max_grpc_connections,
        "grpc.max_concurrent_streams": CALLS_A_CONNECTION,
        "grpc.server_handshake_timeout_ms": _milliseconds(settings.client_timeout),
        "grpc.max_connection_idle_ms": _milliseconds(settings.idle_timeout),
        # Finds out which of those that wait for an answer are gone without a word.
        "grpc.keepalive_time_ms": _milliseconds(settings.idle_timeout),
        "grpc.keepalive_timeout_ms": _milliseconds(settings.client_timeout),
    }


def _milliseconds(seconds: float) -> int:
    return min(math.ceil(1000 * seconds), (1 << 31) - 1)


def _host(settings: Settings) -> str:
    return f"[{settings.host}]" if ":" in settings.host else settings.host


def _reflected() -> DescriptorPool:
    """Returns the schemas of all services, which are in several pools otherwise."""
    pool = DescriptorPool()
    for file in (FILE, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(file.serialized_pb)
    return pool

"""Deploys the server on a Ray cluster, and takes it away when it is told to."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException

from mass_serve.distributed.cluster import leave, reason
from mass_serve.distributed.deployment import application
from mass_serve.distributed.settings import RaySettings

APPLICATION = "mass-serve"


def deploy(settings: RaySettings) -> None:
    """Starts the replicas, and returns once one answers. Raises RuntimeError where none comes up."""
    try:
        serve.start(http_options=HTTPOptions(**_http_options(settings)))
        serve.run(application(settings), name=APPLICATION, route_prefix="/")
    except (RuntimeError, RayError, RayServeException) as error:
        raise RuntimeError(f"no replica answers, and the log has what each said: {reason(error)}") from error


def wait_for_signal() -> None:
    """Returns on SIGTERM and ctrl-C."""
    told = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not told.wait(1.0):
        pass


def take_away() -> None:
    """Drains the replicas and ends them."""
    serve.delete(APPLICATION)
    leave()


def _http_options(settings: RaySettings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "keep_alive_timeout_s": int(settings.idle_timeout),
        "ssl_certfile": None if settings.tls_cert is None else str(settings.tls_cert),
        "ssl_keyfile": None if settings.tls_key is None else str(settings.tls_key),
    }

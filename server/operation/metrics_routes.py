"""GET /metrics: what Prometheus scrapes."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.caller import ITSELF
from mass_serve.server.serving.threads import Threads

router = APIRouter(tags=["operation"])


class Scrapes:
    """Renders the metrics beside the event loop: a store of many tasks has thousands of samples.

    Whoever asks while they are being rendered gets those.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._threads = Threads(1, "scrape")
        self._running: asyncio.Future[bytes] | None = None

    async def text(self) -> bytes:
        """Returns the exposition."""
        if self._running is None or self._running.done():
            rendering = self._threads.run(ITSELF.turn(), 1.0, self._metrics.render)
            self._running = asyncio.ensure_future(rendering)
        return await asyncio.shield(self._running)  # others may wait for it when this one leaves

    def close(self) -> None:
        """Ends the thread."""
        self._threads.close()


async def _scrapes(request: Request) -> Scrapes:
    scrapes: Scrapes = request.app.state.scrapes
    return scrapes


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(scrapes: Annotated[Scrapes, Depends(_scrapes)]) -> Response:
    """All metrics in the Prometheus text format."""
    return Response(await scrapes.text(), media_type=CONTENT_TYPE_LATEST)

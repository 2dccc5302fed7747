"""GET /metrics: what Prometheus scrapes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from mass_serve.server.operation.metrics import Metrics

router = APIRouter()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """All metrics in the Prometheus text format."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.render(), media_type=CONTENT_TYPE_LATEST)

"""How the OpenAPI description shows errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from server.errors import NotReadyError
from server.schemas import ErrorBody


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route; `default` keeps the framework from promising a 422 that never comes."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses
    }
    described["default"] = {"model": ErrorBody, "description": "Any other error"}
    return described


def readiness(content: dict[str, Any], good: bool) -> JSONResponse:
    """What the Open Inference Protocol answers to a question of health."""
    return JSONResponse(content) if good else JSONResponse(content, 503, NotReadyError().headers())

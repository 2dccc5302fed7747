"""How errors look on the wire, and how the OpenAPI description shows them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from mass_serve.server.errors import NotReadyError


class ErrorBody(BaseModel):
    """The body of every error."""

    error: str = Field(description="one sentence that says what to do")


def error_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Makes an error response; all have this shape."""
    return JSONResponse({"error": text}, status_code=status, headers=headers)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describes the errors of a route; `default` keeps the framework from promising a 422."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses
    }
    described["default"] = {"model": ErrorBody, "description": "Any other error"}
    return described


def readiness(content: dict[str, Any], good: bool) -> JSONResponse:
    """Makes the Open Inference Protocol's answer to a question of health."""
    return JSONResponse(content) if good else JSONResponse(content, 503, NotReadyError().headers())

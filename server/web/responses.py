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
    """The one shape of an error."""
    return JSONResponse({"error": text}, status_code=status, headers=headers)


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

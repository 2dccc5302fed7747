"""How the OpenAPI description shows errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from server.schemas import ErrorBody


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route; `default` keeps the framework from promising a 422 that never comes."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses
    }
    described["default"] = {"model": ErrorBody, "description": "Any other error"}
    return described

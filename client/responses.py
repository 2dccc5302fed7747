"""What a response means: the answers in it, or the error that it is."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from mass_serve.client.answers import CLASSIFY_ANSWER, TASK_LIST, Answer, EntityAnswer, TaskList
from mass_serve.client.errors import BusyError, ClientError, FailedError, RefusedError, UnauthorizedError

# Statuses whose Retry-After says when the same request may be answered.
LATER = {429, 503}


def read_results(response: httpx.Response) -> Sequence[Answer | EntityAnswer]:
    """Returns the answers in a response. Raises ClientError."""
    return CLASSIFY_ANSWER.validate_json(checked(response).content).results


def read_tasks(response: httpx.Response) -> TaskList:
    """Returns what is served. Raises ClientError."""
    return TASK_LIST.validate_json(checked(response).content)


def checked(response: httpx.Response) -> httpx.Response:
    """Returns a response that is an answer. Raises ClientError for any other."""
    if response.is_success:
        return response
    raise _kind(response.status_code)(
        _sentence(response), response.status_code, response.headers.get("X-Request-Id")
    )


def _kind(status: int) -> type[ClientError]:
    if status == 401:
        return UnauthorizedError
    if status in LATER:
        return BusyError
    return RefusedError if status < 500 else FailedError


def _sentence(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code}, and is no MASS server or is behind a proxy"

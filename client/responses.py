"""What a response means: the answers in it, or the error that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from mass_serve.client.answers import CLASSIFY_ANSWER, TASK_LIST, Answer, EntityAnswer, TaskList
from mass_serve.client.errors import BusyError, ClientError, FailedError, RefusedError, UnauthorizedError

T = TypeVar("T")

# Statuses whose Retry-After says when the same request may be answered.
LATER = {429, 503}


def read_results(response: httpx.Response) -> Sequence[Answer | EntityAnswer]:
    """Returns the answers in a response. Raises ClientError."""
    return _read(CLASSIFY_ANSWER, response).results


def read_tasks(response: httpx.Response) -> TaskList:
    """Returns what is served. Raises ClientError."""
    return _read(TASK_LIST, response)


def _read(kind: TypeAdapter[T], response: httpx.Response) -> T:
    try:
        return kind.validate_json(checked(response).content)
    except ValidationError as error:  # such as the page on which a proxy asks who is there
        raise _error(FailedError, _is_no_server(response), response) from error


def checked(response: httpx.Response) -> httpx.Response:
    """Returns a response that is an answer. Raises ClientError for any other."""
    if response.is_success:
        return response
    raise _error(_kind(response.status_code), _sentence(response), response)


def _error(kind: type[ClientError], sentence: str, response: httpx.Response) -> ClientError:
    return kind(sentence, response.status_code, response.headers.get("X-Request-Id"))


def _kind(status: int) -> type[ClientError]:
    if status == 401:
        return UnauthorizedError
    if status in LATER:
        return BusyError
    return RefusedError if status < 500 else FailedError


def is_of_proxy(response: httpx.Response) -> bool:
    """Tells whether a proxy says that the server behind it is gone, and no server anything.

    What was asked may be asked again: no request of this client's changes anything.
    """
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    return response.is_server_error and not is_json


def _sentence(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return _is_no_server(response)


def _is_no_server(response: httpx.Response) -> str:
    return f"{response.url} answered {response.status_code}, and is no MASS server or is behind a proxy"

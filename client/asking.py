"""One request, as often as its server says, without a connection: what both clients have in common.

An exchange is a generator of steps, calls and pauses between them. It is sent the outcome of each, and
returns what was asked for.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import httpx

from mass_serve.client.errors import UnreachableError
from mass_serve.client.patience import Patience

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A request, in httpx's words. Its outcome is the response, or why there is none."""

    method: str
    url: str
    headers: dict[str, str]
    options: dict[str, Any]


@dataclass(frozen=True)
class Pause:
    """So many seconds in which nothing is asked. Its outcome is None."""

    seconds: float


Step: TypeAlias = Call | Pause
Outcome: TypeAlias = httpx.Response | httpx.RequestError | None
Exchange: TypeAlias = Generator[Step, Outcome, T]


class Asker:
    """Knows where a server is, by which key it is asked, and how patiently."""

    def __init__(self, url: str, key: str | None, patience: Patience) -> None:
        """Raises ValueError for a key that no header can hold, without showing it."""
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("a key is printable ASCII; check that the key, and nothing else, was copied")
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"X-API-Key": key}
        self._patience = patience

    def ask(self, method: str, path: str, **options: Any) -> Exchange[httpx.Response]:
        """Returns the response, of whatever status. Raises UnreachableError where there is none."""
        call, patience = Call(method, self._url + path, self._headers, options), self._patience
        while True:
            outcome = yield call
            if not isinstance(outcome, httpx.Response):
                raise UnreachableError(f"{self._url} does not answer: {outcome}") from outcome
            if (again := patience.after(outcome)) is None:
                return outcome
            seconds, patience = again
            yield Pause(seconds)

"""What can go wrong when a server is asked.

ClientError                  the root; its text is the server's sentence
├── RefusedError             4xx: this request would be refused again
│   └── UnauthorizedError    401: the server asks for a key
├── BusyError                429 or 503, also at the last try
├── FailedError              another 5xx: the server could not answer; or what answered is no server of ours
└── UnreachableError         there was no answer at all
"""

from __future__ import annotations


class ClientError(Exception):
    """A request was not answered. `status` and `request_id` are None where there was no response."""

    def __init__(self, sentence: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.request_id = request_id  # by which the server's log names the request


class RefusedError(ClientError):
    """The request is wrong: 4xx."""


class UnauthorizedError(RefusedError):
    """The server asks for a key, or for another one: 401."""


class BusyError(ClientError):
    """The server has too much to do, or is just starting or ending: 429 or 503."""


class FailedError(ClientError):
    """The server could not answer, 5xx, or what answered is no MASS server."""


class UnreachableError(ClientError):
    """No response came: no connection, or none in time."""

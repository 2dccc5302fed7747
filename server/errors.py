"""Everything that a request can be answered with instead of a result, as one tree.

    ServiceError                 carries the status, and the reason that `mass_rejected_total` counts
    ├── BadRequestError          400  the request itself is wrong
    │   └── BadImageError        400  an image file that starts well and does not decode
    ├── UnauthorizedError        401  a key is needed, and none or one for something else came
    │   └── WrongKeyError        401  a key is needed, and one came that opens nothing
    ├── NotFoundError            404  no such task or path
    ├── SlowClientError          408  the body came too slowly
    ├── SlowInputError           408  an image or text took its worker process too long
    ├── TooLargeError            413  body, pixels, characters, tokens or their number over the limit
    ├── NotAnImageError          415  bytes that no enabled image format recognises
    ├── ClientGoneError          499  the caller hung up; nobody reads this answer
    ├── BatchFailedError         500  the engine failed on the batch that held this request
    │   └── NotFiniteError       500  the model's output for an input of this request is NaN or Inf
    ├── QueueFullError           429  come back later
    │   ├── MemoryFullError      429  too many bytes of bodies are held
    │   ├── RateLimitError       429  more than the key's rate
    │   └── WrongKeysError       429  too many wrong keys at once
    ├── NotReadyError            503  still loading
    │   ├── DrainingError        503  shutting down
    │   ├── WorkerDiedError      503  the process is about to end
    │   ├── NoMemoryError        503  not even one input fits the device's memory now
    │   └── LoadHangsError       503  the store does not answer, so nothing can be loaded
    └── DeadlineError            504  not answered within `request_timeout`
        └── LoadTimeoutError     504  the store was not loaded within `load_timeout`

`server.web.error_handlers` is the one place that turns these, and the framework's own errors, into responses.
Every body is `{"error": "<one sentence that says what to do>"}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mass_serve.inputs.errors import (
    CorruptInputError,
    EmptyInputError,
    InputError,
    InputTooLargeError,
    InvalidTextError,
    NoPairsError,
    UnknownFormatError,
)

INTERNAL_ERROR = "The server failed on this request; try again, and report the X-Request-Id if it stays so."


class ServiceError(Exception):
    """A request cannot be answered; the text is one sentence for the caller."""

    status = 500
    reason: str | None = None
    retry_after_seconds: int | None = None

    def headers(self) -> dict[str, str]:
        """Returns the headers that the response has because of this error."""
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}


class BadRequestError(ServiceError):
    """The request is malformed or asks for something impossible."""

    status = 400


class BadImageError(BadRequestError):
    """A file of a known image format is truncated or corrupt."""

    reason = "bad_image"


class UnauthorizedError(ServiceError):
    """The caller has no key that opens this."""

    status = 401

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class WrongKeyError(UnauthorizedError):
    """The caller has presented a key that is in no file: it may be guessing."""


class NotFoundError(ServiceError):
    """The task or the path does not exist."""

    status = 404


class SlowClientError(ServiceError):
    """The body did not come in time; the connection is closed, because the rest may still come."""

    status = 408
    reason = "client_slow"

    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}


class SlowInputError(ServiceError):
    """An image or text took longer than any of its size should; its worker process was replaced."""

    status = 408
    reason = "too_large"


class TooLargeError(ServiceError):
    """A limit on bytes, pixels, characters, tokens or inputs is exceeded."""

    status = 413
    reason = "too_large"


class NotAnImageError(ServiceError):
    """The bytes are of no image format that is read here."""

    status = 415
    reason = "bad_image"


class ClientGoneError(ServiceError):
    """The caller closed the connection before the answer."""

    status = 499
    reason = "client_gone"


class BatchFailedError(ServiceError):
    """The engine raised on a batch; every request of it gets this."""

    status = 500


class NotFiniteError(BatchFailedError):
    """The model's output for one input is not finite; other requests of its batch are answered."""


class QueueFullError(ServiceError):
    """Admitting this request would exceed the queue's bound in images, or tokens."""

    status = 429
    reason = "queue_full"
    retry_after_seconds = 1


class WrongKeysError(QueueFullError):
    """Too many answers to wrong keys are open at the caller's address, each of them delayed."""

    reason = "wrong_keys"


class MemoryFullError(QueueFullError):
    """The bodies that are being read fill the memory that they may have."""

    reason = "memory_full"


class RateLimitError(QueueFullError):
    """The caller has had as much as the rate of its key allows."""

    reason = "rate"

    def __init__(self, text: str, retry_after_seconds: int) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class NotReadyError(ServiceError):
    """The store is still loading."""

    status = 503
    retry_after_seconds = 2


class DrainingError(NotReadyError):
    """The server is shutting down and takes nothing new."""

    reason = "draining"


class WorkerDiedError(NotReadyError):
    """The thread that owns the device is gone."""


class NoMemoryError(NotReadyError):
    """A batch of one input does not fit the device's memory at the moment."""


class LoadHangsError(NotReadyError):
    """A read of the store has been hanging, and the thread that loads hangs with it."""


class DeadlineError(ServiceError):
    """The answer did not come within the time limit."""

    status = 504
    reason: str | None = "deadline"

    @classmethod
    def after(cls, seconds: float) -> DeadlineError:
        """Returns the error of a time limit of so many seconds."""
        return cls(f"There was no answer within {seconds:g} seconds; try again later.")


class LoadTimeoutError(DeadlineError):
    """The store was not loaded within the time limit; no request of a caller, so it counts as none."""

    reason = None

    @classmethod
    def after(cls, seconds: float) -> LoadTimeoutError:
        return cls(
            f"The store was not loaded within {seconds:g} seconds (load_timeout); check that it can be read."
        )


def first_problem(problems: Sequence[Mapping[str, Any]]) -> str:
    """Returns the first problem that a validation found, as pydantic lists them, in words: `where: what`."""
    problem = problems[0]
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"] if step != "query"
    )
    where = "".join(steps).lstrip(".")
    # Before the words of a validator of ours pydantic says what kind of exception they came in.
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{ascii(where)[1:-1]}: {message}" if where else message


# What a file that is no input is answered with.
_REFUSALS: dict[type[InputError], type[ServiceError]] = {
    EmptyInputError: BadRequestError,
    InvalidTextError: BadRequestError,
    NoPairsError: BadRequestError,
    UnknownFormatError: NotAnImageError,
    InputTooLargeError: TooLargeError,
    CorruptInputError: BadImageError,
}


def input_refused(error: InputError, where: str = "") -> ServiceError:
    """Returns the error for an input that `inputs` refused, named by `where`."""
    return _REFUSALS[type(error)](f"{where}{error}")

"""What an error is over gRPC: a code, its sentence, and when to try again."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from mass_serve.server.errors import ServiceError

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    # Not RESOURCE_EXHAUSTED: the same request is too large whenever it comes.
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Metadata = tuple[tuple[str, str | bytes], ...]


def code_of(error: ServiceError) -> grpc.StatusCode:
    """Returns the code that says what the error's status of HTTP says."""
    return code_of_status(error.status)


def code_of_status(status: int) -> grpc.StatusCode:
    """Returns the code that says what a status of HTTP says; 200 is OK."""
    return grpc.StatusCode.OK if status == 200 else CODES[status]


def retry_metadata(error: ServiceError) -> Metadata:
    """Returns when to try again, in each of the ways in which clients look for it; nothing where never.

    gRPC's own retries, where a client has them on, heed `grpc-retry-pushback-ms`.
    """
    seconds = error.retry_after_seconds
    if seconds is None:
        return ()
    retry = AnyMessage()
    retry.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    status = Status(code=code_of(error).value[0], message=str(error), details=[retry])
    return (
        ("retry-after", str(seconds)),
        ("grpc-retry-pushback-ms", str(1000 * seconds)),
        ("grpc-status-details-bin", status.SerializeToString()),
    )

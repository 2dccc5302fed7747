"""What a method of the service is, whoever calls it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mass_serve.server.serving.entrance import Requirement
from mass_serve.server.serving.request_context import RequestContext


@dataclass(frozen=True)
class Method:
    """A method of the service."""

    name: str  # with its service: "inference.GRPCInferenceService/ModelInfer"
    answer: Callable[[bytes, RequestContext], Awaitable[bytes]]  # of a message
    requires: Requirement | None = None  # None: a probe, which needs no key and is no traffic
    takes_inputs: bool = False
    timeout: float = math.inf  # seconds
    streams: bool = False  # of messages, each of them a request

"""What a transport tells of its calls to whoever traces them; `operation.tracing` makes spans of it.

with spans.call("inference.GRPCInferenceService/ModelInfer", metadata, context) as outcome:
    outcome.status = await answer()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from mass_serve.server.serving.request_context import RequestContext


@dataclass
class Outcome:
    """How a call ended, by the status of HTTP that says the same, and what its transport tells of it."""

    status: int = 500
    attributes: dict[str, str | int] = field(default_factory=dict)


class Spans(Protocol):
    """Is told of every call that is traffic, on the event loop."""

    def call(
        self, name: str, metadata: Mapping[str, Sequence[str]], context: RequestContext
    ) -> AbstractContextManager[Outcome]:
        """A call has come with that metadata, which names the trace that it is of; the block ends with it."""

"""What each model of the Open Inference Protocol has done, as its statistics extension tells it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from mass_serve.server.serving.request_context import Batch, RequestContext

# The protocol's words for the stages of a request.
STAGES = {
    "queue": ("queue",),
    "compute_input": ("decode",),
    "compute_infer": ("first_pass", "route", "second_pass", "heads"),
    "compute_output": ("answer",),
}
# There is no cache of answers here; its figures stay zero.
CACHE = ("cache_hit", "cache_miss")


@dataclass
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Counts it once more."""
        self.count += 1
        self.ns += int(seconds * 1e9)


@dataclass
class ModelStatistics:
    """The figures of one version of one model since the server started; only the event loop touches them."""

    last_inference: int = 0  # milliseconds since the epoch
    images: int = 0
    batches: int = 0  # that held any of the images
    _counted: WeakSet[Batch] = field(default_factory=WeakSet)  # of requests that are still being answered
    durations: dict[str, Duration] = field(
        default_factory=lambda: {name: Duration() for name in ("success", "fail", *STAGES, *CACHE)}
    )

    @contextmanager
    def request(self, context: RequestContext) -> Iterator[None]:
        """Counts one request by how the block ends."""
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self.durations["fail"].add(time.monotonic() - started)
            raise
        self.durations["success"].add(time.monotonic() - started)
        self.last_inference = int(time.time() * 1000)
        self.images += context.images
        for batch in context.batches:
            if batch not in self._counted:
                self._counted.add(batch)
                self.batches += 1
        for name, stages in STAGES.items():
            self.durations[name].add(sum(context.stage_seconds.get(stage, 0.0) for stage in stages))

    def as_triton_shows_it(self) -> dict[str, Any]:
        """Returns the figures as the extension names them."""
        return {
            "last_inference": self.last_inference,
            "inference_count": self.images,
            "execution_count": self.batches,
            "inference_stats": {
                name: {"count": duration.count, "ns": duration.ns}
                for name, duration in self.durations.items()
            },
            "batch_stats": [],
        }


class Statistics:
    """The figures of every model: a new version starts from nothing, and those of the one before are gone."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[str, ModelStatistics]] = {}

    def of(self, model: str, version: str) -> ModelStatistics:
        """Returns the figures of one model, which begin when first asked for."""
        known, figures = self._models.get(model, ("", None))
        if figures is None or known != version:
            figures = ModelStatistics()
            self._models[model] = (version, figures)
        return figures

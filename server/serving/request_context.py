"""What one request is while it is served: its images, how urgent it is, its context and its answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    # Parsers of requests run where there is no torch.
    from mass_serve.engine import Classification

# 1 is the most urgent; requests that say nothing stand in the middle.
ORDINARY_PRIORITY = 2


@dataclass(frozen=True)
class EncodedImages:
    """Image files, to be decoded and preprocessed."""

    files: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class ReadyImages:
    """Images that the caller has preprocessed."""

    pixels: NDArray[Any]  # [N, 3, crop, crop], uint8 or normalised float32

    def __len__(self) -> int:
        return len(self.pixels)


Images = EncodedImages | ReadyImages


@dataclass(frozen=True)
class Urgency:
    """How soon a caller wants its answer."""

    timeout: float | None = None  # seconds, beside the server's own limit
    priority: int = ORDINARY_PRIORITY


ORDINARY = Urgency()


class Batch:
    """One run of the model; every request with an image in it holds the same one."""


@dataclass
class RequestContext:
    """Holds what is known of a request so far; its log line, span and model's statistics tell it."""

    request_id: str
    images: int = 0
    held_bytes: int = 0  # of its body
    deadline: float = math.inf  # of `time.monotonic`: known when the body has been read
    stage_seconds: dict[str, float] = field(default_factory=dict)
    batches: Sequence[Batch] = ()


@dataclass(frozen=True)
class Answers:
    """Holds what was found out about the images of a request, and which store said so."""

    store_revision: str
    images: list[Classification]

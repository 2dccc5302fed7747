"""What one request is while it is served: its images, how urgent it is, its context and its answers."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mass_serve.inputs.texts import Text, Truncation, num_characters
from mass_serve.server.serving.caller import UNKNOWN, Caller
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY

if TYPE_CHECKING:
    # Parsers of requests run where there is no torch.
    from torch import Tensor

    from mass_serve.engine import Classification


SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# W3C's Trace Context: version, trace, parent span and flags; later versions may have more behind them.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(frozen=True)
class EncodedImages:
    """Image files, to be decoded and preprocessed."""

    files: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def nbytes(self) -> int:
        """The memory that the files take."""
        return sum(len(file) for file in self.files)


@dataclass(frozen=True)
class ReadyImages:
    """Images that the caller has preprocessed."""

    pixels: NDArray[Any]  # [N, 3, crop, crop], uint8 or normalised float32

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def nbytes(self) -> int:
        """The memory that the pixels take."""
        return self.pixels.nbytes


Images = EncodedImages | ReadyImages


@dataclass(frozen=True)
class Texts:
    """Texts, to be made into tokens."""

    texts: Sequence[Text]
    truncation: Truncation | None = None  # as the store has it

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def nbytes(self) -> int:
        """The memory that the texts take, at most."""
        return 4 * num_characters(self.texts)


Inputs = Images | Texts


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
    caller: Caller = UNKNOWN
    trace_id: str | None = None  # of the trace that the caller says it is a part of
    images: int = 0
    recalled: int = 0  # answers that were known already
    body_bytes: int = 0  # as they came
    held_bytes: int = 0  # of its body, and of what that becomes
    holder: str | None = None  # the caller's name when the first of them came
    over: bool = False  # answered or given up: it may hold nothing more
    # Both of `time.monotonic`. All time limits count from the end of the body: a slow sender has its own.
    since: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    stage_seconds: dict[str, float] = field(default_factory=dict)
    batches: Sequence[Batch] = ()

    def identity(self) -> dict[str, str]:
        """Returns what every log line of it tells."""
        trace = {} if self.trace_id is None else {"trace_id": self.trace_id}
        return {"request_id": self.request_id, **trace}

    def told(self) -> dict[str, Any]:
        """Returns what its log line tells of it."""
        key = {} if self.caller.key_name is None else {"key": self.caller.key_name}
        stages = {f"{stage}_seconds": round(spent, 6) for stage, spent in self.stage_seconds.items()}
        recalled = {"recalled": self.recalled} if self.recalled else {}
        return {"images": self.images, **recalled, **key, **stages}


def sane_request_id(given: str) -> str:
    """Returns the caller's id, if it is sane, so that it can be followed through services, or a new one."""
    return given if SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def sane_trace_id(traceparent: str) -> str | None:
    """Returns the trace's id in a header `traceparent`, None where it has none."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else None


@dataclass(frozen=True)
class Answers:
    """Holds what was found out about the images or texts of a request, and which store said so."""

    store_revision: str
    # In the order of the images; where each task answers, those of one image in the order of the tasks.
    classifications: list[Classification]
    cut: Sequence[int] = ()  # how many tokens of each text were not read; empty of images


@dataclass(frozen=True)
class Embeddings:
    """Holds the embeddings of the images or texts of a request, and which store they are of."""

    store_revision: str
    vectors: list[Tensor]  # [P] float32 each
    cut: Sequence[int]  # how many tokens of each text were not read; empty of images
    num_tokens: int  # that were read, of all texts

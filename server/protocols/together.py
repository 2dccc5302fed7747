"""What a request says of its inputs beforehand: that they are of one task, and how likely tasks are.

Parsers of requests read it where there is no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mass_serve.server.errors import BadRequestError

SAME_TASK = "all inputs are of one task, which is chosen by the evidence of all together"
STREAM = (
    "the name of a stream, such as a camera, whose next inputs these are: the evidence of its last inputs"
    " counts, too, and each caller has its own; implies same_task"
)
PRIORS = (
    "probabilities of tasks, or of groups of them, before an input is looked at: the tasks that are not named"
    " share what is left of 1"
)
PRIORS_AS_TEXT = f"{PRIORS}; as NAME:PROBABILITY, with commas between"


@dataclass(frozen=True)
class Together:
    """How the inputs of a request belong together."""

    same_task: bool = False
    stream: str | None = None
    priors: Mapping[str, float] | None = None

    @property
    def is_one_task(self) -> bool:
        """Whether all inputs are of one task."""
        return self.same_task or self.stream is not None


def priors_of_text(text: str) -> dict[str, float]:
    """Reads `cars:0.8,birds:0.1`. Raises BadRequestError."""
    priors: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, colon, share = part.rpartition(":")
        try:
            value = float(share)
        except ValueError:
            colon = ""
        if not colon or not name or name in priors:
            raise BadRequestError(
                f"'priors' must be NAME:PROBABILITY, each name once, with commas between;"
                f" {part[:80]!a} is not."
            )
        priors[name] = value
    return priors


def text_of_priors(priors: Mapping[str, float]) -> str:
    """Writes what `priors_of_text` reads."""
    return ",".join(f"{name}:{share!r}" for name, share in priors.items())

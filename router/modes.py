"""How much computing the search for an image's tasks is worth: the modes, cheapest first.

Costs are in passes through the encoder, the second one included, for an image that no task was named for,
without what measuring early evidence adds (a thirty-sixth of one). Those of `fast` and `exact` depend on the
images: `mass-serve eval` measures them. docs/method.md says what each mode is made of, docs/accuracy.md has
figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Mode:
    """Where a search for tasks by combined evidence stops (see `router.evidence`)."""

    # An image whose early evidence leads by so much, as a log likelihood, gets that task at once; of others
    # the whole evidence is measured first.
    early_exit_lead: float
    # Whether the second pass resumes from where early evidence was judged, the first third of the pass
    # staying as the first pass had it, with tasks that lose little by it; else it begins with the patches.
    resumes: bool
    # Beside the best task, another gets a second pass too if the whole evidence has it at most so far behind.
    second_pass_margin: float


# The only place where modes are named; what else needs the names takes them from here.
ModeName = Literal["paper", "one_pass", "fast", "balanced", "exact"]
PAPER: Literal["paper"] = "paper"  # the projection-residual router of arXiv:2504.05342, and none of the below

# The lead of `fast` and the margin of `exact` were chosen by `python -m benchmarks.routing`.
MODES: dict[ModeName, Mode] = {
    "one_pass": Mode(early_exit_lead=-math.inf, resumes=True, second_pass_margin=0.0),  # 1 pass
    "fast": Mode(early_exit_lead=2.5, resumes=True, second_pass_margin=0.0),  # 1 to about 5/3
    "balanced": Mode(early_exit_lead=math.inf, resumes=False, second_pass_margin=0.0),  # 2
    "exact": Mode(early_exit_lead=math.inf, resumes=False, second_pass_margin=2.0),  # 2 to 3
}
MODE_NAMES: tuple[ModeName, ...] = (PAPER, *MODES)
# A task's second passes resume if they end no farther from whole ones: the mean cosine distance of the
# embeddings of drawn noise (`engine.search`). Chosen by `python -m benchmarks.routing`.
FARTHEST_RESUMED = 0.04
# One image gets at most so many second passes.
MAX_SECOND_PASSES = 2


def mode_named(name: str) -> ModeName:
    """Returns the mode of that name. Raises ValueError, with those that there are, for any other text."""
    for mode in MODE_NAMES:
        if mode == name:
            return mode
    raise ValueError(f"mode must be one of {', '.join(MODE_NAMES)}, not {name!r}")


def early_stop(depth: int) -> int:
    """The block before which early evidence is judged: a third of the way."""
    return max(1, depth // 3)

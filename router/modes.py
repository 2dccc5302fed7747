"""How much computing the search for an image's tasks is worth: the modes, cheapest first.

Costs are in passes through the encoder, the second one included, for an image that no task was named for,
without what measuring early evidence adds (a thirty-sixth of one). Those of `fast` and `exact` depend on the
images: `mass-serve eval` measures them. The README says what each mode is made of, and has the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Mode:
    """Where a search for tasks by combined evidence stops (see `router.evidence`)."""

    # An image whose early evidence leads by so many standard deviations gets that task; the others get the
    # whole evidence first. Of two candidates one always leads by the root of 2.
    certain_lead: float
    # Whether the second pass goes on from where early evidence was judged, the first third of the pass
    # staying as the first pass had it; otherwise it begins with the patches.
    goes_on: bool
    # Beside the best task, another is tried too if the whole evidence has it at most so far behind.
    look_behind: float


# The only place where modes are named; what else needs the names takes them from here.
ModeName = Literal["paper", "one_pass", "fast", "balanced", "exact"]
PAPER: Literal["paper"] = "paper"  # the projection-residual router of arXiv:2504.05342, and none of the below

MODES: dict[str, Mode] = {
    "one_pass": Mode(certain_lead=-math.inf, goes_on=True, look_behind=0.0),  # 1 pass
    "fast": Mode(certain_lead=1.12, goes_on=True, look_behind=0.0),  # 1 to about 5/3
    "balanced": Mode(certain_lead=math.inf, goes_on=False, look_behind=0.0),  # 2
    "exact": Mode(certain_lead=math.inf, goes_on=False, look_behind=2.0),  # 2 to 3
}
MODE_NAMES: tuple[str, ...] = (PAPER, *MODES)
# Tasks that one image is tried with at most.
MOST_LOOKS = 2


def early_stop(depth: int) -> int:
    """The block before which early evidence is judged: a third of the way."""
    return max(1, depth // 3)

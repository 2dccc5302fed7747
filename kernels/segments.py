"""Which rows of a mixed batch share their experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ExpertSetKey = tuple[int, ...]


@dataclass(frozen=True)
class Segments:
    """A batch ordered so that samples with equal expert sets stand together.

    Sample `permutation[j]` stands at position j; segment i holds the positions
    `segment_offsets[i]:segment_offsets[i + 1]`. The first offset is 0, the last is B.
    """

    permutation: tuple[int, ...]  # [B]
    segment_offsets: tuple[int, ...]  # [S + 1]
    segment_expert_sets: tuple[ExpertSetKey, ...]  # [S], all different

    def __post_init__(self) -> None:
        offsets = self.segment_offsets
        if len(offsets) != len(self.segment_expert_sets) + 1 or offsets[0] != 0:
            raise ValueError(f"S segments need S + 1 offsets that start at 0, got {offsets}")
        if offsets[-1] != len(self.permutation) or any(b < a for a, b in pairwise(offsets)):
            raise ValueError(f"offsets must rise to the batch size {len(self.permutation)}, got {offsets}")


def group_by_expert_set(expert_sets: Sequence[ExpertSetKey]) -> Segments:
    """Groups B samples by expert set: sets in ascending order, the samples of a set in their own order."""
    permutation = sorted(range(len(expert_sets)), key=lambda sample: (expert_sets[sample], sample))
    starts: list[int] = []
    keys: list[ExpertSetKey] = []
    for position, sample in enumerate(permutation):
        if not keys or expert_sets[sample] != keys[-1]:
            keys.append(expert_sets[sample])
            starts.append(position)
    return Segments(tuple(permutation), (*starts, len(permutation)), tuple(keys))

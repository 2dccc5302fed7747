"""Which parameters of an encoder a store keeps as singular vectors, and how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mass_serve.backbone.architecture import Architecture, weight_of
from mass_serve.model_store.format.rank_rules import RankRule, RuleOfSizes

# averaged: the patch convolution is kept as a dense delta and averaged, as the code of arXiv:2504.05342 does.
PatchEmbeddingForm = Literal["factored", "averaged"]
Ranks = Mapping[str, int]  # of every factored parameter, in forward order


def factored_shapes(
    architecture: Architecture, patch_embedding: PatchEmbeddingForm
) -> dict[str, tuple[int, int]]:
    """The shape [d_out, d_in] of every factored parameter, in forward order: all matrices.

    With `averaged` the patch convolution is not among them. Raises ValueError where there is none to average.
    """
    shapes = architecture.matrix_shapes()
    if patch_embedding == "averaged":
        del shapes[weight_of(architecture.patches.linear)]
    return shapes


@dataclass(frozen=True)
class Factoring:
    """What a store factors, and the rule by which it chooses ranks."""

    architecture: Architecture
    patch_embedding: PatchEmbeddingForm
    rule: RankRule

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """The shape [d_out, d_in] of every factored parameter, in forward order."""
        return factored_shapes(self.architecture, self.patch_embedding)

    def prescribed(self) -> dict[str, int] | None:
        """Returns the ranks that follow from the sizes; None where what a task changed decides."""
        if not isinstance(self.rule, RuleOfSizes):
            return None
        return {name: self.rule.prescribed(shape) for name, shape in self.shapes.items()}

    def ranks_of(self, own: Ranks | None) -> Ranks:
        """Returns R of every factored parameter: a task's `own`, where it has such, or what is prescribed."""
        ranks = own or self.prescribed()
        assert ranks is not None  # a manifest without is none
        return ranks

    def own_ranks(self, ranks: Ranks) -> dict[str, int] | None:
        """Returns ranks as a manifest has them: None where they are what the rule prescribes."""
        return None if ranks == self.prescribed() else dict(ranks)

    def rank_of(self, own: Ranks | None) -> int:
        """Returns what a manifest calls a task's rank: the largest of its `own` ranks, where it has such,
        or else what is prescribed for the width x width matrices. Raises ValueError where nothing is.
        """
        if own is not None:
            return max(own.values())
        if not isinstance(self.rule, RuleOfSizes):
            raise ValueError(f"must have ranks, for the {self.rule} prescribes none")
        return self.rule.prescribed((self.architecture.width, self.architecture.width))

    def check(self, rank: int, own: Ranks | None) -> None:
        """Raises ValueError, which says it of the task, for ranks that one cannot have."""
        shapes = self.shapes
        if own is not None and list(own) != list(shapes):
            raise ValueError("must have ranks of the factored parameters, in their order")
        for name, found in (own or {}).items():
            if found > min(shapes[name]):
                raise ValueError(f"has rank {found} for {name}, whose shape is {list(shapes[name])}")
        if rank != (expected := self.rank_of(own)):
            gives = f"the {self.rule} gives" if own is None else "the largest of its ranks is"
            raise ValueError(f"has rank {rank}, {gives} {expected}")

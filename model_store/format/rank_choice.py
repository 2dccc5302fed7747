"""The singular vectors that a task keeps of its change of one matrix, by the store's rule.

No rule keeps more of them than the change has: a direction that means nothing would turn those of the other
tasks when all are made orthogonal. The numbers of a fine-tuned matrix W' in float32 are off by `2^-24 |W'|`
at most, so that rounding moves no singular value of `W' - W` by more than `2^-24 ||W'||_F` (Weyl). What is
below twice that says nothing; of a change that is exactly zero nothing is left. Where a whole model was saved
in 16 bits its rounding cannot be told from training, and stays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mass_serve.merging import TaskSingularVectors, ThinDelta, task_singular_vectors
from mass_serve.merging.formats.ranks import energies_of
from mass_serve.model_store.format.rank_rules import RankRule, RuleOfSizes

Delta = Tensor | ThinDelta

FLOAT32_ROUNDING = torch.finfo(torch.float32).eps  # twice 2^-24


def kept_singular_vectors(
    before: Tensor, delta: Delta, rule: RankRule, cost: int, exact: bool = False
) -> TaskSingularVectors:
    """Computes the leading singular triplets of a change [d_out, d_in], as many as a rule keeps.

    A thin change has no more than its own rank, a dense one of `before` no more than stands out of rounding.
    `cost` is what a triplet takes in bytes; with `exact` a dense change is decomposed as a whole
    (`merging.task_singular_vectors`).
    """
    rows, columns = delta.shape
    shape = (rows, columns)
    if isinstance(rule, RuleOfSizes):
        rank = rule.prescribed(shape)
    else:
        rank = rule.chosen(energies_of_change(delta), cost)
    if isinstance(delta, ThinDelta):
        return delta.singular_vectors().leading(rank)
    vectors = task_singular_vectors(delta, rank, exact)
    rounding = FLOAT32_ROUNDING * (norm_of(before.float()) + norm_of(delta))
    return vectors.leading(int((vectors.s > rounding).sum()))


def energies_of_change(delta: Delta) -> Tensor:
    """Computes the squared singular values of a change, descending, in float64."""
    return delta.singular_vectors().s.square() if isinstance(delta, ThinDelta) else energies_of(delta)


def norm_of(delta: Delta) -> float:
    """Computes the Frobenius norm of a change."""
    if isinstance(delta, ThinDelta):
        return delta.norm()
    norm = float(torch.linalg.vector_norm(delta))
    if not math.isfinite(norm):  # squares of moderate numbers may be infinite in float32
        norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
    return norm

"""Ranks by what they keep: how many of a matrix's singular triplets, from its whole spectrum.

The energies of a change are its squared singular values, descending: their sum is `||delta||_F^2`, and what
the best R triplets leave out is the sum of those behind the R-th (Eckart and Young, 1936).
"""

from __future__ import annotations

import torch
from torch import Tensor


def energies_of(delta: Tensor) -> Tensor:
    """Computes the energies [min(d_out, d_in)] of a change [d_out, d_in], in float64.

    They are the eigenvalues of its Gram matrix on the shorter side; those that are only rounding are 0.
    """
    matrix = delta.double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    energies = torch.linalg.eigvalsh(gram).flip(0)
    rounding = len(energies) * torch.finfo(torch.float64).eps * energies[0]
    return torch.where(energies > rounding, energies, 0.0)


def rank_keeping(energies: Tensor, share: float) -> int:
    """Returns the smallest rank whose triplets have at least `share` of all energy; 0 where there is none."""
    sums = energies.double().cumsum(0)
    if not len(sums) or not sums[-1] > 0:
        return 0
    return int((sums < share * sums[-1]).sum()) + 1


def level_within(energies: Tensor, costs: Tensor, budget: float) -> float:
    """Returns the lowest level whose triplets, those of `energy / cost` above it, cost `budget` at most.

    `energies` [N] and `costs` [N] are of all triplets that there are. Equal ones are kept together or not at
    all. The level is the geometric mean of the last that is kept and the first that is not, so that rounding
    moves no triplet across it; it is 0 where all are kept.
    """
    gains, order = (energies.double() / costs.double()).sort(descending=True)
    worth = gains > 0
    gains, spent = gains[worth], costs.double()[order][worth].cumsum(0)
    count = int((spent <= budget).sum())
    if count == len(gains):
        return 0.0
    first_left_out = gains[count]
    kept = gains[gains > first_left_out]
    if not len(kept):
        return float(gains[0])
    return float((kept[-1] * first_left_out).sqrt())


def rank_above(energies: Tensor, cost: float, level: float) -> int:
    """Returns how many triplets of a matrix, each at the same cost, have `energy / cost` above a level."""
    return int((energies.double() / cost > level).sum())

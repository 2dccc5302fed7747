"""Shares of energy within task subspaces in plain PyTorch: the definition, and what runs on a CPU.

For the tokens z of one sample, the orthonormal rows p_i of task t, and their weights w_i in its profile:

    energy_t  = mean over z of sum_i (p_i . z)^2 / |z|^2
    profile_t = mean over z of sum_i w_i (p_i . z)^2 / |z|^2

x [B, L, D] of any floating dtype -> [B, T] float32, the energies, or [B, 2 T], behind them the profiles,
where the directions have weights. Each is within [0, 1] but for rounding, as long as weights sum to at most
1; a token of zeros counts 0. Nothing is mutated. A sample's bits depend on that sample alone, and a task's on
that task alone.

Rows in 16 bits are widened a few hundred at a time: beside the rows themselves no memory grows with their
number but B numbers for each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.kernels.energies.directions import TaskDirections, widened
from mass_serve.kernels.rows import product

# What a product reads and writes for so many rows stays in the cache; a multiple of `ROW_MULTIPLE`.
ROWS_AT_ONCE = 512


def subspace_energies(x: Tensor, directions: TaskDirections) -> Tensor:
    """The energies of this module's docstring."""
    samples, tokens, _ = x.shape
    z = x.flatten(0, 1).float()
    z = z / z.square().sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny).sqrt_()

    def along(rows: Tensor) -> Tensor:
        shares = product(z, widened(rows).T).square_()
        return shares.view(samples, tokens, len(rows)).mean(1)

    if directions.rows.shape[0] <= ROWS_AT_ONCE:
        return directions.sums(along(directions.rows))
    parts = [along(rows) for rows in torch.split(directions.rows, ROWS_AT_ONCE)]
    return directions.sums(torch.cat(parts, dim=1))

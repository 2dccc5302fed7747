"""Whether what different tasks' subspaces explain of an input can be compared.

A subspace explains the more of an input the more directions it has: of each task as many are compared as the
task with the fewest has. The leading directions of a whole fine-tuning lie along what enters the matrix, and
those of an adapter where it began, at random: it explains less of its own inputs than the other of any.
"""

from __future__ import annotations

from torch import Tensor

# Of the largest singular value. What rounding leaves of a change of lower rank is a thousand times less;
# of fine-tuned matrices the last kept value was at least a fiftieth.
LEAST_SHARE = 1e-3
# Of a change's energy: blocks that keep as much hold all of it but for rounding.
WHOLE_CHANGE = 0.9999


def are_comparable(singular_values: Tensor) -> bool:
    """Tells whether every task's change of one matrix has R directions of its own; s [T, R], descending.

    R is 0 where a task left the matrix alone. In blocks that were filled up to one rank of all tasks, an
    adapter's last directions mean nothing.
    """
    if singular_values.shape[1] == 0:
        return False
    return bool((singular_values[:, -1] > LEAST_SHARE * singular_values[:, 0]).all())


def is_of_low_rank(rank: int, full_rank: int, energy_kept: float | None) -> bool:
    """Tells whether blocks of `rank` hold a whole change of a matrix that has more directions.

    `energy_kept` is the share of the change that the blocks keep, None where that is unknown.
    """
    return rank < full_rank and energy_kept is not None and energy_kept >= WHOLE_CHANGE

"""Whether what different tasks' subspaces explain of an input can be compared."""

from __future__ import annotations

from torch import Tensor

# Of the largest singular value. What rounding leaves of a change of lower rank is a thousand times less;
# of fine-tuned matrices the last kept value was at least a fiftieth.
LEAST_SHARE = 1e-3


def are_comparable(singular_values: Tensor) -> bool:
    """Tells whether every task's change of one matrix has R directions of its own; s [T, R], descending.

    A subspace explains the more of an input the more directions it has: of each task as many are compared as
    the task with the fewest has. A task that left the matrix alone has none. In blocks that all have one rank
    it may have directions that mean nothing, as an adapter of a lower rank has.
    """
    if singular_values.shape[1] == 0:
        return False
    return bool((singular_values[:, -1] > LEAST_SHARE * singular_values[:, 0]).all())

"""Isotropic merging: every direction of the merged change is equally strong (arXiv:2502.04959).

Of the summed change `d = sum_t d_t = U diag(s) V` of a matrix, with n singular values:

    iso_c = mean(s) U V

Iso-CTS gives the weakest directions of the sum to what each task has beside its strongest ones. With U_c the
first `k` left singular vectors of d, and u_t, s_t, v_t the first (n - k) / T singular triplets of what d_t
has beside them, `d_t - U_c U_c^T d_t`:

    iso_cts = mean(s_1..s_T, s_c) polar([u_1..u_T, U_c]) polar([v_1..v_T, V_c])

Both go on from the pretrained matrix as far as a coefficient says. What is no matrix is averaged. Directions
that no task changed stay as they are, whereas a decomposition in floating point would make some up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.formats import TaskSingularVectors, task_singular_vectors
from mass_serve.merging.methods.method import MergingMethod
from mass_serve.merging.methods.tsv_m import inverse_square_root

# The share of directions that are the sum's, as the paper has it.
COMMON_SHARE = 0.8
# Singular values below this share of a change are of no direction of it: float32 has no more digits.
SINGULAR_CUTOFF = 1e-5


def iso_c(changes: Tensor) -> Tensor:
    """Merges the changes of one parameter [T, ...] -> [...]: a matrix by `mean(s) U V` of their sum."""
    total = changes.sum(0)
    if total.ndim != 2:
        return total / len(changes)
    vectors = _singular_vectors(total, min(total.shape), total)
    return vectors.s.sum() / min(total.shape) * (vectors.u @ vectors.vh)


def iso_cts(changes: Tensor) -> Tensor:
    """Merges the changes of one parameter [T, ...] -> [...]: a matrix by subspaces of sum and tasks."""
    total = changes.sum(0)
    if total.ndim != 2:
        return total / len(changes)
    directions, tasks = min(total.shape), len(changes)
    own = round((directions - int(directions * COMMON_SHARE)) / tasks)
    common = _singular_vectors(total, directions - own * tasks, total)
    parts = [_singular_vectors(change - common.u @ (common.u.T @ change), own, change) for change in changes]
    parts.append(common)
    u, vh = torch.cat([part.u for part in parts], dim=1), torch.cat([part.vh for part in parts])
    strength = torch.cat([part.s for part in parts]).sum() / directions
    return strength * (_polar(u) @ _polar(vh.T).T)


def _singular_vectors(matrix: Tensor, rank: int, change: Tensor) -> TaskSingularVectors:
    """The largest singular triplets of what is left of a change; fewer where it has no more directions."""
    vectors = task_singular_vectors(matrix, rank, exact=True)
    return vectors.leading(int((vectors.s > SINGULAR_CUTOFF * change.norm()).sum()))


def _polar(columns: Tensor) -> Tensor:
    """The polar factor `A (A^T A)^(-1/2)` [d, K] of columns A, in float32."""
    doubles = columns.double()
    return (doubles @ inverse_square_root(doubles.T @ doubles)).float()


ISO_C = MergingMethod("iso_c", "Iso-C", "2502.04959", frozenset({"blocks", "data"}), iso_c)
ISO_CTS = MergingMethod("iso_cts", "Iso-CTS", "2502.04959", frozenset({"blocks", "data"}), iso_cts)

"""OPCM: tasks are merged one after the other, each without what the merged model uses (arXiv:2501.09522).

Of a matrix let `m` be the change merged so far, `m = U diag(s) V` with n singular values, and k the first
place at which more than half of sum(s) is reached. The next change d loses its part in the k strongest
directions, and of the others what lies on their own pairs:

    cleaned(d) = d - U mask(U^T d V^T) V,   mask keeps [:k, :k] and the diagonal;   m <- m + cleaned(d)

What is no matrix is added up. At the end the whole task vector is scaled to the mean norm of the tasks'. The
paper scales after each task, which changes no direction: only the last scale is left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.methods.isotropic import SINGULAR_CUTOFF
from mass_serve.merging.methods.method import MergingMethod

# The share of the singular values' sum that the strongest directions have, as the paper has it.
STRONGEST_SHARE = 0.5


def opcm(changes: Tensor) -> Tensor:
    """Merges the changes of one parameter [T, ...] -> [...], in the order of the tasks, but for the scale."""
    merged = changes[0]
    for change in changes[1:]:
        merged = merged + (_cleaned(change, merged) if change.ndim == 2 else change)
    return merged


def _cleaned(change: Tensor, merged: Tensor) -> Tensor:
    """What of a change [d_out, d_in] does not lie on what is merged already."""
    u, s, vh = torch.linalg.svd(merged, full_matrices=False)
    directions = int((s > SINGULAR_CUTOFF * s[:1]).sum())
    strongest = int((s.cumsum(0) <= STRONGEST_SHARE * s.sum()).sum())
    u, vh = u[:, :directions], vh[:directions]
    projected = u.T @ change @ vh.T
    used = projected.diagonal().diag()
    used[:strongest, :strongest] = projected[:strongest, :strongest]
    cleaned: Tensor = change - u @ used @ vh
    return cleaned


OPCM = MergingMethod("opcm", "OPCM", "2501.09522", frozenset({"blocks"}), opcm, keeps_norm=True)

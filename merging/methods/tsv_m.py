"""TSV-M: task vectors of a set of tasks merged without interference, in core form.

For a set E of tasks let `U = [u_t]`, `V = [vh_t]` and `s = [s_t]` be their singular blocks side by side.
TSV-M (arXiv:2412.00081) replaces U and V by their polar factors, so that no two tasks share a direction:

    merged_delta = polar(U) diag(s) polar(V),   polar(U) = U (U^T U)^(-1/2)

All that depends on the set is a small matrix between blocks that are stored once:

    merged_delta = U C V,   C = (U^T U)^(-1/2) diag(s) (V V^T)^(-1/2)

What is not factored is averaged. Whole weights are `merged_parameter(pretrained, changes)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.merging.formats import DenseDelta, TaskChange, TaskSingularVectors
from mass_serve.merging.methods.method import MergingMethod

# Gram eigenvalues below this share of the largest belong to directions that the tasks have twice.
GRAM_CUTOFF = 1e-10


def inverse_square_root(gram: Tensor) -> Tensor:
    """Computes `gram^(-1/2)` [n, n] of a symmetric positive semidefinite float64 matrix, on its own range."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > GRAM_CUTOFF * values[-1:]
    scales = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    root: Tensor = (vectors * scales) @ vectors.T
    return root


def core_factors(
    blocks: Sequence[TaskSingularVectors], expert_sets: Sequence[Sequence[int]]
) -> list[tuple[Tensor, Tensor]]:
    """Computes the cores of several sets of one matrix's blocks, each core as two factors.

    A set is given by the places of its tasks in `blocks`.

    `C = left right` with `left = (U^T U)^(-1/2) diag(s)` and `right = (V V^T)^(-1/2)`, [K, K] in float64.
    Of nearly equal tasks C has huge entries that cancel; those of a factor are only as large as their root.
    The overlap of two tasks is computed once for all the sets that have both.
    """
    left = BlockOverlaps([block.u for block in blocks])
    right = BlockOverlaps([block.vh.T for block in blocks])
    factors = []
    for places in expert_sets:
        s = _joined_singular_values([blocks[place] for place in places])
        factors.append((inverse_square_root(left.gram(places)) * s, inverse_square_root(right.gram(places))))
    return factors


class BlockOverlaps:
    """The products `A_i^T A_j` of blocks A_i [d, R_i] in float64, each computed when first asked for."""

    def __init__(self, blocks: Sequence[Tensor]) -> None:
        self._blocks = blocks
        self._doubles: dict[int, Tensor] = {}
        self._overlaps: dict[tuple[int, int], Tensor] = {}

    def gram(self, places: Sequence[int]) -> Tensor:
        """Computes the Gram matrix [K, K] of the blocks at `places`, side by side."""
        return torch.cat([torch.cat([self._overlap(i, j) for j in places], dim=1) for i in places])

    def _overlap(self, i: int, j: int) -> Tensor:
        if i > j:
            return self._overlap(j, i).T
        if (i, j) not in self._overlaps:
            self._overlaps[i, j] = self._double(i).T @ self._double(j)
        return self._overlaps[i, j]

    def _double(self, i: int) -> Tensor:
        if i not in self._doubles:
            self._doubles[i] = self._blocks[i].double()
        return self._doubles[i]


def merged_delta(blocks: Sequence[TaskSingularVectors]) -> Tensor:
    """Computes the merged weight change `polar(U) diag(s) polar(V)` [d_out, d_in] of a set, in float32.

    The polar factors are formed before they are multiplied: the core of nearly equal tasks has huge
    entries that cancel, those of the factors do not exceed 1. Blocks of rank 0 count for nothing. Raises
    ValueError for an empty set.
    """
    s = _joined_singular_values(blocks)
    u, vh = _joined(blocks)
    if sum(block.rank > 0 for block in blocks) > 1:
        u, vh = u @ inverse_square_root(u.T @ u), inverse_square_root(vh @ vh.T) @ vh
    return (u * s).float() @ vh.float()


def _joined(blocks: Sequence[TaskSingularVectors]) -> tuple[Tensor, Tensor]:
    """U [d_out, K] and V [K, d_in] in float64."""
    u = torch.cat([block.u for block in blocks], dim=1).double()
    return u, torch.cat([block.vh for block in blocks], dim=0).double()


def _joined_singular_values(blocks: Sequence[TaskSingularVectors]) -> Tensor:
    if not blocks:
        raise ValueError("an expert set needs at least one task")
    return torch.cat([block.s for block in blocks]).double()


def mean_delta(deltas: Sequence[Tensor]) -> Tensor:
    """Computes the merged change of an unfactored parameter: the mean of its dense deltas, in float32."""
    if not deltas:
        raise ValueError("an expert set needs at least one task")
    return torch.stack([delta.float() for delta in deltas]).mean(0)


def merged_parameter(pretrained: Tensor, changes: Sequence[TaskChange]) -> Tensor:
    """Computes `pretrained + merge of the changes` of one parameter, in the pretrained dtype.

    Factored changes are merged by TSV-M, dense ones by their mean, in float32 or better; only the sum is
    rounded. Raises ValueError for an empty set, and for changes of one parameter in two formats.
    """
    blocks = [change for change in changes if isinstance(change, TaskSingularVectors)]
    deltas = [change.values for change in changes if isinstance(change, DenseDelta)]
    if blocks and deltas:
        raise ValueError("the changes of one parameter must all be factored or all be dense")
    merged = merged_delta(blocks) if blocks else mean_delta(deltas)
    return (pretrained.float() + merged).to(pretrained.dtype)


TSV_M = MergingMethod("tsv_m", "TSV-M", "2412.00081", frozenset({"blocks"}), merged_delta)

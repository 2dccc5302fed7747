"""Which parameters of an encoder a store keeps as singular vectors."""

from __future__ import annotations

from typing import Literal

from mass_serve.backbone.architecture import Architecture, weight_of
from mass_serve.merging import rank_for

# averaged: the patch convolution is kept as a dense delta and averaged, as the code of arXiv:2504.05342 does.
PatchEmbeddingForm = Literal["factored", "averaged"]


def factored_shapes(
    architecture: Architecture, patch_embedding: PatchEmbeddingForm
) -> dict[str, tuple[int, int]]:
    """The shape [d_out, d_in] of every factored parameter, in forward order: all matrices.

    With `averaged` the patch convolution is not among them.
    """
    shapes = architecture.matrix_shapes()
    if patch_embedding == "averaged":
        del shapes[weight_of(architecture.embedding.linear)]
    return shapes


def width_rank(architecture: Architecture, compression_ratio: float) -> int:
    """Returns R of the width x width matrices, which is what a manifest calls a task's rank."""
    return rank_for((architecture.width, architecture.width), compression_ratio)

"""Task vectors: what fine-tuning changed, parameter by parameter, and which changes are factored."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from model_store.backbone_spec import PATCH_EMBEDDING, BackboneSpec, parameter_shapes

PatchEmbeddingForm = Literal["factored", "averaged"]


def task_vector(pretrained: Tensor, finetuned: Tensor) -> Tensor:
    """`delta = finetuned - pretrained` of one parameter, in float32 whatever the checkpoints' dtypes."""
    if pretrained.shape != finetuned.shape:
        raise ValueError(f"shapes differ: {tuple(pretrained.shape)} and {tuple(finetuned.shape)}")
    return finetuned.to(torch.float32) - pretrained.to(torch.float32)


def factored_shapes(spec: BackboneSpec, patch_embedding: PatchEmbeddingForm) -> dict[str, tuple[int, int]]:
    """Shapes [d_out, d_in] of the parameters kept as singular vectors: every matrix.

    `averaged` keeps the patch convolution dense, as the code of arXiv:2504.05342 does.
    """
    return {
        name: (shape[0], shape[1])
        for name, shape in parameter_shapes(spec).items()
        if len(shape) == 2 and not (name == PATCH_EMBEDDING and patch_embedding == "averaged")
    }

"""TALL masks: each task keeps the elements of the summed task vectors that it needs (arXiv:2405.07813).

With `d = sum_t d_t` and a searched `lambda_t`, element by element (equation 4):

    mask_t = |d_t| > |d - d_t| lambda_t;   encoder of task t = pretrained + mask_t d
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.merging.methods.method import MergingMethod


def tall_mask(change: Tensor, multi_task: Tensor, tall_lambda: float) -> Tensor:
    """Finds the elements that a task needs of the sum: `|change| > |multi_task - change| lambda`.

    change [...], multi_task [...] -> bool [...].
    """
    return change.abs() > (multi_task - change).abs() * tall_lambda


def masked_change(change: Tensor, multi_task: Tensor, tall_lambda: float) -> Tensor:
    """Computes `mask multi_task`: what one task keeps of the sum, [...] as both arguments of `tall_mask`."""
    return torch.where(tall_mask(change, multi_task, tall_lambda), multi_task, 0.0)


def stored_bytes(parameters: int, tasks: int, encoder_bytes: int) -> int:
    """Returns the bytes on disk: pretrained weights, summed task vectors, a bit per parameter and task."""
    return 2 * encoder_bytes + tasks * -(-parameters // 8)


TALL_MASKS = MergingMethod(
    "tall_masks", "TALL masks", "2405.07813", frozenset({"finetuned", "data"}), masked_change
)

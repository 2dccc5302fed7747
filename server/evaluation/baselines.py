"""Ways to serve the same tasks without routing, each as one dense encoder with the task's head known."""

from __future__ import annotations

import torch
from torch import Tensor

from backbone import ClassificationHead, DenseWeights, EncoderConfig, ExpertBank, encode, patchify
from server.preprocessing import Preprocessing

# The coefficient that task arithmetic (arXiv:2212.04089) recommends for eight tasks; it is not searched.
TASK_ARITHMETIC_COEFFICIENT = 0.3


def baseline_encoders(bank: ExpertBank) -> dict[str, dict[str, Tensor]]:
    """The encoders of the baselines by name, from the pretrained weights and the blocks alone.

    pretrained; task_arithmetic: `pretrained + 0.3 * sum of the task vectors`, as far as the blocks keep
    them; tsv_m: the merged base of all tasks.
    """
    every_task = range(bank.num_tasks)
    summed: dict[str, Tensor] = {}
    for name, pretrained in bank.pretrained.items():
        total = torch.zeros_like(pretrained, dtype=torch.float32)
        for task in every_task:
            total += bank.merged(name, (task,)).float() - pretrained.float()
        summed[name] = (pretrained.float() + TASK_ARITHMETIC_COEFFICIENT * total).to(pretrained.dtype)
    return {
        "pretrained": dict(bank.pretrained),
        "task_arithmetic": summed,
        "tsv_m": {name: bank.merged(name, every_task) for name in bank.pretrained},
    }


def dense_predictions(
    config: EncoderConfig,
    parameters: dict[str, Tensor],
    preprocessing: Preprocessing,
    head: ClassificationHead,
    pixels: list[Tensor],
) -> Tensor:
    """The classes [n], as rows of `head`, that one dense encoder gives n images."""
    like = parameters["class_embedding"]
    patches = patchify(
        preprocessing.normalise(torch.stack(pixels).to(like.device)).to(like.dtype), config.patch_size
    )
    weights = DenseWeights(parameters, config.layer_norm_eps)
    with torch.inference_mode():
        return head.logits(encode(config, weights, patches)).argmax(1).cpu()

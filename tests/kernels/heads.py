"""Classification heads of every kind that the kernels know."""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.backbone import ClassificationHead, MultiLabel
from mass_serve.engine.heads import TaskHead
from tests.tiny import task_entry

CLASSES = (3, 17, 1, 37)  # of the heads, in the order in which there first is one


def heads_of_each_kind(width: int, device: torch.device | str = "cpu") -> list[TaskHead]:
    """Heads that are cosine or linear, of one label or any number, with means or without."""
    torch.manual_seed(width)

    def matrix(classes: int) -> Tensor:
        return torch.randn(classes, width)

    few, more, one, many = CLASSES
    of_labels = MultiLabel(torch.full((more,), 0.5))
    heads = [
        ClassificationHead(matrix(few), logit_scale=30.0),
        ClassificationHead(matrix(more), logit_scale=9.0, labelling=of_labels),
        ClassificationHead(matrix(one), bias=torch.randn(one)),
        ClassificationHead(matrix(many), bias=torch.randn(many)),
        ClassificationHead(matrix(more), bias=torch.randn(more), labelling=of_labels),
        ClassificationHead(matrix(few), bias=torch.randn(few), means=matrix(few)),
        ClassificationHead(matrix(few), logit_scale=2.0, means=matrix(few)),
    ]
    return [
        TaskHead(
            task_entry(f"task{task}", tuple(map(str, range(len(head.weight))))), head.to(torch.device(device))
        )
        for task, head in enumerate(heads)
    ]

"""One task's fine-tuned model and head: made, saved and measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from examples.demo_suite.encoder import save_encoder
from examples.demo_suite.finetuning import FinetuningPlan, accuracy, class_means, finetune
from examples.demo_suite.tasks import Task

TRAINING_PER_LABEL = 300


@dataclass(frozen=True)
class TaskModel:
    """The encoder after its fine-tuning for a task, and the task's head [C, 128]."""

    encoder: CLIPVisionModelWithProjection
    head: Tensor


def finetune_task(
    task: Task, pretrained: CLIPVisionModelWithProjection, plan: FinetuningPlan, out: Path
) -> TaskModel:
    """Fine-tunes the encoder for one task and saves out/tasks, out/heads and out/labels of it."""
    pixels, numbers = task.pictures("training", range(TRAINING_PER_LABEL))
    labels = torch.from_numpy(numbers)
    head = class_means(pretrained, pixels, labels)
    encoder = finetune(pretrained, head, pixels, labels, plan)
    save_encoder(encoder, out / "tasks" / task.name)
    save_head(out, task, head, plan.logit_scale)
    return TaskModel(encoder, head)


def save_head(out: Path, task: Task, head: Tensor, logit_scale: float) -> None:
    """DIR/heads/<name>.safetensors and DIR/labels/<name>.json, the labels in the order of the head's rows."""
    for folder in ("heads", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    tensors = {"weight": head.contiguous(), "logit_scale": torch.tensor(logit_scale)}
    save_file(tensors, out / "heads" / f"{task.name}.safetensors")
    (out / "labels" / f"{task.name}.json").write_text(json.dumps(list(task.labels), indent=2) + "\n")


def measure(task: Task, encoder: CLIPVisionModelWithProjection, head: Tensor, numbers: range) -> float:
    """The accuracy on the task's held-out pictures with these numbers."""
    pixels, labels = task.pictures("held_out", numbers)
    return accuracy(encoder, head, pixels, torch.from_numpy(labels))

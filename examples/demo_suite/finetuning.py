"""Fine-tunes the pretrained encoder for one task, gently, under a head that does not move."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize
from transformers import CLIPVisionModelWithProjection

from examples.demo_suite.canvas import Pixels
from examples.demo_suite.encoder import embed, token_and_embedding
from examples.demo_suite.pretraining import one_cycle


@dataclass(frozen=True)
class FinetuningPlan:
    """How long and how fast to learn."""

    steps: int = 400
    batch: int = 64
    learning_rate: float = 4e-4
    warmup: float = 0.1
    logit_scale: float = 20.0
    seed: int = 11


def class_means(encoder: CLIPVisionModelWithProjection, pixels: Pixels, labels: Tensor) -> Tensor:
    """The head: per class the mean of the pretrained embeddings of its pictures, at unit length, [C, 128]."""
    embedded = embed(encoder, pixels)
    means = [embedded[labels == label].mean(dim=0) for label in range(int(labels.max()) + 1)]
    return normalize(torch.stack(means), dim=-1)


def finetune(
    pretrained: CLIPVisionModelWithProjection,
    head: Tensor,
    pixels: Pixels,
    labels: Tensor,
    plan: FinetuningPlan,
) -> CLIPVisionModelWithProjection:
    """A copy of the encoder, all of it trained on the task's pictures; the head stays as it is."""
    encoder: CLIPVisionModelWithProjection = copy.deepcopy(pretrained)
    encoder.train()
    generator = torch.Generator().manual_seed(plan.seed)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=plan.learning_rate, weight_decay=0.0)
    pictures = torch.from_numpy(pixels)
    for step in range(plan.steps):
        rows = torch.randint(len(pictures), (plan.batch,), generator=generator)
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * one_cycle((step + 1) / plan.steps, plan.warmup)
        embedding = normalize(token_and_embedding(encoder, pictures[rows])[1], dim=-1)
        loss = cross_entropy(plan.logit_scale * linear(embedding, head), labels[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
    return encoder


def accuracy(encoder: CLIPVisionModelWithProjection, head: Tensor, pixels: Pixels, labels: Tensor) -> float:
    """The share of the pictures whose label has the largest logit."""
    answers = linear(embed(encoder, pixels), head).argmax(dim=-1)
    return float((answers == labels).float().mean())

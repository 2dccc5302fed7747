"""Pretrains the encoder for content and style at once, with one head for each thing that it should know."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, mse_loss, normalize
from transformers import CLIPVisionModelWithProjection

from examples.demo_suite.encoder import WIDTH, new_encoder, swift_activations, token_and_embedding
from examples.demo_suite.foundation import FoundationPictures, vocabulary
from examples.demo_suite.style import style_statistics, thumbnail

Report = Callable[[str], None]

CONTENT_SCALE = 16.0
SHIFT = 2
BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class LossWeights:
    """How much each head counts."""

    content: float = 1.0
    kind: float = 0.3
    look: float = 0.3
    style: float = 0.5
    redrawn: float = 1.0


@dataclass(frozen=True)
class PretrainingPlan:
    """How long, how fast and for what to learn."""

    steps: int = 12_000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    cooldown: float = 0.3
    report_every: int = 250
    seed: int = 7
    weights: LossWeights = LossWeights()


class FoundationHeads(nn.Module):
    """Content, kind and a thumbnail from the embedding; look and style from the class token under it."""

    def __init__(self, style_mean: Tensor, style_std: Tensor) -> None:
        super().__init__()
        contents, kinds, looks = (len(names) for names in vocabulary())
        self.content = nn.Parameter(torch.randn(contents, WIDTH) / math.sqrt(WIDTH))
        self.kind = nn.Linear(WIDTH, kinds)
        self.look = nn.Linear(WIDTH, looks)
        self.style = nn.Linear(WIDTH, len(style_mean))
        self.thumbnail = nn.Linear(WIDTH, 256)
        self.register_buffer("style_mean", style_mean)
        self.register_buffer("style_std", style_std)

    def content_logits(self, embedding: Tensor) -> Tensor:
        """Scaled cosines with the class vectors, [B, contents]."""
        return CONTENT_SCALE * linear(normalize(embedding, dim=-1), normalize(self.content, dim=-1))

    def loss(
        self, embedding: Tensor, token: Tensor, labels: Tensor, pixels: Tensor, weights: LossWeights
    ) -> Tensor:
        """The weighted sum of the five heads' losses."""
        content = cross_entropy(self.content_logits(embedding), labels[:, 0])
        kind = cross_entropy(self.kind(embedding), labels[:, 1])
        look = cross_entropy(self.look(token), labels[:, 2])
        target = (style_statistics(pixels) - self.style_mean) / self.style_std  # type: ignore[operator]
        # Redrawing the picture teaches the class token to look everywhere, long before the labels would.
        redrawn = mse_loss(self.thumbnail(embedding), thumbnail(pixels))
        style = mse_loss(self.style(token), target)
        known = weights.content * content + weights.kind * kind + weights.look * look
        return known + weights.style * style + weights.redrawn * redrawn


def one_cycle(progress: float, warmup: float) -> float:
    """The share of the full learning rate: up in a line, down in a half cosine."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def trapezoid(step: int, plan: PretrainingPlan) -> float:
    """The share of the full learning rate: up in a line, then level, then down in a line."""
    return min(1.0, step / plan.warmup_steps, (1 - step / plan.steps) / plan.cooldown)


def shifted(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """The batch moved by up to SHIFT pixels, the edge repeated, each picture's light changed a little."""
    dx, dy = (int(n) for n in torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator))
    padded = nn.functional.pad(pixels.permute(0, 3, 1, 2).float(), (SHIFT,) * 4, mode="replicate")
    moved = padded[:, :, dy : dy + 32, dx : dx + 32].permute(0, 2, 3, 1)
    light = 1 + 0.1 * torch.randn(len(pixels), 1, 1, 1, generator=generator)
    return (moved * light).clamp(0, 255)


def style_moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the style statistics over the pictures."""
    statistics = style_statistics(pixels)
    return statistics.mean(dim=0), statistics.std(dim=0) + 1e-3


def parameter_groups(modules: list[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = [p for module in modules for p in module.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def shuffled_batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of whole batches, without end; each pass over the rows is in a new order."""
    while True:
        order = torch.randperm(count, generator=generator)
        yield from torch.split(order, batch)[: count // batch]


def pretrain(
    pictures: FoundationPictures, plan: PretrainingPlan, report: Report
) -> CLIPVisionModelWithProjection:
    """The encoder after `plan.steps` batches of the pictures."""
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    pixels, labels = torch.from_numpy(pictures.pixels), torch.from_numpy(pictures.labels)
    encoder, heads = new_encoder(), FoundationHeads(*style_moments(pixels[:4000]))
    optimiser = torch.optim.AdamW(
        parameter_groups([encoder, heads], plan.weight_decay), lr=plan.learning_rate, betas=BETAS, fused=True
    )
    begun, running = time.monotonic(), 0.0
    batches = islice(shuffled_batches(len(pixels), plan.batch, generator), plan.steps)
    with swift_activations(encoder):
        for step, rows in enumerate(batches, start=1):
            set_rate(optimiser, plan.learning_rate * trapezoid(step, plan))
            batch = shifted(pixels[rows], generator)
            running += train_step(encoder, heads, optimiser, batch, labels[rows], plan.weights)
            if step % plan.report_every == 0:
                seconds = time.monotonic() - begun
                report(f"  step {step}/{plan.steps}: loss {running / plan.report_every:.3f}, {seconds:.0f} s")
                running = 0.0
    return encoder


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def train_step(
    encoder: CLIPVisionModelWithProjection,
    heads: FoundationHeads,
    optimiser: torch.optim.Optimizer,
    pixels: Tensor,
    labels: Tensor,
    weights: LossWeights,
) -> float:
    """One update of the encoder and its heads; returns the loss."""
    token, embedding = token_and_embedding(encoder, pixels)
    loss = heads.loss(embedding, token, labels, pixels, weights)
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()
    return float(loss.detach())

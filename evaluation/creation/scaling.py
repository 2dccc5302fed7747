"""Learns how much of each task's change helps with labelled images (aTLAS, arXiv:2407.02880).

A coefficient for each task and parameter is learned by gradient descent. The loss of an image is the cross
entropy of its cosines to the class means, which are of the same few images but for itself: a head need not be
learned beside the coefficients, and none can be fitted to the very image that it judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.backbone import Architecture, ExpertBank, run
from mass_serve.backbone.weights.trainable import TrainableWeights
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.evaluation.creation.labelled import Pixels
from mass_serve.merging import DenseDelta, TaskChange, TaskSingularVectors, merged_parameter
from mass_serve.merging.methods.atlas import scaled_change
from mass_serve.model_store.progress import Progress

STEPS = 40
LEARNING_RATE = 0.05
COSINE_SCALE = 10.0
# Tokens of a step: 128 images of the demo's encoder, 80 of ViT-B/32 and 20 of ViT-B/16.
TOKENS_PER_STEP = 4096
IMAGES_PER_CLASS = 8  # of a step, at most
LEAST_IMAGES = 3  # of a class, to learn coefficients from: fewer leave an image no mean but of one other


@dataclass(frozen=True)
class Changes:
    """What S tasks change of an encoder."""

    architecture: Architecture
    pretrained: Mapping[str, Tensor]
    by_parameter: Mapping[str, Sequence[TaskChange]]  # of every task, in one order
    ranks: Mapping[str, int]  # that a combination keeps of every factored parameter

    @classmethod
    def of(cls, loaded: LoadedStore, tasks: Sequence[int], ranks: Mapping[str, int]) -> Changes:
        """The changes of tasks in memory."""
        by_parameter = {name: _of_bank(loaded.bank, name, tasks) for name in loaded.pretrained}
        return cls(loaded.architecture, loaded.pretrained, by_parameter, ranks)

    def combined(self, coefficients: Tensor) -> dict[str, Tensor]:
        """The encoder's parameters with the combination [S, N], as it will be served."""
        found = {}
        for place, (name, before) in enumerate(self.pretrained.items()):
            change = scaled_change(
                self.by_parameter[name], coefficients[:, place].tolist(), self.ranks.get(name, 0)
            )
            found[name] = merged_parameter(before, [change])
        return found

    def trainable(self, coefficients: Tensor) -> TrainableWeights:
        """The encoder with the whole combination [S, N], through which gradients reach the coefficients."""
        parameters = {}
        for place, (name, before) in enumerate(self.pretrained.items()):
            parameters[name] = before + _scaled(self.by_parameter[name], coefficients[:, place])
        return TrainableWeights(parameters)


def _of_bank(bank: ExpertBank, name: str, tasks: Sequence[int]) -> Sequence[TaskChange]:
    if name in bank.ranks:
        return bank.singular_vectors(name, tasks)
    return [DenseDelta(bank.dense_delta(name, task)) for task in tasks]


def _scaled(changes: Sequence[TaskChange], coefficients: Tensor) -> Tensor:
    """`sum of c_t delta_t` of one parameter, for coefficients [S] that want gradients."""
    blocks = [change for change in changes if isinstance(change, TaskSingularVectors)]
    if not blocks:
        deltas = torch.stack([change.values for change in changes if isinstance(change, DenseDelta)])
        return (coefficients.view(-1, *[1] * (deltas.ndim - 1)) * deltas).sum(0)
    ranks = torch.tensor([block.rank for block in blocks], device=coefficients.device)
    scales = coefficients.repeat_interleave(ranks) * torch.cat([block.s for block in blocks])
    left = torch.cat([block.u for block in blocks], dim=1).to(scales)
    return (left * scales) @ torch.cat([block.vh for block in blocks]).to(scales)


def learned_coefficients(
    changes: Changes, pixels: Pixels, rows_of_classes: Sequence[Tensor], progress: Progress, stage: str
) -> Tensor:
    """The coefficients [S, N], learned from the images `rows_of_classes` of each class."""
    like = next(iter(changes.pretrained.values()))
    tasks = len(next(iter(changes.by_parameter.values())))
    coefficients = torch.zeros(tasks, len(changes.pretrained), device=like.device, requires_grad=True)
    optimiser = torch.optim.Adam([coefficients], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    generator = torch.Generator().manual_seed(0)
    tokens = changes.architecture.patches.num_tokens
    for step in range(STEPS):
        progress(stage, step, STEPS)
        rows, targets = _drawn(rows_of_classes, max(8, TOKENS_PER_STEP // tokens), generator)
        embeddings = run(changes.architecture, changes.trainable(coefficients), pixels.batch(rows)).embedding
        loss = F.cross_entropy(_cosines(embeddings, targets) * COSINE_SCALE, targets.to(like.device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    progress(stage, STEPS, STEPS)
    return coefficients.detach().cpu()


def _drawn(
    rows_of_classes: Sequence[Tensor], images: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws about so many images for a step, [n], of as many classes as have two of them, and those [n]."""
    count = min(len(rows_of_classes), images // 2)
    classes = torch.randperm(len(rows_of_classes), generator=generator)[:count].tolist()
    of_each = min(IMAGES_PER_CLASS, images // count)
    rows = []
    for number in classes:
        own = rows_of_classes[number]
        rows.append(own[torch.randperm(len(own), generator=generator)[:of_each]])
    sizes = torch.tensor([len(own) for own in rows])
    return torch.cat(rows), torch.arange(count).repeat_interleave(sizes)


def _cosines(embeddings: Tensor, targets: Tensor) -> Tensor:
    """The cosines [n, C] of embeddings [n, P] to the classes' means, of its own class without itself."""
    z, targets = F.normalize(embeddings.float(), dim=1), targets.to(embeddings.device)
    sums = z.new_zeros(int(targets.max()) + 1, z.shape[1]).index_add(0, targets, z)
    own = (z * F.normalize(sums[targets] - z, dim=1)).sum(1, keepdim=True)
    return (z @ F.normalize(sums, dim=1).T).scatter(1, targets.unsqueeze(1), own)

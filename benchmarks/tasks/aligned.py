"""Generated tasks that their own inputs belong to, so that routing among hundreds of them can be measured.

A task is a random smooth pattern, and each of its classes a fainter one on top; an input is both beneath
noise. The encoder has random weights. What a task changed is one step of gradient descent of a LoRA adapter
on inputs of the task, from the usual beginning B = 0: `B A` with A random and `B = -sum over tokens x of g
(A x)^T`, where the gradients g are random, as nothing was ever learnt here. A head's class vectors are the
mean embeddings of its classes' inputs, blurred. What is right of these tasks says how evidence scales with
their number, and nothing of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.entered_rows import EnteredRows
from benchmarks.random_models import random_parameters
from mass_serve.backbone import (
    Architecture,
    Block,
    ClassificationHead,
    ExpertBank,
    PatchEmbedding,
    Pooling,
    patchify,
    run,
)
from mass_serve.backbone.architecture import weight_of
from mass_serve.engine.heads import TaskHead
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.merging import TaskSingularVectors
from mass_serve.model_store.format.entries import HeadSpec, RouterSpec, TaskEntry
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.model_store.plan import default_router_layer
from mass_serve.router import ModeName

SMALL_VIT = Architecture(
    PatchEmbedding(64, 16), Block(192, 3, 768, "quick_gelu", 1e-5), depth=12, pooling=Pooling(128)
)
CLASSES = 4
SEEN = 4  # inputs of each class that a task is made of
PATTERN = 8  # pixels a side of a pattern before it is enlarged
CLASS_CONTRAST, NOISE = 0.5, 0.6  # beside the task's pattern, of contrast 1
BLUR = 0.5  # of class vectors: noise of so many times the spread of embeddings
CHANGE = 0.05  # Frobenius norm of what a task changed of a matrix, over that of the matrix


@dataclass(frozen=True)
class AlignedTasks:
    """T tasks, drawn one by one from a seed: those of fewer tasks are the first of more."""

    rank: int
    seed: int = 0
    architecture: Architecture = SMALL_VIT

    def loaded(self, tasks: int, mode: ModeName) -> LoadedStore:
        """A store of the first `tasks` of them, in memory."""
        architecture, generator = self.architecture, torch.Generator().manual_seed(self.seed)
        pretrained = random_parameters(architecture, generator)
        adapted = [linear for block in architecture.blocks() for linear in block.linears]
        in_blocks = {weight_of(linear) for linear in adapted}
        ranks = {name: self.rank if name in in_blocks else 0 for name in architecture.matrix_shapes()}
        bank, heads = ExpertBank(architecture, pretrained, [ranks] * tasks), []
        for task in range(tasks):
            weights = EnteredRows(pretrained)
            pixels, labels = self.inputs(task, SEEN * CLASSES, made_of=True)
            embeddings = run(
                architecture, weights, patchify(pixels, architecture.patches.patch_size)
            ).embedding
            own = torch.Generator().manual_seed(self.seed + task)
            vectors = {name: _nothing(shape) for name, shape in architecture.matrix_shapes().items()}
            for linear in adapted:
                weight = pretrained[weight_of(linear)]
                vectors[weight_of(linear)] = _one_step(weight, weights.entered(linear), self.rank, own)
            unchanged = {
                name: torch.zeros_like(tensor) for name, tensor in pretrained.items() if name not in vectors
            }
            bank.set_task(task, vectors, unchanged)
            heads.append(_head(f"task{task}", embeddings, labels, own))
        return LoadedStore(
            store_revision="aligned",
            architecture=architecture,
            preprocessing=_preprocessing(architecture),
            router=RouterSpec(
                mode=mode, layer=default_router_layer(architecture.depth), first_pass="pretrained"
            ),
            mode=mode,
            calibration=None,
            device=torch.device("cpu"),
            dtype=torch.float32,
            pretrained=pretrained,
            first_pass=pretrained,
            first_pass_nbytes=0,
            bank=bank,
            heads=tuple(heads),
        )

    def inputs(self, task: int, count: int, *, made_of: bool = False) -> tuple[Tensor, Tensor]:
        """Normalised pixels [count, 3, H, W] and classes [count] of a task: others than it is `made_of`."""
        patterns = torch.Generator().manual_seed(2 * (self.seed + task))
        noise = torch.Generator().manual_seed(2 * (self.seed + task) + 1 + 10**6 * made_of)
        size = self.architecture.patches.image_size
        own = torch.randn(1 + CLASSES, 3, PATTERN, PATTERN, generator=patterns)
        smooth = F.interpolate(own, (size, size), mode="bilinear")
        labels = torch.arange(count) % CLASSES
        pictures = smooth[0] + CLASS_CONTRAST * smooth[1:][labels]
        return pictures + NOISE * torch.randn(pictures.shape, generator=noise), labels


def _one_step(weight: Tensor, entered: Tensor, rank: int, generator: torch.Generator) -> TaskSingularVectors:
    """The singular vectors of `B A` after one step of descent, for tokens [N, D] that entered the linear."""
    d_out, d_in = weight.shape
    first = torch.randn(rank, d_in, generator=generator) * d_in**-0.5  # A
    gradients = torch.randn(len(entered), d_out, generator=generator)
    second = gradients.T @ (entered @ first.T)  # B, but for the learning rate
    q, r = torch.linalg.qr(first.T)
    u, s, right = torch.linalg.svd(second @ r.T, full_matrices=False)
    return TaskSingularVectors(u, s * (CHANGE * weight.norm() / s.norm()), right @ q.T)


def _nothing(shape: tuple[int, ...]) -> TaskSingularVectors:
    return TaskSingularVectors(torch.empty(shape[0], 0), torch.empty(0), torch.empty(0, shape[1]))


def _head(name: str, embeddings: Tensor, labels: Tensor, generator: torch.Generator) -> TaskHead:
    means = torch.stack([embeddings[labels == label].mean(0) for label in range(CLASSES)])
    spread = (embeddings - embeddings.mean(0)).square().mean().sqrt()
    blurred = means + BLUR * spread * torch.randn(means.shape, generator=generator)
    entry = TaskEntry(
        name=name,
        revision="0" * 12,
        labels=tuple(f"class {i}" for i in range(CLASSES)),
        head=HeadSpec(kind="cosine"),
        rank=1,
        individual_accuracy=None,
        energy_kept=1.0,
        files={f"tasks/{name}/{'0' * 12}/{kind}.safetensors": 64 * "0" for kind in ("experts", "head")},
        adapter=True,
    )
    return TaskHead(entry, ClassificationHead(blurred, logit_scale=30.0))


def _preprocessing(architecture: Architecture) -> ImagePreprocessor:
    size, half = architecture.patches.image_size, (0.5, 0.5, 0.5)
    return ImagePreprocessor(
        Preprocessing(size=size, crop=size, interpolation="bicubic", mean=half, std=half)
    )

"""Tiny random models in memory: the real classes, at sizes that run in milliseconds."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mass_serve.backbone import (
    Architecture,
    Block,
    ClassificationHead,
    ExpertBank,
    MultiLabel,
    Parameters,
    PatchEmbedding,
    Pooling,
    quantised,
)
from mass_serve.engine.heads import TaskHead
from mass_serve.engine.loaded_store import LoadedStore, early_linears
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.kernels.activation_names import Activation
from mass_serve.merging import TaskSingularVectors, rank_for, task_singular_vectors
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.block_formats import BLOCK_FORMS, StoredVectors
from mass_serve.model_store.format.entries import HeadChoice, HeadSpec, RouterSpec, TaskEntry
from mass_serve.model_store.format.file_names import task_folder
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.router import Calibration, CalibrationFit, ModeName, evidence_kinds


def architecture(
    image_size: int,
    patch_size: int,
    width: int,
    depth: int,
    num_attention_heads: int,
    mlp_width: int,
    activation: Activation = "quick_gelu",
    layer_norm_eps: float = 1e-5,
    projection_dim: int | None = None,
) -> Architecture:
    """A CLIP vision encoder of those sizes."""
    block = Block(width, num_attention_heads, mlp_width, activation, layer_norm_eps)
    return Architecture(PatchEmbedding(image_size, patch_size), block, depth, Pooling(projection_dim))


CONFIG = architecture(
    image_size=32,
    patch_size=8,
    width=64,
    depth=3,
    num_attention_heads=4,
    mlp_width=256,
    projection_dim=48,
)


def preprocessing(crop: int) -> ImagePreprocessor:
    """What makes an image of `crop` pixels into an input without resampling it."""
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    return ImagePreprocessor(Preprocessing(size=crop, crop=crop, interpolation="bicubic", mean=mean, std=std))


def pretrained(config: Architecture, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of a sensible scale."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in config.parameter_shapes().items():
        noise = torch.randn(shape, generator=generator)
        is_norm = "layernorm" in name or "layer_norm" in name
        if is_norm:
            weights[name] = (0.1 * noise + (1.0 if name.endswith("weight") else 0.0)).to(dtype)
        else:
            weights[name] = (noise / shape[-1] ** 0.5).to(dtype)
    return weights


def task_changes(config: Architecture, task: int, scale: float = 0.2) -> dict[str, Tensor]:
    """What fine-tuning on task `task` changed: a random change of every parameter."""
    generator = torch.Generator().manual_seed(1000 + task)
    return {
        name: scale * torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for name, shape in config.parameter_shapes().items()
    }


def bank(config: Architecture, weights: Parameters, tasks: int, *, dense: str = "-") -> ExpertBank:
    """A bank of random tasks at rank 1 / T; parameters whose name starts with `dense` are not factored."""
    return bank_of(config, weights, [_factored(config, task, tasks, dense) for task in range(tasks)])


Change = tuple[Mapping[str, StoredVectors], dict[str, Tensor]]  # of one task


def bank_of(config: Architecture, weights: Parameters, changes: Sequence[Change]) -> ExpertBank:
    """A bank of these tasks."""
    ranks = [{name: own.rank for name, own in vectors.items()} for vectors, _ in changes]
    result = ExpertBank(config, weights, ranks)
    for task, change in enumerate(changes):
        result.set_task(task, *change)
    return result


@functools.cache
def _factored(config: Architecture, task: int, tasks: int, dense: str) -> Change:
    """A task's change for a bank of so many tasks, which copies it: many tests begin with the same ones."""
    vectors: dict[str, TaskSingularVectors] = {}
    deltas: dict[str, Tensor] = {}
    for name, delta in task_changes(config, task).items():
        if delta.ndim == 2 and not name.startswith(dense):
            rank = rank_for((delta.shape[0], delta.shape[1]), 1 / tasks)
            vectors[name] = task_singular_vectors(delta, rank)
        else:
            deltas[name] = delta
    return vectors, deltas


def ragged_bank(config: Architecture, weights: Parameters, tasks: int, least: int = 0) -> ExpertBank:
    """A bank of random tasks with ranks of their own in every matrix, from `least` on.

    With `least` 0 every fifth matrix is left alone by all tasks, and others by some.
    """
    changes: list[Change] = []
    for task in range(tasks):
        deltas = task_changes(config, task)
        matrices = [name for name, delta in deltas.items() if delta.ndim == 2]
        ranks = {name: (5 * task + 3 * i) % 9 if i % 5 else 0 for i, name in enumerate(matrices)}
        vectors = {name: of_rank(deltas.pop(name), least + rank) for name, rank in ranks.items()}
        changes.append((vectors, deltas))
    return bank_of(config, weights, changes)


def packed_bank(config: Architecture, weights: Parameters, tasks: int) -> ExpertBank:
    """A bank of random tasks with ranks of their own: of 4 bits, plain, of 8 bits, of 4 and so on."""
    formats: tuple[BlockFormat, ...] = ("int4", "bfloat16", "int8")
    changes: list[Change] = []
    for task in range(tasks):
        deltas = task_changes(config, task)
        matrices = [name for name, delta in deltas.items() if delta.ndim == 2]
        form = BLOCK_FORMS[formats[task % len(formats)]]
        ranks = {name: (5 * task + 3 * i) % 9 for i, name in enumerate(matrices)}
        vectors = {name: form.kept(of_rank(deltas.pop(name), rank)) for name, rank in ranks.items()}
        changes.append((vectors, deltas))
    return bank_of(config, weights, changes)


def of_rank(delta: Tensor, rank: int) -> TaskSingularVectors:
    """The leading singular vectors; none where the rank is 0."""
    if rank:
        return task_singular_vectors(delta, min(rank, *delta.shape))
    return TaskSingularVectors(torch.empty(delta.shape[0], 0), torch.empty(0), torch.empty(0, delta.shape[1]))


def nearly_equal_tasks(config: Architecture, weights: dict[str, Tensor], noise: float) -> ExpertBank:
    """A bank of two tasks that differ by `noise` of their size."""
    changes: list[Change] = []
    for scale in (0.0, noise):
        other = task_changes(config, 1)
        deltas = {name: change + scale * other[name] for name, change in task_changes(config, 0).items()}
        vectors = {
            name: task_singular_vectors(delta, max(1, min(delta.shape) // 4))
            for name, delta in deltas.items()
            if delta.ndim == 2
        }
        changes.append((vectors, {name: delta for name, delta in deltas.items() if delta.ndim != 2}))
    return bank_of(config, weights, changes)


def loaded_store(
    tasks: int = 4,
    config: Architecture = CONFIG,
    dtype: torch.dtype = torch.float32,
    head_choice: HeadChoice = "max",
    threshold: float = 0.2,
    mode: ModeName = "paper",
    calibrated: bool = False,
    least_rank: int | None = None,
    multi_label: Collection[int] = (),
) -> LoadedStore:
    """A store in memory with `tasks` random tasks, cosine and linear heads in turn.

    The tasks that `multi_label` numbers give an input any number of their labels.

    All tasks have one rank, or with a `least_rank` each its own from there on.
    """
    whole = dtype == torch.int8
    weights: Parameters = pretrained(config, torch.float32 if whole else dtype)
    if whole:
        weights = quantised(weights.items(), config, torch.bfloat16)
    if least_rank is None:
        experts = bank(config, weights, tasks)
    else:
        experts = ragged_bank(config, weights, tasks, least_rank)
    router = RouterSpec(
        mode=mode,
        layer=config.depth - 1,
        token=config.tokens[0],
        threshold=threshold,
        head_choice=head_choice,
        first_pass="pretrained",
    )
    names = config.first_pass_parameters(weights, router.layer) if mode == "paper" else weights.keys()
    merged = experts.merged_parameters(names, range(tasks))
    return LoadedStore(
        store_revision="tiny",
        architecture=config,
        preprocessing=preprocessing(config.patches.image_size),
        router=router,
        mode=mode,
        calibration=_calibration(config, tasks) if calibrated else None,
        device=torch.device("cpu"),
        dtype=dtype,
        pretrained=weights,
        first_pass=quantised(merged.items(), config, torch.bfloat16) if whole else merged,
        first_pass_nbytes=0,
        bank=experts,
        heads=tuple(_head(config, task, task in multi_label) for task in range(tasks)),
    )


def _calibration(config: Architecture, tasks: int) -> Calibration:
    """Of evidence that varies little, with a little more of it for the image's own task.

    Most images are unlike it, and so not typical.
    """
    kinds = evidence_kinds(len(early_linears(config)))
    fit, own = CalibrationFit(kinds, [3 + task for task in range(tasks)]), torch.arange(40 * tasks) % tasks
    more = torch.nn.functional.one_hot(own, tasks)
    generator = torch.Generator().manual_seed(0)
    shares = 0.3 + 0.4 * torch.rand(len(own), kinds, tasks, generator=generator) + 0.1 * more.unsqueeze(1)
    fit.add(shares, own, torch.arange(len(own)) // tasks % 3, torch.ones(len(own)))
    return fit.fit()


def task_entry(name: str, labels: tuple[str, ...], accuracy: float | None = None) -> TaskEntry:
    """A task as a manifest describes it, with files that are nowhere."""
    revision = f"{sum(name.encode()):08x}"
    files = (f"{task_folder(name, revision)}/{kind}.safetensors" for kind in ("experts", "head"))
    return TaskEntry(
        name=name,
        revision=revision,
        labels=labels,
        head=HeadSpec(kind="cosine"),
        rank=4,
        individual_accuracy=accuracy,
        files=dict.fromkeys(files, 64 * "0"),
    )


def _head(config: Architecture, task: int, multi_label: bool) -> TaskHead:
    generator = torch.Generator().manual_seed(task)
    classes = 3 + task
    weight = torch.randn(classes, config.embedding_dim, generator=generator)
    if task % 2:
        head = ClassificationHead(weight, bias=torch.randn(classes, generator=generator))
    else:
        head = ClassificationHead(weight, logit_scale=20.0)
    labels = tuple(f"class {i}" for i in range(classes))
    if multi_label:
        head = replace(head, labelling=MultiLabel(torch.full((classes,), 0.5)))
    return TaskHead(task_entry(f"task{task}", labels), head)


def pixels(count: int, config: Architecture = CONFIG) -> list[Tensor]:
    """Random images [3, H, W] uint8."""
    generator = torch.Generator().manual_seed(5)
    shape = (count, 3, config.patches.image_size, config.patches.image_size)
    return list(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))

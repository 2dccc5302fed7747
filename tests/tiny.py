"""Tiny random models in memory: the real classes, at sizes that run in milliseconds."""

from __future__ import annotations

import functools
from dataclasses import asdict

import torch
from torch import Tensor

from mass_serve.backbone import ClassificationHead, EncoderConfig, ExpertBank, first_pass_parameters
from mass_serve.engine.inputs.preprocessing import Preprocessing
from mass_serve.engine.loading import LoadedStore, TaskHead, TaskInfo
from mass_serve.merging import TaskSingularVectors, rank_for, task_singular_vectors
from mass_serve.model_store import backbone_spec
from mass_serve.router import Calibration, CalibrationFit, RouterConfig, evidence_kinds

CONFIG = EncoderConfig(
    image_size=32,
    patch_size=8,
    width=64,
    depth=3,
    num_attention_heads=4,
    mlp_width=256,
    projection_dim=48,
)


def parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """The shapes that the store writes for such an encoder."""
    return backbone_spec.parameter_shapes(backbone_spec.BackboneSpec(**asdict(config)))


def pretrained(config: EncoderConfig, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of a sensible scale."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in parameter_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        is_norm = "layernorm" in name or "layer_norm" in name
        if is_norm:
            weights[name] = (0.1 * noise + (1.0 if name.endswith("weight") else 0.0)).to(dtype)
        else:
            weights[name] = (noise / shape[-1] ** 0.5).to(dtype)
    return weights


def task_changes(config: EncoderConfig, task: int, scale: float = 0.2) -> dict[str, Tensor]:
    """What fine-tuning on task `task` changed: a random change of every parameter."""
    generator = torch.Generator().manual_seed(1000 + task)
    return {
        name: scale * torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for name, shape in parameter_shapes(config).items()
    }


def bank(config: EncoderConfig, weights: dict[str, Tensor], tasks: int, *, dense: str = "-") -> ExpertBank:
    """A bank of random tasks at rank 1 / T; parameters whose name starts with `dense` are not factored."""
    result = ExpertBank(config, weights, tasks)
    for task in range(tasks):
        result.set_task(task, *_factored(config, task, tasks, dense))
    return result


@functools.cache
def _factored(
    config: EncoderConfig, task: int, tasks: int, dense: str
) -> tuple[dict[str, TaskSingularVectors], dict[str, Tensor]]:
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


def nearly_equal_tasks(config: EncoderConfig, weights: dict[str, Tensor], noise: float) -> ExpertBank:
    """A bank of two tasks that differ by `noise` of their size."""
    result = ExpertBank(config, weights, 2)
    for task, scale in ((0, 0.0), (1, noise)):
        other = task_changes(config, 1)
        deltas = {name: change + scale * other[name] for name, change in task_changes(config, 0).items()}
        vectors = {
            name: task_singular_vectors(delta, max(1, min(delta.shape) // 4))
            for name, delta in deltas.items()
            if delta.ndim == 2
        }
        result.set_task(task, vectors, {name: delta for name, delta in deltas.items() if delta.ndim != 2})
    return result


def loaded_store(
    tasks: int = 4,
    config: EncoderConfig = CONFIG,
    dtype: torch.dtype = torch.float32,
    head_choice: str = "max",
    threshold: float = 0.2,
    mode: str = "paper",
    calibrated: bool = False,
) -> LoadedStore:
    """A store in memory with `tasks` random tasks, cosine and linear heads in turn."""
    weights = pretrained(config, dtype)
    experts = bank(config, weights, tasks)
    router = RouterConfig(layer=config.depth - 1, threshold=threshold)
    names = first_pass_parameters(weights, router.layer) if mode == "paper" else weights.keys()
    return LoadedStore(
        store_revision="tiny",
        config=config,
        preprocessing=Preprocessing(
            config.image_size, config.image_size, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        ),
        router=router,
        mode=mode,
        head_choice=head_choice,
        unrouted_below=0.0,
        calibration=_calibration(config, tasks) if calibrated else None,
        device=torch.device("cpu"),
        dtype=dtype,
        pretrained=weights,
        first_pass={name: experts.merged(name, range(tasks)) for name in names},
        first_pass_nbytes=0,
        papers_on_merged_base=False,
        bank=experts,
        heads=tuple(_head(config, task) for task in range(tasks)),
    )


def _calibration(config: EncoderConfig, tasks: int) -> Calibration:
    """Of evidence that varies little, with a little more of it for the image's own task.

    Most images are unlike it, and so not typical.
    """
    kinds = evidence_kinds(config.depth)
    fit, own = CalibrationFit(kinds, [3 + task for task in range(tasks)]), torch.arange(40 * tasks) % tasks
    more = torch.nn.functional.one_hot(own, tasks)
    generator = torch.Generator().manual_seed(0)
    shares = 0.3 + 0.4 * torch.rand(len(own), kinds, tasks, generator=generator) + 0.1 * more.unsqueeze(1)
    fit.add(shares, own, torch.arange(len(own)) // tasks % 3, torch.ones(len(own)))
    return fit.fit()


def _head(config: EncoderConfig, task: int) -> TaskHead:
    generator = torch.Generator().manual_seed(task)
    classes = 3 + task
    weight = torch.randn(classes, config.embedding_dim, generator=generator)
    if task % 2:
        head = ClassificationHead(weight, bias=torch.randn(classes, generator=generator))
    else:
        head = ClassificationHead(weight, logit_scale=20.0)
    labels = tuple(f"class {i}" for i in range(classes))
    return TaskHead(TaskInfo(f"task{task}", f"r{task}", labels, "cosine", 1, None), head)


def pixels(count: int, config: EncoderConfig = CONFIG) -> list[Tensor]:
    """Random images [3, H, W] uint8."""
    generator = torch.Generator().manual_seed(5)
    shape = (count, 3, config.image_size, config.image_size)
    return list(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))

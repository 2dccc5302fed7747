"""Stores of any number of LoRA-like tasks over an encoder of random weights, written without checkpoints.

    random_adapter_store(Path("store500"), tasks=500, rank=16)

A build of as many tasks takes hours, and as many fine-tuned models on disk: here the singular blocks of each
task are drawn as they lie in a store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.random_models import CLASSES, VIT_B_32, random_parameters
from mass_serve.backbone.architecture import Architecture, weight_of
from mass_serve.engine.measuring import measured
from mass_serve.merging import TaskSingularVectors
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.entries import HeadSpec, RouterSpec, TaskEntry
from mass_serve.model_store.format.experts import ExpertLayout
from mass_serve.model_store.format.factoring import Factoring
from mass_serve.model_store.format.file_names import PRETRAINED_FILE, task_folder
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.model_store.format.rank_rules import FixedRankRule
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors
from mass_serve.model_store.measured import with_measured
from mass_serve.model_store.plan import default_router_layer
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import publish, revision_of
from mass_serve.router import ModeName

CHANGE = 0.05  # Frobenius norm of what a task changed of a matrix it changed, over that of the matrix


def random_adapter_store(
    out: Path,
    tasks: int,
    rank: int,
    architecture: Architecture = VIT_B_32,
    *,
    block_format: BlockFormat = "bfloat16",
    mode: ModeName = "exact",
    seed: int = 0,
    progress: Progress = silent,
) -> Store:
    """Writes a store of `tasks` tasks `task0`, `task1` and so on, and a head of 10 classes for each.

    A task changes every linear of every block by `rank` directions and nothing else, as adapters do. Its
    singular values decay as `1 / sqrt(i)`. All tasks are drawn alike, so the price of an early exit is
    measured for the first and written for all.
    """
    generator = torch.Generator().manual_seed(seed)
    files = open_files(out)
    factoring = Factoring(architecture, "factored", FixedRankRule(rank=rank))
    layout = ExpertLayout(factoring, "bfloat16").of_format(block_format)
    pretrained = random_parameters(architecture, generator)
    norms = {name: float(weight.norm()) for name, weight in pretrained.items()}
    drawing = _Drawing(files, layout, norms, rank, generator)
    draft = Manifest(
        store_revision=revision_of(str(tasks), str(rank), str(seed)),
        backbone=architecture,
        preprocessing=_preprocessing(architecture.patches.image_size),
        router=RouterSpec(mode=mode, layer=default_router_layer(architecture.depth), first_pass="pretrained"),
        rank_rule=FixedRankRule(rank=rank),
        patch_embedding="factored",
        block_dtype=layout.block_dtype,
        block_format=layout.own_format,
        factored_parameters=tuple(layout.factoring.shapes),
        merged_base="rebuilt",
        files={PRETRAINED_FILE: _write(files, PRETRAINED_FILE, pretrained)},
        tasks=(drawing.write_task("task0"),),
    )
    draft = with_measured(files, draft, measured, silent)
    price = draft.tasks[0].exit_price
    entries = [*draft.tasks]
    for task in range(1, tasks):
        progress("drawing tasks", task, tasks)
        entries.append(drawing.write_task(f"task{task}").model_copy(update={"exit_price": price}))
    return publish(files, draft.model_copy(update={"tasks": tuple(entries)}))


def _preprocessing(image_size: int) -> Preprocessing:
    half = (0.5, 0.5, 0.5)
    return Preprocessing(size=image_size, crop=image_size, interpolation="bicubic", mean=half, std=half)


@dataclass(frozen=True)
class _Drawing:
    """Draws tasks of one store and writes their files."""

    files: StoreFiles
    layout: ExpertLayout
    norms: Mapping[str, float]  # of every pretrained parameter
    rank: int
    generator: torch.Generator

    def write_task(self, name: str) -> TaskEntry:
        backbone, shapes = self.layout.backbone, self.layout.factoring.shapes
        adapted = {weight_of(linear) for block in backbone.blocks() for linear in block.linears}
        ranks = {key: min(self.rank, *shape) if key in adapted else 0 for key, shape in shapes.items()}
        tensors = self._blocks(ranks)
        for key, spec in self.layout.tensor_specs(ranks).items():
            tensors.setdefault(key, torch.zeros(spec.shape, dtype=spec.dtype))
        head = torch.randn(CLASSES, backbone.embedding_dim, generator=self.generator)
        folder = task_folder(name, revision_of(name))
        experts, heads = f"{folder}/experts.safetensors", f"{folder}/head.safetensors"
        return TaskEntry(
            name=name,
            revision=revision_of(name),
            labels=tuple(f"{name} class {i}" for i in range(CLASSES)),
            head=HeadSpec(kind="cosine"),
            rank=max(ranks.values()),
            individual_accuracy=None,
            distance=CHANGE
            * math.hypot(*map(self.norms.__getitem__, adapted))
            / math.hypot(*self.norms.values()),
            energy_kept=1.0,
            files={
                experts: _write(self.files, experts, tensors),
                heads: _write(self.files, heads, {"weight": head, "logit_scale": torch.tensor(30.0)}),
            },
            ranks=ranks,
            adapter=True,
            block_format=self.layout.own_format,
        )

    def _blocks(self, ranks: Mapping[str, int]) -> dict[str, Tensor]:
        """Draws orthonormal u and vh, and s, of every matrix of some rank."""
        shapes = self.layout.factoring.shapes
        drawn = {
            key: [torch.randn(size, rank, generator=self.generator) for size in shapes[key]]
            for key, rank in ranks.items()
            if rank
        }

        def of_parameter(key: str) -> dict[str, Tensor]:
            u, v = (torch.linalg.qr(side)[0] for side in drawn[key])
            s = torch.arange(1, ranks[key] + 1) ** -0.5
            s *= CHANGE * self.norms[key] / s.norm()
            return self.layout.change_tensors(key, TaskSingularVectors(u, s, v.T))

        tensors: dict[str, Tensor] = {}
        for of_one in side_by_side(of_parameter, drawn):
            tensors |= of_one
        return tensors


def _write(files: StoreFiles, path: str, tensors: Mapping[str, Tensor]) -> str:
    """Writes a file of tensors and returns its SHA-256."""
    specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with files.writing(path) as file:
        return write_tensors(file, specs, tensors.__getitem__)

"""Stores of random weights, in memory at once: only their sizes are real."""

from __future__ import annotations

import torch

from benchmarks.packed_speed import random_vectors
from benchmarks.random_models import CLASSES, random_parameters
from mass_serve.backbone import Architecture, ClassificationHead, ExpertBank
from mass_serve.engine.heads import TaskHead
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import placed_parameters
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.merging import rank_for
from mass_serve.model_store.format.block_formats import BLOCK_FORMS
from mass_serve.model_store.format.entries import HeadSpec, RouterSpec, TaskEntry
from mass_serve.model_store.format.file_names import task_folder
from mass_serve.model_store.format.preprocessing import Preprocessing


def random_store(
    architecture: Architecture, tasks: int, dtype: torch.dtype, device: torch.device
) -> LoadedStore:
    """A store in memory of so many tasks that changed every matrix, at rank 1/T, with blocks in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    parameters = random_parameters(architecture, generator).items()
    pretrained = placed_parameters(parameters, architecture, device, dtype)
    shapes = architecture.matrix_shapes()
    ranks = {name: rank_for(shape, 1 / tasks) for name, shape in shapes.items()}
    vectors_of = {name: own for name, own in architecture.parameter_shapes().items() if name not in shapes}
    bank = ExpertBank(architecture, pretrained, [ranks] * tasks)
    for task in range(tasks):
        vectors = {
            name: BLOCK_FORMS["bfloat16"].kept(random_vectors(shapes[name], rank, generator))
            for name, rank in ranks.items()
        }
        rest = {name: torch.zeros(shape) for name, shape in vectors_of.items()}
        bank.set_task(task, vectors, rest)
    crop = architecture.patches.image_size
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    described = Preprocessing(size=crop, crop=crop, interpolation="bicubic", mean=mean, std=std)
    return LoadedStore(
        store_revision="random",
        architecture=architecture,
        preprocessing=ImagePreprocessor(described),
        router=RouterSpec(mode="exact", layer=9, first_pass="pretrained"),
        mode="exact",
        calibration=None,
        device=device,
        dtype=dtype,
        pretrained=pretrained,
        first_pass=pretrained,
        first_pass_nbytes=0,
        bank=bank,
        heads=tuple(
            _head(f"task{task}", architecture.embedding_dim, device, generator) for task in range(tasks)
        ),
        experts=tuple((f"task{task}", "") for task in range(tasks)),
    )


def _head(name: str, width: int, device: torch.device, generator: torch.Generator) -> TaskHead:
    files = (f"{task_folder(name, '00000000')}/{kind}.safetensors" for kind in ("experts", "head"))
    entry = TaskEntry(
        name=name,
        revision="00000000",
        labels=tuple(map(str, range(CLASSES))),
        head=HeadSpec(kind="cosine"),
        rank=1,
        individual_accuracy=None,
        files=dict.fromkeys(files, 64 * "0"),
    )
    weight = torch.randn(CLASSES, width, generator=generator)
    return TaskHead(entry, ClassificationHead(weight, logit_scale=30.0).to(device))

"""Stores of drawn adapters are stores like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.random_adapters import CHANGE, random_adapter_store
from mass_serve.engine import Engine
from mass_serve.merging import TaskSingularVectors
from mass_serve.model_store.task_distance import measured_distances
from tests.tiny import CONFIG

RANK = 4


def test_a_store_of_drawn_adapters_verifies_and_answers(tmp_path: Path) -> None:
    store = random_adapter_store(tmp_path / "store", tasks=5, rank=RANK, architecture=CONFIG)
    assert store.verify() == []
    image = Image.new("RGB", (CONFIG.patches.image_size,) * 2, "red")
    (found,) = Engine.load(str(tmp_path / "store"), device="cpu").classify([image])
    assert found.task in {f"task{i}" for i in range(5)}


def test_what_a_drawn_adapter_changed_is_as_its_entry_says(tmp_path: Path) -> None:
    store = random_adapter_store(tmp_path / "store", tasks=2, rank=RANK, architecture=CONFIG)
    pretrained, task = store.load_pretrained(), store.manifest.tasks[1]
    experts = store.load_experts(task.name)
    vectors = experts.singular_vectors.items()
    changed = {name: own for name, own in vectors if isinstance(own, TaskSingularVectors) and own.rank}
    assert task.adapter
    assert {own.rank for own in changed.values()} == {RANK}
    deltas = {name: (own.u.float() * own.s) @ own.vh.float() for name, own in changed.items()}
    for name, delta in deltas.items():
        torch.testing.assert_close(
            delta.norm() / pretrained[name].norm(), torch.tensor(CHANGE), rtol=1e-2, atol=0
        )
    measured = measured_distances(
        pretrained,
        pretrained.__getitem__,
        {task.name: lambda name, before: deltas.get(name, torch.zeros_like(before))},
        False,
        lambda *_: None,
    )
    assert task.distance == pytest.approx(measured[task.name], rel=1e-2)

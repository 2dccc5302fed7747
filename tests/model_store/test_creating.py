"""Tasks that are combinations of others: what they are in a store, and what they hold back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.engine import Engine, EngineOptions, Query
from mass_serve.engine.questions import EmbeddingQuestion
from mass_serve.merging import TaskSingularVectors
from mass_serve.model_store.combined_experts import load_experts
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.creating import NewTask, create_task
from mass_serve.model_store.errors import CheckpointError, ManifestError, StoreError, TaskError
from mass_serve.model_store.exporting import task_model
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.format.heads import (
    BIAS,
    CLASS_MEANS,
    WEIGHT,
    HeadTensors,
    created_head,
    read_head,
)
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.store import Store
from tests.models import Suite

NAME = "parts"


def head_of(store: Store, task: str) -> HeadTensors:
    """The head of a task as that of a created one, whose classes lie where their rows point."""
    weight = store.load_head(task).tensors[WEIGHT]
    directions = torch.nn.functional.normalize(weight, dim=1)
    return created_head({WEIGHT: weight, BIAS: torch.zeros(len(weight)), CLASS_MEANS: directions})


def combination(store: Path, others: tuple[str, ...], *scales: float, name: str = NAME) -> Store:
    """A task of digits' head and labels, with the changes of others, each scaled alike in every parameter."""
    opened = Store.open(store)
    parameters = len(opened.manifest.backbone.parameter_shapes())
    coefficients = torch.tensor(scales).view(-1, 1).expand(-1, parameters).contiguous()
    task = NewTask(
        name, opened.task("digits").labels, head_of(opened, "digits"), others, coefficients, accuracy=0.75
    )
    return create_task(opened, task)


def pixels(engine: Engine, count: int = 4) -> list[Tensor]:
    crop, generator = engine.preprocessing.crop, torch.Generator().manual_seed(0)
    return list(torch.randint(256, (count, 3, crop, crop), dtype=torch.uint8, generator=generator))


def logits(engine: Engine, task: str) -> Tensor:
    queries = [Query(one, (task,)) for one in pixels(engine)]
    return torch.stack([one.logits for one in engine.classify_batch(queries).all_answers()])


def embeddings(engine: Engine, task: str | None) -> Tensor:
    queries = EmbeddingQuestion(task).queries(pixels(engine), engine.tasks)
    return torch.stack([one.values for one in engine.classify_batch(queries).embeddings()])


def test_the_whole_of_one_task_answers_as_that_task(store: Path) -> None:
    created = combination(store, ("digits",), 1.0)
    assert created.verify() == []
    engine = Engine.load(str(store))
    own, of_digits = embeddings(engine, NAME), embeddings(engine, "digits")
    torch.testing.assert_close(own, of_digits, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(own, embeddings(engine, "street"), atol=1e-2)
    weight = created.load_head("digits").tensors[WEIGHT]
    torch.testing.assert_close(logits(engine, NAME), of_digits @ weight.T, atol=2e-2, rtol=1e-2)


def test_without_others_the_encoder_is_the_pretrained_one(store: Path) -> None:
    created = combination(store, ())
    entry = created.task(NAME)
    assert entry.changes_file is None
    assert set(entry.files) == {entry.head_file}
    engine = Engine.load(str(store))
    torch.testing.assert_close(embeddings(engine, NAME), embeddings(engine, None), atol=1e-5, rtol=1e-4)


def test_a_combination_is_the_scaled_sum(store: Path) -> None:
    created = combination(store, ("digits", "street"), 0.5, -0.25)
    found = load_experts(created, NAME)
    parts = [created.load_experts(name) for name in ("digits", "street")]
    for name, delta in found.dense_deltas.items():
        own = [one.dense_deltas[name] for one in parts]
        torch.testing.assert_close(delta, 0.5 * own[0] - 0.25 * own[1])
    ranks = created.layout.ranks_of(created.task(NAME))
    for name, vectors in found.singular_vectors.items():
        assert isinstance(vectors, TaskSingularVectors)
        assert vectors.rank == ranks[name]


def test_it_costs_kilobytes_and_is_listed_with_its_parts(store: Path) -> None:
    created = combination(store, ("digits", "street"), 0.5, 0.5)
    entry = created.task(NAME)
    assert entry.combination is not None
    assert entry.combination.tasks == ("digits", "street")
    assert entry.individual_accuracy == 0.75
    assert sum(created.files.size(path) for path in entry.files) < 8192
    content = json.loads((store / MANIFEST_FILE).read_text())
    assert content["format_version"] == 2
    assert content["tasks"][-1]["combination"] == {"tasks": ["digits", "street"]}


def test_weights_that_were_dropped_are_read_again_as_they_were(store: Path) -> None:
    combination(store, ("digits", "street"), 0.7, 0.4)
    whole = Engine.load(str(store))
    one_task = max(whole.resident_tasks.size(task) for task in range(3))
    engine = Engine.load(str(store), resident_task_bytes=one_task, set_cache_bytes=0)
    for _ in range(2):
        for task in ("digits", "street", NAME):
            assert torch.equal(logits(engine, task), logits(whole, task))
    assert engine.resident_tasks.misses > 4


def test_an_engine_takes_it_over_and_reads_it_anew_where_a_part_changed(suite: Suite, store: Path) -> None:
    combination(store, ("digits",), 1.0)
    before = Engine.load(str(store))
    add_task(store, suite.tasks[1], replace=True)
    after = Engine.open(str(store), EngineOptions(), previous=before)
    assert torch.equal(logits(after, NAME), logits(before, NAME))
    # As a store that was cut anew has it: the same name, and other blocks.
    whole = Store.open(store)
    content = json.loads((store / MANIFEST_FILE).read_text())
    assert whole.task(NAME).combination is not None
    for task in content["tasks"]:
        if task.get("combination"):
            task["combination"]["tasks"] = ["street"]
    (store / MANIFEST_FILE).write_text(json.dumps(content))
    moved = Engine.open(str(store), EngineOptions(), previous=before)
    assert not torch.allclose(logits(moved, NAME), logits(before, NAME), atol=1e-2)


@pytest.mark.parametrize("how", ["removed", "replaced", "rolled back"])
def test_what_others_are_made_of_stays(suite: Suite, store: Path, how: str) -> None:
    """Whether they are in the store now or may be brought back."""
    add_task(store, suite.tasks[0], replace=True)
    combination(store, ("digits",), 1.0)

    def change() -> object:
        if how == "removed":
            return remove_task(store, "digits")
        return (
            add_task(store, suite.tasks[0], replace=True)
            if how == "replaced"
            else rollback_task(store, "digits")
        )

    before = (store / MANIFEST_FILE).read_bytes()
    with pytest.raises(TaskError, match=rf"digits cannot be {how}: {NAME}, now or in an earlier revision"):
        change()
    assert (store / MANIFEST_FILE).read_bytes() == before
    remove_task(store, NAME)
    with pytest.raises(TaskError, match=f"digits cannot be {how}: {NAME}"):
        change()
    rollback_task(store, NAME)
    remove_task(store, NAME)
    prune_store(store)
    if how != "rolled back":
        change()


def test_a_name_that_is_taken_and_a_store_that_changed_are_refused(store: Path) -> None:
    opened = Store.open(store)
    task = NewTask(
        "street", opened.task("digits").labels, head_of(opened, "digits"), (), torch.empty(0, 0), 0.5
    )
    with pytest.raises(TaskError, match="street exists already"):
        create_task(opened, task)
    create_task(opened, task, replace=True)
    with pytest.raises(StoreError, match="changed meanwhile: create the task again"):
        create_task(opened, task, replace=True)
    assert rollback_task(store, "street").task("street").combination is None


@pytest.mark.parametrize("others", [["street", "street"], ["birds"], [NAME]])
def test_a_manifest_whose_combination_is_of_no_such_tasks_is_refused(store: Path, others: list[str]) -> None:
    combination(store, ("digits",), 1.0)
    content = json.loads((store / MANIFEST_FILE).read_text())
    content["tasks"][-1]["combination"]["tasks"] = others
    (store / MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=r"no blocks here|twice"):
        Store.open(store)


def test_damaged_coefficients_are_found(store: Path) -> None:
    created = combination(store, ("digits",), 1.0)
    path = store / created.task(NAME).coefficients_file
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert "coefficients.safetensors" in Store.open(store).verify()[0]
    with pytest.raises(StoreError, match=r"coefficients\.safetensors"):
        Engine.load(str(store))


def test_a_plain_model_of_it_gives_the_logits_of_the_store(store: Path) -> None:
    created = combination(store, ("digits", "street"), 0.5, 0.5)
    model = task_model(created, NAME)
    expected = load_experts(created, NAME)
    parameter = "blocks.0.mlp.fc1.bias"
    base = created.load_pretrained()[parameter].float()
    torch.testing.assert_close(model.parameters[parameter], base + expected.dense_deltas[parameter])
    assert model.head is not None
    assert set(model.head.tensors) == {WEIGHT, BIAS}  # no model but a store's has a router


def test_class_means_are_a_created_tasks_alone(store: Path, tmp_path: Path) -> None:
    head = head_of(Store.open(store), "digits")
    save_file(head.tensors, tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match="found bias, class_means, weight"):
        read_head(tmp_path / "head.safetensors")
    for wrong in ({WEIGHT: head.tensors[WEIGHT]}, head.without_means().tensors):
        with pytest.raises(ValueError, match=r"needs"):
            created_head(wrong)
    with pytest.raises(ValueError, match="which has the shape of weight"):
        created_head(head.tensors | {CLASS_MEANS: torch.ones(1, 3)})


def test_pruning_keeps_its_files(store: Path, tmp_path: Path) -> None:
    combination(store, ("digits",), 1.0)
    prune_store(store)
    copy = shutil.copytree(store, tmp_path / "copy")
    assert Store.open(copy).verify() == []
    assert (copy / Store.open(copy).task(NAME).coefficients_file).exists()


def test_it_follows_tasks_that_are_cut(suite: Suite, store: Path) -> None:
    """Nothing of its own is cut, and it does not count where tasks share a budget."""
    combination(store, ("digits", "street"), 1.0, 0.5)
    before = Engine.load(str(store))
    compact_store(store, 1 / 8)
    cut = Store.open(store)
    assert cut.verify() == []
    experts = load_experts(cut, NAME)
    parts = [cut.load_experts(name) for name in ("digits", "street")]
    parameter = "blocks.0.mlp.fc1.weight"
    vectors = [one.singular_vectors[parameter] for one in (experts, *parts)]
    own, *of_parts = [one for one in vectors if isinstance(one, TaskSingularVectors)]
    assert of_parts[0].rank < Store.open(store).layout.ranks_of(cut.task(NAME))[parameter]
    scaled = [c * (one.u.float() * one.s) @ one.vh.float() for c, one in zip((1, 0.5), of_parts, strict=True)]
    torch.testing.assert_close((own.u * own.s) @ own.vh, scaled[0] + scaled[1], atol=1e-4, rtol=1e-3)
    after = Engine.open(str(store), EngineOptions(), previous=before)
    torch.testing.assert_close(embeddings(after, NAME), embeddings(Engine.load(str(store)), NAME))
    ratio = cut.manifest.compression_ratio
    assert add_task(store, suite.tasks[2]).manifest.compression_ratio == ratio

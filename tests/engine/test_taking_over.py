"""An engine loaded after another: it takes what is still true, and answers as one loaded from nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import ExpertSet
from mass_serve.engine import Classification, Engine, EngineOptions, Query
from mass_serve.engine.set_cache import SetKey
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, remove_task, rollback_task
from tests import texts
from tests.models import Suite

Change = Callable[[Path, Suite], object]
CHANGES: dict[str, Change] = {
    "nothing": lambda _store, _suite: None,
    "replaced": lambda store, suite: add_task(
        store, TaskInput("street", suite.tasks[2].checkpoint), replace=True
    ),
    "removed": lambda store, _: remove_task(store, "digits"),
    "added": lambda store, suite: add_task(store, TaskInput("more", suite.tasks[1].checkpoint)),
    "moved": lambda store, _: (remove_task(store, "digits"), rollback_task(store, "digits")),
}


def use(engine: Engine, materialised: bool = False) -> list[SetKey]:
    """Brings every set of one or two tasks into use."""
    tasks = range(len(engine.tasks))
    sets = [*combinations(tasks, 1), *combinations(tasks, 2)]
    keys = [SetKey(chosen, materialised) for chosen in sets]
    engine.set_cache.get(keys)
    return keys


def answers(engine: Engine) -> list[Classification]:
    """To images for the router and for each task by name."""
    crop, generator = engine.preprocessing.crop, torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3, crop, crop), dtype=torch.uint8, generator=generator)
    candidates = [None, *((name,) for name in engine.tasks)]
    return engine.classify_batch([Query(pixels, names) for names in candidates]).all_answers()


def parts(experts: ExpertSet) -> dict[str, Tensor]:
    changes = {
        f"{linear} {field}": part
        for linear, delta in experts.deltas.items()
        for field, part in vars(delta).items()
        if isinstance(part, Tensor)
    }
    return {**experts.vectors, **changes}


@pytest.mark.parametrize("execution", ["low_rank", "materialised"])
@pytest.mark.parametrize("change", CHANGES)
def test_it_has_the_bits_of_an_engine_from_nothing(
    store: Path, suite: Suite, change: str, execution: str
) -> None:
    assert_as_from_nothing(store, suite, change, execution)


@pytest.mark.parametrize(("change", "execution"), [("replaced", "low_rank"), ("moved", "materialised")])
def test_so_it_has_where_every_task_has_ranks_of_its_own(
    tmp_path: Path, suite: Suite, change: str, execution: str
) -> None:
    store = tmp_path / "store"
    build(suite.pretrained, suite.tasks, store, BuildOptions(energy=0.7))
    ranks = Engine.load(str(store)).bank.task_ranks
    assert any(ranks[0][name] != ranks[1][name] for name in ranks[0])
    assert_as_from_nothing(store, suite, change, execution)


def assert_as_from_nothing(store: Path, suite: Suite, change: str, execution: str) -> None:
    before = Engine.load(str(store), execution=execution)
    use(before, execution == "materialised")
    CHANGES[change](store, suite)
    after = Engine.open(str(store), EngineOptions.model_validate({"execution": execution}), previous=before)
    fresh = Engine.load(str(store), execution=execution)
    ready = after.set_cache.ready()
    assert len(ready) >= 3
    for key, experts in ready.items():
        expected = fresh.set_cache.get([key])[0]
        assert experts.tasks == expected.tasks
        assert parts(experts).keys() == parts(expected).keys()
        assert all(torch.equal(part, parts(expected)[name]) for name, part in parts(experts).items())
    for new, answer in zip(answers(after), answers(fresh), strict=True):
        assert (new.task, new.task_revision, new.expert_set) == (
            answer.task,
            answer.task_revision,
            answer.expert_set,
        )
        assert new.residuals == answer.residuals
        assert torch.equal(new.logits, answer.logits)


def test_sets_of_a_changed_task_are_computed_and_no_other(store: Path, suite: Suite) -> None:
    before = Engine.load(str(store))
    keys = use(before)
    CHANGES["replaced"](store, suite)
    after = Engine.open(str(store), EngineOptions(), previous=before)
    street = list(after.tasks).index("street")
    assert after.set_cache.ready().keys() == set(keys)
    assert after.set_cache.misses == sum(street in key.expert_set for key in keys)


def test_what_has_not_changed_is_in_memory_once(store: Path, suite: Suite) -> None:
    before = Engine.load(str(store))
    use(before)
    CHANGES["replaced"](store, suite)
    after = Engine.open(str(store), EngineOptions(), previous=before)
    first, second = (task for task, name in enumerate(after.tasks) if name != "street")
    key = SetKey((first, second), materialised=False)
    old, new = parts(before.set_cache.ready()[key]), parts(after.set_cache.ready()[key])
    assert "blocks.0.mlp.fc1 left" in old
    assert all(new[name] is part for name, part in old.items())
    assert after.bank.pretrained is before.bank.pretrained


def test_the_same_tokenizer_is_shared(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert")
    build(models.pretrained, models.tasks[:2], tmp_path / "store", BuildOptions(force=True))
    options = EngineOptions(device="cpu")
    first = Engine.open(str(tmp_path / "store"), options)
    add_task(tmp_path / "store", models.tasks[2], force=True)
    second = Engine.open(str(tmp_path / "store"), options, previous=first)
    assert second.tokenizer is first.tokenizer
    texts.change_tokenizer(tmp_path / "store", normalizer={"type": "Lowercase"})
    third = Engine.open(str(tmp_path / "store"), options, previous=second)
    assert third.tokenizer is not second.tokenizer

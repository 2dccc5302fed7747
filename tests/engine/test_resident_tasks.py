"""An engine that keeps few of its tasks in memory answers as one that keeps them all."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import weakref
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.random_adapters import random_adapter_store
from mass_serve.engine import Classification, Engine, EngineOptions
from mass_serve.model_store.errors import IntegrityError
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.regular_files import RegularFile
from mass_serve.model_store.store import Store
from tests.tiny import CONFIG

TASKS = 6
NAMES = [f"task{task}" for task in range(TASKS)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("many") / "store"
    random_adapter_store(store, TASKS, rank=4, architecture=CONFIG)
    return store


def images(count: int) -> list[Image.Image]:
    torch.manual_seed(0)
    size = CONFIG.patches.image_size
    pixels = torch.randint(256, (count, size, size, 3), dtype=torch.uint8)
    return [Image.fromarray(own.numpy()) for own in pixels]


def answers(engine: Engine) -> list[Classification]:
    """Routed, each of all tasks, and by one name after the other."""
    routed = engine.classify(images(5))
    of_each = engine.classify(images(2), NAMES, answer="each")
    return [*routed, *of_each, *(one for name in NAMES for one in engine.classify(images(1), [name]))]


def task_bytes(engine: Engine) -> int:
    return engine.resident_tasks.nbytes


@pytest.mark.parametrize("execution", ["low_rank", "materialised"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_bits_are_the_same_whatever_stays_in_memory(many: Path, share: float, execution: str) -> None:
    whole = Engine.load(str(many), device="cpu", execution=execution)
    budget = int(share * task_bytes(whole))
    few = Engine.load(str(many), device="cpu", execution=execution, resident_task_bytes=budget)
    for found, wanted in zip(answers(few), answers(whole), strict=True):
        assert (found.task, found.expert_set) == (wanted.task, wanted.expert_set)
        assert found.residuals == wanted.residuals
        assert torch.equal(found.logits, wanted.logits)
    assert task_bytes(few) <= budget
    assert (few.resident_tasks.misses > 0) == (share < 1)
    assert whole.resident_tasks.misses == 0


@pytest.mark.parametrize(("block_format", "share"), [("int8", 0.55), ("int4", 0.3)])
def test_packed_tasks_take_less_and_have_the_same_bits_however_many_stay(
    many: Path, tmp_path: Path, block_format: BlockFormat, share: float
) -> None:
    random_adapter_store(tmp_path / "s", TASKS, rank=4, architecture=CONFIG, block_format=block_format)
    whole = Engine.load(str(tmp_path / "s"), device="cpu")
    assert task_bytes(whole) < share * task_bytes(Engine.load(str(many), device="cpu"))
    few = Engine.load(str(tmp_path / "s"), device="cpu", resident_task_bytes=task_bytes(whole) // 2)
    for found, wanted in zip(answers(few), answers(whole), strict=True):
        assert (found.task, found.expert_set) == (wanted.task, wanted.expert_set)
        assert torch.equal(found.logits, wanted.logits)
    assert few.resident_tasks.misses > 0
    # Nor do they depend on the batch.
    together = whole.classify(images(5))
    for alone, wanted in zip((whole.classify([image]) for image in images(5)), together, strict=True):
        assert torch.equal(alone[0].logits, wanted.logits)


def test_sets_do_not_keep_what_was_dropped(many: Path) -> None:
    budget = task_bytes(Engine.load(str(many), device="cpu")) // 3
    engine = Engine.load(str(many), device="cpu", resident_task_bytes=budget)
    answers(engine)
    engine.classify(images(1), [NAMES[0]])
    ready = engine.set_cache.ready()
    assert ready
    assert all(task in engine.resident_tasks for key in ready for task in key.expert_set)
    assert engine.set_cache.nbytes == sum(weights.nbytes for weights in ready.values())


def test_sets_do_not_keep_what_was_dropped_and_read_again(many: Path) -> None:
    budget = task_bytes(Engine.load(str(many), device="cpu")) // 3
    engine = Engine.load(str(many), device="cpu", resident_task_bytes=budget)
    engine.classify(images(1), [NAMES[0]])
    before = [weakref.ref(block) for block in engine.resident_tasks.get(0).blocks.values()]
    for task in (1, 2, 3, 0):  # as other questions would
        engine.resident_tasks.get(task)
    assert 0 in engine.resident_tasks
    engine.classify(images(1), [NAMES[0]])
    gc.collect()
    assert [kept() for kept in before] == [None] * len(before)
    assert any(key.expert_set == (0,) for key in engine.set_cache.ready())


def test_a_store_that_is_replaced_or_removed_is_served_on(many: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(many, store)
    engine = Engine.load(str(store), device="cpu", resident_task_bytes=0)
    wanted = engine.classify(images(2), NAMES, answer="each")
    for file in store.glob("tasks/*/*/experts.safetensors"):
        file.unlink()
        file.write_bytes(b"another store's")
    shutil.rmtree(store)
    found = engine.classify(images(2), NAMES, answer="each")
    assert all(torch.equal(one.logits, other.logits) for one, other in zip(found, wanted, strict=True))


def test_a_file_that_was_written_to_is_refused_and_harms_no_other_task(many: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(many, store)
    engine = Engine.load(str(store), device="cpu", resident_task_bytes=0)
    (file,) = store.glob("tasks/task1/*/experts.safetensors")
    with open(file, "r+b") as opened:
        opened.seek(-2, 2)
        opened.write(b"\x11\x22")
    with pytest.raises(IntegrityError, match=r"tasks/task1/.* is damaged"):
        engine.classify(images(1), ["task1"])
    assert engine.classify(images(1), ["task2"])[0].task == "task2"


def test_too_few_open_files_are_told_with_what_to_do(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: RegularFile) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(RegularFile, "duplicate", full)
    with pytest.raises(IntegrityError, match=r"tasks/.*Too many open files; .*ulimit -n"):
        Engine.load(str(many), device="cpu", resident_task_bytes=0)


def test_named_tasks_are_read_ahead(many: Path) -> None:
    size = task_bytes(Engine.load(str(many), device="cpu")) // TASKS
    engine = Engine.load(str(many), device="cpu", resident_task_bytes=2 * size)
    engine.prefetch(["task0", "no such task"])
    engine.classify(images(1), ["task0"])
    assert 0 in engine.resident_tasks


def test_an_engine_after_another_shares_the_tasks_in_memory(many: Path) -> None:
    size = task_bytes(Engine.load(str(many), device="cpu")) // TASKS
    options = EngineOptions(device="cpu", resident_task_bytes=3 * size)
    first = Engine.open(str(many), options)
    second = Engine.open(str(many), options, previous=first)
    both = [task for task in range(TASKS) if task in first.resident_tasks and task in second.resident_tasks]
    assert len(both) == 3
    assert all(first.bank.tasks.get(task) is second.bank.tasks.get(task) for task in both)
    for found, wanted in zip(answers(second), answers(first), strict=True):
        assert torch.equal(found.logits, wanted.logits)


@pytest.mark.parametrize("budget", [None, 0])
def test_a_load_opens_each_file_once(many: Path, budget: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()
    original = LocalFiles.opened

    def counting(files: LocalFiles, path: str) -> AbstractContextManager[RegularFile]:
        opened[path] += 1
        return original(files, path)

    monkeypatch.setattr(LocalFiles, "opened", counting)
    engine = Engine.load(str(many), device="cpu", resident_task_bytes=budget)
    answers(engine)
    manifest = Store.open(str(many)).manifest
    assert opened == dict.fromkeys(manifest.all_files(), 1)

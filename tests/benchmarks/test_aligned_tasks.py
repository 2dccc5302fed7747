"""Generated tasks are found by their own inputs, and are the same beside any number of others."""

from __future__ import annotations

import torch

from benchmarks.tasks.aligned import AlignedTasks
from mass_serve.backbone import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.engine import Engine, Query
from mass_serve.engine.execution import Execution

TASKS = 4
TINY = Architecture(
    PatchEmbedding(32, 8), Block(64, 4, 256, "quick_gelu", 1e-5), depth=3, pooling=Pooling(48)
)
ALIGNED = AlignedTasks(rank=4, architecture=TINY)


def test_inputs_belong_to_their_tasks() -> None:
    engine = Engine(ALIGNED.loaded(TASKS, "exact"), Execution.LOW_RANK, 1 << 30)
    right = 0
    for task in range(TASKS):
        pixels, _ = ALIGNED.inputs(task, 8)
        answers = engine.classify_batch([Query(one) for one in pixels]).all_answers()
        right += sum(answer.task == f"task{task}" for answer in answers)
    assert right > 8 * TASKS / 2, "by chance it were a quarter"


def test_a_task_is_the_same_beside_any_others() -> None:
    few, more = ALIGNED.loaded(2, "exact"), ALIGNED.loaded(3, "exact")
    assert torch.equal(few.heads[1].head.weight, more.heads[1].head.weight)
    name = "blocks.1.mlp.fc1.weight"
    (mine,), (same,) = few.bank.singular_vectors(name, [1]), more.bank.singular_vectors(name, [1])
    assert torch.equal(mine.vh, same.vh)
    assert torch.equal(mine.s, same.s)


def test_inputs_that_a_task_is_made_of_are_not_asked_about() -> None:
    made_of, labels = ALIGNED.inputs(1, 8, made_of=True)
    asked, same_labels = ALIGNED.inputs(1, 8)
    assert torch.equal(labels, same_labels)
    assert not (made_of == asked).any()

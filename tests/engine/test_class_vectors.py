"""The largest cosines of all heads at once are those of each head."""

from __future__ import annotations

from dataclasses import replace

import torch

from mass_serve.backbone import HiddenLayer
from mass_serve.engine.class_vectors import ClassVectors
from mass_serve.engine.heads import TaskHead
from tests import tiny

TASKS = 7
EMBEDDINGS = torch.randn(9, tiny.CONFIG.embedding_dim, generator=torch.Generator().manual_seed(0))


def _heads(*, hidden: int) -> list[TaskHead]:
    """Cosine and linear heads of 3 to 9 classes, two of them for any number of labels, some with a layer."""
    heads = list(tiny.loaded_store(TASKS, multi_label=(2, 3)).heads)
    generator, width = torch.Generator().manual_seed(1), tiny.CONFIG.embedding_dim
    for task in range(hidden):
        weight, bias = torch.randn(width, width, generator=generator), torch.randn(width, generator=generator)
        head = replace(heads[task].head, hidden=HiddenLayer(weight, bias, "tanh"))
        heads[task] = TaskHead(heads[task].entry, head)
    return heads


def _one_by_one(heads: list[TaskHead]) -> torch.Tensor:
    return torch.stack([one.scores(EMBEDDINGS)[:, 0] for one in heads], dim=1)


def test_they_are_those_of_each_head() -> None:
    for hidden in (0, 3, TASKS):
        heads = _heads(hidden=hidden)
        found = ClassVectors(heads).largest_cosines(EMBEDDINGS)
        torch.testing.assert_close(found, _one_by_one(heads), atol=1e-6, rtol=1e-6)


def test_an_embedding_has_the_same_bits_in_every_batch() -> None:
    vectors = ClassVectors(_heads(hidden=2))
    together = vectors.largest_cosines(EMBEDDINGS)
    for row in range(len(EMBEDDINGS)):
        assert torch.equal(vectors.largest_cosines(EMBEDDINGS[row : row + 1])[0], together[row])


def test_class_vectors_are_kept_beside_the_heads() -> None:
    heads = _heads(hidden=1)
    assert ClassVectors(heads).nbytes >= sum(one.head.weight.nbytes for one in heads[1:])

"""What the kernels say of many heads at once, against each head alone in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import ClassificationHead
from mass_serve.engine.heads import TaskHead
from mass_serve.kernels.heads import BESIDE, fused
from mass_serve.kernels.heads.fused import Heads
from tests.interpreter import DEVICE
from tests.kernels.heads import heads_of_each_kind
from tests.tiny import task_entry

COLUMNS = 16  # fewer than the largest head has classes


@pytest.fixture(autouse=True)
def few_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "MOST_COLUMNS", COLUMNS)


def _said(heads: list[TaskHead], x: Tensor, asked: Sequence[tuple[int, int]]) -> list[Tensor]:
    """What is said of each item [C + BESIDE]."""
    found = Heads([_on_device(one).for_kernels() for one in heads])
    items, size = found.items(asked)
    y = found(x.to(DEVICE), torch.tensor(items, device=DEVICE), size).cpu()
    sizes = [len(heads[task].head.weight) + BESIDE for task, _ in asked]
    return list(y.split(sizes))  # type: ignore[no-untyped-call]


def _all_pairs(heads: list[TaskHead], x: Tensor) -> list[tuple[int, int]]:
    return list(product(range(len(heads)), range(len(x))))


def _on_device(head: TaskHead) -> TaskHead:
    return TaskHead(head.entry, head.head.to(DEVICE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [7, 257])
def test_they_say_what_each_head_says_alone(width: int, dtype: torch.dtype) -> None:
    heads, x = heads_of_each_kind(width), (3 * torch.randn(3, width)).to(dtype)
    pairs = _all_pairs(heads, x)
    asked = [pairs[place] for place in torch.randperm(len(pairs)).tolist()]
    for (task, row), own in zip(asked, _said(heads, x, asked), strict=True):
        logits, scores = heads[task].logits_and_scores(x[row : row + 1])
        expected = torch.cat([logits[0], scores[0], torch.ones(1)])
        torch.testing.assert_close(own, expected, atol=2e-4, rtol=2e-5)


def test_a_head_of_many_classes_makes_no_answer_of_the_others_longer() -> None:
    few, many = (
        heads_of_each_kind(16)[0],
        TaskHead(
            task_entry("many", ("label",)), ClassificationHead(torch.randn(300, 16), bias=torch.randn(300))
        ),
    )
    heads, x, asked = [few, many, few], torch.randn(3, 16), [(0, 2), (1, 0), (2, 1), (0, 0)]
    said = _said(heads, x, asked)
    assert sum(map(len, said)) == 300 + 3 * len(few.head.weight) + 4 * BESIDE
    for (task, row), own in zip(asked, said, strict=True):
        logits, scores = heads[task].logits_and_scores(x[row : row + 1])
        expected = torch.cat([logits[0], scores[0], torch.ones(1)])
        torch.testing.assert_close(own, expected, atol=2e-4, rtol=2e-5)


def test_an_items_bits_depend_on_no_other_item() -> None:
    heads, x = heads_of_each_kind(96), torch.randn(3, 96)
    asked = _all_pairs(heads, x)
    together = _said(heads, x, asked)
    for at in (0, 11, len(asked) - 1):
        assert torch.equal(_said(heads, x, asked[at : at + 1])[0], together[at])
    assert all(map(torch.equal, _said(heads, x, asked[7:12]), together[7:12]))


def test_a_head_that_is_never_asked_needs_no_tensors() -> None:
    head, x = heads_of_each_kind(16)[0], torch.randn(2, 16)
    found = Heads([None, _on_device(head).for_kernels()])
    items, size = found.items([(1, 0), (1, 1)])
    y = found(x.to(DEVICE), torch.tensor(items, device=DEVICE), size).cpu().view(2, -1)
    torch.testing.assert_close(y[:, :-BESIDE], head.head.logits(x))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's, which computes with NumPy
def test_an_embedding_that_is_not_finite_has_no_finite_logits() -> None:
    heads, x = heads_of_each_kind(16), torch.full((1, 16), torch.nan)
    for own in _said(heads, x, _all_pairs(heads, x)):
        assert own[:-BESIDE].isnan().all()
        assert own[-1] == 0


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, COLUMNS, 36])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_single_logit_that_is_not_finite_is_found(place: int, wrong: float) -> None:
    bias = torch.zeros(37)
    bias[place] = wrong
    head = TaskHead(task_entry("many", ("label",)), ClassificationHead(torch.randn(37, 16), bias=bias))
    asked = [(0, 0), (1, 0), (0, 0)]
    said = _said([heads_of_each_kind(16)[0], head], torch.randn(1, 16), asked)
    assert [own[-1].item() for own in said] == [1, 0, 1]


def test_an_embedding_of_zeros_has_cosines_of_zero() -> None:
    heads = heads_of_each_kind(16)
    cosine, linear = _said(heads, torch.zeros(1, 16), [(0, 0), (5, 0)])
    assert cosine.isfinite().all()
    assert linear.isfinite().all()
    assert cosine[0] == cosine[-BESIDE] == linear[-BESIDE] == 0

"""What the kernels say of many heads at once, against each head alone in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.engine.heads import TaskHead
from mass_serve.kernels.heads import SCORES, fused
from mass_serve.kernels.heads.fused import Heads
from tests.interpreter import DEVICE
from tests.kernels.heads import CLASSES, heads_of_each_kind

COLUMNS = 16  # fewer than the largest head has classes


@pytest.fixture(autouse=True)
def few_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "MOST_COLUMNS", COLUMNS)


def _said(heads: list[TaskHead], x: Tensor, items: Tensor) -> Tensor:
    found = Heads([_on_device(one).for_kernels() for one in heads])
    return found(x.to(DEVICE), items.int().to(DEVICE)).cpu()


def _on_device(head: TaskHead) -> TaskHead:
    return TaskHead(head.entry, head.head.to(DEVICE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [7, 257])
def test_they_say_what_each_head_says_alone(width: int, dtype: torch.dtype) -> None:
    heads, x = heads_of_each_kind(width), (3 * torch.randn(3, width)).to(dtype)
    items = torch.cartesian_prod(torch.arange(len(heads)), torch.arange(len(x)))
    items = items[torch.randperm(len(items))]
    found = _said(heads, x, items)
    assert found.shape == (len(items), max(CLASSES) + SCORES)
    for (task, row), own in zip(items.tolist(), found, strict=True):
        logits, scores = heads[task].logits_and_scores(x[row : row + 1])
        classes = logits.shape[1]
        torch.testing.assert_close(own[:classes], logits[0], atol=2e-4, rtol=2e-5)
        assert torch.count_nonzero(own[classes:-SCORES]) == 0
        torch.testing.assert_close(own[-SCORES:], scores[0], atol=2e-4, rtol=2e-5)


def test_an_items_bits_depend_on_no_other_item() -> None:
    heads, x = heads_of_each_kind(96), torch.randn(3, 96)
    items = torch.cartesian_prod(torch.arange(len(heads)), torch.arange(len(x)))
    together = _said(heads, x, items)
    for at in (0, 11, len(items) - 1):
        assert torch.equal(_said(heads, x, items[at : at + 1])[0], together[at])
    assert torch.equal(_said(heads, x, items[7:12]), together[7:12])


def test_a_head_that_is_never_asked_needs_no_tensors() -> None:
    head, x = heads_of_each_kind(16)[0], torch.randn(2, 16)
    found = Heads([None, _on_device(head).for_kernels()])
    items = torch.tensor([[1, 0], [1, 1]], dtype=torch.int32, device=DEVICE)
    torch.testing.assert_close(found(x.to(DEVICE), items)[:, :3].cpu(), head.head.logits(x))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's, which computes with NumPy
def test_an_embedding_that_is_not_finite_has_no_finite_logits() -> None:
    heads, x = heads_of_each_kind(16), torch.full((1, 16), torch.nan)
    items = torch.tensor([[task, 0] for task in range(len(heads))])
    said = _said(heads, x, items)
    assert all(said[task, : len(one.head.weight)].isnan().all() for task, one in enumerate(heads))


def test_an_embedding_of_zeros_has_cosines_of_zero() -> None:
    heads = heads_of_each_kind(16)
    said = _said(heads, torch.zeros(1, 16), torch.tensor([[0, 0], [5, 0]]))
    assert said.isfinite().all()
    assert said[0, 0] == said[0, -SCORES] == said[1, -SCORES] == 0

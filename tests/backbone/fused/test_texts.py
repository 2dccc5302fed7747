"""Texts on a device with fused kernels, whose passes are launched from plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mass_serve.backbone import DenseWeights, Packed, Probe, passes_for, run, weight_of
from mass_serve.backbone.weights import planned
from mass_serve.kernels import TaskDirections
from mass_serve.kernels.backend import backend
from mass_serve.kernels.low_rank import fused
from tests import tiny
from tests.encoders import TEXT_ENCODERS
from tests.interpreter import DEVICE

LENGTHS = (3, 1, 9)
TEXTS = Packed(torch.arange(26).view(13, 2) % 2, LENGTHS)


@pytest.mark.parametrize("name", ["bert", "mean of modernbert"])
@torch.inference_mode()
def test_the_second_pass_agrees_with_the_reference(name: str) -> None:
    """Low-rank and merged sets together, with the cores of two tasks folded into table and linears."""
    architecture = replace(TEXT_ENCODERS[name], depth=2)
    weights = tiny.pretrained(architecture)
    forms = [((0,), False), ((0, 2), False), ((1,), True)]

    def second() -> torch.Tensor:
        moved = {parameter: tensor.to(DEVICE) for parameter, tensor in weights.items()}
        bank = tiny.bank(architecture, moved, 3)
        sets = [bank.expert_set(tasks, materialised=materialised) for tasks, materialised in forms]
        texts = Packed(TEXTS.rows.to(DEVICE), LENGTHS)
        return passes_for(bank, moved, 2).second(texts, sets, [0, 1, 2, 3]).cpu()

    with backend("reference"):
        wanted = second()
    with backend("fused"):
        found = second()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("mlp_share", [1.0, 0.5])
@torch.inference_mode()
def test_the_first_pass_agrees_with_the_reference(mlp_share: float) -> None:
    architecture = replace(TEXT_ENCODERS["bert"], depth=2)
    weights = tiny.pretrained(architecture)
    wanted = run(architecture, DenseWeights(weights), TEXTS, mlp_share=mlp_share).embedding
    with backend("fused"):
        moved = {parameter: tensor.to(DEVICE) for parameter, tensor in weights.items()}
        texts = Packed(TEXTS.rows.to(DEVICE), LENGTHS)
        passes = passes_for(tiny.bank(architecture, moved, 1), moved, 1)
        found = passes.first(texts, mlp_share=mlp_share).embedding.cpu()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["bert", "mean of modernbert"])
@torch.inference_mode()
def test_a_pass_goes_on_from_where_it_stopped(name: str) -> None:
    """With evidence measured on the way, which a second pass then takes up in two segments."""
    architecture = replace(TEXT_ENCODERS[name], depth=2)
    weights = tiny.pretrained(architecture)

    def passes() -> tuple[torch.Tensor, torch.Tensor]:
        moved = {parameter: tensor.to(DEVICE) for parameter, tensor in weights.items()}
        bank = tiny.bank(architecture, moved, 3)
        sets = [bank.expert_set((task,), materialised=False) for task in (2, 0)]
        bases = {
            linear: TaskDirections.of(list(bank.leading_rows(weight_of(linear), range(3)).float()))
            for linear in architecture.early_linears(1)
        }
        both = passes_for(bank, moved, 2)
        begun = both.first(Packed(TEXTS.rows.to(DEVICE), LENGTHS), stop=1, probe=Probe(bases))
        return begun.energies.cpu(), both.second(begun.entering, sets, [0, 1, 3], start=1).cpu()

    with backend("reference"):
        wanted = passes()
    with backend("fused"):
        found = passes()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["bert", "mean of modernbert"])
@torch.inference_mode()
def test_the_layer_norms_of_blocks_are_in_launches_of_the_linears_behind_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of two blocks', post-norm and pre-norm: one has no linear behind it, or is not there."""
    architecture = replace(TEXT_ENCODERS[name], depth=2)
    weights = {parameter: tensor.to(DEVICE) for parameter, tensor in tiny.pretrained(architecture).items()}
    shrunk, taken = list[torch.Tensor](), list[torch.Tensor]()

    def norm(*args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows, h = fused.planned_norm(*args, **options)
        shrunk.append(h)
        return rows, h

    def linear(*args: Any, shrunk: torch.Tensor | None, **options: Any) -> torch.Tensor:
        if shrunk is not None:
            taken.append(shrunk)
        return fused.planned_linear(*args, shrunk=shrunk, **options)

    monkeypatch.setattr(planned, "planned_norm", norm)
    monkeypatch.setattr(planned, "planned_linear", linear)
    with backend("fused"):
        bank = tiny.bank(architecture, weights, 2)
        sets = [bank.expert_set((0,), materialised=False)]
        passes_for(bank, weights, 1).second(Packed(TEXTS.rows.to(DEVICE), LENGTHS), sets, [0, 3])
    assert len(shrunk) == 3
    assert all(one is another for one, another in zip(shrunk, taken, strict=True))

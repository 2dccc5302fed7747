"""Texts on a device with fused kernels, whose passes are launched operation by operation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mass_serve.backbone import DenseWeights, Packed, passes_for, run
from mass_serve.backbone.planned_passes import PlannedPasses
from mass_serve.kernels.backend import backend
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


@torch.inference_mode()
def test_the_first_pass_agrees_with_the_reference() -> None:
    architecture = replace(TEXT_ENCODERS["bert"], depth=1)
    weights = tiny.pretrained(architecture)
    wanted = run(architecture, DenseWeights(weights), TEXTS).embedding
    with backend("fused"):
        moved = {parameter: tensor.to(DEVICE) for parameter, tensor in weights.items()}
        texts = Packed(TEXTS.rows.to(DEVICE), LENGTHS)
        found = passes_for(tiny.bank(architecture, moved, 1), moved, 1).first(texts).embedding.cpu()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_a_planned_pass_takes_no_texts() -> None:
    with backend("fused"):
        weights = {name: tensor.to(DEVICE) for name, tensor in tiny.pretrained(tiny.CONFIG).items()}
        planned = PlannedPasses(tiny.bank(tiny.CONFIG, weights, 1), weights, 1)
        with pytest.raises(ValueError, match="takes samples of one length, and these are packed"):
            planned.first(TEXTS)

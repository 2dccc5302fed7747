"""Weights that gradients go through: the same embeddings, and gradients as differences say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import Architecture, DenseWeights, run
from mass_serve.backbone.weights.trainable import TrainableWeights
from tests import tiny
from tests.encoders import ENCODERS

PLAIN = {name: one for name, one in ENCODERS.items() if not one.block.is_gated} | {"clip": tiny.CONFIG}


def patches(architecture: Architecture, like: Tensor) -> Tensor:
    part = architecture.patches
    count = architecture.num_tokens - part.tokens_before_patches
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, count, 3 * part.patch_size**2, generator=generator).to(like)


@pytest.mark.parametrize("name", PLAIN)
def test_embeddings_are_those_of_an_encoder_that_serves(name: str) -> None:
    architecture = PLAIN[name]
    weights = tiny.pretrained(architecture)
    x = patches(architecture, next(iter(weights.values())))
    torch.testing.assert_close(
        run(architecture, TrainableWeights(weights), x).embedding,
        run(architecture, DenseWeights(weights), x).embedding,
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", PLAIN)
def test_gradients_reach_every_parameter(name: str) -> None:
    """Those of a step in a random direction, against the difference quotient, in float64."""
    architecture = PLAIN[name]
    weights = {key: one.double() for key, one in tiny.pretrained(architecture).items()}
    x = patches(architecture, next(iter(weights.values())))
    generator = torch.Generator().manual_seed(2)
    step = {key: torch.randn(one.shape, generator=generator).to(one) for key, one in weights.items()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return run(architecture, TrainableWeights(parameters), x).embedding.square().sum()

    def moved(length: float) -> Tensor:
        return loss({key: one + length * step[key] for key, one in weights.items()})

    wanted = {key: one.clone().requires_grad_() for key, one in weights.items()}
    loss(wanted).backward()  # type: ignore[no-untyped-call]
    along = torch.zeros((), dtype=torch.float64)
    for key, one in wanted.items():
        assert one.grad is not None, key
        along += (one.grad * step[key]).sum()
    torch.testing.assert_close(along, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-5)

"""Passes in which a part of the tokens alone has an MLP of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import Architecture, Batch, DenseWeights, Packed, PassResult, Probe, run
from mass_serve.backbone.parts.shared_mlp import least_alike
from mass_serve.kernels import TaskDirections
from tests import tiny
from tests.encoders import ENCODERS, TEXT_ENCODERS

EVERY = ENCODERS | TEXT_ENCODERS
LENGTHS = (5, 1, 12, 5, 2)
HALF = 0.5


def weights_of(architecture: Architecture, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights whose MLPs change a token visibly."""
    return tiny.pretrained(architecture, dtype)


def entering(architecture: Architecture, dtype: torch.dtype = torch.float32) -> Batch:
    """Tokens of several samples, as they leave the first blocks of a pass."""
    generator = torch.Generator().manual_seed(3)
    if architecture.reads_text:
        return Packed(torch.randn(sum(LENGTHS), architecture.width, generator=generator).to(dtype), LENGTHS)
    shape = len(LENGTHS), architecture.num_tokens, architecture.width
    return torch.randn(shape, generator=generator).to(dtype)


def passed(architecture: Architecture, weights: dict[str, Tensor], x: Batch, share: float) -> PassResult:
    """A pass over those tokens, with what it measures of two tasks on the way."""
    bases = {
        linear: TaskDirections.of([torch.eye(architecture.width)[:2], torch.eye(architecture.width)[2:5]])
        for linear in architecture.late_linears(0)
    }
    return run(architecture, DenseWeights(weights), x, start=0, probe=Probe(bases), mlp_share=share)


@pytest.mark.parametrize("name", EVERY)
@torch.inference_mode()
def test_a_sample_has_the_same_bits_alone_and_in_any_batch(name: str) -> None:
    architecture = replace(EVERY[name], depth=3)
    for dtype in (torch.float32, torch.bfloat16):
        weights, x = weights_of(architecture, dtype), entering(architecture, dtype)
        together = passed(architecture, weights, x, HALF)
        backwards = passed(architecture, weights, x[list(reversed(range(len(x))))], HALF)
        for sample in range(len(x)):
            alone = passed(architecture, weights, x[[sample]], HALF)
            for found in (together.of_samples(torch.tensor([sample])), alone):
                assert torch.equal(found.embedding[0], backwards.embedding[-1 - sample])
                assert torch.equal(found.energies[0], backwards.energies[-1 - sample])


@pytest.mark.parametrize("name", EVERY)
@torch.inference_mode()
def test_where_every_token_has_its_own_it_is_a_pass_like_others(name: str) -> None:
    architecture = replace(EVERY[name], depth=3)
    weights, x = weights_of(architecture), entering(architecture)
    own, plain = (passed(architecture, weights, x, share) for share in (1 - 1e-9, 1.0))
    torch.testing.assert_close(own.embedding, plain.embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own.energies, plain.energies, atol=1e-5, rtol=1e-4)
    shared = passed(architecture, weights, x, 1 / 3)
    assert not torch.allclose(shared.embedding, plain.embedding, atol=1e-3)


@pytest.mark.parametrize("depth", [3, 6])
@torch.inference_mode()
def test_the_weights_of_those_with_an_mlp_of_their_own_are_made_once_a_pass(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU those of other tokens are another plan, which is sent."""
    architecture = replace(TEXT_ENCODERS["bert"], depth=depth)
    made: list[Sequence[int]] = []

    def of_tokens(self: DenseWeights, offsets: Sequence[int]) -> DenseWeights:
        made.append(offsets)
        return self

    monkeypatch.setattr(DenseWeights, "of_tokens", of_tokens)
    passed(architecture, weights_of(architecture), entering(architecture), HALF)
    assert len(made) == 2  # all tokens, and those with an MLP of their own


@torch.inference_mode()
def test_the_others_have_the_mlp_of_the_token_that_is_most_like_them() -> None:
    """By the definition, a token at a time, in a pre-norm block without attention."""
    architecture = replace(ENCODERS["vit"], depth=2)
    weights = weights_of(architecture)
    for block in range(2):
        out = f"blocks.{block}.attention.out"
        weights = {
            key: torch.zeros_like(value) if key.startswith(out) else value for key, value in weights.items()
        }
    x = entering(architecture)
    assert isinstance(x, Tensor)
    plain, found = (
        list(run(architecture, DenseWeights(weights), x, start=0, stop="states", mlp_share=share).states)
        for share in (1.0, HALF)
    )
    for sample in range(len(x)):
        tokens = x[sample]
        patches, mean = tokens[1:], tokens[1:].mean(0)
        order = torch.cosine_similarity(patches, mean.unsqueeze(0)).argsort()
        own = [0, *(order[: math.ceil(HALF * len(patches))] + 1).tolist()]
        for token in range(len(tokens)):
            nearest = max(own, key=lambda one: float(torch.cosine_similarity(tokens[one], tokens[token], 0)))
            assert (nearest == token) == (token in own)
            close = torch.allclose(found[sample][token], plain[sample][token], atol=1e-4)
            assert close == (token in own)


def test_a_chosen_token_stands_for_itself_beside_one_that_is_nearly_parallel() -> None:
    x = torch.eye(5).unsqueeze(0)
    x[0, 2] = 3 * x[0, 1] + 1e-9 * x[0, 2]
    places, standing = least_alike(1, 1.0, x)
    assert places.tolist() == [[0, 1, 2, 3, 4]]
    assert standing.tolist() == [[0, 1, 2, 3, 4]]

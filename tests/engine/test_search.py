"""Where in the passes the search for tasks finds its evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mass_serve.backbone import DenseWeights, Feature, Probe, Token, patchify, run, weight_of
from mass_serve.engine.engine import Engine, Query
from mass_serve.engine.execution import Execution
from mass_serve.router import SubspaceRouter, early_stop
from tests import tiny

PIXELS = tiny.pixels(5)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("token", ["class", "mean"])
def test_the_routers_feature_is_that_of_its_layer_before_and_after_early_evidence(
    layer: int, token: Token
) -> None:
    loaded = tiny.loaded_store(mode="balanced")
    loaded = replace(loaded, router=replace(loaded.router, layer=layer, token=token))
    assert early_stop(loaded.config.depth) == 1
    answers = Engine(loaded, Execution.LOW_RANK, 1 << 30).classify_batch([Query(p) for p in PIXELS])
    architecture, probe = loaded.config, Probe(feature=Feature(layer, token))
    pixels = loaded.preprocessing.normalise(torch.stack(PIXELS))
    patches = patchify(pixels, architecture.embedding.patch_size)
    feature = run(architecture, DenseWeights(loaded.first_pass), patches, stop="feature", probe=probe).feature
    blocks = loaded.bank.blocks[weight_of(architecture.residual_linear(layer))].vh
    expected = SubspaceRouter(loaded.router, blocks).residuals(feature)
    found = torch.tensor([list(answer.residuals.values()) for answer in answers.all_answers()])
    torch.testing.assert_close(found, expected)

"""The definition of an encoder says everything about its parameters, once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mass_serve.backbone.architecture import Architecture, AttentionPooling, Pooling, bias_of, weight_of
from tests.encoders import ENCODERS
from tests.tiny import CONFIG, architecture

ARCHITECTURES = [CONFIG, architecture(28, 14, 40, 2, 5, 72, projection_dim=None), *ENCODERS.values()]


@pytest.mark.parametrize("encoder", ARCHITECTURES)
def test_every_parameter_belongs_to_one_operation_or_to_the_tokens(encoder: Architecture) -> None:
    operations = [
        parameter(name) for name in (*encoder.linears, *encoder.norms) for parameter in (weight_of, bias_of)
    ]
    embedding, block = encoder.patches, encoder.block
    class_token = [embedding.class_token] if embedding.has_class_token else []
    without_bias = [Pooling.linear]
    without_bias += [] if embedding.has_bias else [embedding.linear]
    without_bias += [] if block.qkv_has_bias else [names.qkv for names in encoder.blocks()]
    tokens = [*class_token, *encoder.positions]
    there = [name for name in (*operations, *tokens) if name not in map(bias_of, without_bias)]
    assert sorted(there) == sorted(encoder.parameter_shapes())


@pytest.mark.parametrize("encoder", ARCHITECTURES)
def test_the_matrices_are_the_linears_weights_and_the_positions(encoder: Architecture) -> None:
    matrices = {*map(weight_of, encoder.linears), *encoder.positions}
    assert set(encoder.matrix_shapes()) == matrices


def test_what_a_pooling_needs_must_be_there() -> None:
    encoder = ENCODERS["no class token"]
    for pooled in ("class", "class_and_mean"):
        with pytest.raises(ValueError, match=f"pooling '{pooled}' needs a class token"):
            replace(encoder, pooling=Pooling(None, pooled))


def test_a_poolings_heads_divide_the_width() -> None:
    encoder = ENCODERS["attention pooling"]
    with pytest.raises(ValueError, match="width 32 is not a multiple of 5 heads of the pooling"):
        replace(encoder, pooling=AttentionPooling(5, 72, "gelu_tanh"))


def test_early_evidence_is_of_inputs_as_wide_as_a_token() -> None:
    shapes = CONFIG.matrix_shapes()
    for stop in range(1, CONFIG.depth):
        linears = CONFIG.early_linears(stop)
        assert all(shapes[weight_of(linear)][1] == CONFIG.width for linear in linears)
        assert len(linears) == 3 * stop


def test_late_evidence_is_of_all_blocks_behind_the_early_ones_but_the_last() -> None:
    encoder = replace(CONFIG, depth=4)
    assert encoder.late_linears(1) == [
        "blocks.1.attention.out",
        "blocks.1.mlp.fc1",
        "blocks.2.attention.qkv",
        "blocks.2.attention.out",
        "blocks.2.mlp.fc1",
    ]
    assert encoder.late_linears(3) == []

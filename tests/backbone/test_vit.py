"""The encoder against transformers' CLIP on random weights of several shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mass_serve.backbone import (
    DenseWeights,
    EncoderConfig,
    encode,
    first_pass,
    first_pass_parameters,
    patchify,
)
from mass_serve.model_store.readers.checkpoint import Checkpoint
from tests import tiny

SHAPES = [
    EncoderConfig(32, 8, 64, 3, 4, 256, "quick_gelu", 1e-5, 32),
    EncoderConfig(70, 16, 48, 2, 3, 100, "gelu", 1e-5, 40),
    EncoderConfig(28, 14, 40, 4, 5, 72, "quick_gelu", 1e-6, 16),
    EncoderConfig(24, 4, 32, 1, 1, 128, "gelu", 1e-5, 8),
]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda c: f"{c.width}x{c.depth}")
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EncoderConfig, CLIPVisionModelWithProjection, dict[str, Tensor]]:
    """A transformers model, and its weights as our checkpoint reader gives them."""
    config: EncoderConfig = request.param
    torch.manual_seed(config.width)
    reference: Any = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_attention_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            projection_dim=config.embedding_dim,
            hidden_act=config.activation,
            layer_norm_eps=config.layer_norm_eps,
        )
    ).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():  # initialised biases are zero and would hide a mistake
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("clip")
    reference.save_pretrained(folder)
    return config, reference, _parameters(folder)


def _parameters(folder: Path) -> dict[str, Tensor]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.parameter(name) for name in checkpoint.architecture.parameter_shapes()}


def _images(config: EncoderConfig) -> Tensor:
    return torch.randn(5, 3, config.image_size, config.image_size)


@torch.inference_mode()
def test_the_embeddings_are_those_of_transformers(models) -> None:  # type: ignore[no-untyped-def]
    config, reference, parameters = models
    images = _images(config)
    weights = DenseWeights(parameters, config.layer_norm_eps)
    embeddings = encode(config, weights, patchify(images, config.patch_size))
    torch.testing.assert_close(embeddings, reference(images).image_embeds, atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_bfloat16_stays_as_close_to_float32_as_transformers_does(models) -> None:  # type: ignore[no-untyped-def]
    config, reference, parameters = models
    images = _images(config)
    exact = reference(images).image_embeds
    halved = {name: parameter.bfloat16() for name, parameter in parameters.items()}
    patches = patchify(images.bfloat16(), config.patch_size)
    ours = encode(config, DenseWeights(halved, config.layer_norm_eps), patches)
    theirs: Any = CLIPVisionModelWithProjection(reference.config).eval()  # type: ignore[no-untyped-call]
    theirs.load_state_dict(reference.state_dict())
    theirs_error = (theirs.bfloat16()(images.bfloat16()).image_embeds.float() - exact).norm()
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).norm() < 1.5 * theirs_error


@torch.inference_mode()
@pytest.mark.parametrize("token", ["class", "mean"])
def test_the_first_pass_returns_what_enters_the_mlp(models, token: str) -> None:  # type: ignore[no-untyped-def]
    config, reference, parameters = models
    images = _images(config)
    entered: list[Tensor] = []
    layers = [m for n, m in reference.named_modules() if n.endswith(".mlp")]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0]))
    reference(images)
    for layer, expected in enumerate(entered):
        names = first_pass_parameters(parameters, layer)
        weights = DenseWeights({name: parameters[name] for name in names}, config.layer_norm_eps)
        features = first_pass(config, weights, patchify(images, config.patch_size), layer, token)
        wanted = expected[:, 0] if token == "class" else expected.mean(1)
        torch.testing.assert_close(features, wanted, atol=2e-5, rtol=1e-5)


def test_the_first_pass_reads_each_of_the_parameters_it_names() -> None:
    config = SHAPES[0]
    shapes = tiny.parameter_shapes(config)
    names = first_pass_parameters(shapes, 1)
    assert "blocks.1.layer_norm2.bias" in names
    assert "blocks.1.attention.out.weight" in names
    assert not any(
        name.startswith(("blocks.1.mlp", "blocks.2", "post_layernorm", "projection")) for name in names
    )
    for name in names:
        parameters = {n: torch.zeros(shapes[n]) for n in names - {name}}
        with pytest.raises(KeyError):
            first_pass(config, _StrictWeights(parameters), torch.zeros(1, 16, 192), 1, "class")


class _StrictWeights(DenseWeights):
    """Dense weights that never take a missing bias for a linear without one."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__(parameters, 1e-5)

    def linear(self, name: str, x: Tensor, **options: Any) -> Tensor:
        if name not in ("patch_embedding", "projection"):
            self.parameters[f"{name}.bias"]
        return super().linear(name, x, **options)


def test_patches_are_in_the_order_of_a_convolution() -> None:
    images, weight = torch.randn(2, 3, 24, 24), torch.randn(10, 3, 8, 8)
    expected = torch.nn.functional.conv2d(images, weight, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patchify(images, 8) @ weight.flatten(1).T, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [((8, 30, 64, 1, 4, 8), "patch_size"), ((32, 8, 65, 1, 4, 8), "heads")],
)
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        EncoderConfig(*sizes)  # type: ignore[arg-type]

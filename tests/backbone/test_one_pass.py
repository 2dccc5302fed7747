"""The encoder against transformers' CLIP on random weights of several shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mass_serve.backbone import (
    Architecture,
    Block,
    DenseWeights,
    Feature,
    PassResult,
    PatchEmbedding,
    Probe,
    patchify,
    run,
)
from mass_serve.backbone.architecture import AttentionPooling, Token
from mass_serve.kernels import TaskDirections, subspace_energies
from mass_serve.model_store.readers.checkpoint import Checkpoint
from tests import tiny
from tests.encoders import ENCODERS

SHAPES = [
    tiny.architecture(32, 8, 64, 3, 4, 256, "quick_gelu", 1e-5, 32),
    tiny.architecture(70, 16, 48, 2, 3, 100, "gelu", 1e-5, 40),
    tiny.architecture(28, 14, 40, 4, 5, 72, "quick_gelu", 1e-6, 16),
    tiny.architecture(24, 4, 32, 1, 1, 128, "gelu", 1e-5, 8),
]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda a: f"{a.width}x{a.depth}")
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Architecture, CLIPVisionModelWithProjection, dict[str, Tensor]]:
    """A transformers model, and its weights as our checkpoint reader gives them."""
    config: Architecture = request.param
    torch.manual_seed(config.width)
    reference: Any = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.block.mlp_width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.block.num_attention_heads,
            image_size=config.patches.image_size,
            patch_size=config.patches.patch_size,
            projection_dim=config.embedding_dim,
            hidden_act=config.block.activation,
            layer_norm_eps=config.block.layer_norm_eps,
        )
    ).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():  # initialised biases are zero and would hide a mistake
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("clip")
    reference.save_pretrained(folder)
    checkpoint = Checkpoint.open(folder)
    return config, reference, {name: checkpoint.parameter(name) for name in config.parameter_shapes()}


def _images(config: Architecture) -> Tensor:
    return torch.randn(5, 3, config.patches.image_size, config.patches.image_size)


def _features(
    config: Architecture, weights: DenseWeights, patches: Tensor, layer: int, token: Token
) -> Tensor:
    return run(config, weights, patches, stop="feature", probe=Probe(feature=Feature(layer, token))).feature


@torch.inference_mode()
def test_the_embeddings_are_those_of_transformers(models) -> None:  # type: ignore[no-untyped-def]
    config, reference, parameters = models
    images = _images(config)
    patches = patchify(images, config.patches.patch_size)
    embeddings = run(config, DenseWeights(parameters), patches).embedding
    torch.testing.assert_close(embeddings, reference(images).image_embeds, atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_bfloat16_stays_as_close_to_float32_as_transformers_does(models) -> None:  # type: ignore[no-untyped-def]
    config, reference, parameters = models
    images = _images(config)
    exact = reference(images).image_embeds
    halved = {name: parameter.bfloat16() for name, parameter in parameters.items()}
    patches = patchify(images.bfloat16(), config.patches.patch_size)
    ours = run(config, DenseWeights(halved), patches).embedding
    theirs: Any = CLIPVisionModelWithProjection(reference.config).eval()  # type: ignore[no-untyped-call]
    theirs.load_state_dict(reference.state_dict())
    theirs_error = (theirs.bfloat16()(images.bfloat16()).image_embeds.float() - exact).norm()
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).norm() < 1.5 * theirs_error


@torch.inference_mode()
@pytest.mark.parametrize("token", ["class", "mean"])
def test_the_first_pass_returns_what_enters_the_mlp(models, token: Token) -> None:  # type: ignore[no-untyped-def]
    config, reference, parameters = models
    images = _images(config)
    entered: list[Tensor] = []
    layers = [m for n, m in reference.named_modules() if n.endswith(".mlp")]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0]))
    reference(images)
    for layer, expected in enumerate(entered):
        names = config.first_pass_parameters(parameters, layer)
        weights = DenseWeights({name: parameters[name] for name in names})
        features = _features(config, weights, patchify(images, config.patches.patch_size), layer, token)
        wanted = expected[:, 0] if token == "class" else expected.mean(1)
        torch.testing.assert_close(features, wanted, atol=2e-5, rtol=1e-5)


def test_the_first_pass_reads_each_of_the_parameters_it_names() -> None:
    config = SHAPES[0]
    shapes = config.parameter_shapes()
    names = config.first_pass_parameters(shapes, 1)
    assert "blocks.1.layer_norm2.bias" in names
    assert "blocks.1.attention.out.weight" in names
    assert not any(
        name.startswith(("blocks.1.mlp", "blocks.2", "post_layernorm", "projection")) for name in names
    )
    for name in names:
        parameters = {n: torch.zeros(shapes[n]) for n in names - {name}}
        with pytest.raises(KeyError):
            _features(config, _StrictWeights(parameters), torch.zeros(1, 16, 192), 1, "class")


class _StrictWeights(DenseWeights):
    """Dense weights that never take a missing bias for a linear without one."""

    def linear(self, name: str, x: Tensor, **options: Any) -> Tensor:
        if name not in ("patch_embedding", "projection"):
            self.parameters[f"{name}.bias"]
        return super().linear(name, x, **options)


def test_patches_are_in_the_order_of_a_convolution() -> None:
    images, weight = torch.randn(2, 3, 24, 24), torch.randn(10, 3, 8, 8)
    expected = torch.nn.functional.conv2d(images, weight, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patchify(images, 8) @ weight.flatten(1).T, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def tiny_pass() -> tuple[DenseWeights, Tensor, PassResult]:
    """Weights, patches, and a whole pass over them with everything measured."""
    torch.manual_seed(1)
    patches = patchify(torch.randn(9, 3, 32, 32), tiny.CONFIG.patches.patch_size)
    weights = DenseWeights(tiny.pretrained(tiny.CONFIG))
    return weights, patches, run(tiny.CONFIG, weights, patches, probe=Probe(_bases(2), Feature(1, "mean")))


def _bases(stop: int) -> dict[str, TaskDirections]:
    columns = torch.linalg.qr(torch.randn(3, tiny.CONFIG.width, 5)).Q
    directions = TaskDirections.of(list(columns.transpose(1, 2)))
    return dict.fromkeys(tiny.CONFIG.early_linears(stop)[:-1], directions)


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_a_pass_that_goes_on_ends_as_a_whole_one(
    tiny_pass: tuple[DenseWeights, Tensor, PassResult], start: int
) -> None:
    weights, patches, whole = tiny_pass
    begun = run(tiny.CONFIG, weights, patches, stop=start)
    assert begun.tokens.shape == (9, tiny.CONFIG.num_tokens, tiny.CONFIG.width)
    ended = run(tiny.CONFIG, weights, begun.tokens, start=start)
    assert torch.equal(ended.embedding, whole.embedding)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (1, 1), (2, 1)])
def test_a_pass_of_no_block_is_refused(start: int, stop: int) -> None:
    """What it returned would be the caller's own tokens, or a buffer that the next pass writes into."""
    weights, tokens = DenseWeights(tiny.pretrained(tiny.CONFIG)), torch.zeros(1, 17, 64)
    with pytest.raises(ValueError, match=f"from block {start} to block {stop} has no block"):
        run(tiny.CONFIG, weights, tokens, start, stop)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("token", ["class", "mean"])
def test_the_feature_is_the_same_wherever_the_pass_stops(
    tiny_pass: tuple[DenseWeights, Tensor, PassResult], layer: int, token: Token
) -> None:
    weights, patches, whole = tiny_pass
    probe = Probe(feature=Feature(layer, token))
    stopped = run(tiny.CONFIG, weights, patches, stop="feature", probe=probe)
    passed = run(tiny.CONFIG, weights, patches, probe=probe)
    left = run(tiny.CONFIG, weights, patches, stop=3, probe=probe)
    assert torch.equal(stopped.feature, passed.feature)
    assert torch.equal(stopped.feature, left.feature)
    assert torch.equal(passed.embedding, whole.embedding)
    with pytest.raises(KeyError):
        _ = stopped.embedding


def test_energies_are_those_of_every_third_token_that_enters_a_linear(
    tiny_pass: tuple[DenseWeights, Tensor, PassResult],
) -> None:
    weights, patches, whole = tiny_pass
    bases = _bases(1) | {tiny.CONFIG.early_linears(1)[-1]: _bases(1)["blocks.0.mlp.fc1"]}
    early = run(tiny.CONFIG, weights, patches, stop=1, probe=Probe(bases))
    assert early.energies.shape == (9, 3, 3)
    assert torch.equal(early.tokens, run(tiny.CONFIG, weights, patches, stop=1).tokens)
    entering = weights.layer_norm("blocks.1.layer_norm1", early.tokens, 1e-5)[:, ::3]
    assert torch.equal(early.energies[:, -1], subspace_energies(entering, bases["blocks.1.attention.qkv"]))
    assert whole.energies.shape == (9, 5, 3)


@pytest.mark.parametrize("token", ["class", "mean"])
def test_energies_may_be_those_of_one_token(
    tiny_pass: tuple[DenseWeights, Tensor, PassResult], token: Token
) -> None:
    weights, patches, _ = tiny_pass
    bases = {tiny.CONFIG.early_linears(1)[-1]: _bases(1)["blocks.0.mlp.fc1"]}
    early = run(tiny.CONFIG, weights, patches, stop=1, probe=Probe(bases, token=token))
    entering = weights.layer_norm("blocks.1.layer_norm1", early.tokens, 1e-5)
    of_token = entering[:, :1] if token == "class" else entering.mean(1, keepdim=True)
    assert torch.equal(early.energies[:, 0], subspace_energies(of_token, bases["blocks.1.attention.qkv"]))


@pytest.mark.parametrize(
    ("start", "stop", "probe"),
    [
        (None, "feature", Probe()),
        (2, "embedding", Probe(feature=Feature(1, "class"))),
        (None, 1, Probe(feature=Feature(1, "class"))),
        (None, 1, Probe({"blocks.2.mlp.fc1": TaskDirections.of([torch.zeros(1, 64)])})),
        # The last block's MLP has one token alone.
        (None, "embedding", Probe({"blocks.2.mlp.fc1": TaskDirections.of([torch.zeros(1, 64)])})),
    ],
)
def test_what_is_not_on_the_pass_cannot_be_measured(start: int | None, stop: Any, probe: Probe) -> None:
    weights, config = DenseWeights(tiny.pretrained(tiny.CONFIG)), tiny.CONFIG
    x = torch.zeros(1, 16, 192) if start is None else torch.zeros(1, 17, 64)
    with pytest.raises(ValueError, match=r"on a pass|on the pass|needs a probe"):
        run(config, weights, x, start, stop, probe)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_every_choice_of_parts_gives_an_image_the_same_bits_in_every_batch(
    name: str, dtype: torch.dtype
) -> None:
    config = ENCODERS[name]
    torch.manual_seed(0)
    weights, patches = DenseWeights(tiny.pretrained(config, dtype)), _patches(config, 21).to(dtype)
    probe = Probe(feature=Feature(config.depth - 1, "mean"))
    whole = run(config, weights, patches, probe=probe)
    for start, stop in ((0, 1), (3, 5), (7, 16), (1, 20), (20, 21)):
        part = run(config, weights, patches[start:stop], probe=probe)
        assert torch.equal(part.embedding, whole.embedding[start:stop])
        assert torch.equal(part.feature, whole.feature[start:stop])
    begun = run(config, weights, patches, stop=1)
    if config.depth > 1:
        assert torch.equal(run(config, weights, begun.tokens, start=1).embedding, whole.embedding)


@pytest.mark.parametrize("name", ENCODERS)
@torch.inference_mode()
def test_an_embedding_is_what_its_pooling_makes_of_the_last_tokens(name: str) -> None:
    config = ENCODERS[name]
    torch.manual_seed(0)
    parameters, patches = tiny.pretrained(config), _patches(config, 3)
    result = run(config, DenseWeights(parameters), patches)
    leaving = run(config, DenseWeights(parameters), patches, stop=config.depth).tokens
    weight, bias = (parameters.get(f"post_layernorm.{kind}") for kind in ("weight", "bias"))
    eps = config.block.layer_norm_eps
    of_patches = slice(config.patches.tokens_before_patches, None)
    normed = torch.nn.functional.layer_norm(leaving, [config.width], weight, bias, eps)
    if isinstance(config.pooling, AttentionPooling):
        torch.testing.assert_close(
            result.embedding, _attended(parameters, config, normed), atol=1e-5, rtol=1e-5
        )
        return
    pooled = {
        "class": normed[:, 0],
        "mean": normed[:, of_patches].mean(1),
        "class_and_mean": torch.cat([normed[:, 0], normed[:, of_patches].mean(1)], 1),
        "mean_before_norm": torch.nn.functional.layer_norm(
            leaving[:, of_patches].mean(1), [config.width], weight, bias, eps
        ),
        "mean_without_norm": leaving[:, of_patches].mean(1),
    }[config.pooling.pooled]
    if "projection.weight" in parameters:
        pooled = pooled @ parameters["projection.weight"].T
    assert result.embedding.shape == (3, config.embedding_dim)
    torch.testing.assert_close(result.embedding, pooled, atol=1e-5, rtol=1e-5)


def _attended(parameters: dict[str, Tensor], config: Architecture, normed: Tensor) -> Tensor:
    """The attention pooling by torch's own multi-head attention."""
    part = config.pooling
    assert isinstance(part, AttentionPooling)
    own = {
        name.removeprefix("attention_pooling."): value
        for name, value in parameters.items()
        if name.startswith("attention_pooling.")
    }
    attend = torch.nn.MultiheadAttention(config.width, part.num_attention_heads, batch_first=True)
    attend.load_state_dict(
        {
            "in_proj_weight": own["attention.qkv.weight"],
            "in_proj_bias": own["attention.qkv.bias"],
            "out_proj.weight": own["attention.out.weight"],
            "out_proj.bias": own["attention.out.bias"],
        }
    )
    y: Tensor = attend(own["probe"].expand(len(normed), 1, -1), normed, normed)[0][:, 0]
    norm = own["layer_norm.weight"], own["layer_norm.bias"]
    hidden = torch.nn.functional.layer_norm(y, [config.width], *norm, config.block.layer_norm_eps)
    hidden = hidden @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"]
    hidden = torch.nn.functional.gelu(hidden, approximate="tanh") @ own["mlp.fc2.weight"].T
    return y.add(hidden).add(own["mlp.fc2.bias"])


def test_a_router_cannot_look_at_a_class_token_that_is_not_there() -> None:
    config = ENCODERS["no class token"]
    weights, probe = DenseWeights(tiny.pretrained(config)), Probe(feature=Feature(0, "class"))
    with pytest.raises(ValueError, match="cannot be of the class token"):
        run(config, weights, _patches(config, 1), probe=probe)


def _patches(config: Architecture, images: int) -> Tensor:
    return torch.randn(
        images,
        (config.patches.image_size // config.patches.patch_size) ** 2,
        config.patches.patch_width,
    )


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_size"):
        PatchEmbedding(8, 30)
    with pytest.raises(ValueError, match="heads"):
        Block(65, 4, 8, "gelu", 1e-5)

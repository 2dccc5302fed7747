"""ViT, DeiT and DINOv2 against transformers on random weights of several shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mass_serve.backbone import DenseWeights, Pooling, patchify, run
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from tests.vision_transformers import make_model, save_model

CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("ViTModel", {"num_hidden_layers": 3}, 32),
    "vit, odd": ("ViTModel", {"image_size": 33, "patch_size": 11, "num_attention_heads": 2}, 33),
    "vit, no qkv bias": ("ViTModel", {"qkv_bias": False, "hidden_act": "gelu_pytorch_tanh"}, 32),
    "vit, patches that do not fill": ("ViTForImageClassification", {"image_size": 30, "num_labels": 7}, 30),
    "vit, no classifier": ("ViTForImageClassification", {"num_labels": 0}, 32),
    "deit": ("DeiTModel", {}, 32),
    "deit, classifier": ("DeiTForImageClassification", {"num_labels": 5, "num_hidden_layers": 1}, 32),
    "dinov2": ("Dinov2Model", {}, 32),
    "dinov2, no qkv bias": ("Dinov2Model", {"qkv_bias": False, "mlp_ratio": 3}, 32),
    "dinov2, swiglu": ("Dinov2Model", {"use_swiglu_ffn": True, "hidden_size": 40}, 32),
    "dinov2, smaller images": ("Dinov2Model", {"image_size": 72}, 40),
    "dinov2, larger images": ("Dinov2Model", {"image_size": 24, "num_hidden_layers": 1}, 40),
    "dinov2, classifier": ("Dinov2ForImageClassification", {"num_labels": 4, "image_size": 45}, 30),
    "registers": ("Dinov2WithRegistersModel", {"num_register_tokens": 3}, 32),
    "registers, smaller images": ("Dinov2WithRegistersModel", {"image_size": 56}, 32),
    "registers, larger images": ("Dinov2WithRegistersModel", {"image_size": 24}, 40),
    "registers, classifier": (
        "Dinov2WithRegistersForImageClassification",
        {"num_labels": 4, "use_swiglu_ffn": True, "num_hidden_layers": 3},
        32,
    ),
}


def _tokens(model: Any, images: Tensor) -> Tensor:
    return model.base_model(images).last_hidden_state  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_the_embeddings_and_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    kind, changes, crop = CASES[case]
    model = make_model(kind, **changes)
    checkpoint = Checkpoint.open(save_model(model, tmp_path, crop))
    architecture, images = checkpoint.architecture, torch.randn(5, 3, crop, crop)
    parameters = {name: checkpoint.parameter(name) for name in architecture.parameter_shapes()}
    assert all(checkpoint.dtype(name) == parameter.dtype for name, parameter in parameters.items())
    patches = patchify(images, architecture.patches.patch_size)
    embeddings = run(architecture, DenseWeights(parameters), patches).embedding
    tokens = _tokens(model, images)
    wanted = tokens[:, 0]
    if architecture.pooling == Pooling(None, "class_and_mean"):
        rest = tokens[:, architecture.patches.tokens_before_patches :]
        wanted = torch.cat([wanted, rest.mean(1)], dim=1)
    torch.testing.assert_close(embeddings, wanted, atol=5e-5, rtol=2e-5)
    if classifier := checkpoint.classifier():
        logits = embeddings @ classifier["weight"].T + classifier["bias"]
        torch.testing.assert_close(logits, model(images).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ViTModel", "Dinov2Model"])
def test_weights_of_16_bits_keep_them_where_they_are_parameters_as_they_are(
    kind: str, tmp_path: Path
) -> None:
    """A layer scale is multiplied in float32, where the product of two 16-bit numbers is exact."""
    model = make_model(kind).bfloat16()
    checkpoint = Checkpoint.open(save_model(model, tmp_path))
    assert checkpoint.dtype("blocks.0.mlp.fc1.weight") == torch.bfloat16
    scaled = kind == "Dinov2Model"
    assert checkpoint.dtype("blocks.0.mlp.fc2.weight") == (torch.float32 if scaled else torch.bfloat16)
    if scaled:
        layer = model.encoder.layer[0]
        wanted = layer.layer_scale2.lambda1.double()[:, None] * layer.mlp.fc2.weight.double()
        assert torch.equal(checkpoint.parameter("blocks.0.mlp.fc2.weight").double(), wanted)


def test_a_fine_tuned_dinov2_without_preprocessing_takes_images_of_its_bases_size(tmp_path: Path) -> None:
    model = make_model("Dinov2Model", image_size=72)
    base = Checkpoint.open(save_model(model, tmp_path / "base", crop=40))
    model.save_pretrained(tmp_path / "task")
    alone = Checkpoint.open(tmp_path / "task").architecture.patches
    task = Checkpoint.open(tmp_path / "task", base=base.architecture)
    assert (alone.image_size, task.architecture.patches.image_size) == (72, 40)
    positions = task.architecture.patches.positions
    assert torch.equal(task.parameter(positions), base.parameter(positions))


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("ViTModel", {"num_channels": 1}, "num_channels must be 3, found 1"),
        ("ViTModel", {"hidden_act": "relu"}, "hidden_act must be gelu or quick_gelu or .*, found 'relu'"),
        (
            "ViTModel",
            {"image_size": [32, 40]},
            r"image_size must be one edge length in pixels, found \[32",
        ),
        ("ViTModel", {"hidden_size": 30}, "width 30 is not a multiple of 4 attention heads"),
        ("ViTModel", {"num_hidden_layers": 3}, "missing encoder.layer.2."),
        ("ViTModel", {"num_hidden_layers": 1}, "unexpected encoder.layer.1."),
        ("ViTModel", {"qkv_bias": False}, "unexpected encoder.layer.0.attention.attention.key.bias"),
        ("ViTModel", {"qkv_bias": "yes"}, r"qkv_bias: Input should be a valid boolean"),
        (
            "ViTModel",
            {"image_size": 40},
            r"position_embeddings has shape \[1, 17, 32\], expected \[1, 26, 32\]",
        ),
        (
            "ViTModel",
            {"model_type": "swin"},
            "model_type is 'swin', but only CLIP.*ViT and DeiT.*DINOv2.*can",
        ),
        ("Dinov2Model", {"image_size": 7}, "patch_size 8 exceeds image_size 7"),
        ("Dinov2Model", {"mlp_ratio": "4"}, "mlp_ratio must be numbers from 0 to 65536, found 32 and 4"),
        ("Dinov2Model", {"mlp_ratio": 1e308}, "mlp_ratio must be numbers .*, found 32 and 1e.308"),
        ("Dinov2Model", {"use_swiglu_ffn": True}, "missing encoder.layer.0.mlp.weights_in"),
        (
            "Dinov2Model",
            {"image_size": 40},
            r"position_embeddings has shape \[1, 17, 32\], expected \[1, 26, 32\]",
        ),
        ("Dinov2Model", {"image_size": None}, "image_size must be one edge length in pixels, found None"),
        (
            "Dinov2WithRegistersModel",
            {"num_register_tokens": 2},
            r"register_tokens has shape \[1, 4, 32\], expec",
        ),
        ("Dinov2WithRegistersModel", {"num_register_tokens": -1}, r"registers: Input should be greater"),
        ("Dinov2WithRegistersModel", {"model_type": "dinov2"}, "unexpected embeddings.register_tokens"),
    ],
)
def test_what_is_refused(kind: str, change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    save_model(make_model(kind), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("encoder.layer.0.layer_scale1.lambda1", torch.ones(3), r"lambda1 has shape \[3\], expected \[32\]"),
        ("encoder.layer.1.layer_scale2.lambda1", None, "missing encoder.layer.1.layer_scale2.lambda1"),
        ("encoder.layer.1.mlp.surprise", torch.ones(3), "unexpected encoder.layer.1.mlp.surprise"),
    ],
)
def test_tensors_that_are_refused(key: str, value: Tensor | None, sentence: str, tmp_path: Path) -> None:
    save_model(make_model("Dinov2Model"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop(key, None)
    save_file(tensors | ({} if value is None else {key: value}), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)


def test_a_layer_scale_that_is_no_number_is_found_when_it_is_read(tmp_path: Path) -> None:
    save_model(make_model("Dinov2Model"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.layer.0.layer_scale1.lambda1"][0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    with pytest.raises(CheckpointError, match="lambda1 holds NaN"):
        checkpoint.parameter("blocks.0.attention.out.bias")


def test_a_layer_scale_that_makes_numbers_too_large_is_found_when_it_is_read(tmp_path: Path) -> None:
    save_model(make_model("Dinov2Model"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("layer_scale1.lambda1", "attention.output.dense.weight"):
        tensors[f"encoder.layer.0.{name}"].fill_(1e20)
    save_file(tensors, tmp_path / "model.safetensors")
    sentence = (
        r"dense\.weight and .*layer_scale1\.lambda1 make of blocks\.0\.attention\.out\.weight holds NaN, Inf"
    )
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path).parameter("blocks.0.attention.out.weight")


@pytest.mark.parametrize(
    ("crop", "sentence"),
    [
        (129, "images are cut to 129 pixels, but the positions were learned for 32: .* for 128 at most"),
        (7, "patch_size 8 exceeds image_size 7"),
    ],
)
def test_images_that_positions_cannot_be_interpolated_for_are_refused(
    crop: int, sentence: str, tmp_path: Path
) -> None:
    save_model(make_model("Dinov2Model"), tmp_path, crop)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)


def test_the_teachers_two_classifiers_are_no_head(tmp_path: Path) -> None:
    model = make_model("DeiTForImageClassificationWithTeacher", num_labels=4)
    checkpoint = Checkpoint.open(save_model(model, tmp_path))
    assert checkpoint.classifier() is None
    assert checkpoint.architecture.patches.num_registers == 1

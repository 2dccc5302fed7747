"""SigLIP against transformers on random weights of several shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_images
from torch import Tensor
from transformers import (
    SiglipConfig,
    SiglipForImageClassification,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from mass_serve.backbone import AttentionPooling, DenseWeights, Pooling, patchify, run
from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.store import Store
from tests.models import perturb, save_head

VISION: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = VISION | {"vocab_size": 50, "max_position_embeddings": 8}


def make_model(kind: str, labels: int = 3, **changes: Any) -> Any:
    """A model with nothing in it that is zero or one."""
    torch.manual_seed(0)
    vision = VISION | changes
    if kind == "vision":
        model: Any = SiglipVisionModel(SiglipVisionConfig(**vision))
    elif kind == "whole":
        model = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=vision))
    else:
        names = {row: f"class {row}" for row in range(labels)}
        config = SiglipConfig(text_config=TEXT, vision_config=vision, id2label=names)
        model = SiglipForImageClassification(config)
    perturb(model, 1, 0.05)
    model.eval()
    return model


def embedding(checkpoint: Checkpoint, pixels: Tensor) -> Tensor:
    architecture = checkpoint.architecture
    weights = DenseWeights({name: checkpoint.parameter(name) for name in architecture.parameter_shapes()})
    return run(architecture, weights, patchify(pixels, architecture.patches.patch_size)).embedding


SHAPES: list[dict[str, Any]] = [
    {},
    {"image_size": 30, "patch_size": 7, "num_attention_heads": 1, "num_hidden_layers": 1},
    {
        "image_size": 28,
        "patch_size": 14,
        "hidden_size": 48,
        "num_attention_heads": 3,
        "intermediate_size": 70,
    },
    {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 3},
]


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("kind", ["vision", "whole"])
@torch.inference_mode()
def test_embeddings_are_those_of_transformers(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = make_model(kind, **changes)
    model.save_pretrained(tmp_path)
    checkpoint, pixels = Checkpoint.open(tmp_path), torch.randn(5, 3, *2 * [changes.get("image_size", 32)])
    vision = model if kind == "vision" else model.vision_model
    torch.testing.assert_close(
        embedding(checkpoint, pixels), vision(pixels).pooler_output, atol=1e-5, rtol=1e-5
    )
    assert isinstance(checkpoint.architecture.pooling, AttentionPooling)
    assert checkpoint.architecture.tokens == ("mean",)


@pytest.mark.parametrize("changes", SHAPES)
@torch.inference_mode()
def test_a_classifiers_logits_are_those_of_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    model = make_model("classifier", **changes)
    model.save_pretrained(tmp_path)
    checkpoint, pixels = Checkpoint.open(tmp_path), torch.randn(5, 3, *2 * [changes.get("image_size", 32)])
    head = checkpoint.classifier()
    assert head is not None
    assert checkpoint.architecture.pooling == Pooling(None, "mean")
    logits = embedding(checkpoint, pixels) @ head["weight"].T + head["bias"]
    torch.testing.assert_close(logits, model(pixels).logits, atol=1e-5, rtol=1e-5)


def answers_are(folder: Path, models: dict[str, Any], logits_of: Any) -> None:
    """Holds a store of whole ranks to what the fine-tuned models say of photographs."""
    engine = Engine.load(str(folder), device="cpu")
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    pixels = SiglipImageProcessorPil(size={"height": 32, "width": 32})(photographs, return_tensors="pt")
    for name, model in models.items():
        with torch.inference_mode():
            expected = logits_of(name, model, pixels["pixel_values"])
        for answer, logits in zip(engine.classify(photographs, tasks=[name]), expected, strict=True):
            torch.testing.assert_close(answer.logits, logits, atol=1e-4, rtol=1e-4)
    assert len(engine.classify(photographs)) == 2, "the task is found without a class token"


# Models of random weights are further apart than fine-tuning ever goes.
EXACT = BuildOptions(compression_ratio=1, block_dtype="float32", force=True)


def finetuned(kind: str, folder: Path) -> dict[str, Any]:
    models = {}
    for seed, name in enumerate(("pets", "cars"), start=1):
        models[name] = make_model(kind, *([2 + seed] if kind == "classifier" else []))
        perturb(models[name], 10 + seed, 0.03)
        models[name].save_pretrained(folder / name)
    return models


def test_a_store_of_classifiers_answers_as_in_transformers(tmp_path: Path) -> None:
    """The pretrained model pools by attention, and its classifiers do not."""
    make_model("whole").save_pretrained(tmp_path / "base")
    models = finetuned("classifier", tmp_path)
    build(tmp_path / "base", [TaskInput(name, tmp_path / name) for name in models], tmp_path / "store", EXACT)
    backbone = Store.open(tmp_path / "store").manifest.backbone
    assert backbone.pooling == Pooling(None, "mean")
    answers_are(tmp_path / "store", models, lambda _, model, pixels: model(pixels).logits)


def test_a_store_that_pools_by_attention_answers_as_in_transformers(tmp_path: Path) -> None:
    make_model("vision").save_pretrained(tmp_path / "base")
    models = finetuned("vision", tmp_path)
    for name in models:
        save_head(tmp_path / name, 4, 32, linear=True)
    build(tmp_path / "base", [TaskInput(name, tmp_path / name) for name in models], tmp_path / "store", EXACT)
    backbone = Store.open(tmp_path / "store").manifest.backbone
    assert backbone.pooling == AttentionPooling(4, 64, "gelu_tanh")
    assert Store.open(tmp_path / "store").manifest.format_version == 2

    def logits_of(name: str, model: Any, pixels: Tensor) -> Tensor:
        head = load_file(tmp_path / name / "head.safetensors")
        logits: Tensor = model(pixels).pooler_output @ head["weight"].T + head["bias"]
        return logits

    answers_are(tmp_path / "store", models, logits_of)


def test_a_pretrained_model_without_the_pooling_of_its_tasks(tmp_path: Path) -> None:
    make_model("classifier").save_pretrained(tmp_path / "base")
    finetuned("vision", tmp_path)
    save_head(tmp_path / "pets", 4, 32)
    sentence = (
        r"head takes 32 numbers \(num_attention_heads 4, .* has no attention_pooling\.probe: give the one"
    )
    with pytest.raises(CheckpointError, match=sentence):
        build(tmp_path / "base", [TaskInput("pets", tmp_path / "pets")], tmp_path / "store", EXACT)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "siglip2"}, r"'siglip2' cuts images of any shape into patches \(naflex\)"),
        ({"model_type": "siglip2_vision_model"}, "take a SigLIP 2 of a fixed resolution"),
        ({"num_channels": 1}, "num_channels must be 3, found 1"),
        ({"hidden_act": "relu"}, "hidden_act must be gelu or .*, found 'relu'"),
        ({"num_attention_heads": 5}, "width 32 is not a multiple of 5"),
        ({"image_size": [32, 64]}, "image_size must be one edge length"),
        ({"image_size": 40}, r"position_embedding\.weight has shape \[16, 32\], expected \[25, 32\]"),
        ({"num_hidden_layers": 3}, r"missing encoder\.layers\.2"),
        ({"intermediate_size": 65}, r"has shape \[64"),
        ({"model_type": "siglip", "vision_config": [1]}, "vision_config must be an object"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    make_model("vision").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("head.attention.in_proj_weight", None, r"missing head\.attention\.in_proj_weight"),
        ("head.probe", torch.ones(1, 2, 32), r"head\.probe has shape \[1, 2, 32\], expected \[1, 1, 32\]"),
        ("head.surprise", torch.ones(1), r"unexpected .*head\.surprise"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    key: str, value: Tensor | None, sentence: str, tmp_path: Path
) -> None:
    make_model("vision").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    prefix = "vision_model." if "vision_model.head.probe" in weights else ""
    weights.pop(prefix + key, None)
    save_file(weights | ({} if value is None else {prefix + key: value}), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)

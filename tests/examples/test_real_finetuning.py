"""The real demo's models: the encoder out of an ONNX graph, and fine-tuning as its libraries save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model

from examples.real_demo.finetune import (
    Examples,
    Plan,
    accuracy,
    finetune,
    predict,
    read_examples,
    save,
    varied,
    with_classifier,
)
from examples.real_demo.pretrained import POSITION_NODES, RENAMED, SIZE, encoder_of
from examples.real_demo.tasks import Task

# The form of DINOv2, small, with weights so large that pictures make a difference before any training.
CONFIG = Dinov2Config(
    image_size=4 * 14,
    patch_size=14,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    initializer_range=0.3,
)
PLAN = Plan(steps=12)
FULL, LORA = Task("full", lambda _: ()), Task("lora", lambda _: (), lora_rank=2)


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    Dinov2Model(CONFIG).save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Pictures of two colours, which are easy to tell."""
    for label, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        for number in range(12):
            path = tmp_path / "pictures" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (28, 28), (colour[0], 8 * number, colour[2])).save(path)
    return read_examples(tmp_path / "pictures")


def test_pictures_are_preprocessed_and_labels_are_the_folders(examples: Examples) -> None:
    assert examples.labels == ("blue", "red")
    assert examples.pixels.shape == (24, 3, SIZE, SIZE)
    assert examples.targets.tolist() == [0] * 12 + [1] * 12
    assert examples.pixels[:12, 2].min() > examples.pixels[12:, 2].max()


def test_the_classifier_begins_where_logistic_regression_ends(pretrained: Path, examples: Examples) -> None:
    assert accuracy(with_classifier(pretrained, examples), examples) == 1.0


def test_a_full_fine_tuning_is_saved_as_transformers_saves_it(
    pretrained: Path, examples: Examples, tmp_path: Path
) -> None:
    before = Dinov2Model.from_pretrained(pretrained).state_dict()
    told: list[str] = []
    model = finetune(with_classifier(pretrained, examples), FULL, examples, Plan(steps=20), told.append)
    assert told[0].startswith("full: step 20 of 20, loss ")
    save(model, tmp_path / "task")
    again: Any = Dinov2ForImageClassification.from_pretrained(tmp_path / "task")
    again.eval()
    assert again.config.id2label == {0: "blue", 1: "red"}
    assert torch.equal(predict(again, examples.pixels), predict(model, examples.pixels))
    changed = [name for name, tensor in again.dinov2.state_dict().items() if not tensor.equal(before[name])]
    assert "encoder.layer.0.mlp.fc1.weight" in changed
    assert (tmp_path / "task" / "preprocessor_config.json").exists()


# peft asks transformers for what transformers calls deprecated.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.optional("real_demo")
def test_adapters_are_saved_as_peft_saves_them(pretrained: Path, examples: Examples, tmp_path: Path) -> None:
    from peft import PeftModel

    begun = with_classifier(pretrained, examples)
    model = finetune(begun, LORA, examples, PLAN)
    save(model, tmp_path / "task")
    assert {path.name for path in (tmp_path / "task").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "preprocessor_config.json",
    }
    base = with_classifier(pretrained, examples)
    again = PeftModel.from_pretrained(base, str(tmp_path / "task")).eval()
    with torch.no_grad():
        expected, found = model(examples.pixels).logits, again(examples.pixels).logits
    torch.testing.assert_close(found, expected)


def test_pictures_are_mirrored_only_where_that_keeps_the_label() -> None:
    torch.manual_seed(0)
    sides = torch.zeros(64, 3, SIZE, SIZE)
    sides[..., : SIZE // 2] = 1
    left = [varied(sides, mirrored)[..., : SIZE // 2].mean(dim=(1, 2, 3)) for mirrored in (True, False)]
    assert 16 < int((left[0] < 0.5).sum()) < 48
    assert not (left[1] < 0.5).any()


def graph_of(encoder: Any, without: str = "") -> Any:
    """The encoder's weights as the exporter names them."""
    from onnx import helper, numpy_helper

    weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items() if name != without}
    weights.pop("embeddings.mask_token")
    positions = weights.pop("embeddings.position_embeddings")
    nodes, tensors = [], []
    parts = dict(zip(POSITION_NODES, (positions[:, :1], positions[:, 1:]), strict=True))
    for name, weight in weights.items():
        for old, new in RENAMED.items():
            name = name.replace(new, old)
        linear = name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
        if name.startswith("encoder") and weight.ndim == 2:
            parts[f"/backbone/{linear}/MatMul"] = weight.T.copy()
        else:
            tensors.append(numpy_helper.from_array(weight, f"backbone.{name}"))
    for number, (node, weight) in enumerate(parts.items()):
        tensors.append(numpy_helper.from_array(weight, f"onnx::{number}"))
        nodes.append(helper.make_node("MatMul", ["x", f"onnx::{number}"], ["y"], name=node))
    return helper.make_graph(nodes, "saliency", [], [], tensors)


@pytest.mark.optional("real_demo")
def test_the_encoder_of_an_onnx_graph_has_its_weights() -> None:
    encoder: Any = Dinov2Model(CONFIG)
    found = encoder_of(graph_of(encoder), CONFIG).state_dict()
    for name, tensor in encoder.state_dict().items():
        if name != "embeddings.mask_token":
            assert torch.equal(found[name], tensor), name


@pytest.mark.optional("real_demo")
def test_a_graph_without_one_of_the_weights_is_an_error() -> None:
    graph = graph_of(Dinov2Model(CONFIG), without="encoder.layer.1.mlp.fc1.weight")
    with pytest.raises(RuntimeError, match=r"encoder\.layer\.1\.mlp\.fc1\.weight"):
        encoder_of(graph, CONFIG)

"""Heads and labels as users give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import read_head, read_labels

WEIGHT = torch.arange(6.0).reshape(3, 2)


def save(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "head.safetensors")
    return folder / "head.safetensors"


@pytest.mark.parametrize("scale", [torch.tensor(100.0), torch.tensor([100.0])])
def test_cosine_head(tmp_path: Path, scale: Tensor) -> None:
    head = read_head(save(tmp_path, {"weight": WEIGHT.half(), "logit_scale": scale}))
    assert (head.kind, head.shape, set(head.tensors)) == ("cosine", (3, 2), {"weight", "logit_scale"})
    assert (head.tensors["logit_scale"].shape, float(head.tensors["logit_scale"])) == ((), 100.0)
    assert torch.equal(head.tensors["weight"], WEIGHT)


def test_linear_head(tmp_path: Path) -> None:
    head = read_head(save(tmp_path, {"weight": WEIGHT, "bias": torch.ones(3)}))
    assert (head.kind, head.shape, set(head.tensors)) == ("linear", (3, 2), {"weight", "bias"})
    assert torch.equal(head.tensors["bias"], torch.ones(3))


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"weight": WEIGHT}, r"needs `weight` and either `logit_scale` .* or `bias`"),
        ({"weight": WEIGHT, "bias": torch.ones(3), "logit_scale": torch.ones(1)}, "found bias, logit_scale"),
        ({"weight": WEIGHT, "bias": torch.ones(2)}, r"bias has shape \[2\], expected \[3\]"),
        ({"weight": torch.ones(3), "bias": torch.ones(3)}, r"weight must be \[classes, width\]"),
        ({"weight": WEIGHT, "logit_scale": torch.tensor(0.0)}, "one positive number"),
        ({"weight": WEIGHT, "logit_scale": torch.ones(3)}, "one positive number"),
        ({"weight": WEIGHT * float("nan"), "bias": torch.ones(3)}, "weight holds NaN, Inf"),
        ({"weight": WEIGHT.double() * 1e300, "bias": torch.ones(3)}, "weight holds .* float32 cannot hold"),
        ({"weight": WEIGHT, "logit_scale": torch.tensor(1e-60, dtype=torch.float64)}, "one positive number"),
        ({"weight": WEIGHT.int(), "bias": torch.ones(3)}, "weight must be floating-point"),
    ],
)
def test_wrong_heads(tmp_path: Path, tensors: dict[str, Tensor], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_head(save(tmp_path, tensors))


def test_a_head_may_have_the_names_of_a_classification_model(tmp_path: Path) -> None:
    bias = torch.ones(3)
    head = read_head(save(tmp_path, {"classifier.weight": WEIGHT, "classifier.bias": bias}))
    assert head.kind == "linear"
    assert torch.equal(head.tensors["weight"], WEIGHT)
    with pytest.raises(CheckpointError, match=r"found bias, classifier\.weight"):
        read_head(save(tmp_path, {"classifier.weight": WEIGHT, "bias": bias}))


def test_missing_and_truncated_heads(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_head(tmp_path / "head.safetensors")
    path = save(tmp_path, {"weight": WEIGHT, "bias": torch.ones(3)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        read_head(path)


def test_labels_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(["zeta", "alpha", "η"]))
    assert read_labels(path) == ("zeta", "alpha", "η")


@pytest.mark.parametrize("inside", [True, False], ids=["config.json", "alone"])
def test_labels_may_be_told_by_row(inside: bool, tmp_path: Path) -> None:
    by_row = {str(row): f"class {row}" for row in (10, 2, 1, 0, *range(3, 10))}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"model_type": "clip", "id2label": by_row} if inside else by_row))
    assert read_labels(path) == tuple(f"class {row}" for row in range(11))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "must hold a JSON list of class names"),
        ('{"0": "a", "2": "b"}', "or an object of them by row from 0 on"),
        ('{"cat": 0, "dog": 1}', "or an object of them by row from 0 on"),
        ('{"id2label": ["a"]}', "or an object of them by row from 0 on"),
        ('{"0": "a", "1": "a"}', "holds the label 'a' twice"),
        ('["a", 1]', "must hold a JSON list of class names"),
        ('["a", ""]', "must hold a JSON list of class names"),
        ('["a", "b", "a"]', "holds the label 'a' twice"),
        (r'["\ud800"]', "surrogate"),
        ("[", "is not valid JSON: .*: give a JSON list of the class names"),
    ],
)
def test_wrong_labels(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        read_labels(path)

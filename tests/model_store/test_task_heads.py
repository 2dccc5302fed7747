"""Classifiers that fine-tuned checkpoints hold, as the heads of tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPForImageClassification

from mass_serve.backbone import DenseWeights, patchify, run
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput, plan_task
from mass_serve.model_store.prepared import Prepared
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.preprocessing import read_preprocessing
from mass_serve.model_store.readers.stored_base import StoredBase
from mass_serve.model_store.task_heads import LabelledHead, read_labelled_head
from tests.models import TEXT, VISION, perturb, save_head

NAMES = {0: "cat", 1: "dog", 2: "owl"}


def save_classifier(folder: Path, **changes: Any) -> Any:
    """A CLIP that classifies by itself."""
    torch.manual_seed(0)
    vision = VISION | {"image_size": 36} | changes.pop("vision", {})
    config = CLIPConfig(text_config=TEXT, vision_config=vision, **{"id2label": NAMES} | changes)
    model: Any = CLIPForImageClassification(config)
    model.eval()
    perturb(model, 1, 0.05)
    model.save_pretrained(folder)
    return model


def head_of(folder: Path, head: Path | None = None, labels: Path | None = None, **said: Any) -> LabelledHead:
    return read_labelled_head("pets", Checkpoint.open(folder), head, labels, **said)


@pytest.mark.parametrize("vision", [{}, {"hidden_size": 48, "num_attention_heads": 3, "patch_size": 9}])
def test_a_classifier_answers_as_it_does_in_transformers(vision: dict[str, int], tmp_path: Path) -> None:
    model = save_classifier(tmp_path, vision=vision)
    checkpoint, found = Checkpoint.open(tmp_path), head_of(tmp_path)
    architecture = checkpoint.architecture
    weights = DenseWeights({name: checkpoint.parameter(name) for name in architecture.parameter_shapes()})
    pixels = torch.randn(3, 3, 36, 36)
    with torch.inference_mode():
        embedding = run(architecture, weights, patchify(pixels, architecture.patches.patch_size)).embedding
        expected = model(pixels).logits
    logits = embedding @ found.head.tensors["weight"].T + found.head.tensors["bias"]
    assert found.labels == ("cat", "dog", "owl")
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_files_go_before_what_the_checkpoint_holds(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    save_head(tmp_path, 3, 32)
    assert head_of(tmp_path).labels == ("class 0", "class 1", "class 2")
    assert head_of(tmp_path).head.kind == "cosine"
    (tmp_path / "head.safetensors").unlink()
    assert head_of(tmp_path).labels == ("class 0", "class 1", "class 2")
    assert head_of(tmp_path).head.kind == "linear"
    (tmp_path / "labels.json").unlink()
    (tmp_path / "mine.json").write_text('["a", "b", "c"]')
    assert head_of(tmp_path, labels=tmp_path / "mine.json").labels == ("a", "b", "c")
    (tmp_path / "other").mkdir()
    save_head(tmp_path / "other", 3, 32)
    with pytest.raises(CheckpointError, match=r"labels\.json does not exist: give --labels pets=FILE"):
        head_of(tmp_path, head=tmp_path / "other" / "head.safetensors")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"problem_type": "regression"}, "problem_type 'regression', but a task of a store gives .* labels"),
        ({"id2label": {0: "score"}}, "has one row, as that of a regression"),
        ({"id2label": {0: "crane", 1: "crane", 2: "owl"}}, "holds the label 'crane' twice"),
    ],
)
def test_classifiers_that_are_no_heads(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    save_classifier(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        head_of(tmp_path)


def test_a_checkpoint_says_that_inputs_have_any_number_of_its_labels(tmp_path: Path) -> None:
    save_classifier(tmp_path, problem_type="multi_label_classification")
    assert head_of(tmp_path).head.thresholds == (0.5, 0.5, 0.5)
    assert head_of(tmp_path).head.spec.is_multi_label
    save_head(tmp_path, 3, 32)  # in place of its own classifier
    assert head_of(tmp_path).head.thresholds == (0.5, 0.5, 0.5)


def test_a_user_says_so_where_the_checkpoint_does_not(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    assert head_of(tmp_path).head.thresholds is None
    assert head_of(tmp_path, multi_label=True).head.thresholds == (0.5, 0.5, 0.5)


def test_thresholds_come_from_a_file_and_are_the_usual_of_labels_that_it_leaves_out(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    (tmp_path / "mine.json").write_text('{"owl": 0.25, "cat": 1}')
    found = head_of(tmp_path, thresholds=tmp_path / "mine.json")
    assert found.head.thresholds == (1.0, 0.5, 0.25)
    assert tmp_path / "mine.json" in found.files
    (tmp_path / "thresholds.json").write_text('{"dog": 0}')
    assert head_of(tmp_path).head.thresholds == (0.5, 0.0, 0.5)
    assert head_of(tmp_path, thresholds=tmp_path / "mine.json").head.thresholds == found.head.thresholds


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"cat": NaN}', "is not valid JSON: NaN is not a finite number"),
        ('{"cat": 1e999}', "is not valid JSON: 1e999 is not a finite number"),
        ('{"cat": 1.5}', "threshold of 'cat' must be a number from 0 to 1, and is '1.5'"),
        ('{"cat": -0.1}', "must be a number from 0 to 1, and is '-0.1'"),
        ('{"cat": true}', "must be a number from 0 to 1, and is 'True'"),
        ('{"cat": "0.5"}', "must be a number from 0 to 1, and is '0.5'"),
        ('{"cat": null}', "must be a number from 0 to 1, and is 'None'"),
        ('{"horse": 0.5}', "a threshold for 'horse', which is no label of the head"),
        ('{"cat": 0.1, "cat": 0.9}', "the key 'cat' is there twice"),
        ("[0.5, 0.5, 0.5]", "must hold a JSON object of labels and their thresholds"),
        ("{", "is not valid JSON"),
    ],
)
def test_thresholds_that_are_none(content: str, sentence: str, tmp_path: Path) -> None:
    save_classifier(tmp_path)
    (tmp_path / "thresholds.json").write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        head_of(tmp_path)


def test_a_single_label_is_there_or_not(tmp_path: Path) -> None:
    save_classifier(tmp_path, id2label={0: "spam"})
    assert head_of(tmp_path, multi_label=True).head.thresholds == (0.5,)


def test_two_classes_without_names_have_those_of_transformers(tmp_path: Path) -> None:
    model = save_classifier(tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    assert head_of(tmp_path).labels == tuple(model.config.id2label.values())
    (tmp_path / "labels.json").write_text('["no", "yes"]')
    assert head_of(tmp_path).labels == ("no", "yes")


def test_more_classes_without_names_are_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json has no id2label: put labels\.json into"):
        head_of(tmp_path)


def test_a_classifier_of_another_dtype_is_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].to(torch.float8_e4m3fn)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"classifier\.weight must be float64, float32, float16 or"):
        head_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda weights: weights.pop("classifier.bias"), "pets: the classifier in .*: a head needs `weight`"),
        (lambda weights: weights.pop("classifier.weight"), "found bias"),
        (
            lambda weights: weights.update({"classifier.bias": torch.ones(4)}),
            r"classifier in .*bias has shape \[4\], expected \[3\]",
        ),
        (
            lambda weights: weights.update({"classifier.weight": torch.full((3, 32), float("nan"))}),
            r"classifier\.weight holds NaN",
        ),
        (
            lambda weights: weights.update({"visual_projector.weight": torch.ones(16, 32)}),
            r"unexpected visual_projector\.weight",
        ),
    ],
)
def test_damaged_classifiers(
    change: Callable[[dict[str, Tensor]], object], sentence: str, tmp_path: Path
) -> None:
    save_classifier(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        head_of(tmp_path)


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "cat", "1": "dog"}}))
    with pytest.raises(CheckpointError, match=r"head has 3 classes, but .*config\.json names 2: give"):
        head_of(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": ["cat", "dog", "owl"]}))
    with pytest.raises(CheckpointError, match="an object of them by row from 0 on"):
        head_of(tmp_path)


def test_a_classifier_of_another_width(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"classifier.weight": torch.ones(3, 16)}, tmp_path / "model.safetensors")
    base = Checkpoint.open(tmp_path)
    stored = StoredBase(base.architecture, base.parameter)
    prepared = Prepared(read_preprocessing(tmp_path, 36), None)
    with pytest.raises(
        CheckpointError, match=r"pets: the head takes 16 numbers, the encoder gives 32: give .*--head pets="
    ):
        plan_task(TaskInput("pets", tmp_path), stored, None, prepared, False)

"""Exported encoders of images give what the server gives: every form, through transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mass_serve.model_store.exporting import task_model
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.writers import write_model
from tests import models, vision_transformers
from tests.model_store.readers import test_siglip as siglip
from tests.model_store.writers.exports import built, logits_of, pictures, served_logits


def _clip_with_classifiers(folder: Path) -> models.Suite:
    """CLIPs whose heads take the mean over the patches."""
    from transformers import CLIPConfig, CLIPForImageClassification

    models.make_model("CLIPVisionModel").save_pretrained(folder / "pretrained")
    tasks = []
    for seed, name in enumerate(("digits", "street"), start=1):
        names = {row: f"{name} {row}" for row in range(2 + seed)}
        config = CLIPConfig(text_config=models.TEXT, vision_config=models.VISION, id2label=names)
        torch.manual_seed(seed)
        tuned: Any = CLIPForImageClassification(config)
        models.perturb(tuned, seed, 0.02)
        tuned.save_pretrained(folder / name)
        tasks.append(TaskInput(name, folder / name))
    return models.Suite(folder / "pretrained", tuple(tasks))


def _siglip(kind: str) -> Callable[[Path], models.Suite]:
    def make(folder: Path) -> models.Suite:
        siglip.make_model("vision").save_pretrained(folder / "pretrained")
        tasks = []
        for seed, name in enumerate(("digits", "street"), start=1):
            tuned = siglip.make_model(kind, labels=2 + seed)
            models.perturb(tuned, seed, 0.02)
            tuned.save_pretrained(folder / name)
            if kind == "vision":
                models.save_head(folder / name, 3, 32, seed, linear=seed % 2 == 0)
            tasks.append(TaskInput(name, folder / name))
        return models.Suite(folder / "pretrained", tuple(tasks))

    return make


def _transformer(kind: str, classifier: str | None = None, **changes: Any) -> Callable[[Path], Any]:
    return lambda folder: vision_transformers.finetuned(folder, kind, classifier, **changes)


# Models, the class that each task is exported as, and whether the head is a file beside it.
CASES: dict[str, tuple[Callable[[Path], Any], list[tuple[str, bool]]]] = {
    "clip": (models.make_suite, [("CLIPVisionModelWithProjection", True)] * 3),
    "clip, classifiers": (_clip_with_classifiers, [("CLIPForImageClassification", False)] * 2),
    "vit": (
        _transformer("ViTModel", "ViTForImageClassification"),
        [("ViTForImageClassification", False)] * 3,
    ),
    "vit, no qkv bias": (
        _transformer("ViTModel", "ViTForImageClassification", qkv_bias=False),
        [("ViTForImageClassification", False)] * 3,
    ),
    "deit": (
        _transformer("DeiTModel", "DeiTForImageClassification"),
        [("DeiTForImageClassification", False)] * 3,
    ),
    "dinov2": (
        _transformer("Dinov2Model", "Dinov2ForImageClassification"),
        [("Dinov2ForImageClassification", False)] * 3,
    ),
    # Nothing tells the class token of DINOv2 from that of ViT.
    "dinov2, heads": (
        _transformer("Dinov2Model"),
        [("ViTModel", True), ("ViTForImageClassification", False), ("ViTModel", True)],
    ),
    "registers, swiglu, other positions": (
        _transformer(
            "Dinov2WithRegistersModel",
            "Dinov2WithRegistersForImageClassification",
            use_swiglu_ffn=True,
            image_size=56,
        ),
        [("Dinov2WithRegistersForImageClassification", False)] * 3,
    ),
    "siglip": (_siglip("vision"), [("SiglipVisionModel", True)] * 2),
    "siglip, classifiers": (_siglip("classifier"), [("SiglipForImageClassification", False)] * 2),
}


@pytest.mark.parametrize("case", CASES)
def test_transformers_gives_the_servers_logits(case: str, tmp_path: Path) -> None:
    make, expected = CASES[case]
    store, images = built(make(tmp_path), tmp_path / "store"), pictures()
    for task, (class_name, head_file) in zip(store.manifest.tasks, expected, strict=True):
        out = tmp_path / "out" / task.name
        written = write_model(task_model(store, task.name), out)
        assert (written.class_name, written.head_file) == (class_name, head_file)
        logits = logits_of(out, class_name, images)
        torch.testing.assert_close(logits, served_logits(store, task.name, images), atol=2e-4, rtol=1e-5)
        labels = json.loads((out / "config.json").read_text())["id2label"]
        assert tuple(labels.values()) == task.labels


def test_a_store_can_be_built_of_what_was_exported(tmp_path: Path) -> None:
    """Of DINOv2 too, whose layer scales and other positions are parts of other parameters by then."""
    make, _ = CASES["registers, swiglu, other positions"]
    # Few bits would be rounded once more.
    store = built(make(tmp_path), tmp_path / "store", format="bfloat16")
    tasks = []
    for task in store.manifest.tasks:
        write_model(task_model(store, task.name), tmp_path / "out" / task.name)
        tasks.append(TaskInput(task.name, tmp_path / "out" / task.name))
    exported = models.Suite(tmp_path / "pretrained", tuple(tasks))
    again = built(exported, tmp_path / "again", format="bfloat16")
    for one, other in zip(store.manifest.tasks, again.manifest.tasks, strict=True):
        assert one.labels == other.labels
        torch.testing.assert_close(
            served_logits(again, other.name, pictures()),
            served_logits(store, one.name, pictures()),
            atol=0.01,
            rtol=0.01,
        )


def test_what_is_read_back_is_what_was_written_to_the_bit(tmp_path: Path) -> None:
    store = built(models.make_suite(tmp_path), tmp_path / "store")
    model = task_model(store, "street")
    write_model(model, tmp_path / "out")
    checkpoint = Checkpoint.open(tmp_path / "out")
    assert checkpoint.architecture == store.manifest.backbone
    for name, parameter in model.parameters.items():
        assert torch.equal(checkpoint.parameter(name), parameter)
    assert model.head is not None
    for name, tensor in load_file(tmp_path / "out" / "head.safetensors").items():
        assert torch.equal(tensor, model.head.tensors[name])

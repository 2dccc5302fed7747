"""Stores of other encoders than CLIP, from transformers' files to the answers that its models give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mass_serve.engine import Engine, Query
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError, StoreError
from mass_serve.model_store.format.heads import read_head
from mass_serve.model_store.store import Store
from mass_serve.router import MODE_NAMES
from tests.vision_transformers import Finetuned, finetuned

# The class of the pretrained model, that of the tasks where their classifier is the head, the size of images
# where that is not the model's own, and what is unlike the other cases.
CASES: dict[str, tuple[str, str | None, int, dict[str, Any]]] = {
    "vit, heads in files": ("ViTModel", None, 32, {"qkv_bias": False}),
    "vit": ("ViTModel", "ViTForImageClassification", 32, {"num_hidden_layers": 3}),
    "deit": ("DeiTModel", "DeiTForImageClassification", 32, {"hidden_act": "gelu_pytorch_tanh"}),
    "dinov2, heads in files": ("Dinov2Model", None, 40, {"image_size": 72}),
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification", 40, {"image_size": 72}),
    "registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersForImageClassification",
        32,
        {"use_swiglu_ffn": True, "image_size": 56},
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finetuned, Path]:
    kind, classifier, crop, changes = CASES[request.param]
    folder = tmp_path_factory.mktemp("encoders")
    models = finetuned(folder, kind, classifier, crop, **changes)
    # The tuned models are further from random weights than fine-tuning ever goes.
    options = BuildOptions(compression_ratio=1.0, block_dtype="float32", force=True)
    build(models.pretrained, models.tasks, folder / "store", options)
    return models, folder / "store"


def _images(engine: Engine) -> Tensor:
    crop = engine.preprocessing.crop
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 3, crop, crop), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def test_a_named_task_is_answered_as_transformers_answers(case: tuple[Finetuned, Path]) -> None:
    models, store = case
    engine = Engine.load(str(store), device="cpu")
    images = _images(engine)
    normalised = engine.preprocessing.normalise(images)
    for task, model in models.models.items():
        answers = engine.classify_batch([Query(image, (task,)) for image in images]).all_answers()
        outputs = model(normalised)
        if "logits" in outputs:
            logits = outputs.logits
        else:
            head, embedding = read_head(store.parent / task / "head.safetensors"), outputs[0][:, 0]
            tensors = head.tensors
            if head.kind == "linear":
                logits = embedding @ tensors["weight"].T + tensors["bias"]
            else:
                cosines = torch.nn.functional.cosine_similarity(
                    embedding[:, None], tensors["weight"][None], dim=2
                )
                logits = tensors["logit_scale"] * cosines
        found = torch.stack([answer.probabilities for answer in answers])
        torch.testing.assert_close(found, logits.softmax(1), atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_every_mode_finds_a_task(case: tuple[Finetuned, Path], mode: str) -> None:
    models, store = case
    engine = Engine.load(str(store), device="cpu", mode=mode)
    answers = engine.classify_batch([Query(image) for image in _images(engine)]).all_answers()
    assert {answer.task for answer in answers} <= models.models.keys()
    assert all(answer.probabilities.isfinite().all() for answer in answers)


def test_the_store_is_whole_and_of_version_2(case: tuple[Finetuned, Path]) -> None:
    store = Store.open(case[1])
    assert store.manifest.format_version == 2
    assert store.verify() == []


def test_tasks_of_two_poolings_are_refused_in_one_store(tmp_path: Path) -> None:
    classifiers = finetuned(tmp_path / "a", "Dinov2Model", "Dinov2ForImageClassification")
    heads = finetuned(tmp_path / "b", "Dinov2Model")
    tasks = (classifiers.tasks[0], heads.tasks[1])
    sentence = "task street: the head takes 32 numbers .*class.*task digits 64 numbers .*a store gives one"
    with pytest.raises(CheckpointError, match=sentence):
        build(classifiers.pretrained, tasks, tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_task_of_another_family_is_refused(tmp_path: Path) -> None:
    dinov2 = finetuned(tmp_path / "a", "Dinov2Model")
    vit = finetuned(tmp_path / "b", "ViTModel")
    with pytest.raises(CheckpointError, match="task street: the fine-tuned model has mlp_width 64, the pret"):
        build(dinov2.pretrained, (dinov2.tasks[0], vit.tasks[1]), tmp_path / "store")
    registers = finetuned(tmp_path / "c", "Dinov2WithRegistersModel")
    with pytest.raises(
        CheckpointError, match="task street: the fine-tuned model has num_registers 4, the pr"
    ):
        build(dinov2.pretrained, (dinov2.tasks[0], registers.tasks[1]), tmp_path / "store")


def test_a_router_token_that_there_is_can_be_chosen(tmp_path: Path) -> None:
    models = finetuned(tmp_path, "ViTModel")
    store = build(models.pretrained, models.tasks, tmp_path / "store", BuildOptions(router_token="mean"))
    assert store.manifest.router.token == "mean"
    with pytest.raises(StoreError, match="router layer must be"):
        build(models.pretrained, models.tasks, tmp_path / "other", BuildOptions(router_layer=2))

"""Stores whose heads take another embedding than the pretrained model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from transformers import CLIPConfig, CLIPForImageClassification, CLIPImageProcessorPil

from mass_serve.backbone import DenseWeights, Pooling, patchify, run
from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from tests.models import TEXT, VISION, Suite, make_model, make_suite, perturb, save_head


@pytest.fixture
def unprojected(tmp_path: Path) -> Suite:
    """Models with a projection whose heads take what goes into it."""
    suite = make_suite(tmp_path, ("digits", "street"))
    for task in suite.tasks:
        save_head(task.checkpoint, 3, 32)
    return suite


def test_heads_of_the_unprojected_width_make_a_store_without_projection(
    unprojected: Suite, tmp_path: Path
) -> None:
    store = build(unprojected.pretrained, unprojected.tasks, tmp_path / "store", BuildOptions())
    backbone = store.manifest.backbone
    assert (backbone.pooling.projection_dim, backbone.embedding_dim) == (None, 32)
    weights = load_file(tmp_path / "store" / "pretrained.safetensors")
    model, pixels = make_model(), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        found = run(backbone, DenseWeights(weights), patchify(pixels, 8)).embedding
        expected = model.vision_model(pixels).pooler_output
    assert (found - expected).abs().max() < 1e-5
    for task in store.manifest.tasks:
        assert not any("projection" in key for key in load_file(tmp_path / "store" / task.experts_file))


def test_such_a_store_takes_more_tasks_of_its_kind_only(unprojected: Suite, tmp_path: Path) -> None:
    build(unprojected.pretrained, unprojected.tasks, tmp_path / "store", BuildOptions())
    make_model().save_pretrained(tmp_path / "signs")
    save_head(tmp_path / "signs", 4, 16)
    with pytest.raises(
        CheckpointError, match=r"task signs: the head takes 16 numbers .*, the heads of the store's tasks 32"
    ):
        add_task(tmp_path / "store", TaskInput("signs", tmp_path / "signs"))
    save_head(tmp_path / "signs", 4, 32)
    store = add_task(tmp_path / "store", TaskInput("signs", tmp_path / "signs"))
    assert [task.name for task in store.manifest.tasks] == ["digits", "street", "signs"]


def test_classifiers_of_whole_checkpoints_answer_as_in_transformers(tmp_path: Path) -> None:
    """The pretrained CLIPModel has a last LayerNorm and a projection, and the classifiers use neither."""
    base = make_model("CLIPModel")
    base.save_pretrained(tmp_path / "base")
    models = {}
    for seed, name in enumerate(("pets", "cars"), start=1):
        labels = {row: f"{name} {row}" for row in range(2 + seed)}
        config = CLIPConfig(text_config=TEXT, vision_config=VISION, id2label=labels)
        tuned: Any = CLIPForImageClassification(config)
        tuned.vision_model.load_state_dict(base.vision_model.state_dict())
        perturb(tuned, seed, 0.05)
        tuned.eval().save_pretrained(tmp_path / name)
        models[name] = tuned
    tasks = [TaskInput(name, tmp_path / name) for name in models]
    options = BuildOptions(compression_ratio=1, block_dtype="float32")
    store = build(tmp_path / "base", tasks, tmp_path / "store", options)
    assert store.manifest.backbone.pooling == Pooling(None, "mean_without_norm")
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    for name, tuned in models.items():
        answers = engine.classify(photographs, tasks=[name])
        with torch.inference_mode():
            expected = tuned(**processor(photographs, return_tensors="pt")).logits
        for answer, logits in zip(answers, expected, strict=True):
            torch.testing.assert_close(answer.logits, logits, atol=1e-4, rtol=1e-4)
            assert answer.labels == tuple(tuned.config.id2label.values())


def test_a_projection_that_the_pretrained_model_lacks_is_missed(tmp_path: Path) -> None:
    suite = make_suite(tmp_path, ("digits",))
    make_model("CLIPVisionModel").save_pretrained(tmp_path / "bare")
    with pytest.raises(CheckpointError, match="has projection_dim 16, the pretrained model None"):
        build(tmp_path / "bare", suite.tasks, tmp_path / "store", BuildOptions())

"""Stores whose heads take another embedding than the pretrained model gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mass_serve.backbone import DenseWeights, patchify, run
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from tests.models import Suite, make_model, make_suite, save_head


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


def test_a_projection_that_the_pretrained_model_lacks_is_missed(tmp_path: Path) -> None:
    suite = make_suite(tmp_path, ("digits",))
    make_model("CLIPVisionModel").save_pretrained(tmp_path / "bare")
    with pytest.raises(CheckpointError, match="has projection_dim 16, the pretrained model None"):
        build(tmp_path / "bare", suite.tasks, tmp_path / "store", BuildOptions())

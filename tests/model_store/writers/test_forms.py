"""Which class a model gets, and what is refused because transformers has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mass_serve.backbone import Architecture
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import head_from_tensors
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.writers import PlainModel, write_model
from tests.encoders import ENCODERS
from tests.tiny import CONFIG, pretrained

# Of an encoder without a head and of one with a linear head; None: there is no such class.
CLASSES: dict[str, tuple[str | None, str | None]] = {
    "vit": ("ViTModel", "ViTForImageClassification"),
    "no qkv bias": ("ViTModel", "ViTModel"),
    "registers, swiglu": (None, None),  # its MLP has no width that a ratio gives
    "no class token": ("SiglipVisionModel", "SiglipForImageClassification"),
    "geglu, mean before norm": (None, None),
    "attention pooling": (None, None),  # its MLP is wider than the blocks'
    "mean without norm": ("CLIPVisionModel", "CLIPForImageClassification"),
    "projected pair": (None, None),
}


def _model(architecture: Architecture, *, classifies: bool) -> PlainModel:
    edge = architecture.patches.image_size
    half = (0.5, 0.5, 0.5)
    images = Preprocessing(size=edge, crop=edge, interpolation="bicubic", mean=half, std=half)
    if not classifies:
        return PlainModel(architecture, pretrained(architecture), images)
    head = head_from_tensors({"weight": torch.ones(3, architecture.embedding_dim), "bias": torch.zeros(3)})
    return PlainModel(architecture, pretrained(architecture), images, head, ("a", "b", "c"))


@pytest.mark.parametrize("classifies", [False, True], ids=["alone", "linear head"])
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_has_a_class_or_is_refused(name: str, classifies: bool, tmp_path: Path) -> None:
    model, wanted = _model(ENCODERS[name], classifies=classifies), CLASSES[name][classifies]
    if wanted is None:
        with pytest.raises(CheckpointError, match="transformers has no class for this encoder"):
            write_model(model, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        return
    assert write_model(model, tmp_path / "out").class_name == wanted
    read = Checkpoint.open(tmp_path / "out").pooled(model.architecture.pooling)
    assert read.architecture == model.architecture


def test_a_model_of_16_bits_comes_out_in_float32(tmp_path: Path) -> None:
    """Nothing is rounded a second time."""
    model = _model(CONFIG, classifies=False)
    halves = {name: parameter.bfloat16() for name, parameter in model.parameters.items()}
    write_model(PlainModel(model.architecture, halves, model.inputs), tmp_path / "out")
    checkpoint = Checkpoint.open(tmp_path / "out")
    for name, half in halves.items():
        assert checkpoint.dtype(name) == torch.float32
        assert torch.equal(checkpoint.parameter(name), half.float())

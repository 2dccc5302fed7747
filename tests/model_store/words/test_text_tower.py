"""Embeddings of texts, held to transformers and to open_clip on random weights of several shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.model_store.words.checkpoint import read_text_tower
from mass_serve.model_store.words.text_tower import TextTower
from tests.text_models import TEXT, make_clip, text_features

SHAPES: list[dict[str, Any]] = [
    {},
    {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80, "num_hidden_layers": 1},
    {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 96, "num_hidden_layers": 4},
    {"hidden_act": "gelu", "layer_norm_eps": 1e-3, "max_position_embeddings": 9},
]


def texts(end: int, lengths: tuple[int, ...] = (9, 2, 5, 7)) -> Tensor:
    """Random token ids behind a start token, filled up with the end token as transformers does it."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.full((len(lengths), max(lengths)), end)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(0, 500, (length - 1,), generator=generator)
    return ids


def embed(tower: TextTower, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return tower.embed(ids)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert expected.std(0).max() > 0.1 * expected.abs().max(), "the texts differ"


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("end", [TEXT["eos_token_id"], 2])
def test_embeddings_are_those_of_transformers(changes: dict[str, Any], end: int, tmp_path: Path) -> None:
    """An `eos_token_id` of 2 is the number of old configurations, with which the largest id is the end."""
    model = make_clip(eos_token_id=end, **changes)
    model.save_pretrained(tmp_path)
    ids = texts(TEXT["eos_token_id"])
    assert_close(embed(read_text_tower(tmp_path), ids), text_features(model, ids))


def test_the_first_end_token_is_the_end(tmp_path: Path) -> None:
    """Where the configuration names it, it need not be the largest id: others may have been added."""
    model = make_clip(eos_token_id=7, vocab_size=TEXT["vocab_size"] + 3)
    model.save_pretrained(tmp_path)
    tower = read_text_tower(tmp_path)
    ids = torch.tensor([[1, 2, 7, 520, 7], [1, 520, 3, 4, 7]])
    assert_close(embed(tower, ids), text_features(model, ids))
    with pytest.raises(ValueError, match="no end token, which is 7"):
        tower.embed(torch.tensor([[1, 7], [1, 2]]))


def test_what_stands_behind_the_end_changes_nothing(tmp_path: Path) -> None:
    model = make_clip()
    model.save_pretrained(tmp_path)
    tower, ids = read_text_tower(tmp_path), texts(TEXT["eos_token_id"])
    alone = torch.cat([embed(tower, ids[1:2, :2]), embed(tower, ids[2:3, :5])])
    # Rounding depends on the number of rows; what counted would be seen in the first digit.
    assert (embed(tower, ids)[1:3] - alone).abs().max() < 1e-5
    other = ids.clone()
    other[1, 4:] = 3
    assert (embed(tower, other) - embed(tower, ids)).abs().max() < 1e-6


@pytest.mark.optional("open_clip")
@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        {"context_length": 9, "vocab_size": 600, "width": 64, "heads": 4, "layers": 2},
        {"context_length": 12, "vocab_size": 700, "width": 128, "layers": 1, "mlp_ratio": 2.5},
        {
            "context_length": 9,
            "vocab_size": 600,
            "width": 96,
            "heads": 3,
            "layers": 3,
            "norm_kwargs": {"eps": 1e-3},
        },
    ],
)
def test_embeddings_are_those_of_open_clip(
    open_clip: Any, kind: str, text: dict[str, Any], quick_gelu: bool, tmp_path: Path
) -> None:
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = getattr(open_clip.model, kind)(24, vision, text, quick_gelu=quick_gelu).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    ids = torch.zeros(4, text["context_length"], dtype=torch.long)
    ids[:, :9] = texts(599)
    tower = read_text_tower(tmp_path)
    with torch.inference_mode():
        assert_close(embed(tower, ids), model.encode_text(ids))
    assert tower.logit_scale == pytest.approx(model.logit_scale.exp().item())

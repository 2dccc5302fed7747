"""Adapters over a store's own encoder: what they are over the files that it was built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.stored_base import StoredBase
from tests.model_store.readers.test_adapters import MODULE, randomise, save_adapter, small_config
from tests.models import Suite

ADAPTERS: dict[str, dict[str, Any]] = {
    "some linears": {"target_modules": ["q_proj", "fc1"]},
    "all linears": {"target_modules": "all-linear"},
    "DoRA and biases": {"target_modules": ["v_proj"], "use_dora": True, "bias": "all"},
}


@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["CLIP", "ViT", "DeiT", "Dinov2", "Siglip"])
@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("trained", ["ForImageClassification", "Model"])
def test_is_what_it_is_over_the_files(kind: str, family: str, trained: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = getattr(transformers, f"{family}{trained}")(small_config(family))
    model.save_pretrained(tmp_path / "base")
    whole = ["classifier"] if trained == "ForImageClassification" else None
    settings = LoraConfig(r=2, init_lora_weights=False, modules_to_save=whole, **ADAPTERS[kind])
    adapted = get_peft_model(model, settings)
    randomise(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    files = Checkpoint.open(tmp_path / "base")
    expected = files.adapted(tmp_path / "adapter")
    stored = files.pooled(expected.architecture.pooling)
    base = StoredBase(stored.architecture, stored.parameter)
    if family == "Dinov2" and kind != "some linears":
        # The store has these linears and biases times the layer scale, which nobody can take out again.
        with pytest.raises(CheckpointError, match=r"o_proj.* only as a part of blocks\.0\.attention\.out"):
            base.adapted(tmp_path / "adapter")
        return
    found = base.adapted(tmp_path / "adapter")
    assert found.architecture == expected.architecture
    for name in expected.architecture.parameter_shapes():
        assert torch.equal(found.over(stored.parameter)(name).float(), expected.parameter(name).float())


def stored_base(folder: Path) -> StoredBase:
    base = Checkpoint.open(folder)
    return StoredBase(base.architecture, base.parameter)


def test_what_an_adapter_leaves_alone_is_the_stores(suite: Suite, tmp_path: Path) -> None:
    base = Checkpoint.open(suite.pretrained)
    found = stored_base(suite.pretrained).adapted(save_adapter(tmp_path / "adapter", Path("gone")))
    changed = [
        name
        for name in base.architecture.parameter_shapes()
        if not torch.equal(found.parameter(name), base.parameter(name))
    ]
    assert changed == ["blocks.0.attention.qkv.weight"]


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({f"{MODULE}.lora_B.weight": torch.ones(48, 2)}, r"by \[48, 2\] times \[2, 32\], where the base has"),
        (
            {"vision_model.x.lora_A.weight": torch.ones(2, 32)},
            "changes vision_model.x, which the encoder does",
        ),
        ({"vision_model.post_layernorm.bias": torch.ones(7)}, r"bias has shape \[7\], expected \[32\]"),
    ],
)
def test_another_models_adapter_is_refused(
    tensors: dict[str, torch.Tensor], sentence: str, suite: Suite, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", Path("gone"))
    both = {
        f"{MODULE}.lora_A.weight": torch.ones(2, 32),
        f"{MODULE}.lora_B.weight": torch.ones(32, 2),
    } | tensors
    save_file(
        {f"base_model.model.{name}": tensor for name, tensor in both.items()},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointError, match=sentence):
        stored_base(suite.pretrained).adapted(adapter)

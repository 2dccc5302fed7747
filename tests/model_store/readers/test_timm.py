"""Vision transformers as timm writes them, on their own and against timm itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mass_serve.backbone import DenseWeights, Pooling, patchify, run
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.timm_vision import usual_sizes
from mass_serve.model_store.task_heads import read_labelled_head
from tests.without_torchvision import import_without_torchvision

CONFIG: dict[str, Any] = {
    "architecture": "deit3_small_patch8_32.some_tag",
    "num_classes": 3,
    "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0},
    "model_args": {"num_heads": 4, "drop_path_rate": 0.1},
    "label_names": ["cat", "dog", "owl"],
}


def make_state() -> dict[str, Tensor]:
    """As timm names and shapes a DeiT III of two blocks: positions of patches alone, and a layer scale."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 32),
        "pos_embed": (1, 16, 32),
        "patch_embed.proj.weight": (32, 3, 8, 8),
        "patch_embed.proj.bias": (32,),
        "norm.weight": (32,),
        "norm.bias": (32,),
        "head.weight": (3, 32),
        "head.bias": (3,),
    }
    for block in ("blocks.0", "blocks.1"):
        matrices = {"attn.qkv": (96, 32), "attn.proj": (32, 32), "mlp.fc1": (64, 32), "mlp.fc2": (32, 64)}
        for name, shape in matrices.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"{block}.{name}"] = (32,)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save(folder: Path, state: dict[str, Tensor], **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file(state, folder / "model.safetensors")
    return folder


def test_a_checkpoint_is_read_with_its_classifier(tmp_path: Path) -> None:
    state = make_state()
    checkpoint = Checkpoint.open(save(tmp_path, state))
    block, embedding = checkpoint.architecture.block, checkpoint.architecture.patches
    assert (block.num_attention_heads, block.activation, block.layer_norm_eps) == (4, "gelu", 1e-6)
    assert (embedding.image_size, embedding.patch_size, embedding.has_class_token) == (32, 8, True)
    assert checkpoint.architecture.pooling == Pooling(None)
    positions = checkpoint.parameter("position_embedding.weight")
    assert torch.equal(positions[1:], state["pos_embed"][0])
    assert not positions[0].any(), "a class token that has no position of its own"
    scaled = state["blocks.1.ls2.gamma"][:, None] * state["blocks.1.mlp.fc2.weight"]
    assert torch.equal(checkpoint.parameter("blocks.1.mlp.fc2.weight"), scaled)
    head = read_labelled_head("pets", checkpoint, None, None)
    assert head.labels == ("cat", "dog", "owl")
    assert torch.equal(head.head.tensors["weight"], state["head.weight"])


def test_registers_are_rows_of_the_positions(tmp_path: Path) -> None:
    registers = torch.randn(1, 2, 32)
    state = make_state() | {"reg_token": registers}
    positions = Checkpoint.open(save(tmp_path, state)).parameter("position_embedding.weight")
    assert torch.equal(positions[1:3], registers[0])
    state["pos_embed"] = torch.randn(1, 19, 32)
    positions = Checkpoint.open(save(tmp_path, state)).parameter("position_embedding.weight")
    assert torch.equal(positions[0], state["pos_embed"][0, 0])
    assert torch.equal(positions[1:3], state["pos_embed"][0, 1:3] + registers[0])
    assert torch.equal(positions[3:], state["pos_embed"][0, 3:])


def test_what_training_saves(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in make_state().items()}
    save(tmp_path, state)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"epoch": 3, "arch": "deit3", "state_dict": state}, tmp_path / "model_best.pth")
    with pytest.raises(CheckpointError, match="pass --allow-pickle"):
        Checkpoint.open(tmp_path / "model_best.pth")
    checkpoint = Checkpoint.open(tmp_path / "model_best.pth", allow_pickle=True)
    assert torch.equal(checkpoint.parameter("class_embedding"), state["module.cls_token"][0, 0])


@pytest.mark.parametrize(
    ("changes", "pooling"),
    [
        ({"global_pool": "avg"}, Pooling(None, "mean")),
        ({"model_args": {"num_heads": 4, "global_pool": "avg"}}, Pooling(None, "mean")),
        ({"architecture": "vit_small_patch8_gap_32"}, Pooling(None, "mean")),
        ({}, Pooling(None, "class")),
    ],
)
def test_what_is_pooled(changes: dict[str, object], pooling: Pooling, tmp_path: Path) -> None:
    assert Checkpoint.open(save(tmp_path, make_state(), **changes)).architecture.pooling == pooling


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"architecture": "vit_base_patch16_siglip_224"},
            "'vit_base_patch16_siglip_224' is none that can be st",
        ),
        (
            {"architecture": "deit_base_distilled_patch16_224"},
            "is none that can be stored: of timm these are",
        ),
        ({"architecture": "resnet50"}, "architecture 'resnet50' is none that can be stored"),
        ({"global_pool": "map"}, "global_pool must be token or avg, found 'map'"),
        (
            {"model_args": {"act_layer": "relu"}},
            "act_layer must be gelu or quick_gelu or gelu_tanh, found 'rel",
        ),
        ({"model_args": {"act_layer": [1]}}, r"act_layer must be .*, found \[1\]"),
        ({"model_args": {"qk_norm": True}}, "model_args has qk_norm True, which is not served"),
        ({"model_args": [1]}, "model_args must be an object"),
        ({"model_args": {"num_heads": 5}}, "width 32 is not a multiple of 5 attention heads"),
        ({"model_args": {"num_heads": "4"}}, "num_attention_heads: Input should be a valid integer"),
        (
            {"pretrained_cfg": {"input_size": [3, 40, 40]}},
            r"pos_embed has shape \[1, 16, 32\], expected \[1, 26",
        ),
        ({"pretrained_cfg": {"input_size": [3, 0]}}, "input_size must be channels, height and width"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    save(tmp_path, make_state(), **changes)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("pos_embed"), "missing pos_embed"),
        (lambda state: state.pop("patch_embed.proj.weight"), r"missing patch_embed\.proj\.weight"),
        (lambda state: state.pop("blocks.0.mlp.fc1.weight"), r"missing blocks\.0\.mlp\.fc1\.weight"),
        (lambda state: state.pop("blocks.1.attn.proj.bias"), r"missing blocks\.1\.attn\.proj\.bias"),
        (lambda state: state.pop("norm.weight"), r"missing norm\.weight"),
        (lambda state: state.update(dist_token=torch.ones(1, 1, 32)), "unexpected dist_token"),
        (
            lambda state: state.update(pos_embed=torch.ones(16, 32)),
            r"pos_embed has shape \[16, 32\], expected 3",
        ),
        (
            lambda state: state.update({"blocks.1.attn.q_norm.weight": torch.ones(8)}),
            "unexpected blocks.1.attn",
        ),
        (lambda state: state.update({"blocks.9999.x": torch.ones(1)}), "depth"),
        (
            lambda state: state.update({"blocks.0.ls1.gamma": torch.ones(31)}),
            r"ls1\.gamma has shape \[31\], expected \[32\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    change: Callable[[dict[str, Tensor]], object], sentence: str, tmp_path: Path
) -> None:
    state = make_state()
    change(state)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(save(tmp_path, state))


@pytest.fixture(scope="module")
def timm() -> Any:
    return import_without_torchvision("timm")


def make_model(timm: Any, name: str, **arguments: Any) -> Any:
    """A model with nothing in it that is zero or one."""
    torch.manual_seed(0)
    model = timm.create_model(name, depth=2, embed_dim=48, **arguments)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            scale = 1.0 if "token" in key or "pos_embed" in key or "gamma" in key else 0.05
            parameter += scale * torch.randn(parameter.shape)
    return model.eval()


SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "num_heads": 3}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("vit_base_patch16_224", {**SMALL}),
    ("vit_base_patch16_224", {**SMALL, "img_size": 30, "num_classes": 0}),
    ("vit_base_patch16_224", {**SMALL, "global_pool": "avg"}),
    ("vit_base_patch16_224", {**SMALL, "global_pool": "avg", "class_token": False, "num_heads": 4}),
    ("vit_base_patch16_224", {**SMALL, "fc_norm": True}),
    ("vit_base_patch16_224_miil", {**SMALL}),
    ("vit_medium_patch16_gap_256", {**SMALL}),
    ("vit_base_patch16_reg4_gap_256", {**SMALL}),
    ("vit_base_patch32_clip_224", {**SMALL, "num_classes": 5}),
    ("vit_base_patch32_clip_quickgelu_224", {**SMALL, "mlp_ratio": 3.0}),
    ("deit_tiny_patch16_224", {**SMALL, "num_heads": 2}),
    ("deit3_small_patch16_224", {**SMALL}),
    ("vit_small_patch14_dinov2", {"img_size": 28, "patch_size": 14, "num_heads": 6}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 42, "patch_size": 14, "num_heads": 6}),
    ("vit_giant_patch14_reg4_dinov2", {"img_size": 28, "num_heads": 4}),
]


@pytest.mark.optional("timm")
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_features_and_logits_are_those_of_timm(
    timm: Any, name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model, edge = make_model(timm, name, **arguments), arguments["img_size"]
    config = {
        "architecture": name,
        "num_classes": model.num_classes,
        "global_pool": model.global_pool,
        "pretrained_cfg": {"input_size": [3, edge, edge]},
        "model_args": arguments,
    }
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint.open(tmp_path)
    architecture, pixels = checkpoint.architecture, torch.randn(5, 3, edge, edge)
    weights = DenseWeights({key: checkpoint.parameter(key) for key in architecture.parameter_shapes()})
    with torch.inference_mode():
        found = run(architecture, weights, patchify(pixels, architecture.patches.patch_size)).embedding
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(found, features, atol=2e-5, rtol=2e-5)
        if classifier := checkpoint.classifier():
            logits = found @ classifier["weight"].T + classifier["bias"]
            torch.testing.assert_close(logits, model(pixels), atol=5e-5, rtol=5e-5)


@pytest.mark.optional("timm")
def test_what_follows_from_a_name_is_as_in_timm(timm: Any) -> None:
    known = 0
    for name in timm.list_models(["vit_*", "deit*"]):
        if (sizes := usual_sizes(name)) is None:
            continue
        with torch.device("meta"):
            model = timm.create_model(name)
        block = model.blocks[0]
        activation = {"GELU": "gelu", "QuickGELU": "quick_gelu", "SiLU": "gelu"}[type(block.mlp.act).__name__]
        assert sizes == (block.attn.num_heads, activation, block.norm1.eps), name
        assert (type(block).__name__, type(block.attn).__name__) == ("Block", "Attention"), name
        assert (type(block.norm1).__name__, model.pool_include_prefix) == ("LayerNorm", False), name
        assert model.global_pool == ("avg" if "_gap" in name else "token"), name
        known += 1
    assert known > 60

"""The format is a contract: these bytes and keys may not change within format version 1."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load

from mass_serve.backbone.architecture import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.calibration import calibration_shapes, is_calibration
from mass_serve.model_store.format.experts import ExpertLayout
from mass_serve.model_store.format.factoring import Factoring, PatchEmbeddingForm
from mass_serve.model_store.format.manifest import Manifest, parse_manifest
from mass_serve.model_store.format.rank_rules import RatioRule
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors

TINY = Architecture(PatchEmbedding(4, 2), Block(4, 2, 8, "gelu", 1e-5), depth=1, pooling=Pooling(3))


def test_tensor_file_bytes() -> None:
    tensors = {"b": torch.tensor([1.0, 2.0, 3.0]).bfloat16(), "a": torch.tensor(4.0), "c": torch.ones(1, 1)}
    specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    file = io.BytesIO()
    digest = write_tensors(file, specs, tensors.__getitem__)
    header = (
        b'{"__metadata__":{"format":"pt"},'
        b'"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        b'"c":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]},'
        b'"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}'
    )
    padded = header + b" " * (-len(header) % 8)
    data = bytes.fromhex("000080400000803f803f00404040")
    assert file.getvalue() == len(padded).to_bytes(8, "little") + padded + data
    assert digest == hashlib.sha256(file.getvalue()).hexdigest()
    assert {name: tensor.tolist() for name, tensor in load(file.getvalue()).items()} == {
        "a": 4.0,
        "b": [1.0, 2.0, 3.0],
        "c": [[1.0]],
    }


def test_canonical_parameters() -> None:
    assert TINY.parameter_shapes() == {
        "patch_embedding.weight": (4, 12),
        "class_embedding": (4,),
        "position_embedding.weight": (5, 4),
        "pre_layernorm.weight": (4,),
        "pre_layernorm.bias": (4,),
        "blocks.0.layer_norm1.weight": (4,),
        "blocks.0.layer_norm1.bias": (4,),
        "blocks.0.attention.qkv.weight": (12, 4),
        "blocks.0.attention.qkv.bias": (12,),
        "blocks.0.attention.out.weight": (4, 4),
        "blocks.0.attention.out.bias": (4,),
        "blocks.0.layer_norm2.weight": (4,),
        "blocks.0.layer_norm2.bias": (4,),
        "blocks.0.mlp.fc1.weight": (8, 4),
        "blocks.0.mlp.fc1.bias": (8,),
        "blocks.0.mlp.fc2.weight": (4, 8),
        "blocks.0.mlp.fc2.bias": (4,),
        "post_layernorm.weight": (4,),
        "post_layernorm.bias": (4,),
        "projection.weight": (3, 4),
    }


def _specs(patch_embedding: PatchEmbeddingForm) -> dict[str, TensorSpec]:
    factoring = Factoring(TINY, patch_embedding, RatioRule(compression_ratio=0.5))
    ranks = factoring.prescribed()
    assert ranks is not None
    return ExpertLayout(factoring, "float16").tensor_specs(ranks)


def test_keys_of_an_experts_file() -> None:
    specs = _specs("factored")
    assert specs["blocks.0.attention.qkv.weight.u"] == TensorSpec(torch.float16, (12, 2))
    assert specs["blocks.0.attention.qkv.weight.s"] == TensorSpec(torch.float32, (2,))
    assert specs["blocks.0.attention.qkv.weight.vh"] == TensorSpec(torch.float16, (2, 4))
    assert specs["projection.weight.u"].shape == (3, 1)
    assert specs["class_embedding.delta"] == TensorSpec(torch.float32, (4,))
    assert "patch_embedding.weight.u" in specs
    averaged = _specs("averaged")
    assert averaged["patch_embedding.weight.delta"] == TensorSpec(torch.float32, (4, 12))
    assert "patch_embedding.weight.u" not in averaged


GOLDEN_MANIFEST: dict[str, Any] = {
    "format_version": 1,
    "store_revision": "0123456789ab",
    "backbone": {
        "family": "clip_vision",
        "image_size": 4,
        "patch_size": 2,
        "width": 4,
        "depth": 1,
        "num_attention_heads": 2,
        "mlp_width": 8,
        "activation": "gelu",
        "layer_norm_eps": 1e-05,
        "projection_dim": None,
    },
    "preprocessing": {
        "size": 4,
        "crop": 4,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
    "router": {
        "layer": 0,
        "token": "class",
        "temperature": 1.0,
        "threshold": 0.2,
        "top_k": 3,
        "head_choice": "max",
        "first_pass": "merged_base",
    },
    "compression_ratio": 0.5,
    "patch_embedding": "averaged",
    "block_dtype": "bfloat16",
    "factored_parameters": [
        "position_embedding.weight",
        "blocks.0.attention.qkv.weight",
        "blocks.0.attention.out.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
    ],
    "merged_base": "stored",
    "files": {
        "pretrained.safetensors": "a" * 64,
        "merged_base-0123456789ab.safetensors": "b" * 64,
    },
    "tasks": [
        {
            "name": "digits",
            "revision": "00aa11bb22cc",
            "labels": ["0", "1"],
            "head": {"kind": "cosine"},
            "rank": 2,
            "individual_accuracy": None,
            "files": {
                "tasks/digits/00aa11bb22cc/experts.safetensors": "c" * 64,
                "tasks/digits/00aa11bb22cc/head.safetensors": "d" * 64,
            },
        }
    ],
    "history": {},
}


def test_a_manifest_of_format_version_1_stays_readable() -> None:
    raw = json.dumps(GOLDEN_MANIFEST).encode()
    read = json.loads(parse_manifest(raw).to_bytes())
    added = {"mode": "paper", "unrouted_below": 0.0}  # since then; it served so
    router = GOLDEN_MANIFEST["router"] | added
    assert read == GOLDEN_MANIFEST | {"router": router, "calibration": None}


# The text itself: indented, keys in the order of declaration, numbers as JavaScript would write them.
GOLDEN_BACKBONE = b"""
  "backbone": {
    "family": "clip_vision",
    "image_size": 4,
    "patch_size": 2,
    "width": 4,
    "depth": 1,
    "num_attention_heads": 2,
    "mlp_width": 8,
    "activation": "gelu",
    "layer_norm_eps": 0.00001,
    "projection_dim": null
  },
  "preprocessing": {
    "size": 4,
    "crop": 4,
    "interpolation": "bicubic",
    "mean": [
      0.5,
      0.5,
      0.5
    ],
    "std": [
      0.25,
      0.25,
      0.25
    ]
  },
  "router": {
    "mode": "paper",
    "layer": 0,
    "token": "class",
    "temperature": 1.0,
    "threshold": 0.2,
    "top_k": 3,
    "head_choice": "max",
    "first_pass": "merged_base",
    "unrouted_below": 0.0
  },
"""
GOLDEN_SHA256 = "3a9d49c8d6da1118baa0e44d0f3b82527f6506b44ee0b92690af7b854cfeadc5"


def test_the_bytes_of_a_manifest() -> None:
    content = parse_manifest(json.dumps(GOLDEN_MANIFEST).encode()).to_bytes()
    assert GOLDEN_BACKBONE in content
    assert content.startswith(b'{\n  "format_version": 1,\n  "store_revision": "0123456789ab",\n  "backbone"')
    assert content.endswith(b'  "calibration": null,\n  "history": {}\n}\n')
    assert parse_manifest(content).to_bytes() == content
    keys = [*GOLDEN_MANIFEST]
    assert [*json.loads(content)] == [*keys[:-1], "calibration", keys[-1]]
    assert hashlib.sha256(content).hexdigest() == GOLDEN_SHA256


def test_the_backbone_in_memory_is_the_architecture_and_nothing_else() -> None:
    manifest = parse_manifest(json.dumps(GOLDEN_MANIFEST).encode())
    without_projection = Architecture(TINY.embedding, TINY.block, TINY.depth, Pooling(None))
    assert manifest.backbone == without_projection
    assert manifest.model_copy(update={"backbone": TINY}).model_dump(mode="json")["backbone"] == {
        **GOLDEN_MANIFEST["backbone"],
        "projection_dim": 3,
    }
    fields = {name: getattr(manifest, name) for name in type(manifest).model_fields}
    assert Manifest(**fields) == manifest
    with pytest.raises(ValidationError, match="Architecture"):
        Manifest(**fields | {"backbone": GOLDEN_MANIFEST["backbone"]})


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"family": "bert"}, r"backbone\.family: Input should be 'clip_vision'"),
        ({"image_size": 65_537}, r"backbone\.image_size: Input should be less than or equal to 65536"),
        ({"patch_size": 0}, r"backbone\.patch_size: Input should be greater than or equal to 1"),
        ({"width": 4.0}, r"backbone\.width: Input should be a valid integer"),
        ({"depth": 1025}, r"backbone\.depth: Input should be less than or equal to 1024"),
        ({"depth": True}, r"backbone\.depth: Input should be a valid integer"),
        ({"activation": "relu"}, r"backbone\.activation: Input should be 'quick_gelu' or 'gelu'"),
        ({"layer_norm_eps": 1.0}, r"backbone\.layer_norm_eps: Input should be less than 1"),
        ({"layer_norm_eps": "0.1"}, r"backbone\.layer_norm_eps: Input should be a valid number"),
        ({"projection_dim": 0}, r"backbone\.projection_dim: Input should be greater than or equal to 1"),
        ({"rope": True}, r"backbone\.rope: Extra inputs are not permitted"),
        ({"num_attention_heads": 3}, "backbone: width 4 is not a multiple of 3 attention heads"),
        ({"patch_size": 5}, "backbone: patch_size 5 exceeds image_size 4"),
    ],
)
def test_other_sizes_are_refused(sizes: dict[str, object], sentence: str) -> None:
    backbone = GOLDEN_MANIFEST["backbone"] | sizes
    with pytest.raises(ManifestError, match=rf"manifest\.json is not valid: {sentence}"):
        parse_manifest(json.dumps(GOLDEN_MANIFEST | {"backbone": backbone}).encode())


def test_a_mode_is_a_name_that_the_store_does_not_judge() -> None:
    def with_mode(mode: object) -> bytes:
        return json.dumps(GOLDEN_MANIFEST | {"router": GOLDEN_MANIFEST["router"] | {"mode": mode}}).encode()

    assert parse_manifest(with_mode("sometime_later")).router.mode == "sometime_later"
    for mode in ("", "Exact", "../x", "a" * 65, 3, None):
        with pytest.raises(ManifestError, match=r"router\.mode: "):
            parse_manifest(with_mode(mode))


def test_tensors_of_a_calibration_file() -> None:
    shapes = calibration_shapes(kinds=5, tasks=2, classes=7)
    fitted = {"means": (7, 5, 2), "covariance": (5, 2, 5, 2), "images": (7,), "owner": (2, 7)}
    assert shapes == {**fitted, "weights": (2, 8)}
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert is_calibration(tensors, 5, 2)
    assert is_calibration({name: tensors[name] for name in fitted}, 5, 2)
    assert not is_calibration(tensors, 4, 2)
    assert not is_calibration(tensors, 5, 3)
    assert not is_calibration({name: tensors[name] for name in ("covariance", "images", "owner")}, 5, 2)


def test_files_of_a_store(built: Path) -> None:
    manifest = parse_manifest((built / "manifest.json").read_bytes())
    expected = {".lock", "manifest.json", "pretrained.safetensors"}
    for task in manifest.tasks:
        folder = f"tasks/{task.name}/{task.revision}"
        expected |= {f"{folder}/experts.safetensors", f"{folder}/head.safetensors"}
    found = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert found == expected

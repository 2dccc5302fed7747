"""The format is a contract: these bytes and keys may not change within format version 1."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from mass_serve.model_store.backbone_spec import BackboneSpec, parameter_shapes
from mass_serve.model_store.format.experts import ExpertLayout
from mass_serve.model_store.format.manifest import parse_manifest
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors

TINY = BackboneSpec(
    image_size=4,
    patch_size=2,
    width=4,
    depth=1,
    num_attention_heads=2,
    mlp_width=8,
    activation="gelu",
    layer_norm_eps=1e-5,
    projection_dim=3,
)


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
    assert parameter_shapes(TINY) == {
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


def test_keys_of_an_experts_file() -> None:
    specs = ExpertLayout(TINY, 0.5, "factored", "float16").tensor_specs()
    assert specs["blocks.0.attention.qkv.weight.u"] == TensorSpec(torch.float16, (12, 2))
    assert specs["blocks.0.attention.qkv.weight.s"] == TensorSpec(torch.float32, (2,))
    assert specs["blocks.0.attention.qkv.weight.vh"] == TensorSpec(torch.float16, (2, 4))
    assert specs["projection.weight.u"].shape == (3, 1)
    assert specs["class_embedding.delta"] == TensorSpec(torch.float32, (4,))
    assert "patch_embedding.weight.u" in specs
    averaged = ExpertLayout(TINY, 0.5, "averaged", "float16").tensor_specs()
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


def test_files_of_a_store(built: Path) -> None:
    manifest = parse_manifest((built / "manifest.json").read_bytes())
    expected = {".lock", "manifest.json", "pretrained.safetensors"}
    for task in manifest.tasks:
        folder = f"tasks/{task.name}/{task.revision}"
        expected |= {f"{folder}/experts.safetensors", f"{folder}/head.safetensors"}
    found = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert found == expected

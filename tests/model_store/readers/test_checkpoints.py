"""Checkpoints as transformers writes them, and everything that can be wrong with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mass_serve.backbone.architecture import Block, PatchEmbedding
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from tests.models import VISION, make_model

KINDS = ["CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel"]


def canonical_by_hand(model: Any) -> dict[str, Tensor]:
    """The canonical parameters read off a live transformers model, independently of file keys."""
    vision = getattr(model, "vision_model", model)
    embeddings = vision.embeddings
    found = {
        "patch_embedding.weight": embeddings.patch_embedding.weight.flatten(1),
        "class_embedding": embeddings.class_embedding,
        "position_embedding.weight": embeddings.position_embedding.weight,
        "pre_layernorm.weight": vision.pre_layrnorm.weight,
        "pre_layernorm.bias": vision.pre_layrnorm.bias,
        "post_layernorm.weight": vision.post_layernorm.weight,
        "post_layernorm.bias": vision.post_layernorm.bias,
    }
    for index, layer in enumerate(vision.encoder.layers):
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        modules = {
            "layer_norm1": layer.layer_norm1,
            "attention.out": attention.out_proj,
            "layer_norm2": layer.layer_norm2,
            "mlp.fc1": layer.mlp.fc1,
            "mlp.fc2": layer.mlp.fc2,
        }
        for kind in ("weight", "bias"):
            found[f"blocks.{index}.attention.qkv.{kind}"] = torch.cat([getattr(part, kind) for part in parts])
            for name, module in modules.items():
                found[f"blocks.{index}.{name}.{kind}"] = getattr(module, kind)
    if hasattr(model, "visual_projection"):
        found["projection.weight"] = model.visual_projection.weight
    return found


def assert_reads(path: Path, model: Any) -> None:
    checkpoint = Checkpoint.open(path)
    expected = canonical_by_hand(model)
    assert set(checkpoint.architecture.parameter_shapes()) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.parameter(name), tensor), name


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = make_model(kind)
    model.save_pretrained(tmp_path)
    assert_reads(tmp_path, model)
    architecture = Checkpoint.open(tmp_path).architecture
    assert (architecture.depth, architecture.block) == (2, Block(32, 4, 64, "quick_gelu", 1e-5))
    assert architecture.embedding == PatchEmbedding(32, 8)
    assert architecture.pooling.projection_dim == (None if kind == "CLIPVisionModel" else 16)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_one_model(kind: str, tmp_path: Path) -> None:
    model = make_model(kind)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_reads(tmp_path, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    make_model().to(dtype).save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    assert {checkpoint.parameter(name).dtype for name in checkpoint.architecture.parameter_shapes()} == {
        dtype
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_old_files_names_are_understood(folder: Path) -> None:
    """Bare names become prefixed ones, buffers of old versions are ignored, and so is the right spelling."""

    def age(weights: dict[str, Tensor]) -> None:
        weights["vision_model.embeddings.position_ids"] = torch.arange(17).unsqueeze(0)
        for kind in ("weight", "bias"):
            norm = weights.pop(f"vision_model.pre_layrnorm.{kind}")
            weights[f"vision_model.pre_layernorm.{kind}"] = norm

    expected = Checkpoint.open(folder).parameter("pre_layernorm.weight")
    edit_weights(folder, age)
    assert torch.equal(Checkpoint.open(folder).parameter("pre_layernorm.weight"), expected)


def test_a_config_of_defaults_is_vit_b_32(folder: Path) -> None:
    """Whatever equals CLIP's default may be left out of config.json."""
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {}}))
    with pytest.raises(CheckpointError, match=r"missing encoder\.layers\.10\.layer_norm1\.bias"):
        Checkpoint.open(folder)


FULL = "vision_model.encoder.layers.1.mlp.fc1.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda weights: weights.pop(FULL), r"missing encoder\.layers\.1\.mlp\.fc1\.weight"),
        (
            lambda weights: weights.pop("visual_projection.weight"),
            r"missing visual_projection\.weight",
        ),
        (lambda weights: weights.update(surprise=torch.ones(1)), "unexpected surprise"),
        (
            lambda weights: weights.update({FULL: torch.ones(64, 31)}),
            r"fc1\.weight has shape \[64, 31\], expected \[64, 32\]",
        ),
        (
            lambda weights: weights.update({FULL: torch.ones(64, 32, dtype=torch.int32)}),
            r"fc1\.weight must be float64, float32, float16 or bfloat16",
        ),
        (
            lambda weights: weights.update(
                {"vision_model.encoder.layers.0.self_attn.k_proj.bias": torch.ones(32).half()}
            ),
            r"the parts of blocks\.0\.attention\.qkv\.bias have different dtypes",
        ),
    ],
)
def test_wrong_weights_are_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    edit_weights(folder, change)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(folder)


PROJECTION = "vision_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("config", "change", "sentence"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            {PROJECTION: torch.zeros(512, 1, dtype=torch.uint8)},
            r"config\.json: quantization_config says that .* quantised \(bitsandbytes\): give the model",
        ),
        (
            {"quant_method": "gptq"},
            {PROJECTION.replace("weight", "qweight"): torch.zeros(4, 32, dtype=torch.int32)},
            r"quantised \(gptq\)",
        ),
        ("fp8", {PROJECTION: torch.zeros(32, 32).to(torch.float8_e4m3fn)}, r"quantised \(fp8\)"),
        (
            None,
            {PROJECTION: torch.zeros(32, 32, dtype=torch.int8)},
            r"q_proj\.weight must be float64, .*: quantised weights cannot be read, so give",
        ),
    ],
)
def test_quantised_weights_are_refused(
    config: object, change: dict[str, Tensor], sentence: str, folder: Path
) -> None:
    set_in_config(folder, quantization_config=config)
    save_file(load_file(folder / "model.safetensors") | change, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(folder)


def test_weights_that_are_no_longer_quantised_are_read(folder: Path) -> None:
    set_in_config(folder, quantization_config={"quant_method": "bitsandbytes"})
    assert Checkpoint.open(folder).architecture.width == 32


def set_in_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float) -> None:
    edit_weights(folder, lambda weights: weights[FULL].view(-1)[-1:].fill_(value))
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.fc1\.weight holds NaN, Inf"):
        checkpoint.parameter("blocks.1.mlp.fc1.weight")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "swin"}, "model_type is 'swin', but only CLIP state dicts .*, CLIP vision encoders"),
        ({"hidden_act": "relu"}, "hidden_act must be quick_gelu or gelu, found 'relu'"),
        ({"num_channels": 1}, "num_channels must be 3"),
        ({"num_attention_heads": 5}, "width 32 is not a multiple of 5 attention heads"),
        ({"hidden_size": "wide"}, "width: Input should be a valid integer"),
        ({"num_hidden_layers": 10**9}, "depth"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps"),
        ({"patch_size": 64}, "patch_size 64 exceeds image_size 32"),
        ({"num_hidden_layers": 3}, r"missing encoder\.layers\.2.* and 11 more"),
        ({"num_hidden_layers": 1}, r"unexpected .*encoder\.layers\.1"),
    ],
)
def test_wrong_architectures_are_refused(folder: Path, changes: dict[str, object], sentence: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json cannot be read: No such file"),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            r"config\.json is not valid JSON.*: mend it or",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold a JSON object"),
        (lambda folder: (folder / "config.json").write_text("[" * 10**5), "is not valid JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has neither model\.safetensors nor"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:-1]
            ),
            "not a complete safetensors file",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_text(
                "version https://git-lfs.github.com/spec/v1"
            ),
            r"model\.safetensors is the pointer of Git LFS to a file, .*: run `git lfs pull`",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b""),
            "not a complete .*: download it again",
        ),
        (
            # A header said to be of 2^60 bytes must not be allocated.
            lambda folder: (folder / "model.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}"),
            "not a complete safetensors file",
        ),
    ],
)
def test_damaged_folders_get_one_sentence(
    folder: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(folder)


def test_a_parameter_under_two_names_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["post_layernorm.bias"] = weights["vision_model.post_layernorm.bias"] + 1
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"post_layernorm\.bias are the same parameter: remove one"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        (None, "has no weight_map"),
        ({"x": "../other.safetensors"}, "must name its shards as files of its own folder"),
        ({"x": ""}, "must name its shards as files of its own folder"),
        ({"x": "gone.safetensors"}, r"names gone\.safetensors, which is not there: download it, too"),
        ({"x": f"{'x' * 300}.safetensors"}, "which is not there"),
    ],
)
def test_hostile_shard_indexes_are_refused(folder: Path, weight_map: object, sentence: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(folder)


class _Payload:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


class TestPickles:
    def test_are_read_only_when_allowed(self, tmp_path: Path) -> None:
        model = make_model()
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="pass --allow-pickle"):
            Checkpoint.open(tmp_path)
        checkpoint = Checkpoint.open(tmp_path / "pytorch_model.bin", allow_pickle=True)
        for name, tensor in canonical_by_hand(model).items():
            assert torch.equal(checkpoint.parameter(name), tensor)

    def test_never_execute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        make_model().config.save_pretrained(tmp_path)
        torch.save({"weight": _Payload()}, tmp_path / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="holds getattr, and nothing of a pickle is executed here"):
            Checkpoint.open(tmp_path, allow_pickle=True)
        assert not Path("executed").exists()

    @pytest.mark.parametrize(
        "content",
        [
            [1, 2],
            {5: torch.ones(2)},
            {"a": torch.eye(2).to_sparse()},
            {"a": "text"},
            {"a": torch.ones(1).expand(1 << 16, 1 << 16)},  # 16 GiB of four bytes
        ],
    )
    def test_of_other_things_are_refused(self, tmp_path: Path, content: object) -> None:
        make_model().config.save_pretrained(tmp_path)
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="must hold a state dict"):
            Checkpoint.open(tmp_path, allow_pickle=True)


def test_sizes_of_the_vision_tower_are_used(tmp_path: Path) -> None:
    """In a full CLIPModel the projection's width is the pair's, whatever vision_config says."""
    model = make_model("CLIPModel", projection_dim=24)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["projection_dim"] = 512
    (tmp_path / "config.json").write_text(json.dumps(config))
    architecture = Checkpoint.open(tmp_path).architecture
    assert (architecture.embedding_dim, architecture.width) == (24, VISION["hidden_size"])

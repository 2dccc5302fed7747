"""State dicts as OpenAI and open_clip write them, on their own and beside other files in one store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mass_serve.backbone import DenseWeights, patchify, run
from mass_serve.backbone.architecture import Block, PatchEmbedding
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.preprocessing import read_preprocessing
from mass_serve.model_store.store import Store
from tests.imports import ROOT
from tests.model_store.readers.test_checkpoints import canonical_by_hand
from tests.models import Suite, make_model, make_suite

TEXT_TOWER = {
    "positional_embedding": torch.ones(8, 32),
    "text_projection": torch.ones(32, 16),
    "logit_scale": torch.tensor(4.6),
    "token_embedding.weight": torch.ones(50, 32),
    "ln_final.weight": torch.ones(32),
    "transformer.resblocks.0.ln_1.weight": torch.ones(32),
}


def openai_state_dict(model: Any, prefix: str = "visual.") -> dict[str, Tensor]:
    """A vision tower of transformers under OpenAI's names."""
    found = canonical_by_hand(model)
    patches = found.pop("patch_embedding.weight")
    side = model.config.patch_size
    state = {"conv1.weight": patches.reshape(len(patches), 3, side, side)}
    if "projection.weight" in found:
        state["proj"] = found.pop("projection.weight").T
    for name, value in found.items():
        for ours, theirs in (
            ("position_embedding.weight", "positional_embedding"),
            ("pre_layernorm", "ln_pre"),
            ("post_layernorm", "ln_post"),
            ("blocks.", "transformer.resblocks."),
            ("layer_norm", "ln_"),
            ("attention.qkv.", "attn.in_proj_"),
            ("attention.out", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            name = name.replace(ours, theirs)
        state[name] = value
    return {prefix + name: value.detach().clone().contiguous() for name, value in state.items()}


def save(folder: Path, state: dict[str, Tensor], config: object = None) -> Path:
    folder.mkdir()
    if config is not None:
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


QUICK = {"model_cfg": {"quick_gelu": True, "vision_cfg": {"head_width": 8}}}


@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
@pytest.mark.parametrize("prefix", ["visual.", "model.visual.", "module.model.visual.", ""])
def test_a_state_dict_is_read_whatever_stands_before_its_names(
    kind: str, prefix: str, tmp_path: Path
) -> None:
    model = make_model(kind)
    text = {prefix.removesuffix("visual.") + name: value for name, value in TEXT_TOWER.items()}
    state = openai_state_dict(model, prefix) | (text if prefix else {})
    checkpoint = Checkpoint.open(save(tmp_path / "model", state, QUICK))
    expected = canonical_by_hand(model)
    assert set(checkpoint.architecture.parameter_shapes()) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.parameter(name), tensor), name
    assert checkpoint.architecture.block == Block(32, 4, 64, "quick_gelu", 1e-5)
    assert checkpoint.architecture.embedding == PatchEmbedding(32, 8)
    assert checkpoint.input_files[0].name == "open_clip_config.json"


def test_a_folder_of_the_hub_has_the_configuration_of_another_form_too(tmp_path: Path) -> None:
    model = make_model()
    folder = save(tmp_path / "hub", openai_state_dict(model), QUICK)
    model.config.save_pretrained(folder)
    checkpoint = Checkpoint.open(folder / "open_clip_model.safetensors")
    assert torch.equal(checkpoint.parameter("projection.weight"), model.visual_projection.weight)


def test_a_pickle_of_training_holds_the_weights_beside_other_things(tmp_path: Path) -> None:
    model = make_model()
    state = openai_state_dict(model, "module.visual.")
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, tmp_path / "epoch_3.pt")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(QUICK))
    with pytest.raises(CheckpointError, match="pass --allow-pickle"):
        Checkpoint.open(tmp_path / "epoch_3.pt")
    checkpoint = Checkpoint.open(tmp_path / "epoch_3.pt", allow_pickle=True)
    assert torch.equal(checkpoint.parameter("projection.weight"), model.visual_projection.weight)


class Encoder(torch.nn.Module):
    """Stands for a class of the program that wrote a file."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in openai_state_dict(make_model()).items():
            self.register_buffer(name.replace(".", "_"), value)


def write_module(encoder: Encoder, path: Path) -> None:
    torch.save(encoder, path)


def write_script(encoder: Encoder, path: Path) -> None:
    """As OpenAI's files are written."""
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(encoder), str(path))


@pytest.mark.parametrize("write", [write_module, write_script])
def test_the_weights_of_a_whole_module_are_taken_out_first(
    write: Callable[[Encoder, Path], None], tmp_path: Path
) -> None:
    path, out = tmp_path / "whole.pt", tmp_path / "out.safetensors"
    encoder = Encoder()
    write(encoder, path)
    with pytest.raises(CheckpointError, match=r"examples/state_dict_of_pickle\.py"):
        Checkpoint.open(path, allow_pickle=True)
    command = [sys.executable, "examples/state_dict_of_pickle.py", str(path), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    expected = dict(encoder.named_buffers())
    found = load_file(out)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_only_a_configuration_can_say_is_asked_for(tmp_path: Path) -> None:
    state = openai_state_dict(make_model())
    with pytest.raises(
        CheckpointError, match=r"open_clip_config\.json does not say which activation.*quick_gelu"
    ):
        Checkpoint.open(save(tmp_path / "bare", state))
    save_file(state, tmp_path / "weights.safetensors")
    base = Checkpoint.open(save(tmp_path / "base", state, QUICK)).architecture
    task = Checkpoint.open(tmp_path / "weights.safetensors", base=base)
    assert task.architecture == base, "a task is built as the model that it was fine-tuned from"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_cfg": []}, "quick_gelu"),
        ({"model_cfg": "x"}, "model_cfg must be an object"),
        ({"model_cfg": {"quick_gelu": 1}}, "quick_gelu must be true or false"),
        ({"model_cfg": {"vision_cfg": 5}}, "vision_cfg must be an object"),
        ({"preprocess_cfg": {"size": 32}}, "does not say which activation"),
        ({"model_cfg": {"vision_cfg": {"head_width": True}}}, "not a multiple of head_width True"),
        ({"model_cfg": {"vision_cfg": {"act_kwargs": {"x": 1}}}}, "act_kwargs must be empty"),
        ({"model_cfg": {"vision_cfg": {"head_width": 5}}}, "width 32 is not a multiple of head_width 5"),
        ({"model_cfg": {"vision_cfg": {"head_width": 8, "pool_type": "avg"}}}, "pool_type must be 'tok'"),
        ({"model_cfg": {"vision_cfg": {"head_width": 8, "norm_kwargs": {"x": 1}}}}, "norm_kwargs may hold"),
        (
            {"model_cfg": {"vision_cfg": {"head_width": 8, "image_size": 64}}},
            r"positional_embedding has shape",
        ),
        ({"model_cfg": {"vision_cfg": {"head_width": 8, "image_size": [32, 32]}}}, "image_size"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(config: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(save(tmp_path / "model", openai_state_dict(make_model()), config))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("visual.class_embedding"), "missing class_embedding"),
        (lambda state: state.pop("visual.positional_embedding"), "missing positional_embedding"),
        (
            lambda state: state.update({"visual.conv1.bias": torch.ones(32)}),
            r"unexpected visual\.conv1\.bias",
        ),
        (lambda state: state.update({"visual.proj": torch.ones(5, 16)}), r"proj has shape \[5, 16\]"),
        (
            lambda state: state.update({"visual.positional_embedding": torch.ones(17)}),
            r"positional_embedding has shape \[17\], expected 2 sizes",
        ),
        (
            lambda state: state.pop("visual.transformer.resblocks.0.mlp.c_fc.weight"),
            r"config\.json cannot be read",
        ),
        (lambda state: state.update({"visual.transformer.resblocks.9999.x": torch.ones(1)}), "depth"),
        (
            lambda state: state.update({f"visual.transformer.resblocks.{'9' * 5000}.x": torch.ones(1)}),
            r"unexpected visual\.transformer",
        ),
        (lambda state: state.update({"visual.proj": torch.tensor(1.0)}), r"proj has shape \[\], expected 2"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    change: Callable[[dict[str, Tensor]], object], sentence: str, tmp_path: Path
) -> None:
    state = openai_state_dict(make_model())
    change(state)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(save(tmp_path / "model", state, QUICK))


def test_the_preprocessing_is_that_of_open_clips_configuration(tmp_path: Path) -> None:
    state = openai_state_dict(make_model())
    plain = read_preprocessing(save(tmp_path / "plain", state, QUICK), 32)
    chosen = QUICK | {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}}
    preprocessing = read_preprocessing(save(tmp_path / "chosen", state, chosen), 32)
    assert (plain.interpolation, plain.size, plain.crop) == ("bicubic", 32, 32)
    assert preprocessing.mean == (0.5,) * 3
    assert (preprocessing.std, preprocessing.interpolation) == ((0.25,) * 3, "bilinear")
    for size in ([224, 336], [], [[1], 2]):
        odd = save(tmp_path / f"odd-{size}", state, QUICK | {"preprocess_cfg": {"size": size}})
        with pytest.raises(CheckpointError, match=r"open_clip_config\.json: .*edge length"):
            read_preprocessing(odd, 32)
    squashed = QUICK | {"preprocess_cfg": {"resize_mode": "squash", "size": [32, 32]}}
    assert read_preprocessing(save(tmp_path / "squashed", state, squashed), 32).resize == "square"
    padded = QUICK | {"preprocess_cfg": {"resize_mode": "longest"}}
    with pytest.raises(CheckpointError, match="resize_mode must be 'shortest' or 'squash', found 'longest'"):
        read_preprocessing(save(tmp_path / "padded", state, padded), 32)


def experts_of(folder: Path, suite: Suite) -> dict[str, dict[str, Tensor]]:
    build(suite.pretrained, suite.tasks, folder, BuildOptions(allow_pickle=True))
    tasks = Store.open(folder).manifest.tasks
    return {task.name: load_file(folder / task.experts_file) for task in tasks}


def test_one_store_takes_every_form_of_one_model(tmp_path: Path) -> None:
    """The published set: a whole model, tasks without projection, and the paper's own state dicts."""
    expected_suite = make_suite(tmp_path / "suite")
    (tmp_path / "mixed").mkdir()
    tasks = []
    for seed, task in enumerate(expected_suite.tasks, start=1):
        tuned = make_model("CLIPVisionModelWithProjection")
        tuned.load_state_dict(load_like(task.checkpoint))
        tuned.visual_projection.weight = make_model().visual_projection.weight  # not fine-tuned
        tuned.save_pretrained(task.checkpoint)
        form = other_form(seed, tuned, tmp_path / "mixed" / task.name)
        tasks.append(TaskInput(task.name, form, *beside(task)))
    mixed = Suite(expected_suite.pretrained, tuple(tasks))
    expected = experts_of(tmp_path / "expected", expected_suite)
    found = experts_of(tmp_path / "found", mixed)
    for name, tensors in expected.items():
        for key, tensor in tensors.items():
            assert torch.equal(found[name][key], tensor), (name, key)


def load_like(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def beside(task: TaskInput) -> tuple[Path, Path]:
    return task.checkpoint / "head.safetensors", task.checkpoint / "labels.json"


def other_form(seed: int, tuned: Any, path: Path) -> Path:
    """The first as transformers' model without projection, then a state dict of tensors, then a pickle."""
    if seed == 1:
        bare = make_model("CLIPVisionModel")
        bare.load_state_dict(
            {
                key.removeprefix("vision_model."): value
                for key, value in tuned.vision_model.state_dict().items()
            }
        )
        bare.save_pretrained(path)
        return path
    state = openai_state_dict(tuned, "model.visual.")
    if seed == 2:
        save_file(state, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    torch.save(state, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


@pytest.mark.optional("open_clip")
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize(
    "vision",
    [
        {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0},
        {"image_size": 30, "layers": 1, "width": 96, "head_width": 32, "patch_size": 7, "mlp_ratio": 4.3637},
        {"image_size": 28, "layers": 3, "width": 128, "patch_size": 14},
    ],
)
def test_embeddings_are_those_of_open_clip(
    open_clip: Any, vision: dict[str, Any], quick_gelu: bool, tmp_path: Path
) -> None:
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(24, vision, text, quick_gelu=quick_gelu).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "quick_gelu": quick_gelu}}
    checkpoint = Checkpoint.open(save(tmp_path / "model", model.state_dict(), config))
    architecture = checkpoint.architecture
    weights = DenseWeights({name: checkpoint.parameter(name) for name in architecture.parameter_shapes()})
    pixels = torch.randn(3, 3, vision["image_size"], vision["image_size"])
    with torch.inference_mode():
        expected = model.encode_image(pixels)
        found = run(architecture, weights, patchify(pixels, vision["patch_size"])).embedding
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()

"""Text towers read from every form of CLIP, and what is said of those that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.words.checkpoint import read_text_tower
from tests.model_store.readers.test_open_clip import openai_state_dict
from tests.models import make_model
from tests.text_models import PROJECTION_DIM, TEXT, make_clip, text_features

State = dict[str, Tensor]
QUICK = {"model_cfg": {"quick_gelu": True, "text_cfg": {"heads": 4}}}
IDS = torch.tensor([[1, 2, 3, TEXT["eos_token_id"]], [5, 6, TEXT["eos_token_id"], 0]])


def openai_text(model: Any) -> State:
    """A text tower of transformers under OpenAI's names."""
    state = model.state_dict()
    found = {
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": state["text_model.final_layer_norm.weight"],
        "ln_final.bias": state["text_model.final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
    }
    for index in range(model.config.text_config.num_hidden_layers):
        theirs, block = f"text_model.encoder.layers.{index}.", f"transformer.resblocks.{index}."
        for kind in ("weight", "bias"):
            qkv = [state[f"{theirs}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{block}attn.in_proj_{kind}"] = torch.cat(qkv)
            for name, operation in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                found[f"{block}{name}.{kind}"] = state[f"{theirs}{operation}.{kind}"]
    return {name: value.detach().clone().contiguous() for name, value in found.items()}


def whole(model: Any, prefix: str = "", text: str = "") -> State:
    """Both towers and the scale; `text` stands before the text tower's names in models of open_clip's own."""
    vision = openai_state_dict(make_model(), f"{prefix}visual.")
    tower = {f"{prefix}{text}{name}": value for name, value in openai_text(model).items()}
    return {**vision, **tower, f"{prefix}logit_scale": model.logit_scale.detach().clone()}


def save(folder: Path, state: State, config: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def assert_the_same(path: Path, model: Any, **options: Any) -> None:
    tower = read_text_tower(path, **options)
    with torch.no_grad():
        found = tower.embed(IDS)
    assert (found - text_features(model, IDS)).abs().max() < 1e-5
    assert tower.logit_scale == pytest.approx(model.logit_scale.exp().item())


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
@pytest.mark.parametrize("text", ["", "text."])
def test_a_state_dict_is_read_whatever_stands_before_its_names(
    prefix: str, text: str, tmp_path: Path
) -> None:
    model = make_clip()
    assert_the_same(save(tmp_path / "model", whole(model, prefix, text), QUICK), model)


def test_what_an_old_state_dict_holds_beside_its_weights_is_passed_over(tmp_path: Path) -> None:
    model = make_clip(hidden_size=128, num_attention_heads=2)
    state: State = {name: torch.tensor(8) for name in ("input_resolution", "context_length", "vocab_size")}
    state = {**state, **whole(model), "attn_mask": torch.zeros(24, 24)}
    state["logit_scale"] = state["logit_scale"].reshape(1)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        read_text_tower(tmp_path / "epoch_3.pt")
    assert_the_same(tmp_path / "epoch_3.pt", model, allow_pickle=True)


def test_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    """OpenAI's files are in float16."""
    model = make_clip().half().float()
    state = {name: value.half() for name, value in whole(model).items()}
    assert_the_same(save(tmp_path / "model", state, QUICK), model)


def test_a_text_tower_alone_has_the_usual_scale(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=PROJECTION_DIM))
    model.save_pretrained(tmp_path)
    tower = read_text_tower(tmp_path)
    with torch.inference_mode():
        assert (tower.embed(IDS) - model(input_ids=IDS).text_embeds).abs().max() < 1e-5
    assert tower.logit_scale == 100


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, r"open_clip_config\.json does not say which activation"),
        ({"model_cfg": {"quick_gelu": "yes"}}, "quick_gelu must be true or false"),
        ({"model_cfg": {"text_cfg": 5}}, "text_cfg must be an object"),
        ({"model_cfg": {"text_cfg": {"heads": 5}}}, "width 32 is not a multiple of 5 attention heads"),
        ({"model_cfg": {"text_cfg": {"heads": 0}}}, r"open_clip_config\.json: num_attention_heads: "),
        ({"model_cfg": {"text_cfg": {"heads": "4"}}}, r"open_clip_config\.json: num_attention_heads: "),
        ({"model_cfg": {"text_cfg": {"norm_kwargs": {"x": 1}}}}, "norm_kwargs may hold eps alone"),
        ({"model_cfg": {"text_cfg": {"norm_kwargs": {"eps": 0}}}}, "layer_norm_eps: "),
        ({"model_cfg": {"text_cfg": {"hf_model_name": "roberta-base"}}}, "hf_model_name must be None, found"),
        ({"model_cfg": {"text_cfg": {"no_causal_mask": True}}}, "text_cfg: no_causal_mask must be False"),
        (
            {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}},
            "tokenizer_kwargs must",
        ),
    ],
)
def test_open_clip_configurations_that_do_not_fit_are_refused(
    config: object, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_text_tower(save(tmp_path / "model", whole(make_clip()), config))


def changed(state: State, **changes: Tensor | None) -> None:
    """Puts tensors in place of others; None takes one out."""
    for name, value in changes.items():
        key = name.replace("__", ".")
        del state[key]
        if value is not None:
            state[key] = value


def without_text(state: State) -> None:
    """As the paper's image encoders are: the text tower's blocks are gone, what is around them is not."""
    for name in list(state):
        if name.startswith("transformer."):
            del state[name]


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (without_text, "has no text tower of a CLIP, .* give the whole model as it was published"),
        (lambda state: changed(state, token_embedding__weight=None), "has no text tower of a CLIP"),
        (lambda state: changed(state, text_projection=None), "the text tower lacks text_projection"),
        (
            lambda state: changed(state, positional_embedding=torch.ones(2, 32)),
            "context_length 2 leaves no place between a start and an end token",
        ),
        (lambda state: changed(state, positional_embedding=None), "lacks positional_embedding"),
        (
            lambda state: state.update({"transformer.resblocks.0.ls_1.gamma": torch.ones(32)}),
            r"unexpected transformer\.resblocks\.0\.ls_1\.gamma in the text tower",
        ),
        (
            lambda state: state.update({"transformer.resblocks.7.ln_1.weight": torch.ones(32)}),
            r"lacks transformer\.resblocks\.2\.",
        ),
        (
            lambda state: changed(state, positional_embedding=torch.ones(3)),
            "has shape \\[3\\], not a matrix's",
        ),
        (
            lambda state: changed(state, text_projection=torch.ones(0, 16)),
            "has shape \\[0, 16\\], not a matrix's",
        ),
        (
            lambda state: changed(state, ln_final__weight=torch.ones(31)),
            r"ln_final\.weight has shape \[31\], expected \[32\]",
        ),
        (
            lambda state: changed(state, text_projection=torch.ones(31, 16)),
            r"text_projection has shape \[31, 16\], expected \[32, 16\]",
        ),
        (
            lambda state: changed(state, ln_final__bias=torch.full((32,), torch.nan)),
            r"ln_final\.bias holds NaN",
        ),
        (
            lambda state: changed(state, ln_final__bias=torch.ones(32, dtype=torch.int64)),
            r"ln_final\.bias must be float64, float32",
        ),
        (
            lambda state: changed(state, ln_final__weight=torch.tensor(1.0)),
            r"ln_final\.weight has shape \[\], expected \[32\]",
        ),
        (
            lambda state: state.update({"module.ln_final.weight": torch.ones(32)}),
            r"ln_final\.weight and .*ln_final\.weight are the same parameter: remove one",
        ),
        (lambda state: changed(state, logit_scale=torch.ones(2)), "logit_scale must be one number"),
        (lambda state: changed(state, logit_scale=torch.tensor(99.0)), "logit_scale must be one number"),
        (lambda state: changed(state, logit_scale=torch.tensor(-9e9)), "logit_scale must be one number"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    harm: Callable[[State], object], sentence: str, tmp_path: Path
) -> None:
    state = whole(make_clip())
    harm(state)
    with pytest.raises(CheckpointError, match=sentence):
        read_text_tower(save(tmp_path / "model", state, QUICK))


def in_text(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["text_config"].update(changes)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            lambda config: config.update(model_type="siglip"),
            "model_type must be clip or clip_text_model where",
        ),
        (lambda config: config.clear(), "model_type must be clip or clip_text_model .*, found None"),
        (lambda config: config.update(text_config=[1]), "text_config must be an object"),
        (lambda config: config.pop("text_config"), "vocab_size is 49408, the weights have 525"),
        (lambda config: config.update(projection_dim=8), "projection_dim is 8, the weights have 16"),
        (in_text(num_hidden_layers=3), "num_hidden_layers is 3, the weights have 2"),
        (in_text(hidden_size="32"), "hidden_size is '32', the weights have 32"),
        (in_text(num_attention_heads=5), "width 32 is not a multiple of 5 attention heads"),
        (in_text(hidden_act="relu"), r"config\.json: activation: "),
        (in_text(layer_norm_eps="small"), r"config\.json: layer_norm_eps: "),
        (in_text(eos_token_id=[1, 2]), r"config\.json: end_token: "),
    ],
)
def test_hugging_faces_configurations_that_do_not_fit_are_refused(
    harm: Callable[[dict[str, Any]], object], sentence: str, tmp_path: Path
) -> None:
    make_clip().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    harm(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=sentence):
        read_text_tower(tmp_path)


def test_parts_of_attention_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    make_clip().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["text_model.encoder.layers.1.self_attn.k_proj.weight"] = torch.ones(32, 31)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"k_proj\.weight has shape \[32, 31\], expected \[32, 32\]"):
        read_text_tower(tmp_path)


def test_a_vision_encoder_alone_makes_no_head(tmp_path: Path) -> None:
    make_clip().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    vision = {name: value for name, value in state.items() if name.startswith("vision_model.")}
    save_file(vision, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no text tower of a CLIP"):
        read_text_tower(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        read_text_tower(tmp_path / "nowhere")

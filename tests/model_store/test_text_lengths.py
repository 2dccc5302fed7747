"""How much of a text a store reads: as much as the pretrained model's files say, or as it was built to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError, RecipeError, StoreError
from mass_serve.model_store.plan import plan_build
from mass_serve.model_store.recipes import read_recipe
from mass_serve.model_store.store import Store
from mass_serve.router import MODE_NAMES
from tests import texts

LONG = " ".join(f"w{row}" for row in range(5, 90))
WHOLE = BuildOptions(force=True, block_dtype="float32", compression_ratio=1.0)


@pytest.fixture
def models(tmp_path: Path) -> texts.Finetuned:
    return texts.finetuned(tmp_path / "models", "Bert", ("guard", "domain"))


def say(folder: Path, file: str = "tokenizer_config.json", **settings: object) -> None:
    (folder / file).write_text(json.dumps(settings))


def described(models: texts.Finetuned, **options: Any) -> dict[str, Any]:
    plan = plan_build(models.pretrained, models.tasks, BuildOptions(force=True, **options), None)
    return plan.prepared.preprocessing.model_dump()


@pytest.mark.parametrize(
    "settings",
    [
        {"model_max_length": 20},
        {"model_max_length": 20, "truncation_side": "left"},
        {"model_max_length": texts.MAX_TOKENS, "truncation_side": "left"},
    ],
)
@pytest.mark.parametrize("text", [LONG, (LONG, "w9 w10 " * 30), "w6 w7"])
def test_texts_are_cut_as_in_transformers(
    settings: dict[str, Any], text: Any, models: texts.Finetuned, tmp_path: Path
) -> None:
    say(models.pretrained, tokenizer_class="BertTokenizer", **settings)
    build(models.pretrained, models.tasks, tmp_path / "store", WHOLE)
    given = (text,) if isinstance(text, str) else text
    wanted = AutoTokenizer.from_pretrained(models.pretrained)(*given, truncation=True, return_tensors="pt")
    (answer,) = Engine.load(str(tmp_path / "store"), device="cpu").classify([text], ["guard"])
    with torch.inference_mode():
        expected = models.models["guard"](**wanted).logits[0]
    assert wanted["input_ids"].shape[1] <= settings["model_max_length"]
    assert (torch.as_tensor(answer.logits) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_least_of_what_is_said_counts(models: texts.Finetuned) -> None:
    folder = models.pretrained
    assert described(models) == {"kind": "text", "max_tokens": texts.MAX_TOKENS}
    say(folder, model_max_length=int(1e30))  # what transformers writes where it knows of none
    assert described(models)["max_tokens"] == texts.MAX_TOKENS
    say(folder, "sentence_bert_config.json", max_seq_length=None)
    assert described(models)["max_tokens"] == texts.MAX_TOKENS
    say(folder, "sentence_bert_config.json", max_seq_length=40)
    assert described(models)["max_tokens"] == 40
    say(folder, model_max_length=30)
    assert described(models)["max_tokens"] == 30
    assert described(models, max_tokens=50)["max_tokens"] == 50


def test_a_store_keeps_how_much_it_reads(models: texts.Finetuned, tmp_path: Path) -> None:
    say(models.pretrained, truncation_side="left")
    build(models.pretrained, models.tasks, tmp_path / "store", BuildOptions(force=True, max_tokens=10))
    manifest = Store.open(tmp_path / "store").manifest
    assert manifest.preprocessing.model_dump() == {"kind": "text", "max_tokens": 10, "cut_end": "left"}
    tokenizer = Engine.load(str(tmp_path / "store"), device="cpu").tokenizer
    assert tokenizer is not None
    found = tokenizer.tokens(LONG)
    assert found.words[:, 0].tolist() == [2, *range(82, 90), 3]
    assert found.cut == 85 - 8
    assert tokenizer.tokens(LONG, "right").words[:, 0].tolist() == [2, *range(5, 13), 3]


def test_texts_are_not_decoded(models: texts.Finetuned) -> None:
    with pytest.raises(StoreError, match="leave decode out"):
        described(models, decode="scaled")


@pytest.mark.parametrize("asked", [0, 2, -1, texts.MAX_TOKENS + 1])
def test_an_option_out_of_range_is_refused(asked: int, models: texts.Finetuned) -> None:
    with pytest.raises(StoreError, match=f"max_tokens must be from 3, .* to 80, .* not {asked}"):
        described(models, max_tokens=asked)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model_max_length": 0}, "model_max_length must be a whole number above 0, found 0"),
        ({"model_max_length": True}, "model_max_length must be a whole number above 0, found True"),
        ({"model_max_length": 7.5}, "model_max_length must be a whole number above 0, found 7.5"),
        ({"model_max_length": "512"}, "model_max_length must be a whole number above 0, found '512'"),
        ({"model_max_length": 2}, "of 2 tokens none is left for a text beside 2 marks; .* --max-tokens"),
        ({"truncation_side": "both"}, "truncation_side must be right or left, found 'both'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    settings: dict[str, Any], sentence: str, models: texts.Finetuned
) -> None:
    say(models.pretrained, **settings)
    with pytest.raises(CheckpointError, match=sentence):
        described(models)


def test_a_task_that_cuts_the_other_end_is_refused(models: texts.Finetuned) -> None:
    say(models.tasks[1].checkpoint, truncation_side="left")
    with pytest.raises(CheckpointError, match=r"task domain: .* 'left', and the pretrained model cuts texts"):
        described(models)
    say(models.pretrained, truncation_side="left")
    assert described(models)["cut_end"] == "left"


def test_recipes_say_how_much_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("max_tokens: 128\n")
    assert read_recipe(path, MODE_NAMES).options == {"max_tokens": 128}
    path.write_text("max_tokens: many\n")
    with pytest.raises(RecipeError, match="max_tokens"):
        read_recipe(path, MODE_NAMES)

"""The types of the tokens of pairs: what transformers tells a model of them, where its settings say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import processors

from mass_serve.engine import Engine
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.text_tokenizers import read_tokenizer
from tests import texts
from tests.tokenizers_on_disk import save_word_pieces

WITHOUT = ["input_ids", "attention_mask"]
PAIR = ("the cat sat", "a running mat")


def say(folder: Path, **settings: Any) -> None:
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(told | settings))


def saved(folder: Path, processor: Any) -> Path:
    """A tokenizer.json with that post-processor, or where there is none to say transformers' own."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(save_word_pieces(folder / "old"))
    if processor is not None:
        tokenizer.backend_tokenizer.post_processor = processor
    tokenizer.save_pretrained(folder)
    say(folder, tokenizer_class="PreTrainedTokenizerFast")
    return folder


MARKS = ("[SEP]", 3), ("[CLS]", 2)
BERTS = processors.BertProcessing(*MARKS)
PROCESSORS = [None, BERTS, processors.Sequence([BERTS]), processors.RobertaProcessing(*MARKS)]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("inputs", [WITHOUT, [*WITHOUT, "token_type_ids"]])
def test_pairs_have_the_types_that_transformers_gives_them(
    processor: Any, inputs: list[str], tmp_path: Path
) -> None:
    folder = saved(tmp_path, processor)
    say(folder, model_input_names=inputs)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = TextTokenizer(read_tokenizer(folder, 1000, 2).content, 64)
    for text in ((PAIR[0],), PAIR):
        expected = theirs(*text)
        words = ours.tokens(text if len(text) == 2 else text[0]).words
        assert words[:, 0].tolist() == expected["input_ids"]
        assert words[:, 1].tolist() == expected.get("token_type_ids", [0] * len(words))


@pytest.mark.parametrize("inputs", [WITHOUT, [*WITHOUT, "token_type_ids"]])
def test_pairs_are_answered_as_in_transformers(inputs: list[str], tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path / "models", "Bert", ("guard",))
    say(models.pretrained, tokenizer_class="BertTokenizer", model_input_names=inputs)
    options = BuildOptions(force=True, block_dtype="float32", compression_ratio=1.0)
    build(models.pretrained, models.tasks, tmp_path / "store", options)
    pair = ("w10 w11 w12", "w20 w21")
    asked = transformers.AutoTokenizer.from_pretrained(models.pretrained)(*pair, return_tensors="pt")
    assert ("token_type_ids" in asked) == ("token_type_ids" in inputs)
    with torch.inference_mode():
        expected = models.models["guard"](**asked).logits[0]
    (answer,) = Engine.load(str(tmp_path / "store"), device="cpu").classify([pair])
    assert (torch.as_tensor(answer.logits) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("inputs", ["input_ids", [1], {}])
def test_names_that_are_none_are_refused(inputs: Any, tmp_path: Path) -> None:
    say(save_word_pieces(tmp_path), model_input_names=inputs)
    with pytest.raises(CheckpointError, match="model_input_names must be a list of names"):
        read_tokenizer(tmp_path, 1000)

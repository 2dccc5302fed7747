"""Pairs of texts: their ids, types and truncation are those of transformers, and long ones end in time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from mass_serve.inputs.errors import EmptyInputError, InputTooLargeError, InvalidTextError, NoPairsError
from mass_serve.inputs.texts import TextLimits, TextTokenizer, TokenizerError, check_texts
from mass_serve.model_store.readers.text_tokenizers import read_tokenizer
from tests.tokenizers_on_disk import save_byte_pairs, save_word_pieces

A, B = "the cat sat on the mat", "running"
PAIRS = [(A, B), (B, A), (A, A), (f"{A} " * 9, B), (B, f"{A} " * 9), (f"{A} " * 8, f"{A}! " * 9), ("a", "b")]


def _bert(folder: Path) -> bytes:
    return read_tokenizer(save_word_pieces(folder), 1000).content


def _roberta(folder: Path) -> bytes:
    return read_tokenizer(save_byte_pairs(folder), 1000).content


def _modernbert(folder: Path) -> bytes:
    """Byte pairs within a template of BERT's marks, the second text of the type 1."""
    tokenizer = Tokenizer.from_buffer(_roberta(folder))
    tokenizer.post_processor = TemplateProcessing(
        single="<s>:0 $A:0 </s>:0",
        pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer.to_str().encode()


def _of_transformers(content: bytes) -> Any:
    made: Any = transformers.PreTrainedTokenizerFast
    return made(tokenizer_object=Tokenizer.from_buffer(content))


@pytest.fixture(params=[_bert, _roberta, _modernbert], ids=["bert", "roberta", "modernbert"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    made: bytes = request.param(tmp_path)
    return made


@pytest.mark.parametrize("max_tokens", [200, 24, 23, 16, 9, 8, 6])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_have_the_tokens_of_transformers(
    content: bytes, pair: tuple[str, str], side: Any, max_tokens: int
) -> None:
    theirs = _of_transformers(content)
    theirs.truncation_side = side
    expected = theirs(*pair, truncation=True, max_length=max_tokens, return_token_type_ids=True)
    whole = theirs(*pair, truncation=False, return_token_type_ids=True)
    found = TextTokenizer(content, max_tokens).tokens(pair, side)
    assert found.words[:, 0].tolist() == expected["input_ids"]
    assert found.words[:, 1].tolist() == expected["token_type_ids"]
    assert found.cut == len(whole["input_ids"]) - len(expected["input_ids"])


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_may_lose_its_beginning(content: bytes, side: Any) -> None:
    theirs = _of_transformers(content)
    theirs.truncation_side = side
    expected = theirs(f"{A} " * 5 + B, truncation=True, max_length=8)
    assert (
        TextTokenizer(content, 8).tokens(f"{A} " * 5 + B, side).words[:, 0].tolist() == expected["input_ids"]
    )


@pytest.mark.parametrize("text", [f"{A} " * 5, (A, f"{A} " * 5)])
def test_what_must_not_be_cut_is_refused(content: bytes, text: Any) -> None:
    length = len(TextTokenizer(content, 1000).tokens(text).words)
    assert TextTokenizer(content, length).tokens(text, "none").cut == 0
    with pytest.raises(
        InputTooLargeError, match=f"has {length} tokens, and the encoder takes {length - 1}; send"
    ):
        TextTokenizer(content, length - 1).tokens(text, "none")


def test_pairs_of_a_whole_body_end_in_time(content: bytes) -> None:
    # Each piece that is cut of one joined with each of the other would be 40,000 pieces of 512 tokens.
    started = time.process_time()
    tokens = TextTokenizer(content, 512).tokens(("a " * 50_000, "a " * 50_000))
    assert len(tokens.words) == 512
    assert tokens.cut > 90_000
    assert time.process_time() - started < 10


def _with(content: bytes, post_processor: object) -> bytes:
    return json.dumps(json.loads(content) | {"post_processor": post_processor}).encode()


def _template(pair: list[object]) -> dict[str, object]:
    """A post-processor whose form for pairs is another."""
    mark = {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}}
    single = [_mark(), _sequence("A")]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": mark}


def _mark(type_id: int = 0) -> dict[str, object]:
    return {"SpecialToken": {"id": "[CLS]", "type_id": type_id}}


def _sequence(name: str, type_id: int = 0) -> dict[str, object]:
    return {"Sequence": {"id": name, "type_id": type_id}}


@pytest.mark.parametrize(
    "post_processor",
    [
        None,
        _template([_mark(), _sequence("A"), _sequence("B", 1)]),  # what is there if no form is given
        _template([_mark(), _sequence("B"), _mark(), _sequence("A")]),
        _template([_mark(), _sequence("A"), _mark(), _sequence("B"), _mark(), _sequence("A")]),
    ],
)
def test_a_tokenizer_without_a_form_for_pairs_takes_none(tmp_path: Path, post_processor: object) -> None:
    tokenizer = TextTokenizer(_with(_bert(tmp_path), post_processor), 8)
    assert not tokenizer.takes_pairs
    assert len(tokenizer.tokens("cat").words)
    with pytest.raises(NoPairsError, match="does not make one input of two texts"):
        tokenizer.tokens(("cat", "mat"))


def test_too_few_tokens_for_two_texts_take_no_pairs(content: bytes) -> None:
    marks = len(TextTokenizer(content, 100).tokens(("a", "b")).words) - 2
    assert TextTokenizer(content, marks + 2).takes_pairs
    assert not TextTokenizer(content, marks + 1).takes_pairs


def test_types_of_pairs_that_an_encoder_does_not_have_are_told(tmp_path: Path) -> None:
    post_processor = _template([_mark(), _sequence("A"), _mark(2), _sequence("B", 1)])
    tokenizer = TextTokenizer(_with(_bert(tmp_path), post_processor), 8)
    tokenizer.check_fits(100, 3)
    tokenizer.check_fits(100, 1)  # it looks at no types
    with pytest.raises(TokenizerError, match=r"of \('a', 'a'\), ids and types.* tokens of 2 types"):
        tokenizer.check_fits(100, 2)


@pytest.mark.parametrize(
    ("pair", "words"),
    [((" ", "cat"), "first text of the pair"), (("cat", "\n"), "second text of the pair")],
)
def test_both_texts_need_a_word(tmp_path: Path, pair: tuple[str, str], words: str) -> None:
    with pytest.raises(EmptyInputError, match=f"The {words} has no word"):
        TextTokenizer(_bert(tmp_path), 8).tokens(pair)


def test_both_texts_are_checked() -> None:
    limits = TextLimits(max_characters=10)
    check_texts([("a" * 4, "b" * 6)], limits)
    with pytest.raises(InputTooLargeError, match="11 characters"):
        check_texts([("a" * 5, "b" * 6)], limits)
    with pytest.raises(EmptyInputError, match="The second text of the pair is empty"):
        check_texts([("a", "")], limits)
    with pytest.raises(InvalidTextError, match=r"texts\[1\]\.text has a NUL"):
        check_texts(["a", ("\0", "b")], limits)
    with pytest.raises(InvalidTextError, match=r"texts\[0\]\.text_pair has half of a surrogate"):
        check_texts([("b", "\ud800"), "a"], limits)


def test_roberta_puts_two_marks_between(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_buffer(_roberta(tmp_path))
    assert isinstance(tokenizer.post_processor, RobertaProcessing)
    words = TextTokenizer(tokenizer.to_str().encode(), 8).tokens(("cat", "cat")).words
    assert words[:, 0].tolist().count(2) == 3

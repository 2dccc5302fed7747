"""Texts to tokens: what is cut is told, what is no text is refused, and floods end in time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from mass_serve.inputs.errors import (
    EmptyInputError,
    InputError,
    InputTooLargeError,
    InvalidTextError,
    NoPairsError,
)
from mass_serve.inputs.texts import TextLimits, TextTokenizer, TokenizerError, check_texts
from mass_serve.model_store.readers.text_tokenizers import read_tokenizer
from tests.tokenizers_on_disk import save_byte_pairs, save_word_pieces

LIMITS = TextLimits(max_characters=1000)
CLS, SEP, CAT = 2, 3, 6


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return read_tokenizer(save_word_pieces(tmp_path_factory.mktemp("pieces")), 1000).content


def test_a_text_is_its_tokens_between_two_marks(content: bytes) -> None:
    tokens = TextTokenizer(content, 8).tokens("cat cat")
    assert tokens.words.dtype == np.int64
    assert tokens.words.tolist() == [[CLS, 0], [CAT, 0], [CAT, 0], [SEP, 0]]
    assert tokens.cut == 0


@pytest.mark.parametrize(("words", "cut"), [(5, 0), (6, 0), (7, 1), (500, 494)])
def test_how_much_is_cut_is_told(content: bytes, words: int, cut: int) -> None:
    tokens = TextTokenizer(content, 8).tokens("cat " * words)
    assert tokens.cut == cut
    assert tokens.words[:, 0].tolist() == [CLS, *[CAT] * min(words, 6), SEP]


def test_a_text_is_not_changed_by_those_before_it(content: bytes) -> None:
    tokenizer = TextTokenizer(content, 8)
    alone = [tokenizer.tokens(text).words.tolist() for text in ("cat", "the mat", "cat " * 20)]
    again = [
        TextTokenizer(content, 8).tokens(text).words.tolist() for text in ("cat", "the mat", "cat " * 20)
    ]
    assert alone == again


def test_threads_may_use_one_at_once(content: bytes) -> None:
    tokenizer, texts = TextTokenizer(content, 64), [("cat " * n) + "mat" for n in range(1, 50)]
    expected = [tokenizer.tokens(text).words.tolist() for text in texts]
    found: dict[int, list[list[list[int]]]] = {}

    def work(number: int) -> None:
        found[number] = [tokenizer.tokens(text).words.tolist() for text in texts]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == expected for number in range(4))


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        ([""], EmptyInputError, "The text is empty"),
        (["a", ""], EmptyInputError, r"texts\[1\] is empty"),
        (["a\0b"], InvalidTextError, "The text has a NUL at character 1"),
        (["a", "ab\0"], InvalidTextError, r"texts\[1\] has a NUL at character 2"),
        (["a\ud800"], InvalidTextError, "half of a surrogate pair at character 1"),
        (["\udc00", "b"], InvalidTextError, r"texts\[0\] has half"),
        (["a" * 1001], InputTooLargeError, "1001 characters, the limit is 1000"),
        (["a" * 500, "b" * 501], InputTooLargeError, "1001 characters"),
        # The size is told first: nothing of a long text is looked at.
        (["\0" * 10_000_000], InputTooLargeError, "10000000 characters"),
    ],
)
def test_what_is_no_text_is_refused(texts: list[str], error: type[InputError], words: str) -> None:
    with pytest.raises(error, match=words):
        check_texts(texts, LIMITS)


@pytest.mark.parametrize("texts", [["a"], ["a" * 1000], ["\U0010ffff\u202e\u0301", "\ufffd\ufeff"], []])
def test_everything_else_is_a_text(texts: list[str]) -> None:
    check_texts(texts, LIMITS)


@pytest.mark.parametrize("text", [" ", "\n\t", "\u0301", "\u202e", "\ufffd"])
def test_a_text_without_a_word_is_refused(content: bytes, text: str) -> None:
    with pytest.raises(EmptyInputError, match="no word"):
        TextTokenizer(content, 8).tokens(text)


def _changed(content: bytes, **parts: object) -> bytes:
    return json.dumps(json.loads(content) | parts).encode()


def _marks(id_: int, type_id: int) -> dict[str, object]:
    """A post-processor that puts one mark before a text."""
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": type_id}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    mark = {"[CLS]": {"id": "[CLS]", "ids": [id_], "tokens": ["[CLS]"]}}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": mark}


def test_a_tokenizer_fits_an_encoder_of_as_many_tokens_and_types(content: bytes) -> None:
    largest = max(TextTokenizer(content, 8).vocabulary.values())
    TextTokenizer(content, 8).check_fits(largest + 1, 1)
    with pytest.raises(TokenizerError, match=f"ids up to {largest}, and the encoder {largest} tokens"):
        TextTokenizer(content, 8).check_fits(largest, 1)


@pytest.mark.parametrize(("id_", "type_id"), [(9999, 0), (2, 2)])
def test_marks_that_an_encoder_does_not_have_are_told(content: bytes, id_: int, type_id: int) -> None:
    tokenizer = TextTokenizer(_changed(content, post_processor=_marks(id_, type_id)), 8)
    with pytest.raises(TokenizerError, match=rf"{id_}, {type_id}.* tokens of 2 types"):
        tokenizer.check_fits(100, 2)


def test_an_encoder_of_one_type_looks_at_none(content: bytes) -> None:
    TextTokenizer(_changed(content, post_processor=_marks(2, 1)), 8).check_fits(100, 1)


def test_a_vocabulary_without_what_stands_for_the_unknown_is_told(content: bytes) -> None:
    model = json.loads(content)["model"] | {"unk_token": "[NOPE]"}
    with pytest.raises(TokenizerError, match="it makes no tokens of"):
        TextTokenizer(_changed(content, model=model), 8).check_fits(100, 1)


def test_a_panic_of_the_library_is_an_error(content: bytes) -> None:
    endless = {"type": "Split", "pattern": {"Regex": "(w+)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer = TextTokenizer(_changed(content, pre_tokenizer=endless), 8)
    with pytest.raises(TokenizerError, match="failed on a text"):
        tokenizer.tokens("w" * 40 + "x")


# Right-to-left marks, floods of combining marks, one endless word, characters that each become a token.
FLOODS = {
    "combining": "a" + "\u0301\u0327\u0323" * 66_000,
    "zalgo": ("e" + "\u0301" * 50) * 4_000,
    "right to left": "cat\u202e\u200f" * 40_000,
    "one word": "a" * 200_000,
    "chinese": "中" * 200_000,
    "stops": "." * 200_000,
    "emoji": "👩‍👩‍👧‍👦" * 28_000,
    "blanks": "a" + " " * 199_999,
    "marks": "[SEP]" * 40_000,
}


@pytest.mark.parametrize("save", [save_word_pieces, save_byte_pairs])
@pytest.mark.parametrize("flood", FLOODS)
def test_floods_make_tokens_in_proportion(save: Callable[..., Path], flood: str, tmp_path: Path) -> None:
    """What time and memory they take `tests.server.serving.test_tokenisers` holds to bounds of the kernel."""
    tokenizer = TextTokenizer(read_tokenizer(save(tmp_path), 1000).content, 512)
    assert tokenizer.is_bounded
    whole, part = FLOODS[flood], FLOODS[flood][: len(FLOODS[flood]) // 8]
    of_whole, of_part = tokenizer.tokens(whole), tokenizer.tokens(part)
    assert 3 <= len(of_whole.words) <= 512
    made, of_eighth = (len(tokens.words) - 2 + tokens.cut for tokens in (of_whole, of_part))
    assert made <= 4 * len(whole)  # the bytes of a character are the most that there are
    assert made <= 8 * of_eighth + 64  # where the cut lies, a few differ


def test_others_run_while_a_long_text_is_read(content: bytes) -> None:
    """The interpreter's lock is free: held, it would be let go between two steps of Python alone."""
    tokenizer, text = TextTokenizer(content, 512), "中" * 200_000
    working = threading.Thread(target=tokenizer.tokens, args=(text,))
    working.start()
    turns = 0
    while working.is_alive():
        time.sleep(0)
        turns += 1
    assert turns > 100


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff", b'{"model": {"type": "nothing"}}'])
def test_content_that_is_no_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(TokenizerError, match="the library tokenizers cannot read it"):
        TextTokenizer(content, 8)


def test_chance_is_refused() -> None:
    model = models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.1)
    with pytest.raises(TokenizerError, match="dropout"):
        TextTokenizer(Tokenizer(model).to_str().encode(), 8)


def test_marks_leave_room_for_the_text(content: bytes) -> None:
    with pytest.raises(TokenizerError, match="of 2 tokens none is left"):
        TextTokenizer(content, 2)
    assert len(TextTokenizer(content, 3).tokens("cat mat").words) == 3


def test_tokens_are_placed_in_their_text_as_python_counts_characters(content: bytes) -> None:
    tokenizer = TextTokenizer(content, 8)
    text = "\U0001f9ff Über runner unable cat"
    found = tokenizer.tokens(text, placed=True)
    assert found.words.tolist() == tokenizer.tokens(text).words.tolist()
    assert found.places is not None
    offsets = [tuple(own) for own in found.places.offsets.tolist()]
    assert offsets == [(-1, -1), (0, 1), (2, 6), (7, 10), (10, 13), (14, 16), (16, 20), (-1, -1)]
    assert found.places.continues.tolist() == [False, False, False, False, True, False, True, False]
    assert found.cut == 1


def test_a_pair_is_not_placed(content: bytes) -> None:
    tokenizer = TextTokenizer(content, 8)
    with pytest.raises(NoPairsError, match="a task that classifies tokens takes none"):
        tokenizer.tokens(("cat", "sat"), placed=True)

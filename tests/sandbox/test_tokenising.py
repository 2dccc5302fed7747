"""What a worker process makes of a text is what this one makes of it."""

from __future__ import annotations

import pytest

from mass_serve.inputs.errors import EmptyInputError, InputTooLargeError
from mass_serve.inputs.texts import Text, TextTokenizer, TokenizerError, Tokens, Truncation
from mass_serve.model_store.readers.text_tokenizers import read_tokenizer
from mass_serve.sandbox.tokenising import keep, packed_text, tokenise, unpacked
from tests.tokenizers_on_disk import save_word_pieces


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return read_tokenizer(save_word_pieces(tmp_path_factory.mktemp("pieces")), 34).content


def tokens_outside(
    content: bytes, text: Text, truncation: Truncation = "right", *, placed: bool = False
) -> Tokens:
    """The tokens of a text, as a worker process makes them and as they come back."""
    keep(memoryview(content), b"8")
    data, options = packed_text(text, truncation, placed)
    return unpacked(bytearray(tokenise(memoryview(data), options)), text)


TEXTS: tuple[Text, ...] = ("cat", "the cat \u00fcber \u4e2d", "cat the " * 100, ("cat", "\u00fcber sat " * 9))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("truncation", ["right", "left"])
def test_its_tokens_are_those_of_the_tokenizer(content: bytes, text: Text, truncation: Truncation) -> None:
    found = tokens_outside(content, text, truncation)
    expected = TextTokenizer(content, 8).tokens(text, truncation)
    assert found.words.dtype == expected.words.dtype
    assert found.words.tolist() == expected.words.tolist()
    assert found.cut == expected.cut
    assert found.places is None


@pytest.mark.parametrize("text", TEXTS[:3])
@pytest.mark.parametrize("truncation", ["right", "left"])
def test_they_stand_where_they_stand_here(content: bytes, text: Text, truncation: Truncation) -> None:
    found = tokens_outside(content, text, truncation, placed=True)
    expected = TextTokenizer(content, 8).tokens(text, truncation, placed=True)
    assert found.words.tolist() == expected.words.tolist()
    assert found.places is not None
    assert expected.places is not None
    assert found.places.text == text
    assert found.places.offsets.tolist() == expected.places.offsets.tolist()
    assert found.places.continues.tolist() == expected.places.continues.tolist()


def test_what_is_refused_there_is_refused_here(content: bytes) -> None:
    with pytest.raises(EmptyInputError, match="no word"):
        tokens_outside(content, " ")
    with pytest.raises(InputTooLargeError, match="has 102 tokens"):
        tokens_outside(content, "cat " * 100, "none")


def test_what_is_no_tokenizer_is_not_kept() -> None:
    with pytest.raises(TokenizerError, match="cannot read it"):
        keep(memoryview(b"{}"), b"8")

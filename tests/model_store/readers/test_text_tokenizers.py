"""Tokenizers of every age, read to the tokens that transformers makes; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers.processors import TemplateProcessing

from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.same_tokens import check_same_tokens
from mass_serve.model_store.readers.text_tokenizers import (
    StoredTokenizer,
    check_uses_table,
    read_tokenizer,
)
from tests.tokenizers_on_disk import save_byte_pairs, save_word_pieces

MAX_TOKENS = 12
TEXTS = (
    "The cats sat, running unable to café!",
    "CAFÉ 中中 a\u0301bc [MASK] x",
    "  tab\tnew\nline\u2028sep \u200b zero\u202eleft",
    "abc" * 50,
    "👩‍👩‍👧 the 'cat'",
    "a <mask> b </s> Über",
    "cat " * 40,
)
SAVED: list[tuple[Callable[..., Path], dict[str, Any]]] = [
    (save_word_pieces, {}),
    (save_word_pieces, {"do_lower_case": False}),
    (save_word_pieces, {"do_lower_case": False, "strip_accents": True}),
    (save_word_pieces, {"tokenize_chinese_chars": False}),
    (save_word_pieces, {"cls_token": {"content": "[MASK]", "__type": "AddedToken"}}),
    (save_byte_pairs, {}),
    (save_byte_pairs, {"add_prefix_space": True}),
]


def check_equal(folder: Path, theirs: Any) -> None:
    """Holds the tokens of all texts, and what is cut of them, to transformers' tokenizer."""
    ours = TextTokenizer(read_tokenizer(folder, 1000).content, MAX_TOKENS)
    for text in TEXTS:
        expected, found = theirs(text, truncation=True, max_length=MAX_TOKENS), ours.tokens(text)
        assert found.words[:, 0].tolist() == expected["input_ids"], text
        assert found.words[:, 1].tolist() == expected.get("token_type_ids", [0] * len(found.words)), text
        assert found.cut == len(theirs(text)["input_ids"]) - len(expected["input_ids"])


@pytest.mark.parametrize(("save", "settings"), SAVED)
def test_a_vocabulary_becomes_the_tokenizer_that_transformers_makes_of_it(
    save: Callable[..., Path], settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(tmp_path, **settings)
    check_equal(folder, transformers.AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("save", [save_word_pieces, save_byte_pairs])
def test_what_transformers_saves_is_read(save: Callable[..., Path], tmp_path: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(save(tmp_path / "old"))
    # As it is saved in the middle of work: what was set then is none of ours.
    theirs.backend_tokenizer.enable_truncation(3)
    theirs.backend_tokenizer.enable_padding(length=50)
    theirs.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "tokenizer.json").exists()
    check_equal(tmp_path / "new", transformers.AutoTokenizer.from_pretrained(tmp_path / "old"))


@pytest.mark.parametrize(
    "settings", [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}, {}]
)
@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_settings_beside_berts_tokenizer_are_above_it(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    transformers.AutoTokenizer.from_pretrained(save_word_pieces(tmp_path / "old")).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings | {"tokenizer_class": kind}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = TextTokenizer(read_tokenizer(tmp_path, 1000).content, MAX_TOKENS)
    for text in TEXTS:
        expected = theirs(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        assert ours.tokens(text).words[:, 0].tolist() == expected, text


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (save_word_pieces(tmp_path / name) for name in ("a", "b"))
    assert read_tokenizer(first, 1000).content == read_tokenizer(second, 1000).content


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ids up to 33, and the model embeds 33 tokens"):
        read_tokenizer(save_word_pieces(tmp_path), 33)
    assert len(read_tokenizer(tmp_path, 34).vocabulary) == 34


def test_marks_that_the_model_does_not_embed_are_refused(tmp_path: Path) -> None:
    read = read_tokenizer(save_word_pieces(tmp_path / "old"), 34)
    content = json.loads(read.content)
    (tmp_path / "new").mkdir()

    def with_marks(**marks: object) -> Path:
        changed = content | {"post_processor": content["post_processor"] | marks}
        (tmp_path / "new" / "tokenizer.json").write_text(json.dumps(changed))
        return tmp_path / "new"

    read_tokenizer(with_marks(), 34, 2)
    with pytest.raises(CheckpointError, match=r"puts the ids \[2, 5000\] around a text, .* embeds 34 tokens"):
        read_tokenizer(with_marks(sep=["[SEP]", 5000]), 34)


def test_types_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    content = json.loads(read_tokenizer(save_word_pieces(tmp_path / "old"), 34).content)
    pair = [{"Sequence": {"id": name, "type_id": type_}} for name, type_ in (("A", 0), ("B", 2))]
    mark = [{"SpecialToken": {"id": "[SEP]", "type_id": 2}}]
    tokens = {"[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}
    content["post_processor"] = {
        **{"type": "TemplateProcessing", "single": pair[:1], "pair": pair + mark, "special_tokens": tokens}
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    read_tokenizer(tmp_path, 34, 3)
    read_tokenizer(tmp_path, 34, 1)  # it does not look at types
    with pytest.raises(CheckpointError, match=r"types \[2\], and the model has 2 types"):
        read_tokenizer(tmp_path, 34, 2)


# Tokens and rows of BERT and MiniLM, RoBERTa, ModernBERT, mmBERT, XLM-RoBERTa, multilingual MiniLM, and of a
# BERT whose table was padded to a multiple of 64.
PUBLISHED = [
    *((30522, 30522), (50265, 50265), (50280, 50368), (256000, 256000)),
    *((250002, 250002), (250002, 250037), (30522, 30528)),
]
# A cased BERT's or BERT's for RoBERTa; both for ModernBERT and for a multilingual model.
OTHERS = [(28996, 30522), (30522, 50265), (30522, 50368), (50265, 250002), (119547, 250002), (0, 30522)]


def stored(tokens: int) -> StoredTokenizer:
    return StoredTokenizer(b"", {str(row): row for row in range(tokens)}, 2)


@pytest.mark.parametrize(("tokens", "rows"), PUBLISHED)
def test_published_models_have_a_few_rows_to_spare(tokens: int, rows: int) -> None:
    check_uses_table(Path("model"), stored(tokens), rows)


@pytest.mark.parametrize(("tokens", "rows"), OTHERS)
def test_a_tokenizer_that_leaves_much_of_the_table_unused_is_of_another_model(tokens: int, rows: int) -> None:
    with pytest.raises(
        CheckpointError, match=f"model: the tokenizer has {tokens} tokens, and the model embeds {rows}"
    ):
        check_uses_table(Path("model"), stored(tokens), rows)


def test_tokens_are_counted_and_not_the_largest_of_them() -> None:
    sparse = StoredTokenizer(b"", {"a": 0, "b": 999, "also b": 999}, 2)
    with pytest.raises(CheckpointError, match="has 2 tokens, and the model embeds 1000"):
        check_uses_table(Path("model"), sparse, 1000)


def test_tasks_have_the_pretrained_models_tokens(tmp_path: Path) -> None:
    first = read_tokenizer(save_word_pieces(tmp_path / "a"), 1000)
    check_same_tokens("guard", read_tokenizer(save_word_pieces(tmp_path / "b"), 1000), first)
    with (tmp_path / "b" / "vocab.txt").open("a") as file:
        file.write("dog\n")
    with pytest.raises(
        CheckpointError, match="has 35 tokens, that of the pretrained model 34, and they differ in 'dog'"
    ):
        check_same_tokens("guard", read_tokenizer(tmp_path / "b", 1000), first)


@pytest.mark.parametrize(
    ("save", "settings", "text"),
    [
        (save_word_pieces, {"do_lower_case": False}, "'The Cat'"),
        (save_word_pieces, {"strip_accents": False}, "'caf\u00e9 cafe\u0301'"),
        (save_word_pieces, {"cls_token": "[MASK]"}, "'The Cat'"),
        (save_byte_pairs, {"add_prefix_space": True}, "'The Cat'"),
    ],
)
def test_tokenizers_of_one_vocabulary_that_read_texts_differently_are_refused(
    save: Callable[..., Path], settings: dict[str, Any], text: str, tmp_path: Path
) -> None:
    pretrained = read_tokenizer(save(tmp_path / "a"), 1000)
    own = read_tokenizer(save(tmp_path / "b", **settings), 1000)
    assert own.vocabulary == pretrained.vocabulary
    with pytest.raises(CheckpointError, match=f"task guard: its tokenizer makes other tokens of {text} than"):
        check_same_tokens("guard", own, pretrained)


def test_tokenizers_that_mark_pairs_differently_are_refused(tmp_path: Path) -> None:
    pretrained = read_tokenizer(save_word_pieces(tmp_path / "a"), 1000, 2)
    one_type = read_tokenizer(save_word_pieces(tmp_path / "b", model_input_names=["input_ids"]), 1000, 2)
    check_same_tokens("guard", one_type, pretrained, token_types=1)
    with pytest.raises(CheckpointError, match=r"makes other types of token of \('a', 'cat'\) than"):
        check_same_tokens("guard", one_type, pretrained, token_types=2)
    content = json.loads(pretrained.content)
    ids = {token: pretrained.vocabulary[token] for token in ("[CLS]", "[SEP]")}
    unmarked = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A $B [SEP]", special_tokens=list(ids.items())
    )
    content["post_processor"] = json.loads(unmarked.__getstate__())
    no_mark = StoredTokenizer.of("here", json.dumps(content).encode())
    with pytest.raises(CheckpointError, match=r"makes other tokens of \('a', 'cat'\) than"):
        check_same_tokens("guard", no_mark, pretrained)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("save", [save_word_pieces, save_byte_pairs])
def test_vocabularies_of_other_kinds_of_tokenizers_are_refused(
    save: Callable[..., Path], file: str, tmp_path: Path
) -> None:
    path = save(tmp_path) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "BertJapaneseTokenizer"}))
    with pytest.raises(CheckpointError, match=rf"{file}: tokenizer_class is 'BertJapaneseTokenizer', .*json"):
        read_tokenizer(tmp_path, 1000)


def test_a_folder_without_a_tokenizer_is_told_how_to_get_one(tmp_path: Path) -> None:
    save_byte_pairs(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json, no vocab\.txt, and not both of"):
        read_tokenizer(tmp_path, 1000)


HARMS: list[tuple[Callable[..., Path], str, bytes | None, str]] = [
    (save_word_pieces, "vocab.txt", b"", "has no '\\[PAD\\]', the tokenizer's pad_token"),
    (save_word_pieces, "vocab.txt", b"[PAD]\n\xff\n", "byte 6 is not UTF-8"),
    (
        save_word_pieces,
        "tokenizer_config.json",
        b'{"do_lower_case": "no"}',
        "must be true or false, found 'no'",
    ),
    (save_word_pieces, "tokenizer_config.json", b'{"sep_token": ["x"]}', "sep_token must be a token, found"),
    (save_word_pieces, "tokenizer_config.json", b"[]", "must hold a JSON object"),
    (save_word_pieces, "tokenizer.json", b"{", "is not valid JSON"),
    (save_word_pieces, "tokenizer.json", b"[]", "must hold a JSON object"),
    (save_word_pieces, "tokenizer.json", b"{}", "is no tokenizer that the library reads"),
    (save_byte_pairs, "vocab.json", b'{"<s>": "0"}', "has no '<s>', the tokenizer's cls_token"),
    (save_byte_pairs, "merges.txt", b"#version: 0.2\na b c\n", "line 2: a merge must be of two tokens"),
    (save_byte_pairs, "merges.txt", b"a\n", "line 1: a merge must be of two tokens, found 'a'"),
    (save_byte_pairs, "merges.txt", b"\xc3\x28 x\n", "byte 0 is not UTF-8"),
    (save_byte_pairs, "merges.txt", b"zzz qqq\n", "do not fit together"),
]


@pytest.mark.parametrize(("save", "name", "content", "words"), HARMS)
def test_broken_files_are_refused_by_name(
    save: Callable[..., Path], name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_tokenizer(tmp_path, 1000)
    assert name in str(caught.value)


def test_a_vocabulary_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    save_word_pieces(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "vocab.txt").mkdir()
    with pytest.raises(CheckpointError, match=r"vocab\.txt cannot be read"):
        read_tokenizer(tmp_path, 1000)
    shutil.rmtree(tmp_path / "vocab.txt")


def test_ids_with_holes_are_taken_by_the_largest(tmp_path: Path) -> None:
    save_byte_pairs(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    vocabulary["zebra"] = 5000
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(CheckpointError, match="ids up to 5000, and the model embeds 1000"):
        read_tokenizer(tmp_path, 1000)

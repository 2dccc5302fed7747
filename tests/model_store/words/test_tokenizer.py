"""Token ids, held to transformers' CLIPTokenizer, and to open_clip's on the real vocabulary."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from mass_serve.backbone.architecture import Block
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.words.lists import TABLES, read_class_names
from mass_serve.model_store.words.text_tower import TextArchitecture
from mass_serve.model_store.words.tokenizer import ClipTokenizer, read_tokenizer
from tests.text_models import END, MERGES, START, VOCABULARY, make_tokenizer, save_vocabulary

AWKWARD = [
    "",
    "a photo of a cat.",
    "  A\tphoto \n of\u00a0the   CAT's dog  ",
    "don't we'll I'VE you're he'd i'm it's 's '' 'sx",
    "3000 kph, 10% / 5-door (1991-1993)!!! #1 C/V",
    "café cafe\u0301 İstanbul straße ΣΑΣ ǅ ﬁne",
    "犬と猫 кошка عربي हिन्दी",
    "🐈\u200d⬛ 👍🏽 ∑ ½ ²",
    'a_b__c `code` "quoted" {} [x] <p>&amp;&lt;</p>',
    f"{START} cat {END} dog {END.upper()}",
    "x" * 500,
    "cat " * 100,
    "\u00ad\ufeff\u200b",
]


def architecture(
    vocabulary: int = len(VOCABULARY), end: int | None = None, length: int = 24
) -> TextArchitecture:
    return TextArchitecture(vocabulary, length, Block(32, 4, 64, "quick_gelu", 1e-5), 2, 16, end)


def expected_ids(tokenizer: Any, texts: list[str], length: int) -> torch.Tensor:
    found = tokenizer(texts, padding=True, truncation=True, max_length=length, return_attention_mask=True)
    # Behind the end we have zeros, and nobody looks there.
    return torch.tensor(found["input_ids"]) * torch.tensor(found["attention_mask"])


@pytest.fixture(params=["tokenizer.json", "an old tokenizer.json", "vocab.json"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tokenizer's files, in each form."""
    if request.param == "vocab.json":
        save_vocabulary(tmp_path)
        return tmp_path
    make_tokenizer().save_pretrained(tmp_path)
    if request.param == "an old tokenizer.json":
        in_json("model.merges", [" ".join(pair) for pair in MERGES])(tmp_path)
    return tmp_path


@pytest.mark.parametrize("length", [24, 8])
def test_ids_are_those_of_transformers(folder: Path, length: int) -> None:
    tokenizer = read_tokenizer(folder, architecture(length=length))
    theirs = CLIPTokenizer.from_pretrained(folder)
    for texts in ([text] for text in AWKWARD):
        assert torch.equal(tokenizer.ids(texts), expected_ids(theirs, texts, length)), texts
    together = tokenizer.ids(AWKWARD)
    assert torch.equal(together, expected_ids(theirs, AWKWARD, length))
    assert together.shape == (len(AWKWARD), length), "what is too long is cut, and its end token stays"
    assert (together == VOCABULARY[END]).any(1).all()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipTokenizer, Any]:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_vocabulary(folder)
    return read_tokenizer(folder, architecture()), make_tokenizer()


@given(text=st.text(max_size=60))
def test_any_text_gets_the_ids_of_transformers(both: tuple[ClipTokenizer, Any], text: str) -> None:
    ours, theirs = both
    assert torch.equal(ours.ids([text]), expected_ids(theirs, [text], 24))


def test_html_is_not_unescaped(both: tuple[ClipTokenizer, Any]) -> None:
    """OpenAI's and open_clip's own code would make `&` of it."""
    ours, _ = both
    assert not torch.equal(ours.ids(["cat &amp; dog"]), ours.ids(["cat & dog"]))


def write(name: str, content: object) -> Callable[[Path], object]:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text)


def both_forms_gone(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def in_json(path: str, value: object) -> Callable[[Path], object]:
    """Changes a value of a tokenizer.json that transformers wrote."""

    def rewrite(folder: Path) -> None:
        make_tokenizer().save_pretrained(folder)
        content = json.loads((folder / "tokenizer.json").read_text())
        *parents, last = path.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return rewrite


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            both_forms_gone,
            r"has neither tokenizer\.json nor vocab\.json and merges\.txt: .* with --tokenizer",
        ),
        (lambda folder: (folder / "merges.txt").unlink(), r"merges\.txt cannot be read: No such file"),
        (lambda folder: (folder / "merges.txt").write_bytes(b"\xff"), r"merges\.txt: byte 0 is not UTF-8"),
        (
            write("merges.txt", "c a\nc a t\n"),
            r"merges\.txt: a merge must be of two tokens, found \['c', 'a', 't'",
        ),
        (write("merges.txt", "zz yy\n"), r"vocab\.json: vocabulary and merges do not fit together: "),
        (write("vocab.json", "{"), r"vocab\.json is not valid JSON"),
        (write("vocab.json", ["a"]), r"vocab\.json must hold a JSON object"),
        (write("vocab.json", {"a": 0}), r"vocab\.json: the vocabulary lacks <\|startoftext\|>"),
        (write("vocab.json", {**VOCABULARY, "a": "x"}), r"do not fit together: "),
        (
            write("vocab.json", {**VOCABULARY, "new": 9999}),
            r"has ids up to 9999, and the text tower embeds 525",
        ),
        (
            write("tokenizer.json", "{}"),
            r"tokenizer\.json: the model must be byte pairs whose words end with </w>",
        ),
        (write("tokenizer.json", "\x00"), r"tokenizer\.json is not valid JSON"),
        (
            lambda folder: (folder / "tokenizer.json").mkdir(),
            r"tokenizer\.json cannot be read: it is a folder",
        ),
        (in_json("model", {"type": "WordPiece", "vocab": {}}), "the model must be byte pairs"),
        (in_json("model.end_of_word_suffix", ""), "the model must be byte pairs"),
        (in_json("model.vocab", []), "must hold a vocab, an object, with merges"),
        (in_json("model.merges", None), "must hold a vocab, an object, with merges"),
        (in_json("model.merges", [["c"]]), r"tokenizer\.json: a merge must be of two tokens, found \['c'\]"),
        (in_json("model.merges", ["zz yy"]), r"tokenizer\.json: vocabulary and merges do not fit together"),
        (
            in_json("added_tokens", [{"content": "!"}]),
            r"adds \{'content': '!'\}, and a CLIP has no tokens beyond",
        ),
    ],
)
def test_tokenizers_that_cannot_be_used_are_refused(
    harm: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    save_vocabulary(tmp_path)
    harm(tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        read_tokenizer(tmp_path, architecture())


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    read_tokenizer(folder, architecture(end=VOCABULARY[END]))
    with pytest.raises(CheckpointError, match="ends a text with token 524, the text tower expects 7: "):
        read_tokenizer(folder, architecture(end=7))
    with pytest.raises(CheckpointError, match="has ids up to 524, and the text tower embeds 524 tokens: "):
        read_tokenizer(folder, architecture(vocabulary=524))


def test_the_library_is_asked_for_where_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        CheckpointError, match=r"need the package tokenizers: pip install 'mass-serve\[words\]'"
    ):
        read_tokenizer(folder, architecture())


@pytest.mark.optional("open_clip")
def test_on_the_real_vocabulary_ids_are_those_of_transformers_and_of_open_clip(
    open_clip: Any, tmp_path: Path
) -> None:
    packed = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    theirs = open_clip.tokenizer.SimpleTokenizer()
    vocabulary = dict(theirs.encoder)
    for name, token in (("<start_of_text>", START), ("<end_of_text>", END)):
        vocabulary[token] = vocabulary.pop(name)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]))
    ours = read_tokenizer(tmp_path, architecture(vocabulary=49408, length=77))
    hugging_face = CLIPTokenizer.from_pretrained(tmp_path)
    names = [
        name for table in TABLES for name in (read_class_names(table) if table != "clip-imagenet" else ())
    ]
    prompts = [f"a photo of a {name}." for name in names] + AWKWARD
    found = ours.ids(prompts)
    assert torch.equal(found, expected_ids(hugging_face, prompts, 77))
    # Special tokens in a text, HTML and invisible characters are what open_clip has other rules for.
    plain = [row for row, text in enumerate(prompts) if not {"<", "\u00ad", "İ", "ﬁ"} & set(text)]
    width = found.shape[1]
    assert torch.equal(found[plain], theirs([prompts[row] for row in plain])[:, :width])

"""Stores of text encoders, from transformers' files to the answers that its models give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer

from mass_serve.backbone import shares
from mass_serve.engine import Engine, Query, TextQuery
from mass_serve.engine.set_cache import SetKey
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError, StoreError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from mass_serve.model_store.store import Store
from mass_serve.router import MODE_NAMES
from tests import texts
from tests.vision_transformers import make_model, save_model

LENGTHS = (3, 40, 17, 1, 80, 17, 3, 26)


@pytest.fixture(scope="module", params=["Bert", "DistilBert", "Roberta", "ModernBert"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[texts.Finetuned, Path]:
    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, request.param)
    # The tuned models are further from random weights than fine-tuning ever goes.
    options = BuildOptions(compression_ratio=1.0, block_dtype="float32", force=True)
    build(models.pretrained, models.tasks, folder / "store", options, modes=MODE_NAMES)
    return models, folder / "store"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[texts.Finetuned, Path]:
    folder = tmp_path_factory.mktemp("bert")
    models = texts.finetuned(folder, "Bert")
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True), modes=MODE_NAMES)
    return models, folder / "store"


@torch.inference_mode()
def test_a_named_task_is_answered_as_transformers_answers(case: tuple[texts.Finetuned, Path]) -> None:
    models, store = case
    engine, batch = Engine.load(str(store), device="cpu"), texts.texts(LENGTHS)
    for task, model in models.models.items():
        queries = [TextQuery(words, (task,)) for words in batch.words]
        answers = engine.classify_batch(queries).all_answers()
        logits = model(**batch.padded(model)).logits
        found = torch.stack([answer.probabilities for answer in answers])
        torch.testing.assert_close(found, logits.softmax(1), atol=2e-4, rtol=2e-3)
        assert engine.tasks[task].labels[-1] == f"{task} {logits.shape[1] - 1}"


@torch.inference_mode()
def test_a_pair_is_answered_as_transformers_answers(case: tuple[texts.Finetuned, Path]) -> None:
    models, store = case
    engine, pairs = Engine.load(str(store), device="cpu"), [("w10 w11", "w12"), ("w20 " * 90, "w30 w31")]
    tokenizer = BertTokenizer.from_pretrained(models.pretrained)
    for task, model in models.models.items():
        for pair, answer in zip(pairs, engine.classify(pairs, [task]), strict=True):
            inputs = tokenizer(*pair, truncation=True, max_length=texts.MAX_TOKENS, return_tensors="pt")
            if model.config.model_type != "bert":  # the others have one type of token
                del inputs["token_type_ids"]
            expected = model(**inputs).logits[0].softmax(0)
            torch.testing.assert_close(answer.probabilities, expected, atol=2e-4, rtol=2e-3)


@torch.inference_mode()
def test_tasks_are_mixed_in_a_batch(case: tuple[texts.Finetuned, Path]) -> None:
    models, store = case
    engine, batch, names = Engine.load(str(store), device="cpu"), texts.texts(LENGTHS), list(models.models)
    tasks = [names[row % 3] for row in range(len(LENGTHS))]
    queries = [TextQuery(words, (task,)) for words, task in zip(batch.words, tasks, strict=True)]
    answers = engine.classify_batch(queries).all_answers()
    for row, (task, answer) in enumerate(zip(tasks, answers, strict=True)):
        model = models.models[task]
        logits = model(**batch.padded(model)).logits[row]
        torch.testing.assert_close(answer.probabilities, logits.softmax(0), atol=2e-4, rtol=2e-3)


def _bits(engine: Engine, words: list[Tensor]) -> list[tuple[Any, ...]]:
    answers = engine.classify_batch([TextQuery(own) for own in words]).all_answers()
    return [(a.task, a.probabilities.tolist(), dict(a.coefficients), a.residuals) for a in answers]


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_text_has_the_same_bits_whatever_else_is_in_the_batch(
    case: tuple[texts.Finetuned, Path], mode: str, dtype: str
) -> None:
    engine = Engine.load(str(case[1]), device="cpu", mode=mode, dtype=dtype)
    words = texts.texts(LENGTHS).words
    together = _bits(engine, words)
    assert [bits for own in words for bits in _bits(engine, [own])] == together
    assert _bits(engine, words[::-1]) == together[::-1]
    assert _bits(engine, [*words[2:5], words[3]]) == [*together[2:5], together[3]]


def test_a_batch_that_is_computed_in_portions_has_the_same_bits(
    case: tuple[texts.Finetuned, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, words = Engine.load(str(case[1]), device="cpu"), texts.texts(LENGTHS).words
    together = _bits(engine, words)
    monkeypatch.setattr(shares, "TOKENS_PER_PORTION", max(LENGTHS) + 1)
    assert _bits(engine, words) == together


def test_materialised_weights_give_the_same_answers(bert: tuple[texts.Finetuned, Path]) -> None:
    words = texts.texts(LENGTHS).words
    found = []
    for execution in ("low_rank", "materialised"):
        engine = Engine.load(str(bert[1]), device="cpu", execution=execution)
        answers = engine.classify_batch([TextQuery(own) for own in words]).all_answers()
        found.append(torch.cat([answer.probabilities for answer in answers]))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


def test_a_store_of_texts_says_so(bert: tuple[texts.Finetuned, Path]) -> None:
    manifest = Store.open(str(bert[1])).manifest
    assert manifest.format_version == 2
    assert manifest.preprocessing.model_dump() == {"kind": "text", "max_tokens": texts.MAX_TOKENS}
    assert manifest.tasks[0].head.model_dump() == {
        "kind": "stack",
        "hidden": {"activation": "tanh", "norm_eps": None},
    }
    assert manifest.factored_parameters[:3] == (
        "word_embedding.weight",
        "position_embedding.weight",
        "type_embedding.weight",
    )
    assert manifest.router.token == "mean"


def test_no_set_of_tasks_keeps_words_of_its_own(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert", vocab_size=2000)
    build(models.pretrained, models.tasks, tmp_path / "store", BuildOptions(force=True, mode="paper"))
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    engine.classify_batch([TextQuery(words) for words in texts.texts((5, 9, 30)).words])
    table = engine.bank.pretrained["word_embedding.weight"]
    assert engine.set_cache.nbytes < table.nbytes


def test_a_task_is_added(bert: tuple[texts.Finetuned, Path], tmp_path: Path) -> None:
    models = bert[0]
    build(models.pretrained, models.tasks[:2], tmp_path / "store", BuildOptions(force=True))
    add_task(tmp_path / "store", models.tasks[2], force=True)
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    assert list(engine.tasks) == ["guard", "domain", "safety"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (torch.zeros(0, 2, dtype=torch.int64), "a text must have 1 to 80 tokens, got 0"),
        (torch.zeros(81, 2, dtype=torch.int64), "a text must have 1 to 80 tokens, got 81"),
        (torch.zeros(3, dtype=torch.int64), r"words must be int64 \[n, 2\], got torch.int64 \(3,\)"),
        (torch.zeros(3, 2), r"words must be int64 \[n, 2\], got torch.float32 \(3, 2\)"),
        (torch.tensor([[97, 0]]), "ids of words must be below 97 and types below 2"),
        (torch.tensor([[-1, 0]]), "ids of words must be below 97 and types below 2"),
        (torch.tensor([[5, 2]]), "ids of words must be below 97 and types below 2"),
    ],
)
def test_words_that_the_encoder_does_not_have_are_refused(
    bert: tuple[texts.Finetuned, Path], words: Tensor, message: str
) -> None:
    engine = Engine.load(str(bert[1]), device="cpu")
    with pytest.raises(ValueError, match=message):
        engine.classify_batch([TextQuery(words)])


def test_images_are_refused_by_a_store_of_texts(bert: tuple[texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(bert[1]), device="cpu")
    with pytest.raises(ValueError, match="this store reads texts, and an image was given"):
        engine.classify_batch([Query(torch.zeros(3, 32, 32, dtype=torch.uint8))])
    with pytest.raises(StoreError, match="this store reads texts, and images are asked of it"):
        _ = engine.preprocessing
    with pytest.raises(StoreError, match="this store reads texts"):
        engine.classify([Image.new("RGB", (32, 32))])


def test_adaptive_execution_buys_by_the_tokens_of_texts(bert: tuple[texts.Finetuned, Path]) -> None:
    """Short texts rent for longer than long ones: what they have cost is counted by their tokens."""

    def texts_to_buy(text: str) -> int:
        engine = Engine.load(str(bert[1]), device="cpu", execution="adaptive")
        rented = engine.classify([text], ["guard"])[0].logits
        asked = 1
        while SetKey((0,), True) not in engine.set_cache:
            engine.classify([text], ["guard"])
            asked += 1
            assert asked < 1000
        bought = engine.classify([text], ["guard"])[0].logits
        torch.testing.assert_close(bought, rented, atol=1e-4, rtol=1e-3)
        return asked

    short, long = texts_to_buy("w10 w11"), texts_to_buy("w10 " * 200)
    assert short > 5 * long


def test_a_task_of_another_kind_of_input_is_refused(
    bert: tuple[texts.Finetuned, Path], tmp_path: Path
) -> None:
    image = save_model(make_model("ViTForImageClassification"), tmp_path / "vit")
    with pytest.raises(CheckpointError, match="the fine-tuned model reads images, the pretrained one texts"):
        build(bert[0].pretrained, [TaskInput("vit", image)], tmp_path / "store")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 98}, "the fine-tuned model has vocabulary 98, the pretrained model 97"),
        ({"num_hidden_layers": 2}, "the fine-tuned model has depth 2, the pretrained model 3"),
        ({"max_position_embeddings": 64}, "has max_tokens 64, the pretrained model 80"),
    ],
)
def test_a_task_of_other_sizes_is_refused(
    bert: tuple[texts.Finetuned, Path], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    texts.make_model("Bert", "ForSequenceClassification", num_labels=3, **changes).save_pretrained(
        tmp_path / "t"
    )
    with pytest.raises(CheckpointError, match=message):
        build(bert[0].pretrained, [TaskInput("other", tmp_path / "t")], tmp_path / "store")


def test_patches_that_are_not_there_cannot_be_averaged(
    bert: tuple[texts.Finetuned, Path], tmp_path: Path
) -> None:
    options = BuildOptions(patch_embedding="averaged", force=True)
    with pytest.raises(
        StoreError, match="the patch embedding cannot be averaged: the pretrained model reads"
    ):
        build(bert[0].pretrained, bert[0].tasks, tmp_path / "store", options)


@pytest.mark.parametrize("asked", [{}, {"answer": "each"}, {"same_task": True}])
def test_no_text_has_no_answer(case: tuple[texts.Finetuned, Path], asked: dict[str, Any]) -> None:
    assert Engine.load(str(case[1]), device="cpu").classify([], **asked) == []

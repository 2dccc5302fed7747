"""Stores with tasks that classify tokens, from transformers' files to the answers that its models give."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mass_serve.backbone import Pooling
from mass_serve.engine import Engine, Question, TextQuery, TokenClassification
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from mass_serve.model_store.store import Store
from mass_serve.router import MODE_NAMES
from tests import texts, trained_tokenizers
from tests.trained_tokenizers import MAX_TOKENS, TEXTS, TRAINED

LENGTHS = (3, 40, 17, 1, 80, 17, 3, 26)
WHOLE, OF_TOKENS = ("guard", "domain"), ("pii", "names")
# The tuned models are further from random weights than fine-tuning ever goes.
EXACT = BuildOptions(compression_ratio=1.0, block_dtype="float32", force=True)


def _models(folder: Path, kind: str, whole: tuple[str, ...] = WHOLE) -> texts.Finetuned:
    tokenizer = TRAINED[kind]()
    size = max(tokenizer.get_vocab_size(), texts.VOCABULARY)
    models = texts.finetuned(folder, kind, whole, OF_TOKENS, vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    return models


@pytest.fixture(scope="module", params=TRAINED)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, texts.Finetuned, Path]:
    folder = tmp_path_factory.mktemp("tokens")
    models = _models(folder, request.param)
    # One that classifies tokens stands before one that does not.
    first, second, third, fourth = models.tasks
    build(models.pretrained, [third, first, fourth, second], folder / "store", EXACT, modes=MODE_NAMES)
    return request.param, models, folder / "store"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[texts.Finetuned, Path]:
    folder = tmp_path_factory.mktemp("bert")
    models = _models(folder, "Bert")
    build(models.pretrained, models.tasks, folder / "store", EXACT, modes=MODE_NAMES)
    return models, folder / "store"


def _asked(engine: Engine, names: tuple[str, ...], lengths: tuple[int, ...] = LENGTHS) -> Any:
    queries = [TextQuery(words, (name,)) for words in texts.texts(lengths).words for name in names]
    return engine.classify_batch(queries).all_answers()


@torch.inference_mode()
def test_every_token_is_classified_as_transformers_does(case: tuple[str, texts.Finetuned, Path]) -> None:
    _, models, store = case
    engine, batch = Engine.load(str(store), device="cpu"), texts.texts(LENGTHS)
    for task in OF_TOKENS:
        model = models.models[task]
        wanted = model(**batch.padded(model)).logits.softmax(2)
        for answer, of_text, length in zip(_asked(engine, (task,)), wanted, LENGTHS, strict=True):
            assert isinstance(answer, TokenClassification)
            torch.testing.assert_close(answer.probabilities, of_text[:length], atol=2e-4, rtol=2e-3)


def test_entities_are_those_of_transformers_pipeline(case: tuple[str, texts.Finetuned, Path]) -> None:
    kind, models, store = case
    engine = Engine.load(str(store), device="cpu")
    tokenizer = trained_tokenizers.of_transformers(TRAINED[kind]())
    theirs = transformers.pipeline("token-classification", model=models.models["pii"], tokenizer=tokenizer)
    for text, answer in zip(TEXTS, engine.classify(TEXTS, ["pii"]), strict=True):
        assert isinstance(answer, TokenClassification)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of words, which not all tokenizers know
            wanted: list[dict[str, Any]] = theirs(text, aggregation_strategy="average")
        found = [(one.label, one.start, one.end) for one in answer.entities("average")]
        assert found == [(one["entity_group"], one["start"], one["end"]) for one in wanted]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_text_has_the_same_bits_whatever_else_is_in_the_batch(
    case: tuple[str, texts.Finetuned, Path], dtype: str
) -> None:
    engine = Engine.load(str(case[2]), device="cpu", dtype=dtype)
    names = (*OF_TOKENS, *WHOLE)
    together = [answer.logits.tolist() for answer in _asked(engine, names)]
    for row, words in enumerate(texts.texts(LENGTHS).words):
        for place, name in enumerate(names):
            (alone,) = engine.classify_batch([TextQuery(words, (name,))]).all_answers()
            assert alone.logits.tolist() == together[row * len(names) + place]


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_texts_are_routed_as_if_there_were_no_tasks_that_classify_tokens(
    bert: tuple[texts.Finetuned, Path], tmp_path: Path, mode: str
) -> None:
    models, store = bert
    build(models.pretrained, models.tasks[:2], tmp_path / "store", EXACT, modes=MODE_NAMES)
    mixed, plain = (Engine.load(str(path), device="cpu", mode=mode) for path in (store, tmp_path / "store"))
    words = [TextQuery(own) for own in texts.texts(LENGTHS).words]
    found, wanted = (engine.classify_batch(words).all_answers() for engine in (mixed, plain))
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.task, ours.coefficients, ours.residuals) == (
            theirs.task,
            theirs.coefficients,
            theirs.residuals,
        )
        assert torch.equal(ours.logits, theirs.logits)


def test_each_task_answers_in_its_own_way(bert: tuple[texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(bert[1]), device="cpu")
    answers = engine.classify(TEXTS[:3], ["names", "domain", "pii"], answer="each")
    assert [answer.task for answer in answers] == ["names", "domain", "pii"] * 3
    assert [isinstance(answer, TokenClassification) for answer in answers] == [True, False, True] * 3
    (alone,) = engine.classify([TEXTS[1]], ["pii"])
    assert torch.equal(alone.logits, answers[5].logits)
    assert [answer.task for answer in engine.classify(TEXTS[:1], answer="each")] == [*WHOLE, *OF_TOKENS]


def test_a_task_that_classifies_tokens_is_never_chosen(bert: tuple[texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(bert[1]), device="cpu")
    assert {answer.task for answer in engine.classify(TEXTS)} <= set(WHOLE)
    with pytest.raises(ValueError, match=r"'pii' classifies tokens, .* ask with answer 'each'"):
        engine.classify(TEXTS, ["guard", "pii"])
    with pytest.raises(ValueError, match="'pii' classifies tokens"):
        engine.classify_batch([TextQuery(texts.texts((3,)).words[0], ("pii", "guard"))])
    pooled = engine.classify(TEXTS[:3], ["pii", "pii"], same_task=True)
    alone = engine.classify(TEXTS[:3], ["pii"])
    assert all(torch.equal(one.logits, other.logits) for one, other in zip(pooled, alone, strict=True))


def test_a_store_whose_tasks_all_classify_tokens(tmp_path: Path) -> None:
    models = _models(tmp_path, "ModernBert", ())
    for mode in ("exact", "paper"):
        options = EXACT.model_copy(update={"mode": mode, "merged_base": "stored"})
        store = build(models.pretrained, models.tasks, tmp_path / mode, options, modes=MODE_NAMES)
        assert store.manifest.merged_base == "rebuilt"  # of no task
        engine = Engine.load(str(tmp_path / mode), device="cpu")
        with pytest.raises(ValueError, match=r"all tasks here classify tokens, .*name one of pii, names"):
            engine.classify(TEXTS)
        assert len(engine.classify(TEXTS, ["names"])) == len(TEXTS)
        assert len(engine.classify(TEXTS, answer="each")) == 2 * len(TEXTS)
    build(models.pretrained, models.tasks[:1], tmp_path / "one", EXACT, modes=MODE_NAMES)
    answers = Engine.load(str(tmp_path / "one"), device="cpu").classify(TEXTS)
    assert {answer.task for answer in answers} == {"pii"}


def test_tasks_of_both_kinds_are_added(bert: tuple[texts.Finetuned, Path], tmp_path: Path) -> None:
    models = bert[0]
    build(models.pretrained, models.tasks[2:3], tmp_path / "store", EXACT, modes=MODE_NAMES)
    for task in (models.tasks[0], models.tasks[3], models.tasks[1]):
        add_task(tmp_path / "store", task, force=True)
    grown, whole = (Engine.load(str(path), device="cpu") for path in (tmp_path / "store", bert[1]))
    for name in (*WHOLE, *OF_TOKENS):
        for ours, theirs in zip(grown.classify(TEXTS, [name]), whole.classify(TEXTS, [name]), strict=True):
            assert torch.equal(ours.logits, theirs.logits)


def test_the_first_task_of_whole_texts_brings_its_pooling(tmp_path: Path) -> None:
    models = _models(tmp_path, "ModernBert", ())
    build(models.pretrained, models.tasks, tmp_path / "store", EXACT, modes=MODE_NAMES)
    size = models.models["pii"].config.vocab_size
    means = texts.finetuned(
        tmp_path / "means", "ModernBert", WHOLE, classifier_pooling="mean", vocab_size=size
    )
    first, second = [add_task(tmp_path / "store", task, force=True) for task in means.tasks]
    assert first.manifest.backbone.pooling == second.manifest.backbone.pooling == Pooling(None, "mean")
    engine, batch = Engine.load(str(tmp_path / "store"), device="cpu"), texts.texts(LENGTHS)
    for answer, logits in zip(
        _asked(engine, ("guard",)),
        means.models["guard"](**batch.padded(means.models["guard"])).logits,
        strict=True,
    ):
        torch.testing.assert_close(answer.probabilities, logits.softmax(0), atol=2e-4, rtol=2e-3)
    other = texts.finetuned(tmp_path / "other", "ModernBert", WHOLE, vocab_size=size).tasks[0]
    with pytest.raises(CheckpointError, match="a store gives one"):
        add_task(tmp_path / "store", TaskInput("other", other.checkpoint), force=True)


def test_the_manifest_says_that_a_head_is_for_each_token(bert: tuple[texts.Finetuned, Path]) -> None:
    manifest = Store.open(str(bert[1])).manifest
    assert [task.head.model_dump() for task in manifest.tasks[1:3]] == [
        {"kind": "stack", "hidden": {"activation": "tanh", "norm_eps": None}},
        {"kind": "linear", "each_token": True},
    ]
    assert manifest.format_version == 2


def test_entities_need_to_know_where_tokens_stand(bert: tuple[texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(bert[1]), device="cpu")
    tokens = engine.tokenizer
    assert tokens is not None
    placed = [tokens.tokens(text, placed=True) for text in TEXTS]
    queries = Question(("pii",)).queries(placed, engine.tasks)
    answers = engine.classify_batch(queries).all_answers()
    assert all(isinstance(answer, TokenClassification) and answer.entities() for answer in answers)
    (unplaced,) = _asked(engine, ("pii",), (3,))
    with pytest.raises(ValueError, match="did not say where its tokens stand"):
        unplaced.entities()


def test_a_head_of_another_width_is_refused(bert: tuple[texts.Finetuned, Path], tmp_path: Path) -> None:
    models = bert[0]
    folder = models.tasks[2].checkpoint
    head = {"weight": torch.ones(6, 12), "bias": torch.zeros(6)}
    save_file(head, tmp_path / "head.safetensors")
    task = TaskInput("pii", folder, tmp_path / "head.safetensors", tmp_path / "labels.json")
    (tmp_path / "labels.json").write_text('["a", "b", "c", "d", "e", "f"]')
    with pytest.raises(CheckpointError, match="the head takes 12 numbers, a token of the encoder has 48"):
        build(models.pretrained, [task], tmp_path / "store", EXACT)
    assert load_file(folder / "model.safetensors")["classifier.weight"].shape == (6, 48)
    assert MAX_TOKENS == texts.MAX_TOKENS

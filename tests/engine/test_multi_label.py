"""Stores with tasks of any number of labels, from transformers' files to what its own pipeline answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from mass_serve.engine import Classification, Engine, Query, TextQuery
from mass_serve.engine.execution import Execution
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from mass_serve.router import MODE_NAMES, PAPER, ModeName
from tests import texts, tiny, trained_tokenizers, vision_transformers
from tests.trained_tokenizers import TEXTS, TRAINED

ONE, SEVERAL = "guard", ("domain", "safety")
# The tuned models are further from random weights than fine-tuning ever goes.
EXACT = BuildOptions(compression_ratio=1.0, block_dtype="float32", force=True)


@pytest.fixture(scope="module", params=["Bert", "ModernBert"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, texts.Finetuned, Path]:
    folder = tmp_path_factory.mktemp("labels")
    tokenizer = TRAINED[request.param]()
    size = max(tokenizer.get_vocab_size(), texts.VOCABULARY)
    models = texts.finetuned(folder, request.param, multi_label=SEVERAL, vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    (folder / "safety" / "thresholds.json").write_text('{"safety 0": 0.99, "safety 3": 0.01}')
    build(models.pretrained, models.tasks, folder / "store", EXACT, modes=MODE_NAMES)
    return request.param, models, folder / "store"


def _pipeline(case: tuple[str, texts.Finetuned, Path], task: str) -> Any:
    kind, models, _ = case
    tokenizer = trained_tokenizers.of_transformers(TRAINED[kind]())
    return transformers.pipeline(
        "text-classification", model=models.models[task], tokenizer=tokenizer, top_k=None
    )


@pytest.mark.parametrize("task", [ONE, *SEVERAL])
def test_probabilities_are_those_of_transformers_pipeline(
    case: tuple[str, texts.Finetuned, Path], task: str
) -> None:
    engine, theirs = Engine.load(str(case[2]), device="cpu"), _pipeline(case, task)
    for text, answer in zip(TEXTS, engine.classify(TEXTS, [task]), strict=True):
        wanted = {one["label"]: one["score"] for one in theirs([text])[0]}
        found = dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
        assert found == pytest.approx(wanted, abs=2e-4)
        assert answer.is_multi_label == (task in SEVERAL)


@pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
def test_probabilities_of_images_are_those_of_transformers_pipeline(kind: str, tmp_path: Path) -> None:
    models = vision_transformers.finetuned(
        tmp_path, f"{kind}Model", f"{kind}ForImageClassification", problem_type="multi_label_classification"
    )
    build(models.pretrained, models.tasks, tmp_path / "store", EXACT, modes=MODE_NAMES)
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    images = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in tiny.pixels(4)]
    size: Any = {"size": {"height": 32, "width": 32}}
    processor = transformers.ViTImageProcessor(**(size | vision_transformers.IMAGES))
    for task, model in models.models.items():
        theirs = transformers.pipeline("image-classification", model=model, image_processor=processor)
        for image, answer in zip(images, engine.classify(images, [task]), strict=True):
            wanted = {one["label"]: one["score"] for one in theirs(image, top_k=100)}
            found = dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
            assert found == pytest.approx(wanted, abs=2e-4)
            assert set(answer.given) == {label for label, score in found.items() if score >= 0.5}


def test_every_label_is_given_from_its_threshold_on(case: tuple[str, texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(case[2]), device="cpu")
    thresholds = dict.fromkeys(engine.tasks["safety"].labels, 0.5) | {"safety 0": 0.99, "safety 3": 0.01}
    usual = []
    for answer in engine.classify(TEXTS, ["safety"]):
        found = dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
        wanted = {label for label, score in found.items() if score >= thresholds[label]}
        assert set(answer.given) == wanted
        assert [found[label] for label in answer.given] == sorted(map(found.get, wanted), reverse=True)  # type: ignore[type-var]
        usual.append(wanted == {label for label, score in found.items() if score >= 0.5})
    assert not all(usual)  # or thresholds that are not read would pass
    for answer in engine.classify(TEXTS, [ONE]):
        assert answer.given == (answer.labels[int(answer.logits.argmax())],)


def test_no_label_may_reach_its_threshold_and_a_probability_that_is_it_does(
    case: tuple[str, texts.Finetuned, Path], tmp_path: Path
) -> None:
    _, models, store = case
    (answer,) = Engine.load(str(store), device="cpu").classify(TEXTS[:1], ["domain"])
    # JSON has more digits than the probabilities, and they say the same.
    exactly = dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
    above = {label: torch.tensor(p).nextafter(torch.tensor(1.0)).item() for label, p in exactly.items()}
    for name, thresholds, wanted in (("exactly", exactly, len(exactly)), ("above", above, 0)):
        (tmp_path / name).write_text(json.dumps(thresholds))
        task = TaskInput("domain", models.pretrained.parent / "domain", thresholds=tmp_path / name)
        build(models.pretrained, [task], tmp_path / f"{name}-store", EXACT, modes=MODE_NAMES)
        (found,) = Engine.load(str(tmp_path / f"{name}-store"), device="cpu").classify(TEXTS[:1])
        assert len(found.given) == wanted


def test_thresholds_make_another_revision(case: tuple[str, texts.Finetuned, Path], tmp_path: Path) -> None:
    _, models, _ = case
    folder = models.pretrained.parent / "domain"
    store = build(models.pretrained, [TaskInput("domain", folder)], tmp_path / "store", EXACT)
    (tmp_path / "mine.json").write_text('{"domain 1": 0.9}')
    changed = add_task(
        tmp_path / "store", TaskInput("domain", folder, thresholds=tmp_path / "mine.json"), True, force=True
    )
    assert changed.task("domain").revision != store.task("domain").revision
    assert changed.load_head("domain").thresholds == (0.5, 0.9, 0.5, 0.5)
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    assert engine.tasks["domain"].head.thresholds == (0.5, 0.9, 0.5, 0.5)


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_a_text_has_the_same_bits_whatever_else_is_in_the_batch(
    case: tuple[str, texts.Finetuned, Path], mode: ModeName
) -> None:
    engine = Engine.load(str(case[2]), device="cpu", mode=mode)
    words = texts.texts().words
    queries = [TextQuery(own, asked) for own in words for asked in (None, (ONE,), SEVERAL, SEVERAL[:1])]
    together = engine.classify_batch(queries).all_answers()
    for query, answer in zip(queries, together, strict=True):
        (alone,) = engine.classify_batch([query]).all_answers()
        assert (alone.task, alone.given, alone.coefficients) == (
            answer.task,
            answer.given,
            answer.coefficients,
        )
        assert torch.equal(alone.probabilities, answer.probabilities)
        assert alone.familiarity == answer.familiarity


def test_each_task_answers_in_its_own_way(case: tuple[str, texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(case[2]), device="cpu")
    found = engine.classify(TEXTS, answer="each")
    assert [one.is_multi_label for one in found] == [False, True, True] * len(TEXTS)
    for task in (ONE, *SEVERAL):
        own = engine.classify(TEXTS, [task])
        assert [one.given for one in found if one.task == task] == [one.given for one in own]


def test_inputs_of_one_task_are_answered_by_its_labels(case: tuple[str, texts.Finetuned, Path]) -> None:
    engine = Engine.load(str(case[2]), device="cpu")
    found = engine.classify(TEXTS, same_task=True)
    (task,) = {one.task for one in found}
    assert [one.given for one in found] == [one.given for one in engine.classify(TEXTS, [task])]


def _mixed(mode: ModeName, multi_label: tuple[int, ...]) -> list[Classification]:
    loaded = tiny.loaded_store(mode=mode, threshold=0.1, multi_label=multi_label)
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    return engine.classify_batch([Query(one) for one in tiny.pixels(24)]).all_answers()


def test_alternatives_are_of_their_tasks_kinds() -> None:
    found = _mixed("exact", (0, 2))
    kinds = {(one.is_multi_label, other.is_multi_label) for one in found for other in one.alternatives}
    assert len(kinds) > 1
    for one in found:
        for other in one.alternatives:
            assert set(other.given) <= set(other.labels)


def test_logits_of_both_kinds_are_not_compared() -> None:
    """The paper's router has the largest logit of an expert set answer; a sigmoid's means another thing."""
    for multi_label in ((), (0, 1, 2, 3), (0, 2)):
        told = []
        for answer in _mixed(PAPER, multi_label):
            largest = max(answer.coefficients, key=lambda name: answer.coefficients[name])
            heights = [one.logits.max() for one in answer.alternatives]
            is_highest = all(answer.logits.max() >= height for height in heights)
            kinds = {one.is_multi_label for one in (answer, *answer.alternatives)}
            assert answer.task == largest if len(kinds) > 1 else is_highest
            told.append(answer.task == largest)
        assert multi_label == (0, 2) or not all(told)  # or both rules would be one

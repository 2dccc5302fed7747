"""The engine on tiny random models: the same bits in any company, and every way to choose."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mass_serve.backbone import DenseWeights, expert_bank, patchify, run
from mass_serve.engine import Classification, Engine, Query
from mass_serve.engine.evidence_search import EVIDENCE_SHARE
from mass_serve.engine.execution import BUYING_OVER_RENTING, AdaptiveExecution, Execution
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.set_cache import SetCache, SetKey
from mass_serve.merging import TaskChange, merged_parameter
from mass_serve.router import MODES, ModeName, early_stop
from tests import tiny
from tests.encoders import ENCODERS

NAMES = tuple(f"task{i}" for i in range(4))
PIXELS = tiny.pixels(24)
# A low threshold and many tasks make sets of one, two and three tasks all common.
CANDIDATES = [None, None, ("task1",), ("task0", "task2"), ("task3",), NAMES]


def _engine(execution: str = "low_rank", cache: int = 1 << 30, **store: object) -> Engine:
    return Engine(tiny.loaded_store(**store), Execution(execution), cache)  # type: ignore[arg-type]


def _queries() -> list[Query]:
    return [Query(image, CANDIDATES[i % len(CANDIDATES)]) for i, image in enumerate(PIXELS)]


def _same_bits(one: Classification, other: Classification) -> bool:
    """Equality of everything in an answer, to the last bit."""
    rest = [
        (answer.task, answer.expert_set, answer.coefficients, answer.residuals, answer.familiarity)
        for answer in (one, other)
    ]
    return rest[0] == rest[1] and torch.equal(one.probabilities, other.probabilities)


# Narrow heads and a single head are where a matrix library's bits are the least stable.
KINDS: dict[str, dict[str, Any]] = {
    "low_rank": {},
    "materialised": {"execution": "materialised"},
    "bfloat16": {"dtype": torch.bfloat16},
    "int8": {"dtype": torch.int8},
    "int8_exact": {"dtype": torch.int8, "mode": "exact"},
    "int8_materialised": {"dtype": torch.int8, "execution": "materialised"},
    "narrow_heads": {"config": tiny.architecture(32, 8, 32, 2, 4, 64, "quick_gelu", 1e-5, 16)},
    "fast": {"mode": "fast"},
    "exact": {"mode": "exact"},
    "calibrated_fast": {"mode": "fast", "calibrated": True},
    "calibrated_exact": {"mode": "exact", "calibrated": True},
    **{name: {"config": encoder} for name, encoder in ENCODERS.items()},
    "one_head": {"config": tiny.architecture(32, 16, 24, 2, 1, 40, "gelu", 1e-5, None)},
}


@pytest.fixture(scope="module", params=KINDS)
def engine_and_answers(request: pytest.FixtureRequest) -> tuple[Engine, list[Classification]]:
    engine = _engine(**({"threshold": 0.15} | KINDS[request.param]))
    return engine, engine.classify_batch(_queries()).all_answers()


@settings(max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(1, len(PIXELS)))
def test_an_image_gets_the_same_bits_in_every_batch(
    engine_and_answers: tuple[Engine, list[Classification]], rng: random.Random, size: int
) -> None:
    engine, answers = engine_and_answers
    chosen = rng.sample(range(len(PIXELS)), size)
    queries = _queries()
    again = engine.classify_batch([queries[i] for i in chosen]).all_answers()
    for i, answer in zip(chosen, again, strict=True):
        assert _same_bits(answer, answers[i]), f"image {i} in the batch {chosen}"


@pytest.mark.parametrize(
    "kind", ["low_rank", "bfloat16", "int8", "narrow_heads", "one_head", "fast", "exact", *ENCODERS]
)
def test_the_bits_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    before = torch.get_num_threads()
    engine, queries = _engine(**({"threshold": 0.15} | KINDS[kind])), _queries()
    try:
        torch.set_num_threads(1)
        expected = engine.classify_batch(queries).all_answers()
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            alone = [engine.classify_batch([query]).all_answers()[0] for query in queries]
            together = engine.classify_batch(queries).all_answers()
            assert all(map(_same_bits, alone, expected)), f"{threads} threads, one by one"
            assert all(map(_same_bits, together, expected)), f"{threads} threads, in shares"
    finally:
        torch.set_num_threads(before)


def test_normalised_pixels_get_the_answer_of_the_bytes_they_were(
    engine_and_answers: tuple[Engine, list[Classification]],
) -> None:
    engine, answers = engine_and_answers
    queries = _queries()
    for i in range(0, len(queries), 2):  # every other one, so that a batch has both kinds
        normalised = engine.preprocessing.normalise(queries[i].pixels)
        queries[i] = Query(normalised, queries[i].candidates)
    assert all(map(_same_bits, engine.classify_batch(queries).all_answers(), answers))


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0), (0.9999, 2)])
def test_images_without_a_task_above_the_threshold_are_counted(threshold: float, expected: int) -> None:
    queries = [Query(PIXELS[0]), Query(PIXELS[1]), Query(PIXELS[2], ("task1",))]  # the third is not routed
    assert _engine(threshold=threshold).classify_batch(queries).fallbacks == expected


def test_sets_of_every_size_occur_in_these_tests() -> None:
    answers = _engine(threshold=0.15).classify_batch(_queries()).all_answers()
    assert {len(answer.expert_set) for answer in answers} == {1, 2, 3}


def test_a_named_task_is_answered_by_its_own_dense_model() -> None:
    loaded = tiny.loaded_store()
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    (answer,) = engine.classify_batch([Query(PIXELS[0], ("task2",))]).all_answers()
    assert (answer.task, answer.expert_set, answer.coefficients) == ("task2", ("task2",), {"task2": 1.0})
    assert answer.residuals == {}, "nothing was routed"
    weights = DenseWeights({n: loaded.bank.merged(n, (2,)) for n in loaded.pretrained})
    normalised = (PIXELS[0].float() / 255 - 0.5) / 0.25
    patches = patchify(normalised[None], loaded.architecture.patches.patch_size)
    embedding = run(loaded.architecture, weights, patches).embedding
    expected = loaded.heads[2].head.logits(embedding).softmax(1)[0]
    torch.testing.assert_close(answer.probabilities, expected, atol=1e-5, rtol=1e-4)


def test_a_named_task_skips_the_first_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine()
    monkeypatch.setattr(engine._passes, "first", _must_not_run)
    engine.classify_batch([Query(PIXELS[0], ("task0",)), Query(PIXELS[1], ("task3",))])
    with pytest.raises(AssertionError, match="first pass"):
        engine.classify_batch([Query(PIXELS[0])])


@pytest.mark.parametrize(("mode", "second_passes"), [("balanced", {1}), ("exact", {1, 2})])
def test_where_nothing_resumes_a_second_pass_is_a_whole_one(mode: str, second_passes: set[int]) -> None:
    engine = _engine(mode=mode)
    answers = engine.classify_batch([Query(p) for p in PIXELS]).all_answers()
    early = early_stop(engine.architecture.depth) / engine.architecture.depth * EVIDENCE_SHARE / 3
    assert sorted({answer.passes for answer in answers}) == pytest.approx(
        [1 + early + many for many in sorted(second_passes)]
    )
    for answer, pixels in zip(answers, PIXELS, strict=True):
        if len(answer.expert_set) == 1:
            expected = _all_logits(engine, answer, pixels)[answer.task]
            torch.testing.assert_close(answer.logits, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def all_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far a task's second passes end from whole ones."""
    monkeypatch.setattr("mass_serve.engine.evidence_search.FARTHEST_RESUMED", math.inf)


@pytest.mark.usefixtures("all_resume")
@pytest.mark.parametrize("mode", ["one_pass", "fast"])
def test_a_second_pass_that_resumes_leaves_the_first_third_as_it_was(mode: ModeName) -> None:
    loaded = tiny.loaded_store(mode=mode)
    config, stop = loaded.architecture, early_stop(loaded.architecture.depth)
    answers = Engine(loaded, Execution.LOW_RANK, 1 << 30).classify_batch([Query(p) for p in PIXELS])
    early = stop / config.depth * EVIDENCE_SHARE / 3
    costs = {"one_pass": [1 + early], "fast": [1 + early, 2 - stop / config.depth + early]}[mode]
    assert sorted({answer.passes for answer in answers.all_answers()}) == pytest.approx(costs)
    for answer, pixels in zip(answers.all_answers(), PIXELS, strict=True):
        task = NAMES.index(answer.task)
        patches = patchify(((pixels.float() / 255 - 0.5) / 0.25)[None], config.patches.patch_size)
        tokens = run(config, DenseWeights(loaded.first_pass), patches, stop=stop).tokens
        own = DenseWeights({n: loaded.bank.merged(n, (task,)) for n in loaded.pretrained})
        expected = loaded.heads[task].head.logits(run(config, own, tokens, start=stop).embedding)[0]
        torch.testing.assert_close(answer.logits, expected, atol=1e-4, rtol=1e-4)


def _must_not_run(*_: object, **__: object) -> Tensor:
    raise AssertionError("the first pass ran")


def test_only_candidates_answer() -> None:
    answers = (
        _engine(threshold=0.0).classify_batch([Query(p, ("task0", "task3")) for p in PIXELS]).all_answers()
    )
    assert {name for answer in answers for name in answer.expert_set} <= {"task0", "task3"}
    assert all(tuple(answer.residuals) == NAMES for answer in answers)


@pytest.mark.parametrize("tasks", [1, 2])
def test_one_or_two_tasks_are_served(tasks: int) -> None:
    answers = _engine(tasks=tasks).classify_batch([Query(p) for p in PIXELS]).all_answers()
    assert all(sum(answer.coefficients.values()) <= 1.0 + 1e-6 for answer in answers)
    assert all(answer.probabilities.sum().item() == pytest.approx(1.0, abs=1e-5) for answer in answers)


def _all_logits(engine: Engine, answer: Classification, pixels: Tensor) -> dict[str, Tensor]:
    """Each head's logits on the embedding that the answer's expert set gives."""
    loaded = tiny.loaded_store()
    tasks = tuple(NAMES.index(name) for name in answer.expert_set)
    weights = DenseWeights({n: loaded.bank.merged(n, tasks) for n in loaded.pretrained})
    patches = patchify(((pixels.float() / 255 - 0.5) / 0.25)[None], engine.architecture.patches.patch_size)
    embedding = run(engine.architecture, weights, patches).embedding
    return {name: loaded.heads[NAMES.index(name)].head.logits(embedding)[0] for name in answer.expert_set}


@pytest.mark.parametrize("choice", ["max", "mean", "router"])
def test_the_head_that_answers_is_the_one_chosen(choice: str) -> None:
    engine = _engine(head_choice=choice, threshold=0.15)
    answers = engine.classify_batch([Query(p) for p in PIXELS]).all_answers()
    several = [(a, p) for a, p in zip(answers, PIXELS, strict=True) if len(a.expert_set) > 1]
    assert several
    for answer, pixels in several:
        logits = _all_logits(engine, answer, pixels)
        scores = {
            "max": {name: float(part.max()) for name, part in logits.items()},
            "mean": {name: float(part.mean()) for name, part in logits.items()},
            "router": answer.coefficients,
        }[choice]
        assert answer.task == max(scores, key=lambda name: scores[name])
        torch.testing.assert_close(answer.probabilities, logits[answer.task].softmax(0), atol=1e-4, rtol=1e-3)


def test_both_forms_of_execution_agree() -> None:
    low_rank = _engine("low_rank", threshold=0.15).classify_batch(_queries()).all_answers()
    merged = _engine("materialised", threshold=0.15).classify_batch(_queries()).all_answers()
    for one, other in zip(low_rank, merged, strict=True):
        assert one.expert_set == other.expert_set
        torch.testing.assert_close(one.probabilities, other.probabilities, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("execution", ["low_rank", "materialised"])
def test_a_small_set_cache_changes_no_bit_and_keeps_its_budget(
    execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = _engine(execution, threshold=0.15)
    largest = roomy.bank.expert_set_nbytes((0, 1, 2), materialised=execution == "materialised")
    tight = _engine(execution, cache=largest, threshold=0.15)
    expected = roomy.classify_batch(_queries()).all_answers()
    for _ in range(2):
        answers = tight.classify_batch(_queries()).all_answers()
        assert all(_same_bits(a, b) for a, b in zip(answers, expected, strict=True))
        assert tight.set_cache.nbytes <= largest
    monkeypatch.setattr(roomy.bank, "expert_sets", _must_not_run)
    roomy.classify_batch(_queries())
    assert roomy.set_cache.misses == len({a.expert_set for a in expected}), "a cached set is computed once"


def test_low_rank_sets_are_served_without_any_cache() -> None:
    engine = _engine(cache=0, threshold=0.15)
    expected = _engine(threshold=0.15).classify_batch(_queries()).all_answers()
    answers = engine.classify_batch(_queries()).all_answers()
    assert all(_same_bits(a, b) for a, b in zip(answers, expected, strict=True))
    assert engine.set_cache.nbytes == 0


def test_materialised_execution_needs_room_for_a_set() -> None:
    with pytest.raises(ValueError, match="set_cache_bytes"):
        _engine("materialised", cache=1000)


def test_serving_low_rank_never_merges_a_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(threshold=0.15)
    merged: list[str] = []

    def watched(pretrained: Tensor, changes: Sequence[TaskChange]) -> Tensor:
        merged.extend(name for name, own in engine.bank.pretrained.items() if own is pretrained)
        return merged_parameter(pretrained, changes)

    monkeypatch.setattr(expert_bank, "merged_parameter", watched)
    engine.classify_batch(_queries())
    linears = {f"{name}.weight" for name in engine.architecture.linears}
    assert merged
    assert not linears & set(merged)


def test_adaptive_execution_buys_once_renting_has_cost_as_much() -> None:
    engine = _engine("adaptive", threshold=0.15)
    query = Query(PIXELS[0], ("task1",))
    engine.classify_batch([query])
    assert SetKey((1,), True) not in engine.set_cache, "one image does not pay for a merge"
    for _ in range(60):
        engine.classify_batch([query] * 8)
    assert SetKey((1,), True) in engine.set_cache
    used = engine.set_cache.used
    assert used["low_rank"] + used["materialised"] == 61
    assert used["low_rank"] > 1
    assert used["materialised"] > 1
    assert _engine("adaptive", cache=1000).classify_batch([query] * 8).all_answers(), (
        "no room: it keeps renting"
    )


def test_the_price_of_renting_and_buying_is_the_stated_one() -> None:
    loaded = tiny.loaded_store()
    execution = AdaptiveExecution(loaded.bank, SetCache(loaded.bank, 1 << 30))
    shapes = loaded.architecture.parameter_shapes()
    rent = buy = 0
    for name in loaded.architecture.linears:
        d_out, d_in = shapes[f"{name}.weight"]
        k = 2 * int(min(d_out, d_in) / 4)
        rent += k * (d_in + d_out) + 2 * k * k
        buy += d_out * k * k + d_out * k * d_in
    batches_to_buy = math.ceil(BUYING_OVER_RENTING[1] * buy / (200 * rent))
    forms = [execution.key((0, 3), 200).materialised for _ in range(batches_to_buy + 1)]
    assert forms == [False] * batches_to_buy + [True]


@pytest.mark.parametrize(
    ("query", "match"),
    [
        (Query(PIXELS[0], ("nothing",)), "candidates must be among"),
        (Query(PIXELS[0], ()), "candidates must be among"),
        (Query(PIXELS[0].double()), "uint8 or float32"),
        (Query(PIXELS[0][:, :30]), "uint8"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(query: Query, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        _engine().classify_batch([Query(PIXELS[1]), query])


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("mode", ["one_pass", "exact"])
def test_familiarity_is_a_product_of_shares(mode: ModeName, calibrated: bool) -> None:
    """Of likeness by energies, in a typical way, of the embedding along a class vector, of probability."""
    loaded = tiny.loaded_store(mode=mode, calibrated=calibrated)
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    queries = [Query(image, ("task0", "task2")) for image in PIXELS]  # with cosine heads
    typicality: list[float] = []
    for answer in engine.classify_batch(queries).all_answers():
        assert answer.evidence is not None
        evidence = answer.evidence.kinds
        scale = engine.head(answer.task).logit_scale
        assert scale is not None
        likeness = answer.evidence.likeness[NAMES.index(answer.task)]
        cosine = answer.logits.max() / scale
        if loaded.calibration is not None:
            assert evidence.isfinite().all()
            discriminant = loaded.calibration.discriminant(len(evidence))
            judged = discriminant.judge(evidence[None], torch.ones(1, len(NAMES), dtype=torch.bool))
            likeness = likeness * judged.typicality[0, NAMES.index(answer.task)]
            typicality.append(float(judged.typicality[0, NAMES.index(answer.task)]))
        if mode == "exact":  # which has an embedding of the first pass too
            cosine = (cosine.clamp_min(0) * evidence[-1, NAMES.index(answer.task)].clamp_min(0)).sqrt()
        expected = likeness * cosine.clamp_min(0) * answer.probabilities.max()
        assert answer.familiarity == pytest.approx(float(expected), rel=1e-3, abs=1e-7)
        assert not answer.unrouted
    assert not calibrated or min(typicality) < 0.9


def _with_bound(loaded: LoadedStore, bound: float) -> LoadedStore:
    return replace(loaded, router=loaded.router.model_copy(update={"unrouted_below": bound}))


def test_answers_below_the_stores_bound_are_unrouted() -> None:
    queries = [Query(image) for image in PIXELS]
    found = [
        answer.familiarity or 0.0 for answer in _engine(mode="exact").classify_batch(queries).all_answers()
    ]
    bound = sorted(found)[len(found) // 2]
    store = _with_bound(tiny.loaded_store(mode="exact"), bound)
    answers = Engine(store, Execution.LOW_RANK, 1 << 30).classify_batch(queries).all_answers()
    assert [answer.unrouted for answer in answers] == [familiarity < bound for familiarity in found]


def test_an_output_that_is_not_finite_is_an_error_and_no_answer() -> None:
    loaded = tiny.loaded_store()
    loaded.pretrained["post_layernorm.weight"][3] = float("inf")
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    assert engine.classify_batch([Query(PIXELS[0])]).answers == [None]
    with pytest.raises(FloatingPointError, match="not finite"):
        engine.classify([Image.new("RGB", (32, 32))])


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("mode", ["paper", *MODES])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_pixels_that_overflow_harm_nobody_else(value: float, mode: str, calibrated: bool) -> None:
    engine = _engine(mode=mode, calibrated=calibrated)
    ready = engine.preprocessing.normalise(torch.stack(PIXELS[:3]))
    ready[1] = value
    queries = [Query(pixels) for pixels in ready]
    first, harmed, last = engine.classify_batch(queries).answers
    alone = engine.classify_batch([queries[0], queries[2]]).all_answers()
    assert harmed is None
    assert isinstance(first, Classification)
    assert isinstance(last, Classification)
    assert _same_bits(first, alone[0])
    assert _same_bits(last, alone[1])


def test_images_go_in_and_labels_come_out() -> None:
    engine = _engine()
    images = [Image.new("RGB", size, "teal") for size in ((32, 32), (90, 31), (7, 200))]
    answers = engine.classify(images, tasks=["task0", "task1"])
    assert len(answers) == 3
    assert all(len(answer.probabilities) == len(answer.labels) for answer in answers)
    report = engine.classify_batch(_queries())
    assert set(report.stage_seconds) == {"first_pass", "route", "second_pass", "heads"}
    possible = {c for k in (1, 2, 3) for c in combinations(NAMES, k)}
    assert set(report.expert_sets) <= possible
    assert len(set(report.expert_sets)) == len(report.expert_sets)


def test_no_image_has_no_answer() -> None:
    engine = _engine()
    assert engine.classify([]) == []
    assert engine.classify([], answer="each") == engine.classify([], same_task=True) == []

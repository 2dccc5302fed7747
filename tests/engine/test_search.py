"""The search for tasks: one list of planned second passes, and what is known of each sample."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import DenseWeights, Feature, Probe, passes_for, patchify, run, weight_of
from mass_serve.backbone.architecture import Token
from mass_serve.engine import Engine, Query
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.execution import Execution
from mass_serve.engine.exits import measured_prices
from mass_serve.engine.loaded_store import early_linears
from mass_serve.engine.search_result import SearchResult
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.stages import StageClock
from mass_serve.router import MODES, PAPER, ModeName, TaskSubspaces, early_stop
from tests import tiny

PIXELS = tiny.pixels(12)


def engine_of(mode: ModeName) -> Engine:
    return Engine(tiny.loaded_store(mode=mode, threshold=0.15), Execution.LOW_RANK, 1 << 30)


def searched(engine: Engine, samples: list[int]) -> tuple[list[SearchResult], Tensor]:
    """What a search finds for images, as if they had these rows in a batch; and their patches."""
    normalised = engine.preprocessing.normalise(torch.stack([PIXELS[sample] for sample in samples]))
    patches = patchify(normalised, engine.architecture.patches.patch_size)
    every = torch.ones(len(samples), len(engine.tasks), dtype=torch.bool)
    with torch.inference_mode():
        modes = [engine.modes[0]] * len(samples)
        clock = StageClock(torch.device("cpu"))
        return engine._search.search(samples, patches, every, None, modes, clock), patches


@pytest.mark.parametrize("mode", [PAPER, *MODES])
def test_every_sample_has_second_passes_under_its_own_number(mode: ModeName) -> None:
    samples = [7, 2, 11, 5]
    results, _ = searched(engine_of(mode), samples)
    assert [{one.sample for one in result.second_passes} for result in results] == [{s} for s in samples]
    for result in results:
        planned = [task for one in result.second_passes for task in one.expert_set]
        assert result.expert_set == tuple(sorted(planned))
        assert result.likeness.keys() == result.coefficients.keys() == set(planned)


@pytest.fixture
def all_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far a task's second passes end from whole ones."""
    monkeypatch.setattr("mass_serve.engine.evidence_search.FARTHEST_RESUMED", math.inf)


@pytest.mark.usefixtures("all_resume")
@pytest.mark.parametrize("mode", [PAPER, *MODES])
def test_only_modes_that_resume_hand_tokens_on(mode: ModeName) -> None:
    engine = engine_of(mode)
    results, _ = searched(engine, list(range(12)))
    resumes = mode != PAPER and MODES[mode].resumes
    width = (engine.architecture.num_tokens, engine.architecture.width)
    for one in (one for result in results for one in result.second_passes):
        assert one.resumes is resumes
        assert one.start == (early_stop(engine.architecture.depth) if resumes else None)
        assert one.tokens is None or tuple(one.tokens.shape) == width


def test_a_task_that_ends_far_from_whole_passes_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny.loaded_store(mode="one_pass")
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    passes = passes_for(loaded.bank, loaded.first_pass, 1)
    prices = measured_prices(loaded, passes, drawn_inputs(loaded), loaded.routed)
    nearest = int(prices.argmin())
    assert prices.min() > 0
    monkeypatch.setattr("mass_serve.engine.evidence_search.FARTHEST_RESUMED", float(prices.min()))
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    results, _ = searched(engine, list(range(12)))
    stop_share = early_stop(engine.architecture.depth) / engine.architecture.depth
    for result in results:
        (one,) = result.second_passes
        assert one.resumes is (one.expert_set == (nearest,))
        assert result.passes == pytest.approx(1 + (0 if one.resumes else stop_share), abs=0.1)
    assert {one.resumes for result in results for one in result.second_passes} == {True, False}


def test_a_pass_that_resumes_needs_its_block_and_its_tokens() -> None:
    for start, tokens in ((1, None), (None, torch.zeros(17, 64))):
        with pytest.raises(ValueError, match="needs a block and the tokens"):
            SecondPass(0, (1,), start, tokens)


def test_fast_leaves_early_where_the_lead_is_large() -> None:
    results, _ = searched(engine_of("fast"), list(range(12)))
    for result in results:
        assert result.evidence is not None
        early = result.evidence.residuals is None
        assert early == (result.residuals is None) == (result.first_cosines == {})
        if early:
            assert float(result.evidence.leads) >= MODES["fast"].early_exit_lead
    assert {result.residuals is None for result in results} == {True, False}


@pytest.mark.usefixtures("all_resume")
def test_passes_that_begin_and_that_resume_are_run_side_by_side() -> None:
    """In any order, with the bits that each has alone."""
    engine = engine_of("one_pass")
    results, patches = searched(engine, list(range(12)))
    mixed = [one for result in results for one in result.second_passes]
    mixed[1::2] = [SecondPass(one.sample, (one.sample % 4,)) for one in mixed[1::2]]
    with torch.inference_mode():
        together = engine._second_passes.run(mixed, patches)
        for row, one in enumerate(mixed):
            assert torch.equal(engine._second_passes.run([one], patches)[0], together[row])


def test_a_named_task_has_one_pass_and_no_evidence() -> None:
    engine = engine_of("exact")
    result = SearchResult.named(3, 2)
    assert result.second_passes == (SecondPass(3, (2,)),)
    assert (result.expert_set, result.coefficients, result.passes) == ((2,), {2: 1.0}, 1.0)
    (answer,) = engine.classify_batch([Query(PIXELS[0], ("task2",))]).all_answers()
    assert answer.evidence is None
    assert answer.familiarity is None


@pytest.mark.parametrize("depth", [2, 6, 12, 24])
def test_early_evidence_is_measured_in_the_first_third_at_the_models_width(depth: int) -> None:
    architecture = replace(tiny.CONFIG, depth=depth)
    stop, linears = early_stop(depth), early_linears(architecture)
    shapes = architecture.matrix_shapes()
    blocks = [{name for name in linears if name in names.linears} for names in architecture.blocks()]
    assert all(blocks[: stop + 1])
    assert not any(blocks[stop + 1 :])
    assert {shapes[weight_of(name)][1] for name in linears} == {architecture.width}


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("token", ["class", "mean"])
def test_the_routers_feature_is_that_of_its_layer_before_and_after_early_evidence(
    layer: int, token: Token
) -> None:
    loaded = tiny.loaded_store(mode="balanced")
    loaded = replace(loaded, router=loaded.router.model_copy(update={"layer": layer, "token": token}))
    assert early_stop(loaded.architecture.depth) == 1
    answers = Engine(loaded, Execution.LOW_RANK, 1 << 30).classify_batch([Query(p) for p in PIXELS[:5]])
    architecture, probe = loaded.architecture, Probe(feature=Feature(layer, token))
    pixels = tiny.preprocessing(architecture.patches.image_size).normalise(torch.stack(PIXELS[:5]))
    patches = patchify(pixels, architecture.patches.patch_size)
    feature = run(architecture, DenseWeights(loaded.first_pass), patches, stop="feature", probe=probe).feature
    parameter = weight_of(architecture.residual_linear(layer))
    blocks = loaded.bank.leading_rows(parameter, range(loaded.bank.num_tasks))
    expected = TaskSubspaces(blocks).residuals(feature)
    found = torch.tensor([list(answer.residuals.values()) for answer in answers.all_answers()])
    torch.testing.assert_close(found, expected)

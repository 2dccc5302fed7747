"""Stores of more tasks than all are measured for: neither batch-mates count nor tasks that are not wanted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from mass_serve.engine import Classification, Engine, Query
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import early_linears
from mass_serve.engine.measured_tasks import COPIED_SHARE, MANY_TASKS, likeliest
from mass_serve.router import ModeName
from tests import tiny

TASKS = MANY_TASKS + 24
PIXELS = tiny.pixels(9)
FEW = ("task3", "task70", "task71")
MODES: tuple[ModeName, ...] = ("exact", "balanced", "fast")


@functools.cache
def _engine(mode: ModeName) -> Engine:
    return Engine(tiny.loaded_store(TASKS, mode=mode), Execution.LOW_RANK, 1 << 30)


def _answers(mode: ModeName, queries: Sequence[Query]) -> list[Classification]:
    return _engine(mode).classify_batch(queries).all_answers()


def _bits(answer: Classification) -> tuple[object, ...]:
    assert answer.evidence is not None
    return (
        answer.task,
        answer.expert_set,
        answer.coefficients,
        dict(answer.residuals),
        answer.familiarity,
        answer.logits.tolist(),
        answer.evidence.scores.tolist(),
        answer.evidence.kinds.tolist(),
        answer.evidence.energies.tolist(),
    )


@pytest.mark.parametrize("candidates", [None, FEW])
@pytest.mark.parametrize("mode", MODES)
def test_an_input_has_the_same_bits_alone_and_beside_others(
    mode: ModeName, candidates: tuple[str, ...] | None
) -> None:
    """Alone few tasks are measured behind the first third, or from the start; together nearly all of them."""
    queries = [Query(pixels, candidates) for pixels in PIXELS]
    others = [Query(pixels) for pixels in reversed(PIXELS)]
    together = _answers(mode, [*queries, *others])
    for query, answer in zip(queries, together, strict=False):
        assert _bits(answer) == _bits(_answers(mode, [query])[0])


@pytest.mark.parametrize("mode", MODES)
def test_candidates_are_judged_as_beside_all_others(mode: ModeName) -> None:
    """Whoever names a few tasks gets the best of those, with the evidence that they have among all."""
    chosen, early = [int(name.removeprefix("task")) for name in FEW], len(early_linears(tiny.CONFIG))
    of_all = _answers(mode, [Query(pixels) for pixels in PIXELS])
    for whole, answer in zip(of_all, _answers(mode, [Query(p, FEW) for p in PIXELS]), strict=True):
        assert answer.task in FEW
        assert whole.evidence is not None
        assert answer.evidence is not None
        own = answer.evidence.energies
        assert torch.equal(own[:early, chosen], whole.evidence.energies[:early, chosen])
        others = own.clone()
        others[:, chosen] = 0
        assert others.eq(0).all()


def test_the_likeliest_are_so_many_of_the_candidates() -> None:
    scores = torch.randn(5, TASKS, generator=torch.Generator().manual_seed(0))
    candidates = torch.ones(5, TASKS, dtype=torch.bool)
    candidates[0, 3:] = False
    scores = scores.masked_fill(~candidates, -torch.inf)
    chosen = likeliest(scores, candidates)
    assert chosen.sum(1).tolist() == [3, *[MANY_TASKS] * 4]
    for row in range(1, 5):
        assert scores[row, chosen[row]].min() > scores[row, ~chosen[row]].max()


def test_fewer_tasks_are_copied_than_all() -> None:
    assert len(FEW) <= COPIED_SHARE * TASKS < MANY_TASKS, "else the tests above ask for one path alone"


def test_a_store_that_is_to_be_calibrated_has_the_evidence_of_all_tasks() -> None:
    loaded = replace(tiny.loaded_store(TASKS, mode="exact"), narrows=False)
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    for answer in engine.classify_batch([Query(pixels, FEW) for pixels in PIXELS]).all_answers():
        assert answer.evidence is not None
        assert (answer.evidence.energies > 0).all()

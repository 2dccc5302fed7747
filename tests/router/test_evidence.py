"""Evidence: summed and judged; against plain formulations."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mass_serve.kernels import TaskDirections, subspace_energies
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.format.entries import FIRST_MODE
from mass_serve.router import (
    MODES,
    PAPER,
    Evidence,
    EvidenceRouter,
    LinearSubspaces,
    ModeName,
    Prior,
    TaskSubspaces,
    after_second_passes,
    early_stop,
    evidence_kinds,
    parts,
)
from mass_serve.router.head_scores import nearness
from mass_serve.router.projection import orthonormal_rows
from mass_serve.router.weights import WEIGHTS

TASKS, RANK, WIDTH, SAMPLES, KINDS, LATE = 5, 4, 32, 6, 3, 2
EVERY = torch.ones(SAMPLES, TASKS, dtype=torch.bool)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).sigmoid()


def random_head_scores(seed: int = 4) -> Tensor:
    """Cosines, with where the class vectors lie as a whole and without, and log confidences."""
    scores = normal(SAMPLES, TASKS, 3, seed=seed).tanh()
    return torch.cat([scores[:, :, :2], scores[:, :, 2:] - 1], dim=2)


def near(values: Tensor) -> Tensor:
    return -torch.log(1 - values)


def log_shares(*energies: Tensor) -> Tensor:
    """Beyond what chance explains."""
    return (torch.cat(energies, dim=1) + 1e-6).log().mean(1) - math.log(RANK / WIDTH + 1e-6)


def linears(*names: str) -> dict[str, LinearSubspaces]:
    blocks, values = list(normal(TASKS, RANK, WIDTH)), list(torch.ones(TASKS, RANK))
    return {name: LinearSubspaces.of(blocks, values, profiled=False) for name in names}


def router_of(early: tuple[str, ...], late: tuple[str, ...]) -> EvidenceRouter:
    subspaces = TaskSubspaces(normal(TASKS, RANK, WIDTH))
    return EvidenceRouter(subspaces, linears(*early), linears(*late), [False] * TASKS)


@pytest.fixture
def router() -> EvidenceRouter:
    return router_of(("a", "b", "c"), ("d", "e"))


def whole_evidence(
    router: EvidenceRouter, early: Evidence, mask: Tensor = EVERY, prior: Prior | None = None, seed: int = 4
) -> Evidence:
    """The evidence of samples whose first pass went to its end."""
    rest = (
        shares(SAMPLES, LATE, TASKS, seed=8),
        normal(SAMPLES, WIDTH, seed=3),
        random_head_scores(seed)[:, :, 0],
    )
    return router.whole(early.energies, *rest, mask, prior)


def softmax(values: Any) -> Any:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_modes_that_a_store_has_by_default_are_the_routers() -> None:
    """The store knows no others by name; `engine.loading` refuses what is none of them."""
    assert FIRST_MODE == PAPER
    assert BuildOptions().mode in MODES


def test_energies_are_mean_shares_of_the_tokens_squared_length() -> None:
    bases, x = orthonormal_rows(normal(TASKS, RANK, WIDTH)), normal(SAMPLES, 7, WIDTH, seed=1)
    coordinates = np.einsum("bld,trd->bltr", x.double(), bases.double())
    expected = ((coordinates**2).sum(3) / (x.double().numpy() ** 2).sum(2)[..., None]).mean(1)
    np.testing.assert_allclose(subspace_energies(x, TaskDirections.of(list(bases))), expected, rtol=1e-5)


def test_a_token_of_zeros_has_no_energy_anywhere() -> None:
    bases = TaskDirections.of(list(orthonormal_rows(normal(TASKS, RANK, WIDTH))))
    assert subspace_energies(torch.zeros(1, 3, WIDTH), bases).eq(0).all()


def test_a_token_within_a_subspace_has_all_its_energy_there() -> None:
    bases = orthonormal_rows(normal(TASKS, RANK, WIDTH))
    inside = (normal(1, 3, RANK, seed=2) @ bases[3]).float()
    assert subspace_energies(inside, TaskDirections.of(list(bases)))[0, 3] == pytest.approx(1.0, abs=1e-5)


def test_kinds_add_up_as_log_likelihoods(router: EvidenceRouter) -> None:
    energies, late = shares(SAMPLES, KINDS, TASKS), shares(SAMPLES, LATE, TASKS, seed=8)
    early = router.early(energies, EVERY)
    first = WEIGHTS.share * log_shares(energies)
    torch.testing.assert_close(early.scores, first)
    np.testing.assert_allclose(early.routing_coefficients, softmax(first.double().numpy()), atol=1e-5)
    whole = whole_evidence(router, early)
    total = WEIGHTS.share * log_shares(energies, late) + WEIGHTS.cosine * near(random_head_scores()[:, :, 0])
    torch.testing.assert_close(whole.scores, total)
    np.testing.assert_allclose(whole.routing_coefficients, softmax(total.double().numpy()), atol=1e-5)


def test_a_kind_that_does_not_tell_tasks_apart_changes_nothing(router: EvidenceRouter) -> None:
    energies, blind = shares(SAMPLES, KINDS, TASKS), torch.full((SAMPLES, TASKS), 0.3)
    rest = shares(SAMPLES, LATE, TASKS, seed=8), normal(SAMPLES, WIDTH, seed=3)
    whole = router.whole(energies, *rest, blind, EVERY)
    coefficients = (WEIGHTS.share * log_shares(energies, rest[0])).softmax(1)
    torch.testing.assert_close(whole.routing_coefficients, coefficients, atol=1e-5, rtol=1e-4)
    added = whole.samples()[0].second_pass_scores({0: [0.0] * 3, 1: [0.9, 0.9, 0.0]})
    assert max(map(abs, added)) < 1e-4, "nor do such heads overrule anything after a second pass"


def test_shares_count_by_their_ratio_whatever_the_size_of_the_subspaces(router: EvidenceRouter) -> None:
    energies = shares(SAMPLES, KINDS, TASKS)
    smaller = router.early(0.01 * energies, EVERY).routing_coefficients
    torch.testing.assert_close(
        smaller, router.early(energies, EVERY).routing_coefficients, atol=1e-2, rtol=1e-2
    )


def test_nearness_grows_without_end_but_for_the_last_thousandth() -> None:
    found = nearness(torch.tensor([-1.0, 0.0, 0.5, 0.75, 0.999, 1.0, 1.0001, math.nan]))
    expected = [-math.log(2), 0.0, *[math.log(n) for n in (2, 4, 1000, 1000, 1000)], math.nan]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_only_candidates_count(router: EvidenceRouter) -> None:
    energies = shares(SAMPLES, KINDS, TASKS)
    mask = EVERY.clone()
    mask[:, [0, 3]] = False
    whole = whole_evidence(router, router.early(energies, mask), mask)
    assert whole.scores[:, [0, 3]].eq(-torch.inf).all()
    assert whole.routing_coefficients[:, [0, 3]].eq(0).all()
    np.testing.assert_allclose(whole.routing_coefficients.sum(1), 1.0, atol=1e-6)
    kept = [1, 2, 4]
    every = whole_evidence(router, router.early(energies, EVERY))
    assert torch.equal(whole.scores[:, kept], every.scores[:, kept])
    assert not {0, 3} & {
        task for one in whole.samples() for task in one.second_pass_candidates(MODES["exact"])
    }


def test_two_candidates_are_told_apart(router: EvidenceRouter) -> None:
    mask = torch.zeros(1, TASKS, dtype=torch.bool)
    mask[0, [1, 4]] = True
    energies = torch.tensor([[[0.9, 0.2, 0.9, 0.9, 0.3]]]).expand(1, KINDS, TASKS)
    early = router.early(energies, mask)
    assert early.samples()[0].best == 4
    assert float(early.leads[0]) == pytest.approx(WEIGHTS.share * math.log(0.3 / 0.2), rel=1e-3)


def test_equal_evidence_is_no_nan(router: EvidenceRouter) -> None:
    early = router.early(torch.full((1, KINDS, TASKS), 0.5), EVERY[:1])
    assert early.scores.std() == 0
    assert early.leads.eq(0).all()
    rest = torch.full((1, LATE, TASKS), 0.5), torch.zeros(1, WIDTH), torch.zeros(1, TASKS)
    whole = router.whole(early.energies, *rest, EVERY[:1])
    assert whole.scores.isfinite().all()
    assert whole.likeness.isfinite().all()
    after = after_second_passes(whole.samples(), [{0: [0.0] * 3, 1: [0.0] * 3}])
    assert after == pytest.approx({0: 0.2, 1: 0.2}, abs=1e-6)


def test_close_tasks_get_a_second_pass_each_and_two_at_most(router: EvidenceRouter) -> None:
    early = router.early(
        torch.tensor([[0.5, 0.49, 0.48, 0.0, 0.0], [0.5, 0.01, 0.01, 0.01, 0.01]])
        .unsqueeze(1)
        .expand(2, KINDS, TASKS),
        EVERY[:2],
    )
    mode = MODES["exact"]
    assert early.samples()[0].second_pass_candidates(mode) == (0, 1)
    assert early.samples()[1].second_pass_candidates(mode) == (0,)
    assert early.samples()[0].second_pass_candidates(MODES["balanced"]) == (0,)


def test_a_second_pass_counts_as_far_as_heads_differed_in_the_first(router: EvidenceRouter) -> None:
    whole = whole_evidence(router, router.early(shares(SAMPLES, KINDS, TASKS), EVERY))
    spread = float(near(random_head_scores()[2, :, 0]).std())
    seen = {1: (0.7, -0.5), 4: (0.3, -0.1)}
    scores = [
        float(whole.scores[2, task]) + WEIGHTS.second_pass * spread * cosine + WEIGHTS.confidence * confidence
        for task, (cosine, confidence) in seen.items()
    ]
    together = float(whole.routing_coefficients[2, [1, 4]].sum())
    expected = together * softmax(np.array([scores]))[0]
    after = after_second_passes(whole.samples()[2:3], [{task: [0.5, *own] for task, own in seen.items()}])
    np.testing.assert_allclose(list(after.values()), expected, rtol=1e-3)


@pytest.mark.parametrize("mode", ["balanced", "exact"])
def test_evidence_that_is_not_finite_gets_one_second_pass(router: EvidenceRouter, mode: ModeName) -> None:
    energies = shares(2, KINDS, TASKS)
    energies[1, 0, 2] = torch.nan
    early = router.early(energies, EVERY[:2])
    assert len(early.samples()[1].second_pass_candidates(MODES[mode])) == 1


@pytest.mark.parametrize("depth", [2, 6, 12, 24])
def test_early_evidence_stops_a_third_of_the_way(depth: int) -> None:
    assert early_stop(depth) == max(1, depth // 3)
    assert 1 <= early_stop(depth) < depth


def test_samples_are_the_rows_of_the_batch(router: EvidenceRouter) -> None:
    early = router.early(shares(SAMPLES, KINDS, TASKS), EVERY)
    whole = whole_evidence(router, early)
    for evidence in (early, whole):
        for row, own in enumerate(evidence.samples()):
            for field in fields(evidence):
                batch = getattr(evidence, field.name)
                if batch is None:
                    assert getattr(own, field.name) is None
                else:
                    assert torch.equal(getattr(own, field.name), batch[row])
    assert early.residuals is None
    assert whole.residuals is not None


def test_where_no_subspaces_can_be_compared_the_heads_decide() -> None:
    """Of two tasks each left a matrix alone: none leaves the pass early, and nothing is unlike any task."""

    def left_alone_by(task: int) -> LinearSubspaces:
        blocks, values = list(normal(TASKS, RANK, WIDTH)), list(torch.ones(TASKS, RANK))
        blocks[task], values[task] = torch.empty(0, WIDTH), torch.empty(0)
        return LinearSubspaces.of(blocks, values, profiled=False)

    subspaces = TaskSubspaces(normal(TASKS, RANK, WIDTH))
    router = EvidenceRouter(subspaces, {"a": left_alone_by(0)}, {"b": left_alone_by(1)}, [False] * TASKS)
    early = router.early(shares(SAMPLES, 1, TASKS), EVERY)
    assert not (early.leads >= MODES["one_pass"].early_exit_lead).any()
    rest = shares(SAMPLES, 1, TASKS, seed=8), normal(SAMPLES, WIDTH, seed=3), random_head_scores()[:, :, 0]
    whole = router.whole(early.energies, *rest, EVERY)
    torch.testing.assert_close(whole.scores, WEIGHTS.cosine * near(rest[2]))
    assert whole.likeness.eq(1).all()


def test_an_encoder_of_two_blocks_has_no_late_evidence() -> None:
    router = router_of(("a",), ())
    early = router.early(shares(SAMPLES, 1, TASKS), EVERY)
    nothing, blind = torch.empty(SAMPLES, 0, TASKS), torch.zeros(SAMPLES, TASKS)
    whole = router.whole(early.energies, nothing, normal(SAMPLES, WIDTH), blind, EVERY)
    torch.testing.assert_close(whole.scores, early.scores)
    assert whole.kinds.shape[1] == evidence_kinds(1)
    assert torch.equal(whole.likeness, early.likeness)


@pytest.fixture
def unsplit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pool is split: evidence drawn at random contradicts itself."""
    monkeypatch.setattr(parts, "CONTRADICTION", math.inf)


@pytest.mark.usefixtures("unsplit")
def test_evidence_of_a_pool_is_the_sum_of_its_samples(router: EvidenceRouter) -> None:
    energies, prior = shares(SAMPLES, KINDS, TASKS), Prior(torch.tensor([0, 1, 0, 3, 0, 1]))
    early, alone = router.early(energies, EVERY, prior), router.early(energies, EVERY)
    whole, whole_alone = whole_evidence(router, early, prior=prior), whole_evidence(router, alone)
    for together, single in ((early, alone), (whole, whole_alone)):
        for members in ([0, 2, 4], [1, 5], [3]):
            expected = single.scores[members].sum(0)
            leading = expected.sort(descending=True).values
            for row in members:
                torch.testing.assert_close(together.scores[row], expected)
                coefficients = softmax(expected.numpy()[None])[0]
                np.testing.assert_allclose(together.routing_coefficients[row], coefficients, atol=1e-5)
                assert float(together.leads[row]) == pytest.approx(float(leading[0] - leading[1]), abs=1e-5)
        assert torch.equal(together.likeness, single.likeness), "that is each sample's own"
        assert torch.equal(together.scores[3], single.scores[3])


@pytest.mark.usefixtures("unsplit")
def test_second_passes_of_a_pool_count_together(router: EvidenceRouter) -> None:
    prior = Prior(torch.zeros(SAMPLES, dtype=torch.long))
    early = router.early(shares(SAMPLES, KINDS, TASKS), EVERY, prior)
    whole = whole_evidence(router, early, prior=prior).samples()
    seen = [
        dict(zip((1, 4), random_head_scores(seed)[0, :2].tolist(), strict=True)) for seed in range(SAMPLES)
    ]
    added = torch.tensor([one.second_pass_scores(own) for one, own in zip(whole, seen, strict=True)]).sum(0)
    shared = (whole[0].scores[[1, 4]] + added).softmax(0)
    expected = shared * whole[0].routing_coefficients[[1, 4]].sum()
    found = after_second_passes(whole, seen)
    np.testing.assert_allclose([found[1], found[4]], expected, rtol=1e-4)

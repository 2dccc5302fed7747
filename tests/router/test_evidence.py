"""Evidence: standardised, summed, and judged; against plain formulations."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mass_serve.kernels import subspace_energies
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.format.entries import FIRST_MODE
from mass_serve.router import (
    MODES,
    PAPER,
    EvidenceRouter,
    HeadGeometry,
    ModeName,
    TaskSubspaces,
    after_second_passes,
    are_comparable,
    early_stop,
    is_of_low_rank,
)
from mass_serve.router.evidence import EARLY_TEMPERATURE, SECOND_PASS_WEIGHT, WHOLE_TEMPERATURE
from mass_serve.router.head_scores import nearness
from mass_serve.router.projection import orthonormal_rows

TASKS, RANK, WIDTH, SAMPLES, KINDS = 5, 4, 32, 6, 3
EVERY = torch.ones(SAMPLES, TASKS, dtype=torch.bool)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).sigmoid()


def random_head_scores(seed: int = 4) -> Tensor:
    """Cosines, sharpness and peaks for every sample and task."""
    cosines = normal(SAMPLES, TASKS, seed=seed).tanh()
    return torch.stack([cosines, *normal(2, SAMPLES, TASKS, seed=seed + 50)], dim=2)


def near(values: Tensor) -> Tensor:
    return -torch.log(1 - values)


@pytest.fixture
def router() -> EvidenceRouter:
    blocks = normal(TASKS, RANK, WIDTH)
    return EvidenceRouter(MODES["exact"], TaskSubspaces(blocks), {"blocks.0.mlp.fc1": blocks})


def z(rows: Tensor) -> Any:
    values = rows.double().numpy()
    return (values - values.mean(1, keepdims=True)) / (values.std(1, ddof=1, keepdims=True) + 1e-6)


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
    np.testing.assert_allclose(subspace_energies(x, bases), expected, rtol=1e-5)


def test_a_token_of_zeros_has_no_energy_anywhere() -> None:
    assert (
        subspace_energies(torch.zeros(1, 3, WIDTH), orthonormal_rows(normal(TASKS, RANK, WIDTH))).eq(0).all()
    )


def test_a_token_within_a_subspace_has_all_its_energy_there() -> None:
    bases = orthonormal_rows(normal(TASKS, RANK, WIDTH))
    inside = (normal(1, 3, RANK, seed=2) @ bases[3]).float()
    assert subspace_energies(inside, bases)[0, 3] == pytest.approx(1.0, abs=1e-5)


def test_every_piece_is_standardised_and_all_weigh_the_same(router: EvidenceRouter) -> None:
    energies = shares(SAMPLES, KINDS, TASKS)
    features, head_scores = normal(SAMPLES, WIDTH, seed=3), random_head_scores()
    total_energies, cosines = near(energies.mean(1)), near(head_scores[:, :, 0])
    early = router.early(energies, EVERY)
    np.testing.assert_allclose(early.scores, z(total_energies), atol=1e-4)
    np.testing.assert_allclose(
        early.routing_coefficients, softmax(z(total_energies) / EARLY_TEMPERATURE), atol=1e-4
    )
    whole = router.whole(early, features, head_scores, EVERY)
    assert whole.residuals is not None
    total = z(total_energies) + z(-whole.residuals) + z(cosines)
    np.testing.assert_allclose(whole.scores, total, atol=1e-4)
    np.testing.assert_allclose(whole.routing_coefficients, softmax(total / WHOLE_TEMPERATURE), atol=1e-4)


def test_what_all_tasks_leave_unexplained_alike_does_not_matter(router: EvidenceRouter) -> None:
    energies = shares(SAMPLES, 1, TASKS)
    moved = router.early(1 - 0.4 * (1 - energies), EVERY).scores
    np.testing.assert_allclose(moved, router.early(energies, EVERY).scores, atol=1e-3)


def test_nearness_grows_without_end_but_for_the_last_thousandth() -> None:
    found = nearness(torch.tensor([-1.0, 0.0, 0.5, 0.75, 0.999, 1.0, 1.0001, math.nan]))
    expected = [-math.log(2), 0.0, *[math.log(n) for n in (2, 4, 1000, 1000, 1000)], math.nan]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_only_candidates_count(router: EvidenceRouter) -> None:
    energies = shares(SAMPLES, KINDS, TASKS)
    features, head_scores = normal(SAMPLES, WIDTH, seed=3), random_head_scores()
    total_energies, cosines = near(energies.mean(1)), near(head_scores[:, :, 0])
    mask = EVERY.clone()
    mask[:, [0, 3]] = False
    whole = router.whole(router.early(energies, mask), features, head_scores, mask)
    assert whole.scores[:, [0, 3]].eq(-torch.inf).all()
    assert whole.routing_coefficients[:, [0, 3]].eq(0).all()
    np.testing.assert_allclose(whole.routing_coefficients.sum(1), 1.0, atol=1e-6)
    kept = [1, 2, 4]
    assert whole.residuals is not None
    total = z(total_energies[:, kept]) + z(-whole.residuals[:, kept]) + z(cosines[:, kept])
    np.testing.assert_allclose(whole.scores[:, kept], total, atol=1e-4)
    assert not {0, 3} & {
        task for one in whole.samples() for task in one.second_pass_candidates(MODES["exact"])
    }


def test_two_candidates_are_told_apart(router: EvidenceRouter) -> None:
    mask = torch.zeros(1, TASKS, dtype=torch.bool)
    mask[0, [1, 4]] = True
    early = router.early(torch.tensor([[[0.9, 0.2, 0.9, 0.9, 0.3]]]), mask)
    assert early.samples()[0].best == 4
    assert float(early.leads[0]) == pytest.approx(math.sqrt(2), abs=1e-3)


def test_equal_evidence_is_no_nan(router: EvidenceRouter) -> None:
    early = router.early(torch.full((1, KINDS, TASKS), 0.5), EVERY[:1])
    assert early.scores.eq(0).all()
    assert early.leads.eq(0).all()
    whole = router.whole(early, torch.zeros(1, WIDTH), torch.zeros(1, TASKS, 3), EVERY[:1])
    assert whole.scores.isfinite().all()
    assert whole.explained.isfinite().all()
    assert after_second_passes(
        whole.samples(), [{0: torch.tensor([0.5, 0, 0]), 1: torch.tensor([0.4, 0, 0])}]
    ) == pytest.approx({0: 0.4, 1: 0.0}, abs=1e-6)


def test_close_tasks_get_a_second_pass_each_and_two_at_most(router: EvidenceRouter) -> None:
    early = router.early(
        torch.tensor([[[0.5, 0.49, 0.48, 0.0, 0.0]], [[0.5, 0.0, 0.0, 0.0, 0.01]]]), EVERY[:2]
    )
    mode = MODES["exact"]
    assert early.samples()[0].second_pass_candidates(mode) == (0, 1)
    assert (
        early.samples()[1].second_pass_candidates(mode) == (0,)
        or float(early.leads[1]) <= mode.second_pass_margin
    )
    assert early.samples()[0].second_pass_candidates(MODES["balanced"]) == (0,)


def test_a_second_pass_counts_as_more_evidence_in_the_first_pass_units(router: EvidenceRouter) -> None:
    head_scores = random_head_scores()
    early = router.early(shares(SAMPLES, KINDS, TASKS), EVERY)
    whole = router.whole(early, normal(SAMPLES, WIDTH), head_scores, EVERY)
    units = [
        float(score.std())
        for score in (near(head_scores[2, :, 0]), head_scores[2, :, 1], head_scores[2, :, 2])
    ]
    seen = {1: (0.7, 2.0, 0.1), 4: (0.3, 2.5, 0.6)}
    scores = [
        float(whole.scores[2, task])
        + SECOND_PASS_WEIGHT
        * (float(near(torch.tensor(cosine))) / units[0] + sharpness / units[1] + peak / units[2])
        for task, (cosine, sharpness, peak) in seen.items()
    ]
    together = float(whole.routing_coefficients[2, [1, 4]].sum())
    expected = together * softmax(np.array([scores]) / WHOLE_TEMPERATURE)[0]
    after = after_second_passes(
        whole.samples()[2:3], [{task: torch.tensor(of_task) for task, of_task in seen.items()}]
    )
    np.testing.assert_allclose(list(after.values()), expected, rtol=1e-3)


def test_heads_of_two_classes_are_all_equally_sharp(router: EvidenceRouter) -> None:
    """Their sharpness is one but for rounding and the epsilon, which must not be blown up to evidence."""
    geometry = HeadGeometry(room=0.5, chance=0.0, dimensions=WIDTH)
    heads = [geometry.scores(0.3 * normal(SAMPLES, 2, seed=task)) for task in range(TASKS)]
    early = router.early(shares(SAMPLES, KINDS, TASKS), EVERY)
    whole = router.whole(early, normal(SAMPLES, WIDTH), torch.stack(heads, dim=1), EVERY)
    undecided, decided = geometry.scores(torch.tensor([[0.3, 0.2999], [0.3, 0.0]]))
    decided[2] = undecided[2]  # how far apart two classes are does tell something
    first = whole.samples()[:1]
    after = after_second_passes(first, [{1: undecided, 4: decided}])
    same = after_second_passes(first, [{1: undecided, 4: undecided}])
    assert after == pytest.approx(same, rel=0.2)


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
    whole = router.whole(early, normal(SAMPLES, WIDTH), random_head_scores(), EVERY)
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


def test_subspaces_of_fewer_directions_are_not_compared_with_whole_ones() -> None:
    """An adapter's block is filled up with directions that mean nothing; rounding leaves them tiny values."""
    whole = torch.tensor([4.0, 2.0, 1.0, 0.2])
    adapter, untouched = torch.tensor([4.0, 2.0, 1e-6, 1e-7]), torch.zeros(4)
    assert are_comparable(torch.stack([whole, whole / 100]))
    assert not are_comparable(torch.stack([whole, adapter]))
    assert not are_comparable(torch.stack([whole, untouched]))
    assert not are_comparable(torch.empty(2, 0)), "a task left the matrix alone"


def test_a_change_is_of_low_rank_where_few_directions_hold_all_of_it() -> None:
    assert is_of_low_rank(8, 64, 1.0)
    assert not is_of_low_rank(8, 64, 0.999), "cut"
    assert not is_of_low_rank(64, 64, 1.0), "nothing could be cut"
    assert not is_of_low_rank(8, 64, None), "unknown, of format version 1"


def test_where_no_subspaces_are_comparable_the_heads_decide() -> None:
    blocks = normal(TASKS, RANK, WIDTH)
    router = EvidenceRouter(
        MODES["one_pass"],
        TaskSubspaces(blocks),
        {"blocks.0.mlp.fc1": blocks},
        incomparable=["blocks.0.mlp.fc1"],
        residuals_comparable=False,
    )
    early = router.early(shares(SAMPLES, 1, TASKS), EVERY)
    assert not (early.leads >= MODES["one_pass"].early_exit_lead).any(), "nobody leaves the pass early"
    head_scores = random_head_scores()
    whole = router.whole(early, normal(SAMPLES, WIDTH, seed=3), head_scores, EVERY)
    np.testing.assert_allclose(whole.scores, z(near(head_scores[:, :, 0])), atol=1e-4)
    assert whole.explained.eq(1).all(), "nothing says that an image is like none of them"


@pytest.mark.parametrize("early_comparable", [True, False])
def test_each_kind_counts_where_it_is_comparable(early_comparable: bool) -> None:
    blocks = normal(TASKS, RANK, WIDTH)
    router = EvidenceRouter(
        MODES["exact"],
        TaskSubspaces(blocks),
        {"a": blocks, "b": blocks},
        incomparable=["a"] if early_comparable else ["a", "b"],
        residuals_comparable=not early_comparable,
    )
    energies, head_scores = shares(SAMPLES, 2, TASKS), random_head_scores()
    whole = router.whole(router.early(energies, EVERY), normal(SAMPLES, WIDTH, seed=3), head_scores, EVERY)
    assert whole.residuals is not None
    other = near(energies[:, 1]) if early_comparable else -whole.residuals
    np.testing.assert_allclose(whole.scores, z(other) + z(near(head_scores[:, :, 0])), atol=1e-4)


def test_evidence_of_a_pool_is_the_sum_of_its_samples(router: EvidenceRouter) -> None:
    energies, features = shares(SAMPLES, KINDS, TASKS), normal(SAMPLES, WIDTH, seed=3)
    head_scores, pools = random_head_scores(), torch.tensor([0, 1, 0, 3, 0, 1])
    early, alone = router.early(energies, EVERY, pools), router.early(energies, EVERY)
    whole = router.whole(early, features, head_scores, EVERY, pools)
    whole_alone = router.whole(alone, features, head_scores, EVERY)
    for together, single, temperature in (
        (early, alone, EARLY_TEMPERATURE),
        (whole, whole_alone, WHOLE_TEMPERATURE),
    ):
        for members in ([0, 2, 4], [1, 5], [3]):
            expected = single.scores[members].sum(0)
            leading = expected.sort(descending=True).values
            for row in members:
                torch.testing.assert_close(together.scores[row], expected)
                coefficients = softmax(expected.numpy()[None] / temperature)[0]
                np.testing.assert_allclose(together.routing_coefficients[row], coefficients, atol=1e-5)
                assert float(together.leads[row]) == pytest.approx(float(leading[0] - leading[1]), abs=1e-5)
        assert torch.equal(together.explained, single.explained), "that is each sample's own"
        assert torch.equal(together.scores[3], single.scores[3])


def test_second_passes_of_a_pool_count_together(router: EvidenceRouter) -> None:
    pools = torch.zeros(SAMPLES, dtype=torch.long)
    energies, features = shares(SAMPLES, KINDS, TASKS), normal(SAMPLES, WIDTH, seed=3)
    early = router.early(energies, EVERY, pools)
    whole = router.whole(early, features, random_head_scores(), EVERY, pools).samples()
    seen = [dict(zip((1, 4), random_head_scores(seed)[0, :2], strict=True)) for seed in range(SAMPLES)]
    added = torch.stack([one.second_pass_scores(own) for one, own in zip(whole, seen, strict=True)]).sum(0)
    shared = ((whole[0].scores[[1, 4]] + added) / WHOLE_TEMPERATURE).softmax(0)
    expected = shared * whole[0].routing_coefficients[[1, 4]].sum()
    found = after_second_passes(whole, seen)
    np.testing.assert_allclose([found[1], found[4]], expected, rtol=1e-4)


def test_heads_that_cannot_be_compared_change_nothing_and_get_no_second_pass_to_say_more() -> None:
    blocks = normal(TASKS, RANK, WIDTH)
    router = EvidenceRouter(
        MODES["exact"], TaskSubspaces(blocks), {"blocks.0.mlp.fc1": blocks}, heads_comparable=False
    )
    early = router.early(shares(SAMPLES, 1, TASKS), EVERY)
    features = normal(SAMPLES, WIDTH, seed=1)
    one, other = (router.whole(early, features, random_head_scores(seed), EVERY) for seed in (4, 5))
    assert torch.equal(one.scores, other.scores)
    assert all(len(own.second_pass_candidates(MODES["exact"])) == 1 for own in one.samples())


def test_heads_decide_where_nothing_else_can_be_compared() -> None:
    blocks = normal(TASKS, RANK, WIDTH)
    router = EvidenceRouter(
        MODES["exact"],
        TaskSubspaces(blocks),
        {"blocks.0.mlp.fc1": blocks},
        incomparable=["blocks.0.mlp.fc1"],
        residuals_comparable=False,
        heads_comparable=False,
    )
    head_scores = random_head_scores()
    whole = router.whole(
        router.early(shares(SAMPLES, 1, TASKS), EVERY), normal(SAMPLES, WIDTH), head_scores, EVERY
    )
    assert torch.equal(whole.scores.argmax(1), head_scores[:, :, 0].argmax(1))

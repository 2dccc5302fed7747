"""Routing coefficients and expert sets against a plain formulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mass_serve.router import Prior, SubspaceRouter
from mass_serve.router.selection import pooled, routing_coefficients, select_expert_sets

rows = st.lists(st.floats(0.0, 100.0, width=32), min_size=1, max_size=20)


def _plain(residuals: list[float], temperature: float) -> np.ndarray:
    """Standardise, divide, softmax: one row, in float64."""
    logits = -np.asarray(residuals, dtype=np.float64)
    if len(logits) == 1:
        return np.ones(1)
    standardised = (logits - logits.mean()) / (logits.std(ddof=1) + 1e-6) / temperature
    exponentials = np.exp(standardised - standardised.max())
    return np.asarray(exponentials / exponentials.sum())


@given(rows, st.sampled_from([0.5, 1.0, 3.0]))
def test_coefficients_are_the_softmax_of_standardised_residuals(row: list[float], temperature: float) -> None:
    candidates = torch.ones(1, len(row), dtype=torch.bool)
    got = routing_coefficients(torch.tensor([row]), candidates, temperature)[0]
    np.testing.assert_allclose(got.sum().item(), 1.0, rtol=1e-5)
    if np.std(row) > 1e-3 * (1 + max(row)):  # below that float32 residuals have no digits left to compare
        np.testing.assert_allclose(got.numpy(), _plain(row, temperature), atol=2e-3)


@given(st.lists(st.floats(0.0, 100.0, width=32), min_size=2, max_size=12), st.data())
def test_a_restriction_routes_as_if_the_others_did_not_exist(row: list[float], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(row))), min_size=1, unique=True).map(sorted))
    mask = torch.zeros(1, len(row), dtype=torch.bool)
    mask[0, chosen] = True
    restricted = routing_coefficients(torch.tensor([row]), mask, 1.0)[0]
    only = torch.tensor([[row[i] for i in chosen]])
    alone = routing_coefficients(only, torch.ones_like(only, dtype=torch.bool), 1.0)[0]
    torch.testing.assert_close(restricted[chosen], alone, atol=1e-3, rtol=1e-3)
    assert restricted[~mask[0]].eq(0).all()


@given(rows, st.floats(0.0, 0.99), st.integers(1, 5))
def test_a_set_holds_the_largest_above_the_threshold(row: list[float], threshold: float, top_k: int) -> None:
    coefficients = torch.tensor([row]) / max(sum(row), 1.0)
    values = coefficients[0].tolist()
    (chosen,) = select_expert_sets(coefficients, threshold, top_k)
    assert chosen == tuple(sorted(set(chosen)))
    above = [v for v in values if v > threshold]
    if not above:
        assert chosen == (values.index(max(values)),)
    else:
        assert len(chosen) == min(top_k, len(above))
        assert sorted(values[i] for i in chosen) == sorted(above, reverse=True)[: len(chosen)][::-1]


def test_one_task_is_certain_and_two_are_told_apart() -> None:
    ones = torch.ones(3, 1, dtype=torch.bool)
    assert routing_coefficients(torch.tensor([[2.0], [0.0], [7.0]]), ones, 1.0).eq(1).all()
    pair = torch.tensor([[1.0, 2.0], [5.0, 4.9], [3.0, 3.0]])
    coefficients = routing_coefficients(pair, torch.ones(3, 2, dtype=torch.bool), 1.0)
    assert select_expert_sets(coefficients, 0.2, 3) == [(0,), (1,), (0, 1)]
    assert coefficients[2].tolist() == [0.5, 0.5]


def test_a_sample_without_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        routing_coefficients(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool), 1.0)


SETTINGS: dict[str, float] = {"temperature": 1.0, "threshold": 0.2, "top_k": 3}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"threshold": 1.0}, "threshold"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SubspaceRouter(torch.ones(2, 1, 4), **(SETTINGS | wrong))  # type: ignore[arg-type]


def test_rows_of_one_pool_have_the_sum_of_their_evidence() -> None:
    evidence = torch.randn(6, 4)
    found = pooled(evidence, torch.tensor([0, 3, 0, 1, 0, 3]))
    for row, members in enumerate([[0, 2, 4], [1, 5], [0, 2, 4], [3], [0, 2, 4], [1, 5]]):
        torch.testing.assert_close(found[row], evidence[members].sum(0))
    assert torch.equal(found[3], evidence[3]), "to the last bit"
    assert torch.equal(found[0], found[4])


def test_without_pools_evidence_stays_as_it_is() -> None:
    evidence = torch.tensor([[-0.0, -torch.inf, torch.nan]])
    assert pooled(evidence, None) is evidence
    assert pooled(evidence, torch.tensor([7])).view(torch.int32).equal(evidence.view(torch.int32))


def test_what_is_no_candidate_of_a_pool_stays_none() -> None:
    coefficients = routing_coefficients(
        torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.5, 0.0]]),
        torch.tensor([[True, True, False]] * 2),
        1.0,
        Prior(torch.zeros(2, dtype=torch.long)),
    )
    assert coefficients[:, 2].eq(0).all()
    # Each of two candidates is 1 / sqrt(2) from the mean: one image for either, and the sums are equal.
    torch.testing.assert_close(coefficients[:, :2], torch.full((2, 2), 0.5))

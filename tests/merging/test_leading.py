"""The leading singular vectors without a decomposition of the whole, against one in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mass_serve.merging import task_singular_vectors
from mass_serve.merging.formats.leading import (
    FLOAT32_TOLERANCE,
    TOLERANCE,
    leading_singular_vectors,
    missed_energy_is_small,
)
from mass_serve.merging.threads import side_by_side

ROWS, COLUMNS, RANK = 192, 480, 18


def with_spectrum(s: Tensor, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    u, _ = torch.linalg.qr(torch.randn(shape[0], len(s), generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(shape[1], len(s), generator=generator, dtype=torch.float64))
    matrix: Tensor = (u * s) @ v.T
    return matrix.float()


def noise(scale: float, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(4))


PLACE = torch.arange(1, ROWS + 1, dtype=torch.float64)
FOUND: dict[str, Callable[[], Tensor]] = {
    "flat": lambda: noise(1e-3),
    "flat and square": lambda: noise(1e-3, (ROWS, ROWS)),
    "slow decay": lambda: with_spectrum(1e-2 * PLACE**-0.5),
    "decay": lambda: with_spectrum(1e-2 / PLACE),
    "quick decay": lambda: with_spectrum(torch.exp(-PLACE / 5)),
    "few that stand out and a flat rest": lambda: with_spectrum(1 / PLACE + 0.05),
    "a shelf behind a few that stand out": lambda: with_spectrum(
        torch.where(PLACE <= 3, 5.0, 1.0 - PLACE / 1000)
    ),
    "low rank": lambda: with_spectrum(1e-2 * PLACE[:7] ** -0.5),
    "low rank and rounding": lambda: with_spectrum(PLACE[:7] ** -0.5) + noise(1e-7),
    "one direction": lambda: with_spectrum(PLACE[:1]),
    "many directions alike": lambda: with_spectrum(torch.where(PLACE <= 60, 1.0, 0.1)),
    "all directions alike": lambda: with_spectrum(torch.ones(ROWS)),
    "tall": lambda: with_spectrum(PLACE**-0.5).T,
    "zero": lambda: torch.zeros(ROWS, COLUMNS),
    "small": lambda: with_spectrum(1e-11 / PLACE),
}
LEFT: dict[str, Callable[[], Tensor]] = {
    "a slope": lambda: with_spectrum(1.0 - PLACE / (2 * ROWS)),
    "infinite squares": lambda: with_spectrum(1e20 / PLACE),
    "squares of zero": lambda: with_spectrum(1e-25 / PLACE),
}


def optimum(delta: Tensor) -> tuple[float, float]:
    """The energy of the best RANK directions, and of the least of them times RANK."""
    energies = torch.linalg.svdvals(delta.double())[:RANK].square()
    return float(energies.sum()), RANK * float(energies[-1])


def kept_energy(delta: Tensor, vh: Tensor) -> float:
    return float((delta.double() @ vh.double().T).square().sum())


def wide(delta: Tensor) -> Tensor:
    return delta if delta.shape[0] <= delta.shape[1] else delta.T


@pytest.mark.parametrize("name", FOUND)
def test_is_found_and_misses_no_more_than_the_bound(name: str) -> None:
    delta = FOUND[name]()
    assert leading_singular_vectors(wide(delta), RANK) is not None
    vectors = task_singular_vectors(delta, RANK)
    best, least = optimum(delta)
    allowed = TOLERANCE * least + FLOAT32_TOLERANCE * best
    assert best - kept_energy(delta, vectors.vh) <= allowed
    assert best - kept_energy(delta.T, vectors.u.T) <= allowed
    assert float(vectors.s.double().square().sum()) == pytest.approx(best, rel=TOLERANCE, abs=1e-30)


@pytest.mark.parametrize("name", [*FOUND, *LEFT])
def test_sides_are_orthonormal_and_values_descend(name: str) -> None:
    vectors = task_singular_vectors((FOUND | LEFT)[name](), RANK)
    for side in (vectors.u.T, vectors.vh):
        torch.testing.assert_close(side @ side.T, torch.eye(RANK), atol=2e-6, rtol=0)
    assert bool((vectors.s >= 0).all())
    assert bool((vectors.s.diff() <= 1e-6 * vectors.s[0]).all())


@pytest.mark.parametrize("name", ["decay", "quick decay"])
def test_where_the_spectrum_decays_each_value_is_that_of_the_whole_decomposition(name: str) -> None:
    delta = FOUND[name]()
    found, exact = task_singular_vectors(delta, RANK), task_singular_vectors(delta, RANK, exact=True)
    torch.testing.assert_close(found.s, exact.s, rtol=1e-4, atol=0)
    product = (found.u * found.s) @ found.vh
    torch.testing.assert_close(product, (exact.u * exact.s) @ exact.vh, rtol=0, atol=1e-4 * float(exact.s[0]))


@pytest.mark.parametrize("name", LEFT)
def test_what_misses_the_bound_is_decomposed_as_a_whole(name: str) -> None:
    delta = LEFT[name]()
    assert leading_singular_vectors(delta, RANK) is None
    found, exact = task_singular_vectors(delta, RANK), task_singular_vectors(delta, RANK, exact=True)
    assert torch.equal(found.u, exact.u)
    assert torch.equal(found.vh, exact.vh)


def test_most_of_a_matrix_is_decomposed_as_a_whole() -> None:
    assert leading_singular_vectors(noise(1.0), ROWS // 4) is None


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_few_vectors_are_found_too(rank: int) -> None:
    delta = FOUND["decay"]()
    found = leading_singular_vectors(delta, rank)
    assert found is not None
    _, s, _ = found
    torch.testing.assert_close(s, torch.linalg.svdvals(delta.double())[:rank], rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(4, 64), (6, 6), (15, 40)])
def test_small_matrices_are_decomposed_as_a_whole(shape: tuple[int, int]) -> None:
    assert leading_singular_vectors(noise(1.0, shape), 1) is None
    assert task_singular_vectors(noise(1.0, shape), 1).u.shape == (shape[0], 1)


def test_the_same_matrix_gives_the_same_bits() -> None:
    delta = FOUND["slow decay"]()
    first, second = task_singular_vectors(delta, RANK), task_singular_vectors(delta.clone(), RANK)
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.vh, second.vh)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    deltas = [FOUND[name]() for name in ("flat", "slow decay", "decay", "quick decay")]
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([*side_by_side(lambda delta: task_singular_vectors(delta, RANK), deltas)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.u, other.u)
        assert torch.equal(one.s, other.s)
        assert torch.equal(one.vh, other.vh)


@pytest.mark.parametrize("lost", [0, RANK // 2, RANK - 1])
def test_the_bound_notices_one_direction_that_is_missing(lost: int) -> None:
    """The next direction in its place keeps a little less: too little for the others to make up for."""
    delta = with_spectrum(torch.where(PLACE <= RANK, 1.0, 0.5))
    u, s, _ = torch.linalg.svd(delta)
    gram = delta @ delta.T
    assert missed_energy_is_small(gram, u[:, :RANK], s[:RANK].square())
    chosen = [index for index in range(RANK + 1) if index != lost]
    assert not missed_energy_is_small(gram, u[:, chosen], s[chosen].square())

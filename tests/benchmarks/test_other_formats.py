"""Formats that were not taken: each is exact where its idea holds, and within its bytes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.other_formats import (
    Budget,
    density_of,
    in_int4,
    nearest_ternary,
    shared_rows,
    shared_sides,
    sparse_signs,
)

TASKS, D_OUT, D_IN = 8, 48, 64
ONCE = Budget(1)


def random_changes(seed: int = 0) -> Tensor:
    return torch.randn(TASKS, D_OUT, D_IN, generator=torch.Generator().manual_seed(seed))


def off(kept: Tensor, deltas: Tensor) -> float:
    return float((kept - deltas).norm() / deltas.norm())


def test_signs_are_as_many_as_their_entropy_allows() -> None:
    share = density_of(1.0)
    assert -share * math.log2(share) - (1 - share) * math.log2(1 - share) + share == pytest.approx(1.0)
    assert density_of(2.0) == pytest.approx(2 / 3)  # more than three values need

    deltas = random_changes()
    signs = sparse_signs({"a": deltas}, ONCE)["a"]
    bits = 8 * ONCE.size(deltas) / deltas.numel()
    assert float(signs.abs().mean()) == pytest.approx(density_of(bits), rel=0.01)
    assert float(deltas[signs != 0].abs().min()) >= float(deltas[signs == 0].abs().max()) - 1


def test_a_change_of_few_numbers_of_one_size_is_ternary() -> None:
    deltas = torch.zeros(TASKS, D_OUT, D_IN)
    deltas[:, ::7, ::9] = 0.25 * random_changes()[:, ::7, ::9].sign()
    assert off(nearest_ternary({"a": deltas}, ONCE)["a"], deltas) < 1e-6


def test_tasks_that_share_both_sides_are_kept_whole() -> None:
    left, right = random_changes(1)[0, :, :4], random_changes(2)[0, :4]
    deltas = left @ random_changes(3)[:, :4, :4] @ right
    assert off(shared_sides({"a": deltas}, ONCE)["a"], deltas) < 1e-4
    assert off(shared_sides({"a": random_changes()}, ONCE)["a"], random_changes()) > 0.5


def test_tasks_that_are_two_models_mixed_are_kept_whole_by_rows() -> None:
    singular = torch.linalg.svd(random_changes(4)[:2], full_matrices=False)
    scaled = [
        (own[:, :3] * s[:3].sqrt(), s[:3, None].sqrt() * vh[:3]) for own, s, vh in zip(*singular, strict=True)
    ]
    deltas = torch.stack([scaled[task % 2][0] @ scaled[task % 2][1] for task in range(TASKS)])
    assert off(shared_rows({"a": deltas}, Budget(4))["a"], deltas) < 1e-4
    assert off(in_int4({"a": deltas}, ONCE)["a"], deltas) < 0.2

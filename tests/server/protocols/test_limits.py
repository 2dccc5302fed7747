"""What one request may ask for, at both sides of each bound."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, Limits, checked_top_k


@pytest.mark.parametrize("top_k", [1, 2, 9, 10])
def test_a_top_k_within_the_limit_is_taken(top_k: int) -> None:
    assert checked_top_k(top_k, limit=10) == top_k


@pytest.mark.parametrize("top_k", [-1, 0, 11, 12])
def test_a_top_k_beyond_the_limit_is_refused(top_k: int) -> None:
    with pytest.raises(BadRequestError, match="between 1 and 10"):
        checked_top_k(top_k, limit=10)


def test_one_is_allowed_where_nothing_else_is() -> None:
    assert checked_top_k(1, limit=1) == 1


def test_who_does_not_say_gets_five_labels() -> None:
    assert DEFAULT_TOP_K == 5  # documented in every protocol's page


def test_limits_stay_as_they_are_set() -> None:
    limits = Limits(max_images=8, max_top_k=10)
    assert (limits.max_images, limits.max_top_k) == (8, 10)
    with pytest.raises(FrozenInstanceError):
        limits.max_images = 9  # type: ignore[misc]

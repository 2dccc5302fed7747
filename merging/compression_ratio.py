"""Ranks by the share of a matrix that is kept."""

from __future__ import annotations


def rank_for(shape: tuple[int, int], compression_ratio: float) -> int:
    """Returns the rank that a matrix of `shape` keeps: `max(1, int(min(d_out, d_in) * ratio))`."""
    return max(1, int(min(shape) * compression_ratio))

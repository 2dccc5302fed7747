"""Priors: how likely tasks are before an input is looked at, as a caller says it.

Priors.of({"cars": 0.8})  # cars in four inputs of five; the other candidates share the rest
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What is said to be impossible is one input in a million: evidence may still say that it is so.
LEAST_PRIOR = 1e-6
_ROUNDING = 1e-6  # that probabilities may sum to more than 1 by


@dataclass(frozen=True)
class Priors:
    """Probabilities of some tasks, or groups of tasks; the candidates that are not named share the rest."""

    shares: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for what are no probabilities."""
        if not self.shares:
            raise ValueError("'priors' names no task; say how likely one is, or leave it out.")
        for name, share in self.shares:
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise ValueError(
                    f"the prior of {name[:80]!a} must be a probability, a number from 0 to 1, not {share!r}."
                )
        total = math.fsum(share for _, share in self.shares)
        if not 0 < total <= 1 + _ROUNDING:
            raise ValueError(
                f"the priors must sum to more than 0 and at most 1, and sum to {total:.6g}; the tasks that"
                " are not named share what is left of 1."
            )

    @classmethod
    def of(cls, priors: Mapping[str, float]) -> Priors:
        """The priors that a mapping has. Raises ValueError as above."""
        return cls(tuple(priors.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """What is named."""
        return tuple(name for name, _ in self.shares)

    def log_priors(self, candidates: Sequence[str]) -> dict[str, float]:
        """The logarithm of each candidate's probability, at least LEAST_PRIOR."""
        shares = dict(self.shares)
        unnamed = [name for name in candidates if name not in shares]
        left = max(0.0, 1 - math.fsum(shares.values())) / max(1, len(unnamed))
        return {name: math.log(max(shares.get(name, left), LEAST_PRIOR)) for name in candidates}


def log_prior_rows(
    priors: Iterable[Priors | None], candidates: Tensor, tasks: Sequence[str]
) -> Tensor | None:
    """The log priors [B, T] float32 of samples among `candidates` [B, T]; None where no sample has any.

    They are 0 for tasks that are no candidates, and for samples without priors.
    """
    rows = torch.zeros(candidates.shape)
    given = [(row, one) for row, one in enumerate(priors) if one is not None]
    before = None
    for row, one in given:
        # The inputs of a request share its priors, and follow each other.
        if before is not None and before[1] is one and torch.equal(candidates[before[0]], candidates[row]):
            rows[row] = rows[before[0]]
        else:
            among = candidates[row].nonzero().flatten()
            values = one.log_priors([tasks[task] for task in among.tolist()])
            rows[row, among] = torch.tensor(list(values.values()))
        before = row, one
    return rows if given else None

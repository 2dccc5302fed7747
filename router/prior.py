"""What is known of inputs before they are looked at: how likely tasks are, and which inputs share one.

Inputs that are said to be of one task are a pool. A stream's pool has earlier inputs too, whose evidence is
remembered and counts the less the older it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class Remembered:
    """The evidence of earlier inputs, of the oldest first."""

    evidence: Tensor  # [n, T] float32: log likelihoods of the tasks, finite
    weights: Tensor  # [n] float32, above 0 and at most 1: how much each still counts

    def __len__(self) -> int:
        return len(self.weights)


@dataclass(frozen=True)
class Prior:
    """What is known of B samples and T tasks beforehand, on the CPU."""

    pools: Tensor  # [B] int64: samples with one number are said to be of one task
    remembered: Mapping[int, Remembered] = field(default_factory=dict)  # by the number of a pool
    log_priors: Tensor | None = None  # [B, T] float32, finite; None: all tasks are as likely

    def select(self, rows: Tensor) -> Prior:
        """What is known of the samples that `rows` [n] int64 numbers."""
        log_priors = None if self.log_priors is None else self.log_priors[rows]
        return Prior(self.pools[rows], self.remembered, log_priors)

    def of_tasks(self, first: int) -> Prior:
        """What is known of the samples and the first so many tasks."""
        return self if self.log_priors is None else replace(self, log_priors=self.log_priors[:, :first])

    def members(self) -> dict[int, list[int]]:
        """The samples of each pool."""
        rows: dict[int, list[int]] = defaultdict(list)
        for row, number in enumerate(self.pools.tolist()):
            rows[number].append(row)
        return rows

    def widened(self, candidates: Tensor) -> Tensor:
        """The candidates [B, T] bool with, for each sample, those of all samples of its pool."""
        result = candidates.clone()
        for rows in self.members().values():
            result[rows] = candidates[rows].any(0)
        return result


def with_log_priors(evidence: Tensor, prior: Prior | None) -> Tensor:
    """`evidence[b, t] + log_priors[b, t]`, for evidence [B, T]."""
    return evidence if prior is None or prior.log_priors is None else evidence + prior.log_priors

"""How expert sets are selected: residuals to routing coefficients to sets."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from mass_serve.router.prior import Prior, with_log_priors

STD_EPSILON = 1e-6


def routing_coefficients(
    residuals: Tensor, candidates: Tensor, temperature: float, prior: Prior | None = None
) -> Tensor:
    """Softmax over candidates of the standardised negative residuals, [B, T] float32.

    `logits = -residuals`, `standardised`, `pooled`, divided by `temperature` and with log priors added.
    residuals [B, T] float32; candidates [B, T] bool, at least one in each row. Tasks that are no candidates
    get 0.
    """
    if not bool(candidates.any(1).all()):
        raise ValueError("every sample needs at least one candidate task")
    pools = None if prior is None else prior.pools
    logits = with_log_priors(pooled(standardised(-residuals, candidates), pools) / temperature, prior)
    return logits.masked_fill(~candidates, float("-inf")).softmax(1)


def standardised(evidence: Tensor, candidates: Tensor) -> Tensor:
    """Evidence [..., T] with mean 0 and unbiased standard deviation 1 (+ 1e-6) over each row's candidates.

    Candidates are of the same shape, or of one that expands to it. It is 0 for tasks that are no candidates,
    and for a single candidate, which has no spread to standardise by.
    """
    return _centred(evidence, candidates) / (spread(evidence, candidates) + STD_EPSILON).unsqueeze(-1)


def pooled(evidence: Tensor, pools: Tensor | None) -> Tensor:
    """Evidence [B, T] with the sum over its pool in place of each row: what speaks for one task of them all.

    `pooled[b, t] = sum over c with pools[c] == pools[b] of evidence[c, t]`, in the order of the rows. pools
    [B] int64 numbers the pool of each row; None, or a row that is alone in its pool: the row as it is.
    """
    if pools is None:
        return evidence
    result = evidence.clone()
    for number, size in Counter(pools.tolist()).items():
        if size > 1:
            rows = pools == number
            result[rows] = evidence[rows].sum(0)
    return result


def spread(evidence: Tensor, candidates: Tensor) -> Tensor:
    """The unbiased standard deviation [...] of each row of evidence [..., T] over its candidates."""
    count = candidates.sum(-1)
    return (_centred(evidence, candidates).square().sum(-1) / (count - 1).clamp_min(1)).sqrt()


def _centred(evidence: Tensor, candidates: Tensor) -> Tensor:
    """Evidence [..., T] less its mean over each row's candidates, 0 for the other tasks."""
    kept = torch.where(candidates, evidence, 0.0)
    mean = kept.sum(-1, keepdim=True) / candidates.sum(-1, keepdim=True)
    return torch.where(candidates, kept - mean, 0.0)


def select_expert_sets(coefficients: Tensor, threshold: float, top_k: int) -> list[tuple[int, ...]]:
    """Each row's expert set: at most `top_k` of the tasks strictly above `threshold`, the largest, sorted.

    Where none is above it, the task with the largest coefficient alone. Equal coefficients count in task
    order. coefficients [B, T] -> B tuples of ascending task indices.
    """
    ranked = coefficients.sort(dim=1, descending=True, stable=True)  # a stable sort keeps task order
    values, tasks = ranked.values[:, :top_k].tolist(), ranked.indices[:, :top_k].tolist()
    return [_expert_set(*row, threshold) for row in zip(values, tasks, strict=True)]


def _expert_set(values: list[float], tasks: list[int], threshold: float) -> tuple[int, ...]:
    kept = [task for value, task in zip(values, tasks, strict=True) if value > threshold]
    return tuple(sorted(kept or tasks[:1]))

"""How much a calibration counts beside the evidence as it was, and how inputs of known tasks tell that.

To the log odds of task t it adds

    w log p_t + sum over kinds k of v_k z_kt + b_t

where p are the discriminant's probabilities, z the nearness of the evidence, standardised over an input's
candidates, and b an offset of each task. Where nobody said which tasks the inputs are of, w is a constant,
which was chosen on other stores, and the rest is 0. Otherwise a logistic regression fits all of it with a
normal prior for what multiplies quantities of about unit size: few inputs change little. It counts where
inputs that it was not fitted to are clearly likelier with it and as often right; otherwise all of it is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mass_serve.router.head_scores import nearness
from mass_serve.router.selection import standardised

# The power of the discriminant's probabilities where nobody said the tasks. It is fitted on answers of the
# very evidence that it is added to: from 0.5 on, calibrating on few images lowers the accuracy of some suite.
# Chosen by `mass-serve calibrate suite/store suite/tuning` and `mass-serve eval suite/store
# suite/evaluation`, on the suites that `python -m examples.suites near_duplicates`, `weak_demo` and
# `twenty_tasks_demo` make.
WEIGHT = 0.25
# Beyond this a log probability says no more than "no".
LEAST_LOG_PROBABILITY = -10.0
# Of the prior. With 1, eight inputs of each task lower the accuracy of a suite where two tasks have the same
# inputs; with an eighth, they gain less elsewhere (`python -m benchmarks.few_labels`).
PRIOR_VARIANCE = 0.25
MOST_STEPS = 200  # of the regression, which takes about thirty


@dataclass(frozen=True)
class Combination:
    """The weights of K kinds of evidence for T tasks."""

    probability: float  # w, of the discriminant's log probabilities
    kinds: Tensor  # [K] float32: v
    offsets: Tensor  # [T] float32: b

    @classmethod
    def unlabelled(cls, kinds: int, tasks: int) -> Combination:
        """The weights where nobody said which tasks the inputs are of."""
        return cls(WEIGHT, torch.zeros(kinds), torch.zeros(tasks))

    @classmethod
    def of_numbers(cls, numbers: Tensor, tasks: int) -> Combination:
        """The weights that `numbers` [1 + K + T] holds."""
        return cls(float(numbers[0]), numbers[1:-tasks].float(), numbers[-tasks:].float())

    def numbers(self, kinds: int) -> Tensor:
        """All weights side by side, w, v and b, [1 + kinds + T] float64: kinds that are not here have 0."""
        none = torch.zeros(kinds - len(self.kinds))
        return torch.cat([torch.tensor([self.probability]), self.kinds, none, self.offsets]).double()

    def of_kinds(self, kinds: int) -> Combination:
        """Returns the weights for the first `kinds` kinds alone."""
        return Combination(self.probability, self.kinds[:kinds], self.offsets)

    def of_tasks(self, tasks: Sequence[int]) -> Combination:
        """Returns the weights for these tasks alone, in that order."""
        return Combination(self.probability, self.kinds, self.offsets[list(tasks)])

    def added(self, log_probabilities: Tensor, kinds: Tensor, candidates: Tensor) -> Tensor:
        """What is added to the log odds [B, T] of the tasks of the mask `candidates` [B, T]; 0 for others.

        log_probabilities [B, T], kinds [B, K, T].
        """
        together = self.probability * log_probabilities + self.offsets
        if self._weighs_kinds:
            # A sum of products and no matrix product: a row has the same bits in every batch.
            together = together + (self.kinds.unsqueeze(1) * _units(kinds, candidates)).sum(1)
        return torch.where(candidates, together, 0.0)

    @cached_property
    def _weighs_kinds(self) -> bool:
        return bool(self.kinds.any())


def fit_combination(
    log_coefficients: Tensor, log_probabilities: Tensor, kinds: Tensor, tasks: Tensor, parts: Tensor
) -> Combination:
    """The weights that N inputs of known tasks [N] tell, each of which has every task for a candidate.

    Minimises over w >= 0, v, b and 0 < c <= 1, with s the logarithms of the routing coefficients and n_t the
    inputs of task t,

        sum over inputs of -log softmax(c (s + w log p + v z + b) + log n)[task]
            + ((10 w)^2 + |v|^2 + |b|^2) / (2 PRIOR_VARIANCE) + (log c)^2 / 2

    where log n takes out how often a task was drawn, and c how much too sure the coefficients are: what is
    added would otherwise take that back where two tasks cannot be told apart, and mislead elsewhere. `parts`
    [N] numbers the part of each input: unless the parts, each with a fit to the others, are clearly likelier
    than by s alone and as often right, the weights are 0. log_coefficients and log_probabilities [N, T],
    kinds [N, K, T].
    """
    every = torch.ones(log_coefficients.shape, dtype=torch.bool)
    unit_probabilities = (log_probabilities / -LEAST_LOG_PROBABILITY).unsqueeze(1)
    features = torch.cat([unit_probabilities, _units(kinds, every)], dim=1).double()
    base = log_coefficients.double()
    judged = base.clone()
    for part in range(int(parts.max()) + 1):
        own = parts == part
        numbers = _regression(base[~own], features[~own], tasks[~own])
        judged[own] += _added(numbers, features[own])
    numbers = _regression(base, features, tasks)
    if not _is_worth(judged, base, tasks):
        numbers = torch.zeros_like(numbers)
    numbers[0] /= -LEAST_LOG_PROBABILITY
    return Combination.of_numbers(numbers, base.shape[1])


def _regression(base: Tensor, features: Tensor, tasks: Tensor) -> Tensor:
    """The weights [F + T] of features [N, F, T], side by side with the offsets; the first is at least 0."""
    numbers = _unbounded_regression(base, features, tasks)
    if numbers[0] >= 0:
        return numbers
    # For every c what is minimised is convex: where the best lies beyond a bound, the best within lies on it.
    return _unbounded_regression(base, features * (torch.arange(features.shape[1]) > 0).unsqueeze(1), tasks)


def _unbounded_regression(base: Tensor, features: Tensor, tasks: Tensor) -> Tensor:
    numbers = torch.zeros(features.shape[1] + base.shape[1], dtype=torch.float64, requires_grad=True)

    def logits(sharpness: Tensor) -> Tensor:
        return sharpness * (base + _added(numbers, features)) + _drawn(base, tasks)

    _likeliest(logits, tasks, [numbers])
    return numbers.detach()


def _is_worth(judged: Tensor, base: Tensor, tasks: Tensor) -> bool:
    """Whether scores [N, T] of inputs that were not fitted to are better than those of a base.

    That is, likelier by more than the standard error of the gain, and as often right.
    """
    gains = _log_likelihoods(judged, tasks) - _log_likelihoods(base, tasks)
    clear = bool(gains.mean() > gains.std() / len(gains) ** 0.5)
    return clear and _right(judged, tasks) >= _right(base, tasks)


def _right(scores: Tensor, tasks: Tensor) -> float:
    """How often the task with the largest score [N, T] is an input's own, averaged over tasks."""
    right = (scores.argmax(1) == tasks).double()
    counts = torch.bincount(tasks, minlength=scores.shape[1])
    of_tasks = torch.bincount(tasks, right, len(counts))[counts > 0] / counts[counts > 0]
    return float(of_tasks.mean())


def _log_likelihoods(scores: Tensor, tasks: Tensor) -> Tensor:
    """The log probability [N] of each input's own task by scores [N, T], at their likeliest sharpness."""

    def logits(sharpness: Tensor) -> Tensor:
        return sharpness * scores + _drawn(scores, tasks)

    found = logits(_likeliest(logits, tasks, [])).log_softmax(1)
    return found.gather(1, tasks.unsqueeze(1)).squeeze(1)


def _likeliest(logits: Callable[[Tensor], Tensor], tasks: Tensor, numbers: Sequence[Tensor]) -> Tensor:
    """Sets `numbers`, and returns the c, so that the logits of c say the tasks best beside the prior."""
    # c = exp(-root^2) is never above 1. It begins where it has a slope.
    root = torch.full((), 0.5, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([*numbers, root], max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(logits((-root.square()).exp()), tasks, reduction="sum")
        value = value + root**4 / 2
        for own in numbers:
            value = value + own.square().sum() / (2 * PRIOR_VARIANCE)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    return (-root.detach().square()).exp()


def _drawn(scores: Tensor, tasks: Tensor) -> Tensor:
    """The logarithms [T] of how often each task of scores [N, T] was drawn."""
    return torch.bincount(tasks, minlength=scores.shape[1]).double().log()


def _added(numbers: Tensor, features: Tensor) -> Tensor:
    """What weights and offsets [F + T] make of features [N, F, T], [N, T]."""
    columns = features.shape[1]
    return torch.einsum("f,nft->nt", numbers[:columns], features) + numbers[columns:]


def _units(kinds: Tensor, candidates: Tensor) -> Tensor:
    """The nearness of evidence [B, K, T], each kind standardised over a row's candidates."""
    return standardised(nearness(kinds), candidates.unsqueeze(1))

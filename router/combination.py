"""How much a calibration counts beside the evidence as it was, and how inputs of known tasks tell that.

To the log odds of task t it adds

    w log p_t + sum over kinds k of v_k z_kt + b_t

where p are the discriminant's probabilities, z the nearness of the evidence, standardised over an input's
candidates, and b an offset of each task. Where nobody said which tasks the inputs are of, w is a constant,
which was chosen on other stores, and the rest is 0. Otherwise a logistic regression fits all of it with a
standard normal prior for what multiplies quantities of about unit size: few inputs change little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        # A sum of products and no matrix product: a row has the same bits in every batch.
        of_kinds = (self.kinds.unsqueeze(1) * _units(kinds, candidates)).sum(1)
        together = self.probability * log_probabilities + of_kinds + self.offsets
        return torch.where(candidates, together, 0.0)


def fit_combination(
    log_coefficients: Tensor, log_probabilities: Tensor, kinds: Tensor, tasks: Tensor
) -> Combination:
    """The weights that N inputs of known tasks [N] tell, each of which has every task for a candidate.

    Minimises over w, v and b, with s the logarithms of the routing coefficients and n_t the inputs of task t,

        sum over inputs of -log softmax(s + w log p + v z + b + log n)[task] + ((10 w)^2 + |v|^2 + |b|^2) / 2

    where log n takes out how often a task was drawn. log_coefficients and log_probabilities [N, T], kinds
    [N, K, T].
    """
    every = torch.ones(log_coefficients.shape, dtype=torch.bool)
    unit_probabilities = (log_probabilities / -LEAST_LOG_PROBABILITY).unsqueeze(1)
    features = torch.cat([unit_probabilities, _units(kinds, every)], dim=1).double()
    drawn = torch.bincount(tasks, minlength=log_coefficients.shape[1]).double().log()
    base, columns = log_coefficients.double() + drawn, features.shape[1]
    numbers = torch.zeros(columns + len(drawn), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([numbers], max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        logits = base + torch.einsum("f,nft->nt", numbers[:columns], features) + numbers[columns:]
        value = torch.nn.functional.cross_entropy(logits, tasks, reduction="sum")
        value = value + numbers.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    found = numbers.detach()
    found[0] /= -LEAST_LOG_PROBABILITY
    return Combination.of_numbers(found, len(drawn))


def _units(kinds: Tensor, candidates: Tensor) -> Tensor:
    """The nearness of evidence [B, K, T], each kind standardised over a row's candidates."""
    return torch.stack([standardised(kind, candidates) for kind in nearness(kinds).unbind(1)], dim=1)

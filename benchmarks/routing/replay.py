"""What the router makes of recorded evidence with other constants: the functions that serve, over tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from benchmarks.routing.record import Recorded, Suite
from mass_serve.evaluation.measures import Interval, mean_interval, wilson_interval
from mass_serve.router import FARTHEST_RESUMED, MODES, ModeName, after_second_passes
from mass_serve.router.modes import Mode
from mass_serve.router.weights import WEIGHTS, Weights


@dataclass(frozen=True)
class Constants:
    """All that is chosen."""

    weights: Weights
    early_exit_lead: float  # of `fast`
    second_pass_margin: float  # of `exact`
    farthest_resumed: float  # of `fast` and `one_pass`

    def mode(self, name: ModeName) -> Mode:
        """The mode of that name with these constants."""
        mode = MODES[name]
        if name == "fast":
            return replace(mode, early_exit_lead=self.early_exit_lead)
        return replace(mode, second_pass_margin=self.second_pass_margin) if name == "exact" else mode


SERVED = Constants(
    WEIGHTS, MODES["fast"].early_exit_lead, MODES["exact"].second_pass_margin, FARTHEST_RESUMED
)


@dataclass(frozen=True)
class Outcome:
    """Holds what became of N inputs."""

    truth: Tensor  # [N] int64
    task: Tensor  # [N] int64: the one that answers
    coefficient: Tensor  # [N]: its routing coefficient
    right: Tensor  # [N] bool: task and label

    def by_task(self, values: Tensor) -> list[Tensor]:
        """Values [N] by the true task."""
        return [values[self.truth == task] for task in sorted(set(self.truth.tolist()))]

    @property
    def task_right(self) -> float:
        """How often the answer is of the right task, averaged over tasks."""
        return _mean(self.by_task((self.task == self.truth).float()))

    @property
    def accuracy(self) -> float:
        """How often task and label are right, averaged over tasks."""
        return _mean(self.by_task(self.right.float()))

    @property
    def accuracy_interval(self) -> Interval:
        """The 95 % interval of the accuracy."""
        counts = [(int(own.sum()), len(own)) for own in self.by_task(self.right)]
        return mean_interval([right / n for right, n in counts], [wilson_interval(*one) for one in counts])

    @property
    def squared_errors(self) -> Tensor:
        """The squared distance [N] of each coefficient to 1 where the task is right, to 0 otherwise."""
        return (self.coefficient - (self.task == self.truth).float()).square()


def known(record: Recorded) -> float:
    """The accuracy where the task is named, averaged over tasks."""
    return Outcome(record.tasks, record.tasks, record.right.float(), record.right).accuracy


def resumed(record: Recorded) -> float:
    """The same where the second pass resumes where early evidence is judged."""
    return Outcome(record.tasks, record.tasks, record.right.float(), record.resumed_right).accuracy


def replay(suite: Suite, record: Recorded, constants: Constants, name: ModeName) -> Outcome:
    """Routes the recorded inputs, all tasks being candidates."""
    mode = constants.mode(name)
    router = suite.search.router.weighing(constants.weights)
    every = torch.ones(record.first_scores.shape[:2], dtype=torch.bool)
    early = router.early(record.early, every)
    whole = router.whole(early.energies, record.late, record.features, record.first_scores[:, :, 0], every)
    exits = early.leads >= mode.early_exit_lead
    task = torch.where(exits, early.scores.argmax(1), whole.scores.argmax(1))
    coefficients = torch.where(exits.unsqueeze(1), early.routing_coefficients, whole.routing_coefficients)
    coefficient = coefficients.gather(1, task.unsqueeze(1)).squeeze(1)
    if mode.second_pass_margin:
        for row, evidence in enumerate(whole.samples()):
            tried = evidence.second_pass_candidates(mode)
            scores: dict[int, list[float]] = {one: record.second_scores[row, one].tolist() for one in tried}
            if len(tried) > 1 and all(map(math.isfinite, chain(*scores.values()))):
                after = after_second_passes([evidence], [scores])
                task[row] = max(after, key=after.__getitem__)
                coefficient[row] = after[int(task[row])]
    again = suite.exit_prices > constants.farthest_resumed if mode.resumes else torch.ones(every.shape[1])
    right = torch.where(again[record.tasks].bool(), record.right, record.resumed_right)
    return Outcome(record.tasks, task, coefficient, (task == record.tasks) & right)


def _mean(by_task: list[Tensor]) -> float:
    return float(torch.stack([own.mean() for own in by_task]).mean())

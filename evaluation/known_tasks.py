"""What a calibration learns from inputs whose tasks are known: no router's answer is taken for the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore, early_linears
from mass_serve.engine.options import GIB
from mass_serve.evaluation.calibration_inputs import Given
from mass_serve.evaluation.fitting import empty_fit, of_the_others, together
from mass_serve.evaluation.inputs import files_of
from mass_serve.router import Calibration, CalibrationFit, Combination, Evidence, ModeName, fit_combination

# The modes whose first evidence is all that they have: early and whole.
EARLY_MODE: ModeName = "one_pass"
WHOLE_MODE: ModeName = "balanced"


@dataclass(frozen=True)
class Observed:
    """The evidence of n inputs, and what they are."""

    kinds: Tensor  # [n, K, T]
    early: Tensor  # [n, T]: logarithms of the routing coefficients by early evidence alone
    whole: Tensor  # [n, T]
    tasks: Tensor  # [n] int64
    classes: Tensor  # [n] int64: of each the class that was said, or what its own task says it is

    def add_to(self, fit: CalibrationFit) -> None:
        """Counts every input as one of its own task."""
        fit.add(self.kinds, self.tasks, self.classes, torch.ones(len(self.tasks)))


class Observer:
    """Asks a store that is not calibrated about inputs whose tasks are known."""

    def __init__(self, loaded: LoadedStore) -> None:
        self._engines = {
            mode: Engine(replace(loaded, mode=mode), Execution.LOW_RANK, GIB)
            for mode in (EARLY_MODE, WHOLE_MODE)
        }
        self._files = files_of(self._engines[WHOLE_MODE])
        self._names = [head.entry.name for head in loaded.routed_heads]

    def observe(self, batch: Given) -> Observed:
        """Returns what there is to learn from a batch, which takes four passes for each input."""
        whole = self._evidence(WHOLE_MODE, batch)
        named = [self._files.query(one, (task,)) for one, task in zip(batch.inputs, batch.tasks, strict=True)]
        answers = self._engines[WHOLE_MODE].classify_batch(named).all_answers()
        return Observed(
            torch.stack([one.kinds for one in whole]),
            _log_coefficients(self._evidence(EARLY_MODE, batch)),
            _log_coefficients(whole),
            torch.tensor([self._names.index(task) for task in batch.tasks]),
            torch.tensor(
                [
                    target[0] if target is not None and len(target) == 1 else int(answer.logits.argmax())
                    for target, answer in zip(batch.targets, answers, strict=True)
                ]
            ),
        )

    def _evidence(self, mode: ModeName, batch: Given) -> list[Evidence]:
        queries = [self._files.query(one) for one in batch.inputs]
        answers = self._engines[mode].classify_batch(queries).all_answers()
        return [answer.evidence for answer in answers if answer.evidence is not None]


def fitted(loaded: LoadedStore, parts: Sequence[Sequence[Observed]]) -> tuple[Calibration, list[Calibration]]:
    """The calibration by all inputs and, for each part of them, that by the other parts.

    How much they count is the same for all. Some parts may be empty.
    """
    fits = [empty_fit(loaded) for _ in parts]
    for fit, part in zip(fits, parts, strict=True):
        for observed in part:
            observed.add_to(fit)
    others = [fit.fit() for fit in of_the_others(fits)]
    early, whole = _counts(parts, others, len(early_linears(loaded.architecture)))
    return together(fits).fit().counting(early, whole), [other.counting(early, whole) for other in others]


def _counts(
    parts: Sequence[Sequence[Observed]], others: Sequence[Calibration], early: int
) -> tuple[Combination, Combination]:
    """How much a calibration by such inputs counts beside early evidence and beside the whole.

    `others` holds, for each part of the inputs, the calibration by all other parts: one that an input has a
    part in knows more of it than of a new one. `early` is the number of the early kinds of evidence.
    """
    every = [one for part in parts for one in part]
    kinds, tasks = torch.cat([one.kinds for one in every]), torch.cat([one.tasks for one in every])
    of_early = torch.cat([one.early for one in every])
    of_whole = torch.cat([one.whole for one in every])
    sizes = torch.tensor([sum(len(one.tasks) for one in part) for part in parts])
    places = torch.arange(len(parts)).repeat_interleave(sizes)
    return (
        fit_combination(of_early, _judged(parts, others, early), kinds[:, :early], tasks, places),
        fit_combination(of_whole, _judged(parts, others, kinds.shape[1]), kinds, tasks, places),
    )


def _judged(parts: Sequence[Sequence[Observed]], others: Sequence[Calibration], count: int) -> Tensor:
    """What the other parts' inputs say of each, by its first `count` kinds: log probabilities [N, T]."""
    found = []
    for part, other in zip(parts, others, strict=True):
        start = Combination.unlabelled(count, other.means.shape[2])
        discriminant = other.counting(start, start).discriminant(count)
        for one in part:
            every = torch.ones(len(one.tasks), other.means.shape[2], dtype=torch.bool)
            found.append(discriminant.judge(one.kinds[:, :count], every).log_probabilities)
    return torch.cat(found)


def _log_coefficients(evidence: Sequence[Evidence]) -> Tensor:
    coefficients = torch.stack([one.routing_coefficients for one in evidence])
    return coefficients.clamp_min(torch.finfo(coefficients.dtype).tiny).log()

"""Whether another place to judge early evidence than `router.early_stop`, a third of the pass, would gain.

    python -m benchmarks.early_layers SUITES --json benchmarks/results/early_layers.json

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. Of the whole
fine-tunings of each, with early evidence judged a quarter, a third and a half of the way:

- how far what the tasks explain varies over drawn inputs, which needs no data (as `engine.measuring` chooses
  the late token; `chosen` is the stop where it is largest),
- what resuming there costs: prices as `engine.exits` measures them, and the share of tasks that are beyond
  `FARTHEST_RESUMED` and begin again,
- on `evaluation` parts, how often early evidence alone is right, how many inputs leave early in `fast`, how
  often those are right, and what becomes of the accuracy and of the passes of both modes that resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.by_suite import asked_suites
from benchmarks.whole_fine_tunings import OwnInputs, WholeFineTunings, averaged, by_task
from mass_serve.backbone import Batch, Feature, Probe
from mass_serve.engine.class_vectors import ClassVectors
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.evidence_search import EVIDENCE_SHARE
from mass_serve.engine.exits import measured_prices
from mass_serve.evaluation.measures import Z_95, Interval, mean_interval, wilson_interval
from mass_serve.router import (
    FARTHEST_RESUMED,
    MODES,
    EnergyEvidence,
    EvidenceRouter,
    ModeName,
    TaskSubspaces,
)

STOPS = {"quarter": 4, "third": 3, "half": 2}  # the part of the depth, as its divisor
RULE = "third"  # `router.early_stop`
RESUMING: tuple[ModeName, ...] = ("one_pass", "fast")
DIGITS = 4


def main() -> None:
    """Prints a line for each suite and stop."""
    asked = asked_suites(__doc__)
    for folder in asked.suites:
        figures = measured(WholeFineTunings.open(folder))
        for name, own in figures["stops"].items():
            print(f"{folder.name}, {name}: {own}", flush=True)
        asked.record(folder.name, figures)


@torch.inference_mode()
def measured(suite: WholeFineTunings) -> dict[str, Any]:
    """The figures of one suite by stop, and the stop that the estimate without data would choose."""
    depth, drawn = suite.loaded.architecture.depth, drawn_inputs(suite.loaded)
    stops = {name: Stop.of(suite, max(1, depth // divisor), drawn) for name, divisor in STOPS.items()}
    parts: dict[str, list[Outcome]] = {name: [] for name in stops}
    for own in suite.evaluation():
        right = _right(suite, own, own.inputs)
        for name, stop in stops.items():
            parts[name].append(stop.outcome(own, right))
    outcomes = {name: Outcome.joined(of_stop) for name, of_stop in parts.items()}
    return {
        "tasks": suite.tasks,
        "inputs": len(outcomes[RULE].truth),
        "chosen": max(stops, key=lambda name: stops[name].variation),
        "stops": {
            name: _of_stop(suite, stop, outcomes[name], outcomes[RULE]) for name, stop in stops.items()
        },
    }


@dataclass(frozen=True)
class Outcome:
    """Holds what became of N inputs where early evidence is judged at one stop."""

    truth: Tensor  # [N] int64: the task
    early: Tensor  # [N] int64: the task with the most early evidence
    leads: Tensor  # [N]: how far it is ahead
    whole: Tensor  # [N] int64: the task with the most of all evidence
    right: Tensor  # [N] bool: whether the own task's label is right after a second pass as modes resume it
    early_passes: Tensor  # [N]: passes through the encoder for the task by early evidence, if that decides
    whole_passes: Tensor  # [N]: the same for the task by all evidence

    @classmethod
    def joined(cls, parts: list[Outcome]) -> Outcome:
        """The outcome of all inputs, in their order."""
        return cls(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    def leaves(self, mode: ModeName) -> Tensor:
        """Which inputs [N] early evidence decides for in the mode."""
        return self.leads >= MODES[mode].early_exit_lead

    def answered(self, mode: ModeName) -> Tensor:
        """Which inputs [N] get their task and their label."""
        return (torch.where(self.leaves(mode), self.early, self.whole) == self.truth) & self.right

    def passes(self, mode: ModeName) -> Tensor:
        """The passes [N] through the encoder, with what measuring early evidence adds."""
        return torch.where(self.leaves(mode), self.early_passes, self.whole_passes)


@dataclass(frozen=True)
class Stop:
    """Early evidence judged before one block, where second passes of near tasks resume."""

    suite: WholeFineTunings
    block: int
    router: EvidenceRouter
    variation: float  # of what the tasks explain of drawn inputs
    prices: Tensor  # [T]: as `engine.exits` has them

    @classmethod
    def of(cls, suite: WholeFineTunings, block: int, drawn: Batch) -> Stop:
        """Measures by drawn inputs what evidence that is judged before that block varies by, and costs."""
        loaded = suite.loaded
        early = loaded.subspaces(loaded.architecture.early_linears(block))
        late = loaded.subspaces(loaded.architecture.late_linears(block))
        router = EvidenceRouter(TaskSubspaces(loaded.residual_blocks), early, late, loaded.adapters)
        evidence = EnergyEvidence(list(early.values()), torch.tensor(loaded.adapters))
        energies = suite.passes.first(drawn, stop=block, probe=Probe(router.early_bases)).energies
        variation = evidence.variation(energies.cpu())
        prices = measured_prices(loaded, suite.passes, drawn, loaded.routed, block)
        return cls(suite, block, router, variation, prices)

    @property
    def near(self) -> Tensor:
        """The tasks [T] whose second passes resume here."""
        return self.prices <= FARTHEST_RESUMED

    def outcome(self, own: OwnInputs, right: Tensor) -> Outcome:
        """What becomes of n inputs of a task; `right` [n] tells whose label a whole second pass finds."""
        passes = self.suite.passes
        every = torch.ones(len(own.targets), len(self.suite.tasks), dtype=torch.bool)
        begun = passes.first(own.inputs, stop=self.block, probe=self._early_probe)
        early = self.router.early(begun.energies, every)
        ended = passes.first(begun.entering, start=self.block, probe=self._late_probe)
        feature = (ended if self._late_probe.feature else begun).feature
        cosines = ClassVectors(self.suite.loaded.routed_heads).largest_cosines(ended.embedding)
        whole = self.router.whole(early.energies, ended.energies, feature, cosines, every)
        by_early, by_whole = early.scores.argmax(1), whole.scores.argmax(1)
        begin, evidence = self._shares
        second_pass = 1 - self.near * begin
        return Outcome(
            truth=torch.full((len(own.targets),), own.task),
            early=by_early,
            leads=early.leads,
            whole=by_whole,
            right=_right(self.suite, own, begun.entering, self.block) if self.near[own.task] else right,
            early_passes=begin + evidence + second_pass[by_early],
            whole_passes=1 + evidence + second_pass[by_whole],
        )

    @property
    def _shares(self) -> tuple[float, float]:
        """What the blocks before this one are, and what early evidence costs, both in passes."""
        architecture = self.suite.loaded.architecture
        begin = self.block / architecture.depth
        return begin, begin * EVIDENCE_SHARE / architecture.evidence_stride

    @property
    def _early_probe(self) -> Probe:
        return Probe(self.router.early_bases, self._feature if self._feature.layer < self.block else None)

    @property
    def _late_probe(self) -> Probe:
        spec, feature = self.suite.loaded.router, self._feature
        token = spec.late_token or spec.token
        return Probe(self.router.late_bases, None if feature.layer < self.block else feature, token)

    @property
    def _feature(self) -> Feature:
        return Feature(self.suite.loaded.router.layer, self.suite.loaded.router.token)


def _embeddings(suite: WholeFineTunings, task: int, inputs: Batch, start: int | None = None) -> Tensor:
    """The embeddings [n, P] float32 of second passes with one task's weights, from a block on or whole."""
    sets = [suite.loaded.bank.expert_set((task,), materialised=False)]
    return suite.passes.second(inputs, sets, [0, len(inputs)], start).float()


def _right(suite: WholeFineTunings, own: OwnInputs, inputs: Batch, start: int | None = None) -> Tensor:
    """Whose labels are right [n] after second passes with their own task's weights."""
    head = suite.loaded.routed_heads[own.task].head
    return head.logits(_embeddings(suite, own.task, inputs, start)).argmax(1) == own.targets


def _of_stop(suite: WholeFineTunings, stop: Stop, outcome: Outcome, rule: Outcome) -> dict[str, Any]:
    right, leaves = outcome.early == outcome.truth, outcome.leaves("fast")
    prices = {task: round(float(price), DIGITS) for task, price in zip(suite.tasks, stop.prices, strict=True)}
    return {
        "block": stop.block,
        "variation": round(stop.variation, DIGITS),
        "prices": prices,
        "beyond": round(1 - float(stop.near.float().mean()), DIGITS),
        "right": round(averaged(right, outcome.truth), DIGITS),
        "interval": _rounded(_share_interval(right, outcome.truth)),
        "leaves": round(averaged(leaves, outcome.truth), DIGITS),
        "right_of_those": round(float(right[leaves].float().mean()), DIGITS) if leaves.any() else None,
        "modes": {mode: _of_mode(mode, outcome, rule) for mode in RESUMING},
    }


def _of_mode(mode: ModeName, outcome: Outcome, rule: Outcome) -> Mapping[str, Any]:
    """Task and label right, passes, and what is gained over the rule on the same inputs."""
    answered = outcome.answered(mode)
    gained = answered.float() - rule.answered(mode).float()
    return {
        "accuracy": round(averaged(answered, outcome.truth), DIGITS),
        "passes": round(averaged(outcome.passes(mode), outcome.truth), DIGITS),
        "gain": round(averaged(gained, outcome.truth), DIGITS),
        "gain_interval": _rounded(_paired_interval(gained, outcome.truth)),
    }


def _share_interval(hits: Tensor, truth: Tensor) -> Interval:
    counts = [(int(own.sum()), len(own)) for own in by_task(hits, truth)]
    return mean_interval([hit / n for hit, n in counts], [wilson_interval(*one) for one in counts])


def _paired_interval(differences: Tensor, truth: Tensor) -> Interval:
    """The 95 % interval of the mean over T tasks of differences [N] between two answers to the same inputs.

    `m ± z sqrt(sum over tasks of var_t / n_t) / T`, with the variances of each task's n_t differences.
    """
    tasks, mean = by_task(differences, truth), averaged(differences, truth)
    of_means = torch.stack([own.var(correction=0) / len(own) for own in tasks])
    half = Z_95 * float(of_means.sum().sqrt()) / len(tasks)
    return mean - half, mean + half


def _rounded(interval: Interval) -> list[float]:
    return [round(end, DIGITS) for end in interval]


if __name__ == "__main__":
    main()

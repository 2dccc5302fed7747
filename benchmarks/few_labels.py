"""What `calibrate --task-folders` gains with few inputs of each task, on every suite.

    python -m benchmarks.few_labels SUITES --records DIR --json benchmarks/results/few_labels.json

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. Of the inputs of each
task in `tuning` so many are drawn, a store is calibrated by these alone, and it answers the `evaluation` part
(see `benchmarks.routing`, whose records DIR has). Figures are means over the draws, and those of the worst.
With `--only` the figures of other suites in the file stay.

Drawing is cheap because a first pass is run once for every input. Where a calibrated store would try a task
that no second pass was recorded with, the first evidence decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.by_suite import asked_suites
from benchmarks.routing.record import Recorded, Suite
from benchmarks.routing.replay import SERVED, Outcome, known, replay
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.options import GIB
from mass_serve.evaluation.calibration_inputs import FOLDS, CalibrationInputs
from mass_serve.evaluation.inputs import files_of
from mass_serve.evaluation.known_tasks import Observed, Observer, fitted
from mass_serve.model_store.progress import silent
from mass_serve.router import ModeName

SIZES = (8, 32)
DRAWS = 10
ANSWERED = 400  # inputs of a task of the evaluation part, at most: all that suites have
MODES: tuple[ModeName, ...] = ("balanced", "exact")


@dataclass(frozen=True)
class Share:
    """Of the accuracy with the task named, what is left without it, and how often the task is right."""

    normalised_accuracy: float
    task_right: float

    @classmethod
    def of(cls, outcome: Outcome, named: float) -> Share:
        """The figures of what became of the inputs, rounded as they are recorded."""
        return cls(round(outcome.accuracy / named, 4), round(outcome.task_right, 4))


def observed(suite: Suite, records: Path) -> Observed:
    """The evidence of all inputs of the tuning part, observed now where it is not yet."""
    path = records / f"{suite.name}-observed-{suite.loaded.store_revision}.pt"
    if not path.exists():
        records.mkdir(parents=True, exist_ok=True)
        names = [head.entry.name for head in suite.loaded.routed_heads]
        inputs = CalibrationInputs.of_task_folders(suite.folder / "tuning", files_of(suite.engine), names)
        observer = Observer(suite.loaded)
        with torch.inference_mode():
            batches = [
                vars(observer.observe(one)) for part in inputs.batches("observing", silent) for one in part
            ]
        torch.save({name: torch.cat([one[name] for one in batches]) for name in batches[0]}, path)
    return Observed(**torch.load(path, weights_only=True))


def drawn(tasks: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The numbers of `size` inputs of each task, or all where there are fewer, in a random order."""
    order = torch.randperm(len(tasks), generator=generator)
    of_each = [order[tasks[order] == task][:size] for task in range(int(tasks.max()) + 1)]
    chosen = torch.cat(of_each)
    return chosen[torch.randperm(len(chosen), generator=generator)]


def calibrated(suite: Suite, seen: Observed, rows: Tensor) -> Suite:
    """The suite with its store calibrated by these of the observed inputs."""
    parts = [
        [Observed(**{name: values[rows[part::FOLDS]] for name, values in vars(seen).items()})]
        for part in range(FOLDS)
    ]
    calibration, _ = fitted(suite.loaded, parts)
    loaded = replace(suite.loaded, calibration=calibration)
    return replace(suite, loaded=loaded, engine=Engine(loaded, Execution.LOW_RANK, GIB))


def draws(suite: Suite, seen: Observed, answered: Recorded, size: int) -> Iterator[dict[ModeName, Share]]:
    """Yields the figures of every mode after each draw."""
    named = known(answered)
    for number in range(DRAWS):
        rows = drawn(seen.tasks, size, torch.Generator().manual_seed(number))
        after = calibrated(suite, seen, rows)
        yield {mode: Share.of(replay(after, answered, SERVED, mode), named) for mode in MODES}


def figures(suite: Suite, records: Path) -> dict[str, Any]:
    """The figures of one suite: without a calibration, and by how many inputs each task had."""
    answered, seen = suite.part("evaluation", records, ANSWERED), observed(suite, records)
    named = known(answered)
    plain = {mode: Share.of(replay(suite, answered, SERVED, mode), named) for mode in MODES}
    found: dict[str, Any] = {
        "tasks": len(suite.engine.tasks),
        "inputs": len(answered.tasks),
        "plain": {mode: asdict(share) for mode, share in plain.items()},
    }
    for size in SIZES:
        every = list(draws(suite, seen, answered, size))
        found[str(size)] = {mode: _over([one[mode] for one in every]) for mode in MODES}
    return found


def _over(shares: list[Share]) -> dict[str, float]:
    """The means over draws, and the least share of them."""
    kept = [one.normalised_accuracy for one in shares]
    return {
        "normalised_accuracy": round(fmean(kept), 4),
        "least": min(kept),
        "task_right": round(fmean(one.task_right for one in shares), 4),
    }


def main() -> None:
    """Prints a line for every suite and mode."""
    asked = asked_suites(__doc__, records=True)
    assert asked.records is not None
    for folder in asked.suites:
        suite = Suite.open(folder)
        own = figures(suite, asked.records)
        for mode in MODES:
            after = ", ".join(
                f"{size} of each task {own[str(size)][mode]['normalised_accuracy']:.3f}"
                f" (the worst of {DRAWS} draws {own[str(size)][mode]['least']:.3f})"
                for size in SIZES
            )
            before = own["plain"][mode]["normalised_accuracy"]
            print(f"{suite.name}, {mode}: {before:.3f}; with {after}", flush=True)
        asked.record(suite.name, own)


if __name__ == "__main__":
    main()

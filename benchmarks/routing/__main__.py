"""Chooses the router's constants on all suites but one and reports them on that one.

    python -m benchmarks.routing SUITES --records DIR --json benchmarks/results/routing.json

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. Constants are chosen on
`tuning` parts and reported on `evaluation` parts. The last row of choices is that of all suites, which
`router/weights.py` and `router/modes.py` have; where they have another, the command says so. What is equally
good is chosen by a rule, which `benchmarks/routing/choose.py` has.

What was recorded of a suite is kept in DIR, and recorded anew where its store has changed; begin with another
DIR where the evidence itself has.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.routing.choose import chosen_on
from benchmarks.routing.labelled import labelled_tasks
from benchmarks.routing.record import MOST, Recorded, Suite, suites_of
from benchmarks.routing.replay import SERVED, Constants, Outcome, known, replay, resumed
from mass_serve.router import ModeName
from mass_serve.router.modes import PAPER

MODES: tuple[ModeName, ...] = tuple(name for name in get_args(ModeName) if name != PAPER)


def main() -> None:
    """Prints a line for each suite and mode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", type=Path, help="folder of the suites")
    parser.add_argument("--records", type=Path, required=True, help="folder to keep raw evidence in")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these suites of the folder")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    asked = parser.parse_args()
    suites = suites_of(asked.suites, asked.only)
    tuning = [(suite, suite.part("tuning", asked.records, MOST)) for suite in suites]
    figures: dict[str, Any] = {"inputs_of_a_task": MOST, "suites": {}}
    for place, suite in enumerate(suites):
        others = [*tuning[:place], *tuning[place + 1 :]] or tuning
        constants = chosen_on(others)
        measured = suite.part("evaluation", asked.records, MOST)
        own = _figures(suite, measured, constants)
        own["labelled_task_right"] = _labelled(tuning[place][1], measured)
        figures["suites"][suite.name] = own
        _print(suite.name, figures["suites"][suite.name])
    final = chosen_on(tuning)
    figures["chosen"] = asdict(final)
    print(f"chosen on all: {final}")
    if final != SERVED:
        print(f"served with another choice: {SERVED}")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


def _figures(suite: Suite, record: Recorded, constants: Constants) -> dict[str, Any]:
    """The figures of every mode on the inputs of a suite that the constants were not chosen on."""
    individual, modes = known(record), {}
    for mode in MODES:
        outcome = replay(suite, record, constants, mode)
        low, high = outcome.accuracy_interval
        modes[mode] = {
            "normalised_accuracy": _rounded(outcome.accuracy / individual),
            "interval": [_rounded(low / individual), _rounded(high / individual)],
            "task_right": _rounded(outcome.task_right),
        }
    return {
        "tasks": list(suite.engine.tasks),
        "inputs": len(record.tasks),
        "task_known": _rounded(individual),
        "resumed": _rounded(resumed(record) / individual),
        "constants": asdict(constants),
        "modes": modes,
    }


def _labelled(tuning: Recorded, evaluation: Recorded) -> float:
    """How often the task is right by a classifier that saw labelled inputs of every task."""
    tasks = labelled_tasks(tuning, evaluation)
    right = tasks == evaluation.tasks
    return _rounded(Outcome(evaluation.tasks, tasks, right.float(), right).task_right)


def _rounded(share: float) -> float:
    return round(share, 4)


def _print(name: str, figures: dict[str, Any]) -> None:
    print(f"{name}: {figures['inputs']} inputs, {figures['constants']}", flush=True)
    for mode, own in figures["modes"].items():
        low, high = own["interval"]
        print(
            f"  {mode}: {own['normalised_accuracy']:.3f} ({low:.3f} to {high:.3f}) of the accuracy with the"
            f" task named, task right {own['task_right']:.3f}",
            flush=True,
        )
    print(f"  a classifier of tasks with labels: task right {figures['labelled_task_right']:.3f}", flush=True)


if __name__ == "__main__":
    main()

"""What arithmetic of fewer bits changes: accuracy of every suite in each dtype of the encoder.

    python -m benchmarks.dtypes SUITES --json benchmarks/results/dtypes.json [--only NAME ...]

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. At most 120 inputs of
each task of the `evaluation` part are asked about, the same in every dtype: with the task named, and in
`exact` without it. Shares are averaged over tasks. "As float32" is the share of inputs that have the task
and the label that they have in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import eq
from pathlib import Path
from statistics import fmean
from typing import get_args

from benchmarks.by_suite import asked_suites
from benchmarks.groups import AT_ONCE, Input, inputs_of
from mass_serve.engine import Engine
from mass_serve.engine.options import EngineOptions
from mass_serve.evaluation.inputs import files_of

PLACES = 4
DTYPES = tuple(
    name for name in get_args(EngineOptions.model_fields["dtype"].annotation) if name != "auto"
)  # float32 is the first
Said = list[tuple[str, int]]  # of each input the task and the label


def said(engine: Engine, inputs: Sequence[Input], *, named: bool) -> Said:
    """What is answered about the inputs, with their tasks named or not."""
    found: Said = []
    files = files_of(engine)
    for at in range(0, len(inputs), AT_ONCE):
        queries = [
            files.query(one.prepared, (one.task,) if named else None) for one in inputs[at : at + AT_ONCE]
        ]
        answers = engine.classify_batch(queries).all_answers()
        found += [(answer.task, int(answer.logits.argmax())) for answer in answers]
    return found


def accuracy(found: Said, inputs: Sequence[Input]) -> float:
    """The share of inputs whose task and label are right, averaged over tasks."""
    right: dict[str, list[bool]] = {}
    for answer, one in zip(found, inputs, strict=True):
        right.setdefault(one.task, []).append(answer == (one.task, one.label))
    return fmean(map(fmean, right.values()))


def figures(suite: Path) -> dict[str, dict[str, float]]:
    """The figures of one suite, by dtype."""
    found: dict[str, dict[str, float]] = {}
    first: Said = []
    for dtype in DTYPES:
        engine = Engine.load(str(suite / "store"), device="cpu", dtype=dtype, mode="exact")
        inputs = inputs_of(engine, suite / "evaluation")
        routed = said(engine, inputs, named=False)
        first = first or routed
        found[dtype] = {
            "inputs": len(inputs),
            "named": round(accuracy(said(engine, inputs, named=True), inputs), PLACES),
            "exact": round(accuracy(routed, inputs), PLACES),
            "as_float32": round(fmean(map(eq, routed, first)), PLACES),
        }
    return found


def main() -> None:
    """Prints a line for each suite and dtype."""
    asked = asked_suites(__doc__)
    for folder in asked.suites:
        found = figures(folder)
        for dtype, own in found.items():
            print(f"{folder.name}, {dtype}: {own}", flush=True)
        asked.record(folder.name, found)


if __name__ == "__main__":
    main()

"""What arithmetic of fewer bits changes: accuracy of every suite in each dtype of encoder and first passes.

    python -m benchmarks.dtypes SUITES --json benchmarks/results/dtypes.json [--only NAME ...]

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. At most 120 inputs of
each task of the `evaluation` part are asked about, the same in every dtype: with the task named, and in
`exact` and `fast` without it. Shares are averaged over tasks. "As float32" is the share of inputs that have
in `exact` the task and the label that they have in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import eq
from pathlib import Path
from statistics import fmean
from typing import get_args

from benchmarks.by_suite import asked_suites
from benchmarks.groups import AT_ONCE, Input, inputs_of
from mass_serve.engine import Engine
from mass_serve.engine.options import EngineOptions, FirstPassDtype
from mass_serve.evaluation.inputs import files_of
from mass_serve.router import ModeName

PLACES = 4
DTYPES = tuple(
    name for name in get_args(EngineOptions.model_fields["dtype"].annotation) if name != "auto"
)  # float32 is the first
# Of the encoder and of its first passes. In int8 the first are in int8 anyway.
ARITHMETICS: tuple[tuple[str, FirstPassDtype], ...] = (
    *((dtype, "same") for dtype in DTYPES),
    *((dtype, "int8") for dtype in DTYPES if dtype != "int8"),
)
Said = list[tuple[str, int]]  # of each input the task and the label


def said(engine: Engine, inputs: Sequence[Input], mode: ModeName | None) -> Said:
    """What is answered about the inputs, in a mode or, with None, with their tasks named."""
    found: Said = []
    files = files_of(engine)
    for at in range(0, len(inputs), AT_ONCE):
        queries = [
            replace(files.query(one.prepared, None if mode else (one.task,)), mode=mode)
            for one in inputs[at : at + AT_ONCE]
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
    """The figures of one suite, by the encoder's dtype and, where it is another, that of first passes."""
    found: dict[str, dict[str, float]] = {}
    first: Said = []
    for dtype, first_pass_dtype in ARITHMETICS:
        engine = Engine.load(
            str(suite / "store"), device="cpu", dtype=dtype, first_pass_dtype=first_pass_dtype
        )
        inputs = inputs_of(engine, suite / "evaluation")
        routed = said(engine, inputs, "exact")
        first = first or routed
        found[dtype if first_pass_dtype == "same" else f"{dtype}, {first_pass_dtype} first passes"] = {
            "inputs": len(inputs),
            "named": round(accuracy(said(engine, inputs, None), inputs), PLACES),
            "exact": round(accuracy(routed, inputs), PLACES),
            "fast": round(accuracy(said(engine, inputs, "fast"), inputs), PLACES),
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

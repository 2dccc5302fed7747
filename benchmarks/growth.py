"""A store that was grown task by task against one built of all: `python -m benchmarks.growth MODELS DATA`.

MODELS and DATA are those of `benchmarks.ranks`. One store is built of all tasks, another of the first two and
then given the others by `add_task`, which cuts all tasks to the budget of the store; both are measured with
the task known and unknown. `--json FILE` keeps what was measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.ranks import Row, inputs_of, measured
from mass_serve.evaluation import with_individual_accuracies
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.revisions import add_task, prune_store
from mass_serve.model_store.store import Store

FIRST_TASKS = 2


def compared(models: Path, data: Path, options: BuildOptions) -> dict[str, Row]:
    """Measures both stores, by how they were made."""
    pretrained = models / "pretrained"
    tasks = with_individual_accuracies(pretrained, inputs_of(models, data), BuildOptions(), data)
    rows = {}
    rule = options.model_dump(exclude_unset=True)
    with tempfile.TemporaryDirectory() as folder:
        built = build(pretrained, tasks, Path(folder) / "built", options)
        rows["built"] = measured(rule, built, data)
        print(f"built: {rows['built']}", flush=True)
        place = Path(folder) / "grown"
        build(pretrained, tasks[:FIRST_TASKS], place, options)
        for task in tasks[FIRST_TASKS:]:
            add_task(place, task)
            prune_store(place)
        rows["grown"] = measured(rule, Store.open(place), data)
        print(f"grown: {rows['grown']}", flush=True)
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth")
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--budget", help="in place of a compression ratio", metavar="X")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    rule = {"budget": given.budget} if given.budget else {"compression_ratio": "1/T"}
    options = BuildOptions(format="bfloat16", **rule)
    rows = compared(given.models, given.data, options)
    if given.json is not None:
        given.json.write_text(json.dumps({name: asdict(row) for name, row in rows.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()

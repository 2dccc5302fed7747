"""`python -m examples.text_demo --out DIR`: a real encoder, real texts, one store and its figures.

DIR/raw holds the packages, DIR/texts the texts by split and task, DIR/tasks the models as their library saves
them, DIR/served the store of them and a calibrated copy. With --choose the models of other tasks are made,
and routing is measured on their store in DIR/chosen_on beside the served one. What an earlier run finished is
used again: to make something anew, delete its folder or file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers.utils import logging

from examples.from_packages.commands import (
    CALIBRATED_MODES,
    MODES,
    CommandError,
    calibrated_store,
    evaluate,
    part_of,
)
from examples.from_packages.packages import FetchError
from examples.from_packages.training import Report, quieten
from examples.text_demo.figures import Reports, figures
from examples.text_demo.finetune import Plan
from examples.text_demo.latency import latencies, memory
from examples.text_demo.tasks import (
    BASELINES,
    CHOSEN_ON,
    SAME_TEXTS,
    TASKS,
    TWICE_LABELLED,
)
from examples.text_demo.training import make_store, unfamiliar_texts

DEFAULT_FOLDER = Path.home() / ".cache" / "mass-serve" / "text-demo"


def report(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def make(out: Path, json_file: Path, report: Report) -> None:
    """Everything, from the packages to the figures."""
    served = make_store(out, out / "served", TASKS, Plan(), report)
    data = served.parent
    unfamiliar = ["--ood", str(unfamiliar_texts(out, out / "unfamiliar", report))]
    # What is unfamiliar is measured in the first of the modes.
    plain = evaluate(served, data, MODES[::-1], BASELINES, report, unfamiliar)
    fitted = calibrated_store(served, data, report)
    calibrated = evaluate(fitted, data, CALIBRATED_MODES[::-1], ["individual"], report, unfamiliar)
    same = make_store(out, out / "same_texts", (*TASKS, SAME_TEXTS), Plan(), report)
    twice = part_of(out / "texts", [TWICE_LABELLED, SAME_TEXTS.name], same.parent / "twice")
    same_texts = evaluate(same, twice, ["exact"], ["tsv_c"], report)
    models = [out / "tasks" / task.name for task in TASKS]
    milliseconds = latencies(served, models[0], data / "evaluation")
    recorded = figures(out, Reports(plain, calibrated, same_texts), milliseconds, memory(served, models))
    json_file.write_text(json.dumps(recorded, indent=2) + "\n")
    report(f"Wrote {json_file}")


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all is made, 2 when a package or a command failed."""
    parser = argparse.ArgumentParser(prog="python -m examples.text_demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder for all that is made")
    parser.add_argument("--json", type=Path, help="the figures (default: figures.json in that folder)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads to train with")
    parser.add_argument(
        "--choose", action="store_true", help="make the store that routing was chosen on, too"
    )
    chosen = parser.parse_args(arguments)
    out: Path = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(chosen.threads)
    quieten(logging)
    begun = time.monotonic()
    try:
        make(out, chosen.json or out / "figures.json", report)
        if chosen.choose:
            make_store(out, out / "chosen_on", CHOSEN_ON, Plan(), report)
    except (FetchError, CommandError) as error:
        print(error, file=sys.stderr)
        return 2
    report(f"Made {out} in {(time.monotonic() - begun) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

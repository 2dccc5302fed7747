"""`python -m examples.real_demo --out DIR`: a real encoder, real pictures, one store and its figures.

DIR/raw holds the packages, DIR/pictures the pictures by split, task and label, DIR/pretrained and DIR/tasks
the models as their libraries save them, DIR/store the store of them and DIR/calibrated a calibrated copy.
What an earlier run finished is used again: to make something anew, delete its folder or file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from examples.from_packages.packages import FetchError
from examples.real_demo.figures import figures
from examples.real_demo.finetune import Plan
from examples.real_demo.latency import latencies
from examples.real_demo.serving import (
    BASELINES,
    CALIBRATED_MODES,
    MODES,
    CommandError,
    build_store,
    calibrated_store,
    evaluate,
    evaluate_some,
)
from examples.real_demo.tasks import TASKS
from examples.real_demo.training import Report, make_pretrained, make_task

DEFAULT_FOLDER = Path.home() / ".cache" / "mass-serve" / "real-demo"


def report(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def make(out: Path, json_file: Path, report: Report) -> None:
    """Everything, from the packages to the figures."""
    pretrained = make_pretrained(out)
    models = {task.name: make_task(task, pretrained, out, Plan(), report) for task in TASKS}
    store = build_store(out, pretrained, models, report)
    plain = evaluate(store, MODES, BASELINES, report)
    calibrated = evaluate(calibrated_store(store, report), CALIBRATED_MODES, ["individual"], report)
    alike = {}
    for adapted, name in ((False, "all weights"), (True, "LoRA")):
        some = {task.name: models[task.name] for task in TASKS if bool(task.lora_rank) == adapted}
        alike[name] = evaluate_some(out, pretrained, some, report)
    milliseconds = latencies(store, models[TASKS[0].name], out / "pictures" / "evaluation")
    recorded = figures(out, plain, calibrated, alike, milliseconds)
    json_file.write_text(json.dumps(recorded, indent=2) + "\n")
    report(f"Wrote {json_file}")


def _quieten(logging: Any) -> None:
    """Keeps transformers from saying that the pretrained file has no classifier."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all is made, 2 when a package or a command failed."""
    parser = argparse.ArgumentParser(prog="python -m examples.real_demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder for all that is made")
    parser.add_argument("--json", type=Path, help="the figures (default: figures.json in that folder)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads to train with")
    chosen = parser.parse_args(arguments)
    out: Path = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(chosen.threads)
    _quieten(logging)
    begun = time.monotonic()
    try:
        make(out, chosen.json or out / "figures.json", report)
    except (FetchError, CommandError) as error:
        print(error, file=sys.stderr)
        return 2
    report(f"Made {out} in {(time.monotonic() - begun) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

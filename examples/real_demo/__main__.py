"""`python -m examples.real_demo --out DIR`: a real encoder, real pictures, one store and its figures.

DIR/raw holds the packages, DIR/training, DIR/tuning and DIR/evaluation the pictures by task and label,
DIR/pretrained and DIR/tasks the models as their libraries save them, DIR/store the store of them and
DIR/calibrated a calibrated copy.
What an earlier run finished is used again: to make something anew, delete its folder or file.
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
    BASELINES,
    CALIBRATED_MODES,
    MODES,
    CommandError,
    build_store,
    calibrated_store,
    evaluate,
    part_of,
)
from examples.from_packages.packages import FetchError
from examples.from_packages.training import Report, quieten
from examples.real_demo.figures import figures
from examples.real_demo.latency import latencies
from examples.real_demo.tasks import TASKS
from examples.real_demo.training import make_models, make_pretrained, make_store

DEFAULT_FOLDER = Path.home() / ".cache" / "mass-serve" / "real-demo"


def report(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def make(out: Path, json_file: Path, report: Report) -> None:
    """Everything, from the packages to the figures."""
    models, pretrained = make_models(out, report), make_pretrained(out)
    store = make_store(models, out, report)
    plain = evaluate(store, out, MODES, BASELINES, report)
    fitted = calibrated_store(store, out, report)
    calibrated = evaluate(fitted, out, CALIBRATED_MODES, ["individual"], report)
    alike = {}
    for adapted, name in ((False, "all weights"), (True, "LoRA")):
        some = {task.name: models[task.name] for task in TASKS if bool(task.lora_rank) == adapted}
        of_some = part_of(out, list(some), out / f"only_{'_'.join(some)}")
        only = build_store(of_some / "store", pretrained, some, of_some, report)
        alike[name] = evaluate(only, of_some, MODES, ["individual"], report)
    milliseconds = latencies(store, models[TASKS[0].name], out / "evaluation")
    recorded = figures(out, plain, calibrated, alike, milliseconds)
    json_file.write_text(json.dumps(recorded, indent=2) + "\n")
    report(f"Wrote {json_file}")


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
    quieten(logging)
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

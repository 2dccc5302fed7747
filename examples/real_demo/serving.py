"""The store of the fine-tuned models and its figures, by the commands of `mass-serve` that a reader has."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.real_demo.training import Report

MODES = ("paper", "one_pass", "fast", "balanced", "exact")


class CommandError(Exception):
    """A command of `mass-serve` failed; it has said why."""


def mass_serve(arguments: Sequence[str], report: Report) -> None:
    """Runs one command of `mass-serve`, and says which. Raises CommandError where it fails."""
    report("mass-serve " + shlex.join(arguments))
    done = subprocess.run([sys.executable, "-m", "mass_serve.cli", *arguments], check=False)
    if done.returncode:
        raise CommandError(f"mass-serve {arguments[0]} ended with {done.returncode}")


def build_store(out: Path, tasks: Sequence[str], report: Report) -> Path:
    """The store of the tasks' models, with their accuracies on the pictures to measure on."""
    store = out / "store"
    if not store.exists():
        models = [f"--task={task}={out / 'tasks' / task}" for task in tasks]
        pictures = ["--eval-data", str(out / "pictures" / "evaluation")]
        mass_serve(
            ["build", "--pretrained", str(out / "pretrained"), *models, *pictures, "--out", str(store)],
            report,
        )
    return store


def calibrated_store(store: Path, report: Report) -> Path:
    """A copy of the store that is calibrated with pictures which neither training nor measuring has seen."""
    copy = store.with_name("calibrated")
    if not copy.exists():
        half = store.with_name("calibrated.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(store, half)
        mass_serve(["calibrate", str(half), str(store.parent / "pictures" / "tuning")], report)
        half.rename(copy)
    return copy


def evaluate(store: Path, report: Report) -> Any:
    """What `mass-serve eval` says of the store in every mode."""
    out = store.parent
    written = out / f"{store.name}.json"
    if not written.exists():
        modes = [argument for mode in MODES for argument in ("--mode", mode)]
        kept = ["--json", str(written), "--resume", str(out / f"{store.name}.journal")]
        mass_serve(["eval", str(store), str(out / "pictures" / "evaluation"), *modes, *kept], report)
    return json.loads(written.read_text())

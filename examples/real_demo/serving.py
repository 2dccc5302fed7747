"""The store of the fine-tuned models and its figures, by the commands of `mass-serve` that a reader has."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.real_demo.training import Report

# Those that search for a coefficient take longer than all else together.
BASELINES = ("tsv_c", "tsv_m", "pretrained")
MODES = ("paper", "one_pass", "fast", "balanced", "exact")
CALIBRATED_MODES = MODES[2:]


class CommandError(Exception):
    """A command of `mass-serve` failed; it has said why."""


def mass_serve(arguments: Sequence[str], report: Report) -> None:
    """Runs one command of `mass-serve`, and says which. Raises CommandError where it fails."""
    report("mass-serve " + shlex.join(arguments))
    done = subprocess.run([sys.executable, "-m", "mass_serve.cli", *arguments], check=False)
    if done.returncode:
        raise CommandError(f"mass-serve {arguments[0]} ended with {done.returncode}")


def build_store(out: Path, pretrained: Path, models: Mapping[str, Path], report: Report) -> Path:
    """The store of the tasks' models, with their accuracies on the pictures to measure on.

    It is `out/store`, and those pictures are in `out/pictures/evaluation`.
    """
    store = out / "store"
    if not store.exists():
        tasks = [f"--task={task}={folder}" for task, folder in models.items()]
        pictures = ["--eval-data", str(out / "pictures" / "evaluation")]
        mass_serve(
            ["build", "--pretrained", str(pretrained), *tasks, *pictures, "--out", str(store)],
            report,
        )
    return store


def evaluate_some(out: Path, pretrained: Path, models: Mapping[str, Path], report: Report) -> Any:
    """What `mass-serve eval` says of a store of some of the tasks alone, made in `out/only_<tasks>`."""
    folder = out / f"only_{'_'.join(models)}"
    for task in models:
        pictures = folder / "pictures" / "evaluation" / task
        pictures.parent.mkdir(parents=True, exist_ok=True)
        if not pictures.exists():
            pictures.symlink_to(out / "pictures" / "evaluation" / task)
    return evaluate(build_store(folder, pretrained, models, report), MODES, ["individual"], report)


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


def evaluate(store: Path, modes: Sequence[str], baselines: Sequence[str], report: Report) -> Any:
    """What `mass-serve eval` says of the store in these modes, and of these baselines."""
    out = store.parent
    written = out / f"{store.name}.json"
    if not written.exists():
        measured = [f"--mode={mode}" for mode in modes] + [f"--baseline={name}" for name in baselines]
        kept = [f"--json={written}", f"--resume={out / f'{store.name}.journal'}"]
        mass_serve(["eval", str(store), str(out / "pictures" / "evaluation"), *measured, *kept], report)
    return json.loads(written.read_text())

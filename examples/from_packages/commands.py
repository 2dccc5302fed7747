"""The store of fine-tuned models and its figures, by the commands of `mass-serve` that a reader has.

Data is a folder with `evaluation` and `tuning` in it: labelled images or texts to measure on, and others that
neither training nor measuring has seen, to calibrate with.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.from_packages.training import Report

# Those that search for a coefficient take longer than all else together.
BASELINES = ("tsv_c", "tsv_m", "pretrained")
MODES = ("paper", "one_pass", "fast", "balanced", "exact")
CALIBRATED_MODES = MODES[2:]
# What all figures are of, on whichever machine: the default is what the processor is fast with.
FLOAT32 = {"MASS_DTYPE": "float32"}


class CommandError(Exception):
    """A command of `mass-serve` failed; it has said why."""


def mass_serve(arguments: Sequence[str], report: Report) -> None:
    """Runs one command of `mass-serve` in float32, and says which. Raises CommandError where it fails."""
    report("mass-serve " + shlex.join(arguments))
    command = [sys.executable, "-m", "mass_serve.cli", *arguments]
    done = subprocess.run(command, env=os.environ | FLOAT32, check=False)
    if done.returncode:
        raise CommandError(f"mass-serve {arguments[0]} ended with {done.returncode}")


def build_store(
    store: Path,
    pretrained: Path,
    models: Mapping[str, Path],
    data: Path,
    report: Report,
    options: Sequence[str] = (),
) -> Path:
    """The store of the tasks' models, with their accuracies on the data; built unless an earlier run did."""
    if not store.exists():
        tasks = [f"--task={task}={folder}" for task, folder in models.items()]
        measured = ["--eval-data", str(data / "evaluation")]
        plain = ["--format", "bfloat16"]  # the figures on the pages are of blocks that were not rounded
        arguments = ["--pretrained", str(pretrained), *tasks, *measured, *plain, *options]
        mass_serve(["build", *arguments, "--out", str(store)], report)
    return store


def part_of(data: Path, tasks: Sequence[str], out: Path) -> Path:
    """A folder like `data` with some of its tasks alone: links to their files and folders in `out`."""
    for split in ("evaluation", "tuning"):
        link_into(out / split, (place for place in (data / split).iterdir() if place.stem in tasks))
    return out


def link_into(folder: Path, places: Iterable[Path]) -> Path:
    """The folder, with a link to each of the files and folders in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in places:
        link = folder / place.name
        if not link.exists():
            link.symlink_to(place)
    return folder


def calibrated_store(store: Path, data: Path, report: Report) -> Path:
    """A copy of the store, beside it, that is calibrated."""
    copy = store.with_name("calibrated")
    if not copy.exists():
        half = store.with_name("calibrated.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(store, half)
        mass_serve(["calibrate", str(half), str(data / "tuning")], report)
        half.rename(copy)
    return copy


def evaluate(
    store: Path,
    data: Path,
    modes: Sequence[str],
    baselines: Sequence[str],
    report: Report,
    options: Sequence[str] = (),
) -> Any:
    """What `mass-serve eval` says of the store in these modes, and of these baselines."""
    written = store.with_name(f"{store.name}.json")
    if not written.exists():
        measured = [f"--mode={mode}" for mode in modes] + [f"--baseline={name}" for name in baselines]
        kept = [f"--json={written}", f"--resume={store.with_name(f'{store.name}.journal')}"]
        mass_serve(["eval", str(store), str(data / "evaluation"), *measured, *kept, *options], report)
    return json.loads(written.read_text())

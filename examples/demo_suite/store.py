"""A store from the trained checkpoints, by the same code as `mass-serve build`."""

from __future__ import annotations

import shutil
from pathlib import Path

from examples.demo_suite.tasks import Task
from mass_serve.engine.measuring import measured
from mass_serve.evaluation import with_individual_accuracies
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput


def build_store(trained: Path, tasks: tuple[Task, ...], evaluation: Path) -> Path:
    """Builds trained/store anew, with the individual accuracies on the pictures in `evaluation`."""
    out = trained / "store"
    shutil.rmtree(out, ignore_errors=True)
    inputs = [
        TaskInput(
            task.name,
            trained / "tasks" / task.name,
            head=trained / "heads" / f"{task.name}.safetensors",
            labels=trained / "labels" / f"{task.name}.json",
        )
        for task in tasks
    ]
    # The shipped store and the figures on the pages are of blocks that were not rounded.
    options, pretrained = BuildOptions(format="bfloat16"), trained / "pretrained"
    inputs = with_individual_accuracies(pretrained, inputs, options, evaluation)
    build(pretrained, inputs, out, options, measure=measured)
    return out

"""A store of hundreds of tiny tasks: the files of one task, again and again under other names."""

from __future__ import annotations

import shutil
from pathlib import Path

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.store import Store
from tests.models import Suite

NUM_TASKS = 500
NAMES = [f"task-{number:03}" for number in range(NUM_TASKS)]
# The group of every other task.
EVEN = "even"


def make_store_of_many_tasks(suite: Suite, out: Path) -> Path:
    """Builds a store of one task and gives it to itself under `NAMES`."""
    [only] = build(suite.pretrained, suite.tasks[:1], out, BuildOptions(rank=1)).manifest.tasks
    manifest = Store.open(out).manifest
    tasks = tuple(_again(out, only, name) for name in NAMES)
    update: dict[str, object] = {"tasks": tasks, "groups": {EVEN: tuple(NAMES[::2])}}
    (out / MANIFEST_FILE).write_bytes(manifest.model_copy(update=update).to_bytes())
    return out


def _again(store: Path, task: TaskEntry, name: str) -> TaskEntry:
    files = {path.replace(f"/{task.name}/", f"/{name}/"): digest for path, digest in task.files.items()}
    shutil.copytree(store / "tasks" / task.name, store / "tasks" / name)
    return task.model_copy(update={"name": name, "files": files})

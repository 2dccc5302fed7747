"""Ends every kind of write to a store at every step, by SIGKILL or by a full disk, and says what is left.

    python -m tests.model_store.crash_runner MODELS SCRATCH

prints one JSON line per step that was interrupted. A process of its own, because it forks: PyTorch's
threads do not survive that, so it never has any.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.converting import convert_store
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.store import Store

OPTIONS = BuildOptions(merged_base="stored", format="bfloat16")  # a conversion has something to do
Operation = Callable[[Path], object]


class Interruption:
    """Counts the steps by which files change, and ends the process or the disk at step `at`."""

    def __init__(self, at: int, kill: bool) -> None:
        self.at = at
        self.kill = kill
        self.steps = 0

    def step(self) -> None:
        """One step that changes something on disk."""
        self.steps += 1
        if self.steps != self.at:
            return
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class InterruptedFile(io.FileIO):
    """A file whose writes, as the operating system sees them, are steps; the last one is done by half."""

    def __init__(self, path: Any, interruption: Interruption) -> None:
        super().__init__(path, "x")
        self._interruption = interruption

    def write(self, content: Any) -> int:
        """One step; before an interrupted one, half of `content` is on disk."""
        view = memoryview(content)
        if self._interruption.steps + 1 == self._interruption.at:
            super().write(view[: len(view) // 2])
        self._interruption.step()
        return super().write(view)


@contextmanager
def interrupted(interruption: Interruption) -> Any:
    """Makes every write, fsync, rename, removal and new folder of this process a step."""
    real_open, real = builtins.open, {}

    def open_counted(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if mode == "xb":
            return io.BufferedWriter(InterruptedFile(file, interruption))
        return real_open(file, mode, *arguments, **named)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            interruption.step()
            return function(*arguments, **named)

        return call

    # A removal does not fail for want of space.
    names = ["fsync", "replace", "mkdir"] + (["unlink", "rmdir"] if interruption.kill else [])
    for name in names:
        real[name] = getattr(os, name)
        setattr(os, name, counted(real[name]))
    builtins.open = open_counted
    try:
        yield
    finally:
        builtins.open = real_open
        for name, function in real.items():
            setattr(os, name, function)


def run_interrupted(operation: Operation, store: Path, interruption: Interruption) -> str:
    """How the operation ended: `killed`, the text of its StoreError, or `completed`."""
    if interruption.kill:
        child = os.fork()
        if child == 0:
            with interrupted(interruption):
                operation(store)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return "killed" if os.WIFSIGNALED(status) else "completed"
    try:
        with interrupted(interruption):
            operation(store)
    except StoreError as error:
        return str(error)
    return "completed"


def state(store: Path) -> dict[str, Any]:
    """What a reader finds, after loading every tensor."""
    try:
        opened = Store.open(store)
    except ManifestError:
        return {"tasks": None}
    opened.load_pretrained()
    opened.load_merged_base()
    for task in opened.manifest.tasks:
        opened.load_experts(task.name)
        opened.load_head(task.name)
    tasks = {task.name: task.revision for task in opened.manifest.tasks}
    history = {name: len(entries) for name, entries in opened.manifest.history.items()}
    return {"tasks": tasks, "history": history, "damage": opened.verify()}


def operations(pretrained: Path, tasks: list[TaskInput]) -> dict[str, tuple[Operation, list[Operation]]]:
    """Every operation, and what was done before it."""

    def build_two(store: Path) -> object:
        return build(pretrained, tasks[:2], store, OPTIONS)

    def replace_first(store: Path) -> object:
        return add_task(store, replace(tasks[2], name=tasks[0].name), replace=True)

    def remove_first(store: Path) -> object:
        return remove_task(store, tasks[0].name)

    return {
        "build": (build_two, []),
        "add": (lambda store: add_task(store, tasks[2]), [build_two]),
        "compact": (lambda store: compact_store(store, 0.25), [build_two]),
        "convert": (lambda store: convert_store(store, "int4"), [build_two]),
        "replace": (replace_first, [build_two]),
        "remove": (remove_first, [build_two]),
        "rollback": (lambda store: rollback_task(store, tasks[0].name), [build_two, replace_first]),
        "prune": (prune_store, [build_two, replace_first, remove_first]),
    }


def interrupt_everywhere(name: str, operation: Operation, template: Path, scratch: Path, kill: bool) -> None:
    """Prints one line per step of one operation."""
    before, store = state(template), scratch / "store"
    for at in range(1, 10_000):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(template, store)
        ended = run_interrupted(operation, store, Interruption(at, kill))
        if ended == "completed":
            return
        found = state(store)
        if found == before:
            operation(store)
        record = {"operation": name, "kill": kill, "at": at, "ended": ended, "before": before}
        after = state(store)
        prune_store(store)
        pruned = Store.open(store)
        clean = set(pruned.files.list()) == {".lock", "manifest.json", *pruned.manifest.all_files()}
        print(json.dumps(record | {"found": found, "after": after, "clean": clean}), flush=True)


def no_fsync(fd: Any) -> None:
    """Stands for the real one: what a killed process wrote survives without, and only the step counts."""


def main(models: Path, scratch: Path) -> None:
    """Interrupts every operation at every step, in both ways."""
    torch.set_num_threads(1)
    os.fsync = no_fsync
    tasks = [TaskInput(name, models / name) for name in ("digits", "street", "signs")]
    for name, (operation, earlier) in operations(models / "pretrained", tasks).items():
        template = scratch / f"before-{name}"
        template.mkdir()
        for step in earlier:
            step(template)
        for kill in (True, False):
            interrupt_everywhere(name, operation, template, scratch, kill)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

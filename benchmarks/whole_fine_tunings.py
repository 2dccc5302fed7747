"""The whole fine-tunings of a suite in memory, labelled inputs of theirs, and means over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone import Batch, Passes, passes_for
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_opened
from mass_serve.engine.options import GIB
from mass_serve.evaluation.data import input_batches, of_whole_inputs
from mass_serve.evaluation.inputs import drawn, files_of
from mass_serve.model_store.store import Store

MOST = 60  # inputs of a task


@dataclass(frozen=True)
class OwnInputs:
    """Inputs of one task."""

    task: int
    inputs: Batch  # n of them
    targets: Tensor  # [n] int64: their classes


@dataclass(frozen=True)
class WholeFineTunings:
    """The T tasks of a suite that are no adapters, in its store as it is, not calibrated."""

    folder: Path
    store: Store  # all of it: its adapters have inputs in the same folder
    loaded: LoadedStore

    @classmethod
    def open(cls, folder: Path) -> WholeFineTunings:
        """Loads `folder/store`. Raises StoreError where it cannot be."""
        store, device = Store.open(folder / "store"), torch.device("cpu")
        every = load_opened(store, device, torch.float32, "exact", calibrated=False)
        whole = zip(every.routed_heads, every.adapters, strict=True)
        adapters = [head.entry.name for head, is_adapter in whole if is_adapter]
        loaded = load_opened(store, device, torch.float32, "exact", adapters, every, calibrated=False)
        return cls(folder, store, loaded)

    @property
    def tasks(self) -> list[str]:
        """Their names, by their numbers."""
        return [head.entry.name for head in self.loaded.routed_heads]

    @cached_property
    def passes(self) -> Passes:
        """Passes with the weights of one task at a time."""
        return passes_for(self.loaded.bank, self.loaded.first_pass, 1)

    def evaluation(self) -> Iterator[OwnInputs]:
        """Yields the `evaluation` part in batches of one task, at most `MOST` inputs of each."""
        files = files_of(Engine(self.loaded, Execution.LOW_RANK, GIB))
        labels = of_whole_inputs({task.name: task for task in self.store.manifest.tasks})
        root, like = self.folder / "evaluation", self.loaded.bank.like
        labelled = (one for one in files.labelled(root, labels) if one.task in self.tasks)
        chosen = drawn(labelled, MOST)
        for number, task in enumerate(self.tasks):
            own, done = [one for one in chosen if one.task == task], 0
            for tensors in input_batches(files, root, [one.item for one in own]):
                targets = [one.target[0] for one in own[done : done + len(tensors)]]
                inputs = files.batch(self.loaded.architecture, tensors, like)
                yield OwnInputs(number, inputs, torch.tensor(targets))
                done += len(tensors)


def by_task(values: Tensor, truth: Tensor) -> list[Tensor]:
    """Values [N] float32 by the true task."""
    return [values[truth == task].float() for task in sorted(set(truth.tolist()))]


def averaged(values: Tensor, truth: Tensor) -> float:
    """The mean over tasks of the mean of values [N] over a task's inputs."""
    return float(torch.stack([own.mean() for own in by_task(values, truth)]).mean())

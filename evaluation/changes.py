"""Sources of the task vectors that baselines merge: the store's blocks, or the fine-tuned models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from mass_serve.backbone import ExpertBank
from mass_serve.merging import task_vector
from mass_serve.model_store.plan import check_same_sizes
from mass_serve.model_store.readers.finetuned import finetuned_from
from mass_serve.model_store.readers.stored_base import StoredBase

Source = Literal["finetuned", "blocks"]


class TaskChanges(Protocol):
    """The task vectors, one parameter at a time: no model but one need be in memory."""

    @property
    def source(self) -> Source: ...

    @property
    def identity(self) -> object:
        """Everything that the changes depend on beside the store, for a journal."""
        ...

    def change(self, task: str, parameter: str) -> Tensor:
        """Computes `finetuned - pretrained` of one parameter of one task, in float32."""
        ...


class BlockChanges:
    """The changes as far as the store's blocks keep them."""

    source: Source = "blocks"
    identity: object = None

    def __init__(self, bank: ExpertBank, tasks: tuple[str, ...]) -> None:
        """`tasks` names the tasks of the bank, in its order."""
        self._bank = bank
        self._place = {task: place for place, task in enumerate(tasks)}

    def change(self, task: str, parameter: str) -> Tensor:
        merged = self._bank.merged(parameter, (self._place[task],))
        return merged.float() - self._bank.pretrained[parameter].float()


class FinetunedModels:
    """The whole changes, from the fine-tuned checkpoints themselves."""

    source: Source = "finetuned"

    def __init__(self, bank: ExpertBank, checkpoints: Mapping[str, Path]) -> None:
        """Raises CheckpointError for a checkpoint that cannot be read or is of another size."""
        self._pretrained = bank.pretrained
        base = bank.architecture
        stored = StoredBase(base, lambda name: bank.pretrained[name].cpu())
        self._checkpoints = {
            task: finetuned_from(stored, path).pooled(base.pooling) for task, path in checkpoints.items()
        }
        for task, checkpoint in self._checkpoints.items():
            check_same_sizes(task, checkpoint.architecture, base, "the store's encoder")

    @property
    def identity(self) -> object:
        """Sizes and modification times of the checkpoints' files."""
        files = {task: checkpoint.input_files for task, checkpoint in self._checkpoints.items()}
        return {
            task: [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
            for task, paths in files.items()
        }

    def change(self, task: str, parameter: str) -> Tensor:
        pretrained = self._pretrained[parameter]
        finetuned = self._checkpoints[task].over(self._pretrained.__getitem__)(parameter)
        return task_vector(pretrained, finetuned.to(pretrained.device))

"""What inputs are like: the one seam between images and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from mass_serve.backbone import Architecture, Batch
from mass_serve.engine import Engine
from mass_serve.engine.queries import AnyQuery
from mass_serve.evaluation.inputs.images import ImageFiles
from mass_serve.evaluation.inputs.item import Item, Labelled, Target
from mass_serve.evaluation.inputs.row_labels import TaskLabels
from mass_serve.evaluation.inputs.texts import TextFiles

__all__ = ["InputFiles", "Item", "Labelled", "Target", "TaskLabels", "files_of"]


class InputFiles(Protocol):
    """Files with inputs of one kind, prepared as one store takes them."""

    @property
    def noun(self) -> str:
        """Returns what several of them are called."""
        ...

    @property
    def labelled_form(self) -> str:
        """How files with labels are named below their folder."""
        ...

    @property
    def form(self) -> str:
        """How files without labels are named below theirs."""
        ...

    def labelled(self, root: Path, labels: Mapping[str, TaskLabels]) -> Iterator[Labelled]:
        """Yields every input with the task and labels that its place, or its row of a file, says.

        They are in no order. `labels` has those of each task. Raises EvaluationDataError for a place or row
        that says neither.
        """
        ...

    def below(self, root: Path, within: str = "") -> list[Item]:
        """Every input in `root/within`, a folder at any depth or a file, sorted; labels are not looked at."""
        ...

    def read(self, root: Path, item: Item) -> Tensor:
        """What an encoder takes of one input. Raises EvaluationDataError for one that is none."""
        ...

    def query(self, tensor: Tensor, candidates: tuple[str, ...] | None = None) -> AnyQuery:
        """What is asked of an engine about an input that was read."""
        ...

    def batch(self, architecture: Architecture, tensors: Sequence[Tensor], like: Tensor) -> Batch:
        """What a dense encoder takes of inputs that were read, on the device and in the dtype of `like`."""
        ...


def files_of(engine: Engine) -> InputFiles:
    """Files of what the engine's store reads."""
    return ImageFiles(engine.preprocessing) if engine.tokenizer is None else TextFiles(engine.tokenizer)

"""What a family of checkpoints has to say of itself so that it can be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mass_serve.backbone.architecture import Architecture


@dataclass(frozen=True)
class Source:
    """Where a canonical parameter is in a checkpoint: some tensors of one shape, stacked along their rows."""

    keys: tuple[str, ...]  # as the family names them
    shape: tuple[int, ...]  # of each of them in the file


class Family(Protocol):
    """Checkpoints that name their tensors and sizes alike."""

    @property
    def title(self) -> str:
        """What a person calls such models, several of them."""
        ...

    @property
    def model_types(self) -> tuple[str, ...]:
        """What config.json may give as the model's type."""
        ...

    def key(self, name: str) -> str | None:
        """What the family calls a tensor of a file, in one spelling; None for one that is not needed."""
        ...

    def architecture(self, path: Path, config: dict[str, Any], keys: Iterable[str]) -> Architecture:
        """What config.json at `path`, and the keys that there are, say of the encoder.

        Raises CheckpointError for what cannot be stored.
        """
        ...

    def sources(self, architecture: Architecture) -> dict[str, Source]:
        """Where every canonical parameter is."""
        ...

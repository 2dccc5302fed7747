"""A family of checkpoints: what a file of this folder has to know so that they can be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mass_serve.backbone.architecture import Architecture


@dataclass(frozen=True)
class Source:
    """The place of a canonical parameter in a checkpoint: tensors of one shape, stacked along their rows."""

    keys: tuple[str, ...]  # as the family names them
    shape: tuple[int, ...]  # of each of them in the file


class Family(Protocol):
    """Checkpoints that name their tensors and sizes alike."""

    @property
    def title(self) -> str:
        """The name of such models in a message, in the plural."""
        ...

    @property
    def model_types(self) -> tuple[str, ...]:
        """The values of `model_type` in config.json that mean this family."""
        ...

    def key(self, name: str) -> str | None:
        """Returns the family's one name for a tensor of a file; None for a tensor that is not needed."""
        ...

    def architecture(self, path: Path, config: dict[str, Any], keys: Iterable[str]) -> Architecture:
        """Returns the encoder that config.json at `path`, and the keys that there are, describe.

        Raises CheckpointError for what cannot be stored.
        """
        ...

    def sources(self, architecture: Architecture) -> dict[str, Source]:
        """Returns the place of every canonical parameter."""
        ...

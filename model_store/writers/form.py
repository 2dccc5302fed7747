"""A form of models: a family that the readers know, and what its configuration says of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.readers.family import Description, Source, WritableFamily
from mass_serve.model_store.writers.plain_model import PlainModel


class Form(ABC):
    """Models of one `model_type`, as transformers writes them."""

    family: WritableFamily

    @abstractmethod
    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        """Returns the content of config.json but for labels and the class; None for what has no words in it.

        With `classifies` the model's head is the class's own classifier. What is said is held to the family's
        reader afterwards, so that this need not tell all that cannot be said.
        """

    @abstractmethod
    def class_name(self, model: PlainModel, *, classifies: bool) -> str:
        """Returns the class of transformers that the folder is of."""

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the place of every canonical parameter."""
        return self.family.sources(architecture, description)

    def unused(self, model: PlainModel, *, classifies: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Returns what the class has beside the encoder and computes nothing of the model with.

        Left out, transformers would draw it at random and warn.
        """
        return {}

    @abstractmethod
    def embedding(self, model: PlainModel) -> str | None:
        """Returns what a head of its own file takes: Python, of the class's `output` and its `inputs`.

        None where the class's output does not have it.
        """


def neutral_norm(name: str, width: int) -> dict[str, Tensor]:
    """The parameters [D] of a LayerNorm that neither scales nor moves."""
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}

"""A family of checkpoints: what a file of this folder has to know so that they can be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from mass_serve.backbone.architecture import Architecture, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HiddenSpec
from mass_serve.model_store.format.heads import (
    BIAS,
    DENSE_BIAS,
    DENSE_WEIGHT,
    NORM_BIAS,
    NORM_WEIGHT,
    WEIGHT,
)
from mass_serve.model_store.format.tensor_files import TensorSpec


class Change(Protocol):
    """What becomes of a tensor that is no parameter of ours as it is: see `readers.changes`."""

    @property
    def tensors(self) -> Mapping[str, tuple[int, ...]]:
        """The further tensors that it takes, in their order, and their shapes in the file."""
        ...

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:
        """Returns the parameter, in float32."""
        ...


@runtime_checkable
class ReversibleChange(Change, Protocol):
    """A change of which tensors are known that it makes a parameter of."""

    def undone(self, parameter: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Returns tensors in float32, stacked and further, of which the change makes the parameter."""
        ...


@dataclass(frozen=True)
class Source:
    """The place of a canonical parameter in a checkpoint: tensors of one shape, stacked along their rows."""

    keys: tuple[str, ...]  # as the family names them
    shape: tuple[int, ...]  # of each of them in the file
    transposed: bool = False  # there the matrix is [d_in, d_out]
    change: Change | None = None

    @property
    def needed(self) -> dict[str, tuple[int, ...]]:
        """The shape in the file of every tensor that the parameter is made of."""
        further = {} if self.change is None else self.change.tensors
        return {**dict.fromkeys(self.keys, self.shape), **further}

    def undone(self, parameter: Tensor) -> dict[str, Tensor]:
        """Returns the tensors in the file, in float32, that the parameter is made of again.

        The change must be reversible.
        """
        stacked, further = parameter.float(), {}
        if self.change is not None:
            assert isinstance(self.change, ReversibleChange)
            stacked, others = self.change.undone(stacked)
            further = dict(zip(self.change.tensors, others, strict=True))
        stacked = stacked.T if self.transposed else stacked
        parts = stacked.reshape(len(self.keys), *self.shape)
        return further | dict(zip(self.keys, parts, strict=True))


@dataclass(frozen=True)
class Description:
    """All that a checkpoint says of its encoder beside the values of its weights."""

    path: Path  # of its configuration, for messages
    config: Mapping[str, Any]
    weights: Mapping[str, TensorSpec]  # by the family's names
    base: Architecture | None  # of the model that it was fine-tuned from, where that is known
    crop: int | None = None  # the edge of the images that its preprocessing gives, where it says so
    each_token: bool = False  # its classifier takes each token of a text, and not the text as a whole

    def shape(self, key: str, rank: int) -> tuple[int, ...]:
        """The shape of a tensor that sizes are read off. Raises CheckpointError unless there are `rank`."""
        spec = self.weights.get(key)
        if spec is None:
            raise CheckpointError(f"{self.path.parent}: missing {key}")
        if len(spec.shape) != rank or 0 in spec.shape:
            raise CheckpointError(
                f"{self.path.parent}: {key} has shape {list(spec.shape)}, expected {rank} sizes"
            )
        return spec.shape


@dataclass(frozen=True)
class HiddenNames:
    """The hidden layer before a classifier, by the family's names of its operations."""

    dense: str
    spec: HiddenSpec
    norm: str | None = None  # with a bias or without one


class LinearClassifier:
    """What families have in common whose models classify with a linear alone."""

    def hidden_layer(self, description: Description) -> HiddenNames | None:  # noqa: ARG002 - for others
        """Returns that there is none."""
        return None


class Family(Protocol):
    """Checkpoints that name their tensors and sizes alike."""

    @property
    def title(self) -> str:
        """The name of such models in a message, in the plural."""
        ...

    @property
    def config_file(self) -> str:
        """The file in a model's folder that its configuration is in, where it has one."""
        ...

    @property
    def classifier(self) -> str | None:
        """The linear that a fine-tuned model classifies with, by the family's name; None: there is none."""
        ...

    def hidden_layer(self, description: Description) -> HiddenNames | None:
        """Returns the layer between the embedding, or a token, and that linear; None where there is none.

        Raises CheckpointError for one that no head has.
        """
        ...

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        """Tells, by the configuration or by its tensors' names, whether a checkpoint is one of these."""
        ...

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the family's one name for each tensor of the files; None for one that is not needed."""
        ...

    def architecture(self, description: Description) -> Architecture:
        """Returns the encoder that a checkpoint describes; what it leaves unsaid is as in its base.

        Its pooling is what the checkpoint's own classifier takes, where it has one.

        Raises CheckpointError for what cannot be stored.
        """
        ...

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:
        """Returns the place of every canonical parameter, whichever pooling the encoder is given."""
        ...


class WritableFamily(Family, Protocol):
    """A family whose models can be written as well: each of its changes is reversible."""

    def key(self, name: str, description: Description) -> str:
        """Returns the name that transformers' own classes give a tensor in a file: `names` undone."""
        ...


def classifier_names(family: Family, description: Description) -> dict[str, str]:
    """The parts of a classifier so described: the family's names by what heads call them."""
    linear, hidden = family.classifier, family.hidden_layer(description)
    parts = {} if linear is None else {WEIGHT: weight_of(linear), BIAS: bias_of(linear)}
    if hidden is not None:
        parts |= {DENSE_WEIGHT: weight_of(hidden.dense), DENSE_BIAS: bias_of(hidden.dense)}
        if hidden.norm is not None:
            parts |= {NORM_WEIGHT: weight_of(hidden.norm), NORM_BIAS: bias_of(hidden.norm)}
    return parts

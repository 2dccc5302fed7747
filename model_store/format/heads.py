"""Classification heads and labels: as users give them, and as a store keeps them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import TensorFileError, TensorSpec, read_tensors

HEAD_FILE = "head.safetensors"
LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class HeadTensors:
    """`cosine`: `logit_scale * cos(x, weight_c)`; `linear`: `weight @ x + bias`."""

    kind: Literal["cosine", "linear"]
    weight: Tensor  # [C, D_embedding] float32
    bias: Tensor | None  # [C] float32, of a linear head
    logit_scale: float | None  # the multiplier itself, of a cosine head

    def tensors(self) -> dict[str, Tensor]:
        """The head as the tensors of a safetensors file."""
        if self.bias is not None:
            return {"weight": self.weight, "bias": self.bias}
        return {"weight": self.weight, "logit_scale": torch.tensor(self.logit_scale, dtype=torch.float32)}

    def specs(self) -> dict[str, TensorSpec]:
        """The specs of `tensors()`."""
        return {key: TensorSpec(value.dtype, tuple(value.shape)) for key, value in self.tensors().items()}


def read_head(path: Path) -> HeadTensors:
    """A head from safetensors: `weight` with `logit_scale` (cosine) or with `bias` (linear).

    Raises CheckpointError with what is missing or wrong.
    """
    try:
        tensors = read_tensors(path)
    except TensorFileError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return head_from_tensors(tensors)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def head_from_tensors(tensors: dict[str, Tensor]) -> HeadTensors:
    """The head that tensors make up, in float32. Raises ValueError."""
    keys = set(tensors)
    if keys not in ({"weight", "bias"}, {"weight", "logit_scale"}):
        raise ValueError(
            "a head needs `weight` and either `logit_scale` (cosine head) or `bias` (linear head), "
            f"found {', '.join(sorted(keys)) or 'nothing'}"
        )
    if not all(value.is_floating_point() for value in tensors.values()):
        raise ValueError(f"{', '.join(sorted(keys))} must be floating-point numbers")
    tensors = {key: value.float() for key, value in tensors.items()}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} holds NaN, Inf or a number that float32 cannot hold")
    weight = tensors["weight"]
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be [classes, width], found shape {list(weight.shape)}")
    if "bias" in tensors:
        bias = tensors["bias"]
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias has shape {list(bias.shape)}, expected {[weight.shape[0]]}")
        return HeadTensors("linear", weight, bias, None)
    if tensors["logit_scale"].numel() != 1 or tensors["logit_scale"].item() <= 0:
        raise ValueError("logit_scale must be one positive number, the multiplier itself")
    return HeadTensors("cosine", weight, None, float(tensors["logit_scale"].item()))


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in the head's row order, from a JSON list of unique non-empty strings."""
    try:
        labels = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise CheckpointError(f"{path} must hold a JSON list of class names, non-empty strings")
    if any(0xD800 <= ord(character) <= 0xDFFF for label in labels for character in label):
        raise CheckpointError(f"{path} holds half of a surrogate pair, which is no character")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise CheckpointError(f"{path} names the class {twice!r} twice")
    return tuple(labels)

"""Classification heads and labels: as users give them, and as a store keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.entries import HeadKind, HeadSpec, HiddenSpec
from mass_serve.model_store.format.field_types import has_control_characters
from mass_serve.model_store.format.strict_json import parse_json
from mass_serve.model_store.format.tensor_files import TensorFile, TensorFileError, TensorSpec
from mass_serve.model_store.storage.regular_files import RegularFile, read_text_file

HEAD_FILE = "head.safetensors"
LABELS_FILE = "labels.json"
ID2LABEL = "id2label"  # the labels by row in a config.json

WEIGHT = "weight"  # [C, P], a row for each class
BIAS = "bias"  # [C], in a linear head
# [C, P], of a created task: unit vectors that the router compares embeddings of the first pass with
CLASS_MEANS = "class_means"
LOGIT_SCALE = "logit_scale"  # one number, the multiplier itself, in a cosine head
# What a classification model of Hugging Face has before the names of its head.
_CLASSIFIER = "classifier."
# Of a stack's hidden layer.
DENSE_WEIGHT, DENSE_BIAS = "dense.weight", "dense.bias"  # [H, P] and [H]
NORM_WEIGHT, NORM_BIAS = "norm.weight", "norm.bias"  # [H] both, where it has a LayerNorm
LARGEST_LOGIT_SCALE = 1e6  # CLIP trains with at most 100


@dataclass(frozen=True)
class HeadTensors:
    """A head as the tensors of its file, found to fit together; `head_from_tensors` makes them.

    cosine: `logits_c = logit_scale cos(x, weight_c)`; linear: `logits = weight x + bias`; stack: linear, of
    `norm(activation(dense x + dense bias))` in place of x.
    """

    # float32: WEIGHT, and LOGIT_SCALE or BIAS; of a stack, its hidden layer's; of a created task CLASS_MEANS
    tensors: dict[str, Tensor]
    hidden: HiddenSpec | None = None  # of a stack
    each_token: bool = False  # x is the last hidden state of a token, and not the embedding of an input
    thresholds: tuple[float, ...] | None = None  # of each label, where an input may have any number of them

    @property
    def spec(self) -> HeadSpec:
        """The head as the manifest describes it."""
        plain: HeadKind = "linear" if BIAS in self.tensors else "cosine"
        return HeadSpec(
            kind=plain if self.hidden is None else "stack",
            hidden=self.hidden,
            each_token=self.each_token,
            thresholds=self.thresholds,
        )

    @property
    def kind(self) -> HeadKind:
        """The kind of the head, as the manifest names it."""
        return self.spec.kind

    @property
    def shape(self) -> tuple[int, int]:
        """C and P: how many classes there are, and how many numbers x has."""
        entering = WEIGHT if self.hidden is None else DENSE_WEIGHT
        return self.tensors[WEIGHT].shape[0], self.tensors[entering].shape[1]

    def without_means(self) -> HeadTensors:
        """The head for who has no router."""
        tensors = {key: tensor for key, tensor in self.tensors.items() if key != CLASS_MEANS}
        return replace(self, tensors=tensors)

    def specs(self) -> dict[str, TensorSpec]:
        """The specs of the tensors, for writing them."""
        return {key: TensorSpec(value.dtype, tuple(value.shape)) for key, value in self.tensors.items()}


def read_head(path: Path) -> HeadTensors:
    """Reads a head from safetensors: `weight` with `logit_scale` (cosine) or with `bias` (linear).

    Raises CheckpointError with what is missing or wrong.
    """
    try:
        with RegularFile.open(path) as file:
            tensors = TensorFile(file).read_all()
    except TensorFileError as error:
        raise CheckpointError(f"{path} cannot be used: {error}: make or download it again") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if all(key.startswith(_CLASSIFIER) for key in tensors):
        tensors = {key.removeprefix(_CLASSIFIER): tensor for key, tensor in tensors.items()}
    try:
        return head_from_tensors(tensors)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def head_from_tensors(tensors: dict[str, Tensor], hidden: HiddenSpec | None = None) -> HeadTensors:
    """Checks that tensors make up a head, and gives them in float32.

    It is a stack where it is to have a hidden layer. Raises ValueError.
    """
    if hidden is None:
        return _plain_head(tensors)
    own = {key: tensor for key, tensor in tensors.items() if key not in (WEIGHT, BIAS)}
    linear = _plain_head({key: tensor for key, tensor in tensors.items() if key not in own})
    width, kept = linear.tensors[WEIGHT].shape[1], _moderate(own)
    shapes = {DENSE_BIAS: [width]} | ({NORM_WEIGHT: [width], NORM_BIAS: [width]} if hidden.norm_eps else {})
    if kept.keys() != {DENSE_WEIGHT, *shapes}:
        raise ValueError(
            f"the hidden layer of a head needs {', '.join([DENSE_WEIGHT, *shapes])}, found "
            f"{', '.join(sorted(kept)) or 'nothing'}"
        )
    dense = kept[DENSE_WEIGHT]
    if dense.ndim != 2 or 0 in dense.shape or dense.shape[0] != width:
        raise ValueError(f"{DENSE_WEIGHT} must be [{width}, width], found shape {list(dense.shape)}")
    for key, shape in shapes.items():
        if list(kept[key].shape) != shape:
            raise ValueError(f"{key} has shape {list(kept[key].shape)}, expected {shape}")
    return HeadTensors(linear.tensors | kept, hidden)


def created_head(tensors: dict[str, Tensor]) -> HeadTensors:
    """Checks that tensors make up the head of a created task: a linear one, with its classes' means.

    Raises ValueError.
    """
    means = _moderate({key: tensor for key, tensor in tensors.items() if key == CLASS_MEANS})
    linear = _plain_head({key: tensor for key, tensor in tensors.items() if key not in means})
    shapes = [list(tensor.shape) for tensor in means.values()]
    if linear.kind != "linear" or shapes != [list(linear.tensors[WEIGHT].shape)]:
        raise ValueError(
            f"the head of a created task needs {WEIGHT}, {BIAS} and {CLASS_MEANS}, which has the shape of"
            f" {WEIGHT}; found {', '.join(sorted(tensors)) or 'nothing'}"
        )
    return HeadTensors(linear.tensors | means)


def _plain_head(tensors: dict[str, Tensor]) -> HeadTensors:
    """The cosine or linear head of tensors. Raises ValueError."""
    keys = set(tensors)
    if keys not in ({WEIGHT, BIAS}, {WEIGHT, LOGIT_SCALE}):
        raise ValueError(
            "a head needs `weight` and either `logit_scale` (cosine head) or `bias` (linear head), "
            f"found {', '.join(sorted(keys)) or 'nothing'}"
        )
    tensors = _moderate(tensors)
    weight = tensors[WEIGHT]
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be [classes, width], found shape {list(weight.shape)}")
    if BIAS in tensors:
        bias = tensors[BIAS]
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias has shape {list(bias.shape)}, expected {[weight.shape[0]]}")
        return HeadTensors(tensors)
    scale = tensors[LOGIT_SCALE]
    if scale.numel() != 1 or not 0 < scale.item() <= LARGEST_LOGIT_SCALE:
        raise ValueError(
            "logit_scale must be one positive number, the multiplier itself, "
            f"and at most {LARGEST_LOGIT_SCALE:g}"
        )
    # Some write the one number as [1].
    return HeadTensors({WEIGHT: weight, LOGIT_SCALE: tensors[LOGIT_SCALE].reshape(())})


def _moderate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32. Raises ValueError for other than finite floating-point numbers."""
    if not all(value.is_floating_point() for value in tensors.values()):
        raise ValueError(f"{', '.join(sorted(tensors))} must be floating-point numbers")
    tensors = {key: value.float() for key, value in tensors.items()}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} holds NaN, Inf or a number that float32 cannot hold")
    return tensors


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads the class names, in the head's row order, from a JSON list of unique non-empty strings.

    It may also be an object of them by row, `{"0": "cat", "1": "dog"}`, alone or as the `id2label` of a
    config.json. Raises CheckpointError.
    """
    try:
        labels = parse_json(read_text_file(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON: {error}: give a JSON list of the class names"
        ) from error
    if isinstance(labels, dict):
        return labels_by_row(path, labels.get(ID2LABEL, labels))
    return labels_in_order(path, labels)


def labels_by_row(path: Path, by_row: Any) -> tuple[str, ...]:
    """Checks the class names that an object in `path` has by row. Raises CheckpointError."""
    rows = [str(row) for row in range(len(by_row))] if isinstance(by_row, dict) else []
    if not rows or by_row.keys() != set(rows):
        raise CheckpointError(
            f"{path} must hold a JSON list of class names,"
            " or an object of them by row from 0 on, as id2label is"
        )
    return labels_in_order(path, [by_row[row] for row in rows])


def labels_in_order(path: Path, labels: Any) -> tuple[str, ...]:
    """Checks the class names that a list in `path` holds. Raises CheckpointError."""
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise CheckpointError(f"{path} must hold a JSON list of class names, non-empty strings")
    check_texts(labels, path, "label")
    return tuple(labels)


def check_texts(texts: Sequence[str], source: object, kind: str) -> None:
    """Raises CheckpointError unless texts of a kind can be shown by a terminal and each is there once."""
    if any(0xD800 <= ord(character) <= 0xDFFF for text in texts for character in text):
        raise CheckpointError(f"{source} holds half of a surrogate pair, which is no character")
    if controlled := [text for text in texts if has_control_characters(text)]:
        raise CheckpointError(f"{source} holds a {kind} with control characters: {controlled[0]!a}")
    seen = set[str]()
    for text in texts:
        if text in seen:
            raise CheckpointError(f"{source} holds the {kind} {text!r} twice")
        seen.add(text)

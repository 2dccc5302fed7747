"""The head of a task, its labels and thresholds: files, or the classifier that its checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import (
    HEAD_FILE,
    ID2LABEL,
    LABELS_FILE,
    HeadTensors,
    head_from_tensors,
    labels_by_row,
    labels_in_order,
    read_head,
    read_labels,
)
from mass_serve.model_store.format.thresholds import THRESHOLDS_FILE, USUAL_THRESHOLD, read_thresholds
from mass_serve.model_store.readers.checkpoint import Checkpoint

_LABEL_NAMES = "label_names"  # timm's
_MODEL_TYPE = "model_type"  # in transformers' configurations alone
# Two classes of these names are what transformers takes a model to have, and leaves out of config.json.
_USUAL_LABELS = ("LABEL_0", "LABEL_1")
# In transformers' configurations: how many labels an input has, which a regression has none of.
_PROBLEM_TYPE = "problem_type"
_ONE_OF_THEM, _ANY_OF_THEM = "single_label_classification", "multi_label_classification"


@dataclass(frozen=True)
class LabelledHead:
    """A head whose classes have names."""

    head: HeadTensors
    labels: tuple[str, ...]
    files: tuple[Path, ...]  # what was read beside the checkpoint's own files


def read_labelled_head(
    task: str,
    checkpoint: Checkpoint,
    head: Path | None,
    labels: Path | None,
    thresholds: Path | None = None,
    *,
    multi_label: bool = False,
) -> LabelledHead:
    """Reads a task's head, labels and thresholds from the given files, else from the checkpoint's folder.

    Where there is no file of a head, it is the checkpoint's own classifier, whose labels its config.json has.
    Either is for each token of a text where the checkpoint says so of its classifier. Either gives any number
    of labels with `multi_label`, where there are thresholds, and where the checkpoint's problem_type says so.
    Raises CheckpointError where one is missing, or where they do not fit each other.
    """
    head_file = head or _beside(checkpoint, HEAD_FILE)
    labels_file = labels or _beside(checkpoint, LABELS_FILE)
    thresholds_file = thresholds or _beside(checkpoint, THRESHOLDS_FILE)
    multi_label = multi_label or thresholds_file is not None or _says_multi_label(checkpoint)
    tensors = read_head(head_file) if head_file else _own_head(task, checkpoint, multi_label)
    tensors = replace(tensors, each_token=checkpoint.classifies_tokens)
    if labels_file is not None:
        source, names = labels_file, read_labels(labels_file)
    elif head_file is None:
        source, names = _own_labels(task, checkpoint, tensors.shape[0])
    else:
        raise _missing(task, checkpoint, LABELS_FILE, "--labels")
    classes, _ = tensors.shape
    if classes != len(names):
        raise CheckpointError(
            f"task {task}: the head has {classes} classes, but {source} names {len(names)}: give those that"
            f" the head was trained with, in the order of its rows, by --labels {task}=FILE"
        )
    if multi_label:
        tensors = replace(tensors, thresholds=_thresholds(task, checkpoint, thresholds_file, names))
    files = (head_file, labels_file, thresholds_file)
    return LabelledHead(tensors, names, tuple(file for file in files if file is not None))


def _thresholds(
    task: str, checkpoint: Checkpoint, file: Path | None, labels: tuple[str, ...]
) -> tuple[float, ...]:
    if checkpoint.classifies_tokens:
        raise CheckpointError(
            f"task {task}: {checkpoint.folder} classifies tokens, each of which has one label: leave out what"
            " says that it has several"
        )
    return (USUAL_THRESHOLD,) * len(labels) if file is None else read_thresholds(file, labels)


def _says_multi_label(checkpoint: Checkpoint) -> bool:
    said = checkpoint.said(_PROBLEM_TYPE)
    return said is not None and said[1] == _ANY_OF_THEM


def _beside(checkpoint: Checkpoint, name: str) -> Path | None:
    path = checkpoint.folder / name
    return path if path.exists() else None


def _missing(task: str, checkpoint: Checkpoint, file: str, flag: str) -> CheckpointError:
    return CheckpointError(f"task {task}: {checkpoint.folder / file} does not exist: give {flag} {task}=FILE")


def _own_head(task: str, checkpoint: Checkpoint, multi_label: bool) -> HeadTensors:
    tensors = checkpoint.classifier()
    if tensors is None:
        raise _missing(task, checkpoint, HEAD_FILE, "--head")
    try:
        head = head_from_tensors(tensors, checkpoint.hidden_layer)
    except ValueError as error:
        raise CheckpointError(f"task {task}: the classifier in {checkpoint.folder}: {error}") from error
    config_file, kind = checkpoint.said(_PROBLEM_TYPE) or (None, _ONE_OF_THEM)
    if kind not in (_ONE_OF_THEM, _ANY_OF_THEM):
        raise CheckpointError(
            f"task {task}: {config_file} has {_PROBLEM_TYPE} {kind!r}, but a task of a store gives"
            f" an input labels: give a head that does with --head {task}=FILE"
        )
    if head.shape[0] == 1 and not multi_label:
        raise CheckpointError(
            f"task {task}: the classifier in {checkpoint.folder} has one row, as that of a regression, and"
            f" tells no classes apart: give a head with --head {task}=FILE, or say with --multi-label {task}"
            " that its one label is there or not"
        )
    return head


def _own_labels(task: str, checkpoint: Checkpoint, classes: int) -> tuple[Path, tuple[str, ...]]:
    """Reads the labels that the configuration has; of an adapter's base they are those of a new head, too:
    PEFT keeps a model's configuration where the model is.

    Where transformers' configuration names none, two classes have transformers' own names.
    """
    if (by_row := checkpoint.said(ID2LABEL)) is not None:
        return by_row[0], labels_by_row(*by_row)
    if (in_order := checkpoint.said(_LABEL_NAMES)) is not None:
        return in_order[0], labels_in_order(*in_order)
    if classes == len(_USUAL_LABELS) and (model_type := checkpoint.said(_MODEL_TYPE)) is not None:
        return model_type[0], _USUAL_LABELS
    looked = " nor ".join(str(config.path) for config in checkpoint.configs)
    raise CheckpointError(
        f"task {task}: {looked} has no {ID2LABEL}: put {LABELS_FILE} into {checkpoint.folder}, or give"
        f" --labels {task}=FILE"
    )

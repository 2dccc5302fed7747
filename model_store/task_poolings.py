"""The one pooling of a store, which is the one that the heads of its tasks take.

A fine-tuned classifier may take another embedding than the pretrained model gives: CLIP's without its
projection, or the mean over the patches. Nothing before the pooling depends on that. A head for each token
takes what enters the pooling, behind its LayerNorm where there is one, and goes with any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from mass_serve.backbone.architecture import AnyPooling, Architecture
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import HeadTensors
from mass_serve.model_store.readers.checkpoint import Checkpoint


def pooling_of_head(
    task: str, head: HeadTensors, finetuned: Architecture, pretrained: Architecture
) -> AnyPooling:
    """Returns the fine-tuned model's pooling, without its projection where only then the head fits.

    Where the head is for each token it is the pretrained model's. Raises CheckpointError for a head of
    another width.
    """
    own, (_, width) = finetuned.pooling, head.shape
    if head.each_token:
        if width != finetuned.width:
            raise CheckpointError(
                f"task {task}: the head takes {width} numbers, a token of the encoder has {finetuned.width}:"
                f" give the head that this model was trained with by --head {task}=FILE"
            )
        return pretrained.pooling
    whole = finetuned.embedding_dim
    if width == whole:
        return own
    without = own.unprojected.embedding_dim(finetuned.width)
    if width == without:
        return own.unprojected
    other = "" if without == whole else f", or {without} without its projection"
    raise CheckpointError(
        f"task {task}: the head takes {width} numbers, the encoder gives {whole}{other}: give the head that"
        f" this model was trained with by --head {task}=FILE"
    )


def with_pooling_of(pretrained: Checkpoint, finetuned: Mapping[str, Checkpoint]) -> Checkpoint:
    """Gives the pretrained model the pooling of the fine-tuned ones, by task; without any it keeps its own.

    Raises CheckpointError where those have several, or where the pretrained model lacks a part of it.
    """
    if not finetuned:
        return pretrained
    for task, checkpoint in finetuned.items():
        _refuse_other_projection(task, checkpoint.architecture.pooling, pretrained.architecture.pooling)
    first, *others = finetuned
    architecture = finetuned[first].architecture
    for other in others:
        refuse_other_pooling(other, finetuned[other].architecture, architecture, f"that of task {first}")
    pooled = pretrained.pooled(architecture.pooling)
    if pooled.left_out:
        raise CheckpointError(
            f"task {first}: the head takes {_embedding(architecture)}, but the pretrained model in "
            f"{pretrained.folder} has no {pooled.left_out[0]}: give the one that the task was fine-tuned from"
        )
    return pooled


def _refuse_other_projection(task: str, found: AnyPooling, expected: AnyPooling) -> None:
    if found.projection_dim not in (None, expected.projection_dim):
        raise CheckpointError(
            f"task {task}: the fine-tuned model has projection_dim {found.projection_dim},"
            f" the pretrained model {expected.projection_dim}"
        )


def refuse_other_pooling(task: str, found: Architecture, expected: Architecture, whose: str) -> None:
    """Raises CheckpointError where the head of a task takes another embedding than `whose`."""
    if found.pooling != expected.pooling:
        raise CheckpointError(
            f"task {task}: the head takes {_embedding(found)}, {whose} {_embedding(expected)},"
            " and a store gives one: put tasks whose heads take the same into one store"
        )


def _embedding(architecture: Architecture) -> str:
    """The embedding in words: its width, and the choices that make up the pooling."""
    pooling = architecture.pooling
    choices = ", ".join(f"{field.name} {getattr(pooling, field.name)}" for field in fields(pooling))
    return f"{architecture.embedding_dim} numbers ({choices})"

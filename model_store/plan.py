"""The plan of a build: everything that it is asked for, checked before any arithmetic."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.build_options import DEFAULT_DTYPE, BuildOptions
from mass_serve.model_store.errors import CheckpointError, StoreError, TaskError
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.entries import FIRST_MODE, FirstPass, RouterSpec
from mass_serve.model_store.format.experts import ExpertLayout
from mass_serve.model_store.format.factoring import Factoring
from mass_serve.model_store.format.field_types import (
    TASK_NAME_PATTERN,
    first_problem,
    is_reserved,
    spelled_otherwise,
)
from mass_serve.model_store.format.groups import Groups, check_groups
from mass_serve.model_store.format.heads import HeadTensors
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.format.rank_rules import BudgetRule
from mass_serve.model_store.merged_base import FormChoice, merged_base_choice
from mass_serve.model_store.prepared import Prepared, check_prepares_alike, prepared_as
from mass_serve.model_store.rank_budget import refuse_small_budget
from mass_serve.model_store.rank_options import rank_rule
from mass_serve.model_store.readers.adapter_base import base_folder, refuse_other_base
from mass_serve.model_store.readers.adapters import is_adapter
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.finetuned import finetuned_from
from mass_serve.model_store.readers.stored_base import StoredBase
from mass_serve.model_store.task_heads import read_labelled_head
from mass_serve.model_store.task_poolings import pooling_of_head, refuse_other_pooling, with_pooling_of


@dataclass(frozen=True)
class TaskInput:
    """A fine-tuned model and its head. Without `head` or `labels`, those in the checkpoint or its folder."""

    name: str
    checkpoint: Path
    head: Path | None = None
    labels: Path | None = None
    individual_accuracy: float | None = None  # of the fine-tuned model on its own, 0..1
    origins: tuple[Origin, ...] = ()  # of what was fetched by name
    # An input has any number of the labels; so it has where there are thresholds, and where the checkpoint
    # says so.
    multi_label: bool = False
    thresholds: Path | None = None
    block_format: BlockFormat | None = None  # None: the store's


@dataclass(frozen=True)
class PlannedTask:
    """A task whose every input was found to fit."""

    name: str
    checkpoint: Checkpoint
    head: HeadTensors
    labels: tuple[str, ...]
    individual_accuracy: float | None
    input_files: tuple[Path, ...]
    origins: tuple[Origin, ...]
    block_format: BlockFormat | None  # None: the store's


@dataclass(frozen=True)
class BuildPlan:
    """A build whose every input was found to fit."""

    pretrained: Checkpoint
    prepared: Prepared
    router: RouterSpec
    layout: ExpertLayout
    merged_base: FormChoice
    merged_base_method: str | None  # None: TSV-M
    exact: bool  # decompose whole matrices
    tasks: tuple[PlannedTask, ...]
    groups: Groups
    fingerprint: str


@contextmanager
def _reading_errors_explained() -> Iterator[None]:
    """Turns what the operating system says of an input's path into CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from error


@_reading_errors_explained()
def plan_build(
    pretrained: Path,
    tasks: Sequence[TaskInput],
    options: BuildOptions,
    modes: Collection[str] | None,
    origin: Origin | None = None,
    groups: Groups | None = None,
) -> BuildPlan:
    """Checks all inputs of all tasks, reading headers, heads and labels only.

    `groups` are named ones of these tasks. The store's pooling is the one that the heads take. `modes` are
    those that a store can be served in; None: not to be checked here. `origin` is the pretrained model's: an
    adapter that names another one is refused, and a tokenizer of far fewer tokens than it embeds, unless
    `options.force`. Raises CheckpointError, TaskError or, for options, StoreError with the first problem.
    """
    groups = groups or {}
    check_task_names([task.name for task in tasks], groups)
    if modes is not None and options.mode not in modes:
        raise StoreError(f"mode must be one of {', '.join(modes)}, not {options.mode!r}")
    base = Checkpoint.open(pretrained, options.allow_pickle)
    prepared = prepared_as(base, options)
    _refuse_averaging(base.architecture, options)
    rule = rank_rule(options, len(tasks))
    merged_base, method = merged_base_choice(options.merged_base)

    def opened(task: TaskInput) -> Checkpoint:
        # Who names the base by a folder says that it is the adapter's, where that has no other here.
        if origin is not None and not options.force:
            _refuse_other_name(task, origin)
        return finetuned_from(base, task.checkpoint, options.allow_pickle)

    planned = tuple(_plan(task, base.architecture, prepared, opened) for task in tasks)
    base = with_pooling_of(base, {task.name: task.checkpoint for task in planned if not task.head.each_token})
    planned = tuple(_pooled_as(base.architecture, task) for task in planned)
    factoring = Factoring(base.architecture, options.patch_embedding, rule)
    dtype = options.block_dtype or DEFAULT_DTYPE
    layout = ExpertLayout(factoring, dtype).of_format(options.block_format)
    if isinstance(rule, BudgetRule):
        refuse_small_budget(layout, rule.times * base.nbytes)
        refuse_other_formats(tasks)
    return BuildPlan(
        pretrained=base,
        prepared=prepared,
        router=_router(base.architecture, options),
        layout=layout,
        merged_base=merged_base,
        merged_base_method=method,
        exact=options.exact,
        tasks=planned,
        groups=groups,
        fingerprint=_fingerprint(base, prepared, planned, options, groups),
    )


@_reading_errors_explained()
def plan_task(
    task: TaskInput,
    stored: StoredBase,
    origin: Origin | None,
    prepared: Prepared,
    allow_pickle: bool,
    force: bool = False,
    *,
    any_pooling: bool = False,
) -> PlannedTask:
    """Checks one task against a store's encoder, its origin and its preprocessing, of which a store has one.

    An adapter whose base is no folder here changes the store's encoder, if it names its origin or with
    `force`. The task may have `any_pooling` where no head of the store takes what is pooled. Raises
    CheckpointError or TaskError.
    """

    def opened(task: TaskInput) -> Checkpoint:
        if not force:
            _refuse_other_name(task, origin)
        return finetuned_from(stored, task.checkpoint, allow_pickle)

    planned = _plan(task, stored.architecture, prepared, opened)
    own = planned.checkpoint.architecture
    if not any_pooling or own.parameter_shapes() != stored.architecture.parameter_shapes():
        refuse_other_pooling(task.name, own, stored.architecture, "the heads of the store's tasks")
    return planned


def refuse_other_formats(tasks: Sequence[TaskInput]) -> None:
    """Raises TaskError for a task with a format of its own: a budget is found for bytes of one."""
    if own := next((task for task in tasks if task.block_format is not None), None):
        raise TaskError(
            f"task {own.name}: a budget is of blocks in one format: leave out the task's, or give another"
            " rule"
        )


def _pooled_as(architecture: Architecture, task: PlannedTask) -> PlannedTask:
    """Gives the checkpoint of a task with a head for each token the pooling of the store's others."""
    if not task.head.each_token:
        return task
    return replace(task, checkpoint=task.checkpoint.pooled(architecture.pooling))


def _refuse_other_name(task: TaskInput, origin: Origin | None) -> None:
    """Raises CheckpointError for an adapter whose base is neither a folder here nor that of `origin`."""
    if is_adapter(task.checkpoint) and base_folder(task.checkpoint) is None:
        refuse_other_base(task.name, task.checkpoint, origin)


def _plan(
    task: TaskInput,
    pretrained: Architecture,
    prepared: Prepared,
    opened: Callable[[TaskInput], Checkpoint],
) -> PlannedTask:
    """Checks one task against the pretrained model, and gives its encoder the pooling that its head takes."""
    check_task_name(task.name)
    if task.individual_accuracy is not None and not 0 <= task.individual_accuracy <= 1:
        raise TaskError(f"task {task.name}: the individual accuracy must be from 0 to 1")
    checkpoint = opened(task)
    found = checkpoint.architecture
    if found.reads_text != pretrained.reads_text:
        own, other = ("texts", "images") if found.reads_text else ("images", "texts")
        raise CheckpointError(
            f"task {task.name}: the fine-tuned model reads {own}, the pretrained one {other}"
        )
    check_same_sizes(
        task.name, replace(found, pooling=pretrained.pooling), pretrained, "the pretrained model"
    )
    check_prepares_alike(task.name, checkpoint, prepared)
    labelled = read_labelled_head(
        task.name, checkpoint, task.head, task.labels, task.thresholds, multi_label=task.multi_label
    )
    checkpoint = checkpoint.pooled(pooling_of_head(task.name, labelled.head, found, pretrained))
    files = (*checkpoint.input_files, *labelled.files)
    return PlannedTask(
        name=task.name,
        checkpoint=checkpoint,
        head=labelled.head,
        labels=labelled.labels,
        individual_accuracy=task.individual_accuracy,
        input_files=files,
        origins=task.origins,
        block_format=task.block_format,
    )


def check_task_name(name: str) -> None:
    """Raises TaskError for a name that a store cannot hold."""
    if not re.fullmatch(TASK_NAME_PATTERN, name):
        raise TaskError(
            f"task name {name!r} must be 1 to 64 of A-Z, a-z, 0-9, - and _, starting with a letter or digit"
        )
    if is_reserved(name):
        raise TaskError(f"the task name {name!r} has a meaning in requests; choose another name")


def default_router_layer(depth: int) -> int:
    """Returns block 9 of 12 and 20 of 24, as the paper has it; three quarters of any other depth."""
    return {12: 9, 24: 20}.get(depth, min(int(0.75 * depth + 0.5), depth - 1))


def check_task_names(names: Sequence[str], groups: Mapping[str, Collection[str]]) -> None:
    """Raises TaskError unless a store can hold tasks of these names together, in these groups."""
    if not names:
        raise TaskError("a store needs at least one task")
    for name in names:
        check_task_name(name)
        if names.count(name) > 1:
            raise TaskError(f"task {name} is given twice")
    refuse_other_spelling(names)
    refuse_groups(groups, names)


def refuse_groups(groups: Mapping[str, Collection[str]], tasks: Collection[str]) -> None:
    """Raises TaskError unless a store of these tasks can have these groups of them."""
    try:
        check_groups(groups, tasks)
    except ValueError as error:
        raise TaskError(str(error)) from error


def refuse_other_spelling(names: Iterable[str]) -> None:
    """Raises TaskError where two names of tasks differ in their case alone."""
    if clash := spelled_otherwise(names):
        raise TaskError(f"tasks {clash[0]} and {clash[1]} differ in their case alone: rename one")


def check_same_sizes(task: str, finetuned: Any, other: Any, whose: str) -> None:
    """Raises CheckpointError, naming the first size, where a fine-tuned model is not built as `other` is."""
    expected = dict(_sizes(other))
    for name, found in _sizes(finetuned):
        if found != expected.get(name):
            raise CheckpointError(
                f"task {task}: the fine-tuned model has {name} {found}, {whose} {expected.get(name)}"
            )


def _sizes(part: Any) -> Iterator[tuple[str, object]]:
    """Yields every size of an architecture and of its parts, with its name."""
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value):
            yield from _sizes(value)
        else:
            yield field.name, value


def _refuse_averaging(architecture: Architecture, options: BuildOptions) -> None:
    if architecture.reads_text and options.patch_embedding == "averaged":
        raise StoreError("the patch embedding cannot be averaged: the pretrained model reads texts")


def _router(architecture: Architecture, options: BuildOptions) -> RouterSpec:
    depth, token = architecture.depth, options.router_token or architecture.tokens[0]
    layer = default_router_layer(depth) if options.router_layer is None else options.router_layer
    if not 0 <= layer < depth:
        raise StoreError(f"the router layer must be from 0 to {depth - 1}, not {layer}")
    if token not in architecture.tokens:
        raise StoreError(f"the router token must be {architecture.tokens[0]}: there is no {token} token")
    try:
        return RouterSpec(
            mode=options.mode,
            layer=layer,
            token=token,
            temperature=options.temperature,
            threshold=options.threshold,
            top_k=options.top_k,
            head_choice=options.head_choice,
            first_pass=_first_pass(options),
            late_mlp_share=options.late_mlp_share,
        )
    except ValidationError as error:
        raise StoreError(f"the router cannot be configured so: {first_problem(error)}") from error


def _first_pass(options: BuildOptions) -> FirstPass:
    """The pretrained weights route better by combined evidence, and need no memory of their own."""
    return options.first_pass or ("merged_base" if options.mode == FIRST_MODE else "pretrained")


def _fingerprint(
    pretrained: Checkpoint,
    prepared: Prepared,
    tasks: Sequence[PlannedTask],
    options: BuildOptions,
    groups: Groups,
) -> str:
    """Hashes what is asked for, size and time of change of every input file, and what follows from others."""
    content = {
        "options": options.model_dump(),
        "groups": groups,
        # An encoder's sizes may follow from how its images are prepared, which is in files of its own.
        "architecture": repr(pretrained.architecture),
        "preprocessing": prepared.preprocessing.model_dump(mode="json"),
        "tokenizer": None if prepared.tokenizer is None else prepared.tokenizer.sha256,
        "pretrained": [_identity(path) for path in pretrained.input_files],
        "tasks": [
            [
                *(task.name, task.individual_accuracy, task.head.thresholds, task.block_format),
                *map(_identity, task.input_files),
            ]
            for task in tasks
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _identity(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns

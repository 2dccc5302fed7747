"""A store's tasks in another format of blocks, from what is stored of them: no fine-tuned model is needed.

    convert_store("my-store", "int4")                 # a new revision of every task, to roll back from
    convert_store("my-store", "int4", "small-store")  # another store; this one stays as it is

What is served meanwhile stays valid: every file is a new one, and the manifest is replaced last.
"""

from __future__ import annotations

from typing import Any

from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.changing import StoreUrl, changing, commit_tasks, with_earlier
from mass_serve.model_store.errors import StoreExistsError
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.experts import ExpertLayout, TaskExperts
from mass_serve.model_store.format.file_names import (
    MANIFEST_FILE,
    PRETRAINED_FILE,
    TOKENIZER_FILE,
    task_folder,
)
from mass_serve.model_store.format.groups import groups_among
from mass_serve.model_store.format.journal import load_journal
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.rank_rules import BudgetRule, rule_keys
from mass_serve.model_store.format.tensor_files import write_tensors
from mass_serve.model_store.measured import MeasureStore, unmeasured, with_measured
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.storage.files import LOCK_FILE, StoreFiles
from mass_serve.model_store.storage.next_files import NextFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import commit, copy_file, is_ours, new_revision, writing_errors_explained


def convert_store(
    url: StoreUrl,
    block_format: BlockFormat,
    out: StoreUrl | None = None,
    progress: Progress = silent,
    measure: MeasureStore = unmeasured,
) -> Store:
    """Keeps the blocks of every task, and of those that are added later, in a format.

    A task that is in it stays as it is, and where all are, so does the store. With `out`, a free place,
    another store is made of the current revisions, without a calibration. `measure` is that of
    `build_store.build`. Raises StoreExistsError where `out` holds something; IntegrityError;
    StoreLockedError; StoreError where the disk is full, for one.
    """
    if out is None:
        return _converted_in_place(url, block_format, progress, measure)
    return _converted_to(Store.open(url), open_files(out), block_format, progress, measure)


def _converted_in_place(
    url: StoreUrl, block_format: BlockFormat, progress: Progress, measure: MeasureStore
) -> Store:
    with changing(url) as store:
        manifest, layout = store.manifest, store.layout.of_format(block_format)
        if manifest.block_format == layout.own_format and not _others(manifest, layout):
            return store
        entries = _write_tasks(store, store.files, layout, progress)
        history = manifest.history
        for before in _others(manifest, layout):
            history = with_earlier(manifest.model_copy(update={"history": history}), before)
        update = {"tasks": entries, "history": history, "block_format": layout.own_format}
        update |= _rule_keys(store.layout, layout)
        draft = with_measured(store.files, manifest.model_copy(update=update), measure, progress)
        return commit_tasks(Store(store.files, draft), draft.tasks, draft.history, progress)


def _converted_to(
    store: Store, files: StoreFiles, block_format: BlockFormat, progress: Progress, measure: MeasureStore
) -> Store:
    _refuse_taken(files)
    with writing_errors_explained(files.url), files.lock():
        _refuse_taken(files)
        manifest, layout = store.manifest, store.layout.of_format(block_format)
        kept = [path for path in (PRETRAINED_FILE, TOKENIZER_FILE) if path in manifest.files]
        for path in kept:
            copy_file(store, path, path, files)
        entries = _write_tasks(store, files, layout, progress)
        update = {
            "tasks": entries,
            "history": {},
            "block_format": layout.own_format,
            "files": {path: manifest.files[path] for path in kept},
            "calibration": None,
            "merged_base": "rebuilt",
            "groups": groups_among(manifest.groups, {task.name for task in entries}),
            **_rule_keys(store.layout, layout),
        }
        draft = with_measured(files, manifest.model_copy(update=update), measure, progress)
        return commit(files, draft, manifest.merged_base, progress)


def _refuse_taken(files: StoreFiles) -> None:
    """Raises StoreExistsError unless there is nothing but what a conversion that was killed has left."""
    if isinstance(files, NextFiles):
        raise StoreExistsError(f"{files.url} is the next revision of a store, and a new store needs a folder")
    with writing_errors_explained(files.url):
        if load_journal(files) is not None:
            raise StoreExistsError(
                f"{files.url} holds an unfinished build: finish it, or choose another folder"
            )
        if files.exists(MANIFEST_FILE):
            raise StoreExistsError(f"there is a store at {files.url} already: choose another folder")
        if foreign := [path for path in files.list() if path != LOCK_FILE and not is_ours(path)]:
            raise StoreExistsError(f"{files.url} holds other files ({foreign[0]}): choose an empty folder")


def _rule_keys(before: ExpertLayout, after: ExpertLayout) -> dict[str, Any]:
    """The keys of the rule for ranks: a budget's level is of a byte, and triplets take other bytes now."""
    rule = before.factoring.rule
    if isinstance(rule, BudgetRule):
        old, new = (sum(layout.triplet_bytes.values()) for layout in (before, after))
        rule = rule.model_copy(update={"level": rule.level * old / new})
    return rule_keys(rule)


def _others(manifest: Manifest, layout: ExpertLayout) -> list[TaskEntry]:
    """The tasks that have blocks in another format than the layout's; a created task has none."""
    return [task for task in manifest.tasks if task.has_blocks and task.block_format != layout.own_format]


def _write_tasks(
    store: Store, files: StoreFiles, layout: ExpertLayout, progress: Progress
) -> tuple[TaskEntry, ...]:
    """Writes tasks that are not in a layout's format, each as a new revision; elsewhere the others, too."""
    entries, tasks, others = [], store.manifest.tasks, _others(store.manifest, layout)
    for done, task in enumerate(tasks):
        progress("converting tasks", done, len(tasks))
        if task in others:
            entries.append(_write_converted(store, files, task, layout))
        else:
            entries.append(task)
            for path in task.files if files is not store.files else ():
                copy_file(store, path, path, files)
    progress("converting tasks", len(tasks), len(tasks))
    return tuple(entries)


def _write_converted(store: Store, files: StoreFiles, task: TaskEntry, layout: ExpertLayout) -> TaskEntry:
    """Writes a task's blocks in the layout's format as a new revision, with its head."""
    revision, ranks = new_revision(), store.layout.ranks_of(task)
    folder = task_folder(task.name, revision)
    path, head = f"{folder}/experts.safetensors", f"{folder}/head.safetensors"
    experts = _converted(store.load_experts(task.name), layout)
    with files.writing(path) as file:
        digest = write_tensors(file, layout.tensor_specs(ranks), layout.experts_tensors(experts).__getitem__)
    copy_file(store, task.head_file, head, files)
    update = {
        "revision": revision,
        "files": {path: digest, head: task.files[task.head_file]},
        "block_format": layout.own_format,
        "exit_price": None,  # of the revision before
        "drawn_energies": None,
    }
    return task.model_copy(update=update)


def _converted(experts: TaskExperts, layout: ExpertLayout) -> TaskExperts:
    """The changes of one task with blocks of the layout's format, made on all threads there are."""
    names = list(experts.singular_vectors)
    kept = side_by_side(lambda name: layout.kept(experts.singular_vectors[name]), names)
    return TaskExperts(dict(zip(names, kept, strict=True)), experts.dense_deltas)

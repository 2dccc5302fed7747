"""Changing a finished store: tasks added, replaced, removed, rolled back; calibrated; revisions pruned.

Every change writes new files, then the manifest. A reader sees the store before or after, and readers
that opened it before keep working until `prune_store`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mass_serve.model_store.changing import StoreUrl, changing, commit_tasks, with_earlier
from mass_serve.model_store.compacting import within_budget
from mass_serve.model_store.dependants import refuse_dependants
from mass_serve.model_store.errors import StoreError, TaskError
from mass_serve.model_store.format.calibration import MEANS, is_calibration
from mass_serve.model_store.format.entries import CalibrationEntry, HeadSpec, TaskEntry
from mass_serve.model_store.format.file_names import (
    CALIBRATION_PREFIX,
    MANIFEST_FILE,
    PRETRAINED_FILE,
    SIGNATURE_FILE,
    task_folder,
)
from mass_serve.model_store.format.groups import groups_among
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.rank_rules import BudgetRule
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors
from mass_serve.model_store.format.thresholds import read_thresholds
from mass_serve.model_store.measured import MeasureStore, unmeasured, with_measured
from mass_serve.model_store.next_store import find_next, next_url
from mass_serve.model_store.plan import (
    TaskInput,
    check_task_name,
    plan_task,
    refuse_other_formats,
    refuse_other_spelling,
)
from mass_serve.model_store.prepared import Prepared
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.readers.stored_base import StoredBase
from mass_serve.model_store.readers.text_tokenizers import StoredTokenizer
from mass_serve.model_store.storage.next_files import NextFiles
from mass_serve.model_store.store import Store
from mass_serve.model_store.task_distance import measured_distances
from mass_serve.model_store.writing import (
    copy_file,
    is_ours,
    new_revision,
    publish,
    write_task,
)


def add_task(
    url: StoreUrl,
    task: TaskInput,
    replace: bool = False,
    allow_pickle: bool = False,
    progress: Progress = silent,
    exact: bool = False,
    force: bool = False,
    measure: MeasureStore = unmeasured,
) -> Store:
    """Adds a task, or with `replace` a new revision of one, factored by the store's rule for ranks.

    `exact` and `force` are those of `BuildOptions`. `measure` is that of `build_store.build`.

    Raises TaskError for a name that is taken or a model too far from the base, CheckpointError for a model
    or head that does not fit, StoreLockedError, IntegrityError when the pretrained weights are damaged.
    """
    with changing(url) as store:
        manifest = store.manifest
        _refuse_name(manifest, task.name, replace)
        if isinstance(store.layout.factoring.rule, BudgetRule):
            refuse_other_formats([task])
        with store.encoder_file(PRETRAINED_FILE) as pretrained:
            base = pretrained.read
            stored, origin = StoredBase(manifest.backbone, base), manifest.pretrained_origin
            prepared = Prepared(manifest.preprocessing, _tokenizer(store))
            # A head for each token takes what is not pooled yet.
            any_pooling = all(entry.head.each_token for entry in manifest.all_entries())
            planned = plan_task(task, stored, origin, prepared, allow_pickle, force, any_pooling=any_pooling)
            change = planned.checkpoint.change
            distances = measured_distances(pretrained.specs, base, {task.name: change}, force, progress)
            distance = distances[task.name]
            store = within_budget(store, task.name, (change, distance), progress)
            entry = write_task(store.files, store.layout, base, planned, distance, progress, exact)
        pooling = planned.checkpoint.architecture.pooling
        backbone = dataclasses.replace(manifest.backbone, pooling=pooling)
        manifest = store.manifest.model_copy(update={"backbone": backbone})
        current = manifest.find_task(task.name)
        store = Store(store.files, manifest)
        if current is None:
            tasks, history = (*manifest.tasks, entry), manifest.history
        else:
            tasks = tuple(entry if earlier is current else earlier for earlier in manifest.tasks)
            history = with_earlier(manifest, current)
        draft = manifest.model_copy(update={"tasks": tasks, "history": history})
        changed = with_measured(store.files, draft, measure, progress)
        return commit_tasks(store, changed.tasks, history, progress)


def _tokenizer(store: Store) -> StoredTokenizer | None:
    content = store.load_tokenizer()
    return None if content is None else StoredTokenizer.of(store.files.url, content)


def refuse_task(url: StoreUrl, name: str, replace: bool = False) -> None:
    """Raises TaskError where `add_task` would for the name alone; to ask before long work."""
    _refuse_name(Store.open(url).manifest, name, replace)


def _refuse_name(manifest: Manifest, name: str, replace: bool) -> None:
    check_task_name(name)
    # Of removed tasks too: their folders are there until they are pruned.
    refuse_other_spelling([*(entry.name for entry in manifest.all_entries()), name])
    if group := next((one for one in manifest.groups if one.lower() == name.lower()), None):
        raise TaskError(f"task {name} cannot be added: there is a group {group}; choose another name")
    current = manifest.find_task(name)
    if current is not None and not replace:
        raise TaskError(f"task {name} exists already: pass --replace for a new revision of it")
    refuse_dependants(manifest, name, "replaced")


def remove_task(url: StoreUrl, name: str, progress: Progress = silent) -> Store:
    """Takes a task out of the store; its files stay, so that `rollback_task` can bring it back.

    Raises TaskError for an unknown task and for the last one.
    """
    with changing(url) as store:
        entry = store.task(name)
        refuse_dependants(store.manifest, name, "removed")
        if len(store.manifest.tasks) == 1:
            raise TaskError(f"task {name} is the only one: a store needs at least one task")
        tasks = tuple(task for task in store.manifest.tasks if task is not entry)
        return commit_tasks(store, tasks, with_earlier(store.manifest, entry), progress)


def rollback_task(url: StoreUrl, name: str, progress: Progress = silent) -> Store:
    """Puts the latest earlier revision of a task in the place of the current one, or brings a removed task
    back. Calling it again goes one revision further back.

    Raises TaskError when there is no earlier revision.
    """
    with changing(url) as store:
        manifest = store.manifest
        if name not in manifest.history:
            raise TaskError(f"task {name} has no earlier revision in {store.files.url}")
        refuse_dependants(manifest, name, "rolled back")
        *earlier, restored = manifest.history[name]
        history = {key: entries for key, entries in manifest.history.items() if key != name or earlier}
        if earlier:
            history[name] = tuple(earlier)
        if manifest.find_task(name) is None:
            return commit_tasks(store, (*manifest.tasks, restored), history, progress)
        tasks = tuple(restored if task.name == name else task for task in manifest.tasks)
        return commit_tasks(store, tasks, history, progress)


def set_thresholds(url: StoreUrl, name: str, file: Path) -> Store:
    """Gives a task of any number of labels other thresholds, those of a JSON file, as a new revision of it.

    The fine-tuned model is not needed: nothing else changes, so that a calibration holds for it, too. Raises
    TaskError for a task that is unknown or gives one label, and CheckpointError for a file that does not fit.
    """
    with changing(url) as store:
        manifest, current = store.manifest, store.task(name)
        if current.head.each_token:
            raise TaskError(f"task {name} gives each token one label, and can have no thresholds")
        if not current.head.is_multi_label:
            raise TaskError(
                f"task {name} gives an input one label, and has no thresholds: add it again with"
                " --replace --multi-label"
            )
        thresholds = read_thresholds(file, current.labels)
        entry = _copied(store, current, current.head.model_copy(update={"thresholds": thresholds}))
        update: dict[str, object] = {
            "store_revision": new_revision(),
            "tasks": tuple(entry if earlier is current else earlier for earlier in manifest.tasks),
            "history": with_earlier(manifest, current),
        }
        calibration = manifest.calibration
        if calibration is not None and calibration.tasks.get(name) == current.revision:
            tasks = {**calibration.tasks, name: entry.revision}
            update["calibration"] = calibration.model_copy(update={"tasks": tasks})
        return publish(store.files, manifest.model_copy(update=update))


def _copied(store: Store, task: TaskEntry, head: HeadSpec) -> TaskEntry:
    """Makes a new revision of a task with the same files, and that head in the manifest."""
    revision, files = new_revision(), {}
    for path, digest in task.files.items():
        copy = f"{task_folder(task.name, revision)}/{path.rpartition('/')[2]}"
        copy_file(store, path, copy)
        files[copy] = digest
    # What was measured is of answers by the thresholds before.
    return task.model_copy(
        update={"revision": revision, "files": files, "head": head, "individual_accuracy": None}
    )


def calibrate_store(
    store: Store,
    tensors: dict[str, Tensor],
    tasks: Sequence[str],
    images: int,
    unrouted_below: float,
    measure: MeasureStore = unmeasured,
    progress: Progress = silent,
) -> Store:
    """Gives a store what `images` unlabelled images told of the evidence for its tasks.

    `tensors` are those of a calibration file (see `format.calibration`), `tasks` their tasks in order, and
    `unrouted_below` the familiarity below which no task is believed. `measure` is that of
    `build_store.build`. Raises ValueError for other tensors, StoreError where the store is no longer the one
    that was opened, StoreLockedError.
    """
    kinds = tensors[MEANS].shape[1] if MEANS in tensors and tensors[MEANS].ndim > 1 else 0
    if not is_calibration(tensors, kinds, len(tasks)):
        raise ValueError(f"these are no calibration of {len(tasks)} tasks")
    with changing(store.files.url) as current:
        manifest = current.manifest
        if manifest.store_revision != store.manifest.store_revision:
            raise StoreError(f"{store.files.url} was changed meanwhile: calibrate it again")
        revision = new_revision()
        path = f"{CALIBRATION_PREFIX}{revision}.safetensors"
        specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        with current.files.writing(path) as file:
            digest = write_tensors(file, specs, tensors.__getitem__)
        entry = CalibrationEntry(
            file=path, tasks={name: current.task(name).revision for name in tasks}, images=images
        )
        before = () if manifest.calibration is None else (manifest.calibration.file,)
        files = {name: known for name, known in manifest.files.items() if name not in before}
        update = {
            "store_revision": revision,
            "router": manifest.router.model_copy(update={"unrouted_below": unrouted_below}),
            "files": {**files, path: digest},
            "calibration": entry,
        }
        draft = with_measured(current.files, manifest.model_copy(update=update), measure, progress)
        return publish(current.files, draft)


def prune_store(url: StoreUrl) -> list[str]:
    """Forgets all earlier revisions and deletes every file that the store no longer names.

    Removed tasks leave their groups, too, and groups of none but such are gone. Returns the deleted paths.
    Readers that opened an earlier version may fail afterwards. Raises StoreError for a store that has a next
    revision, which shares files with earlier ones, and for a next revision itself.
    """
    with changing(url) as store:
        if isinstance(store.files, NextFiles) or find_next(url) is not None:
            raise StoreError(f"{next_url(url)} has files of earlier revisions: promote or discard it first")
        if store.manifest.history:
            groups = groups_among(store.manifest.groups, {task.name for task in store.manifest.tasks})
            update = {
                "history": {},
                "groups": {name: tasks for name, tasks in groups.items() if tasks},
                "store_revision": new_revision(),
            }
            pruned = store.manifest.model_copy(update=update)
            # First, so that no manifest names a file that is gone, should this stop halfway.
            store.files.write_bytes(MANIFEST_FILE, pruned.to_bytes())
            store = Store(store.files, pruned)
        kept = {MANIFEST_FILE, SIGNATURE_FILE, *store.manifest.all_files()}
        deleted = [path for path in store.files.list() if path not in kept and is_ours(path)]
        for path in deleted:
            store.files.delete(path)
        return deleted

"""Tasks that are made of what a store has already: a head, and coefficients over other tasks' changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mass_serve.model_store.changing import changing, commit_tasks, with_earlier
from mass_serve.model_store.combined_experts import COEFFICIENTS
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.entries import CombinationSpec, TaskEntry
from mass_serve.model_store.format.file_names import task_folder
from mass_serve.model_store.format.heads import HeadTensors
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors
from mass_serve.model_store.measured import MeasureStore, unmeasured, with_measured
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.revisions import refuse_task
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import new_revision


@dataclass(frozen=True)
class NewTask:
    """A task as it was learned."""

    name: str
    labels: tuple[str, ...]  # in the head's row order
    head: HeadTensors
    others: tuple[str, ...]  # S tasks whose changes are combined; none: the encoder is the pretrained one
    coefficients: Tensor  # [S, N], of every parameter in forward order
    accuracy: float  # on inputs that it was not learned from


def create_task(
    store: Store,
    task: NewTask,
    replace: bool = False,
    measure: MeasureStore = unmeasured,
    progress: Progress = silent,
) -> Store:
    """Writes a task that was learned from a store, or with `replace` a new revision of one.

    `measure` is that of `build_store.build`. Raises TaskError for a name that is taken, StoreError where the
    store is no longer the one that it was learned from, StoreLockedError.
    """
    with changing(store.files.url) as current:
        if current.manifest.store_revision != store.manifest.store_revision:
            raise StoreError(f"{store.files.url} was changed meanwhile: create the task again")
        refuse_task(store.files.url, task.name, replace)
        manifest = current.manifest
        entry = _written(current, task)
        before = manifest.find_task(task.name)
        if before is None:
            tasks, history = (*manifest.tasks, entry), manifest.history
        else:
            tasks = tuple(entry if one is before else one for one in manifest.tasks)
            history = with_earlier(manifest, before)
        draft = manifest.model_copy(update={"tasks": tasks, "history": history})
        draft = with_measured(current.files, draft, measure, progress)
        return commit_tasks(current, draft.tasks, history, progress)


def _written(store: Store, task: NewTask) -> TaskEntry:
    """Writes the files of a new task, which the manifest does not know yet."""
    folder = task_folder(task.name, new_revision())
    contents: dict[str, dict[str, Tensor]] = {f"{folder}/head.safetensors": task.head.tensors}
    if task.others:
        contents[f"{folder}/coefficients.safetensors"] = {COEFFICIENTS: task.coefficients.float()}
    files = {}
    for path, tensors in contents.items():
        specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        with store.files.writing(path) as file:
            files[path] = write_tensors(file, specs, tensors.__getitem__)
    ranks = combined_ranks(store, task.others)
    own = None if ranks == store.layout.factoring.prescribed() else ranks
    return TaskEntry(
        name=task.name,
        revision=folder.rpartition("/")[2],
        labels=task.labels,
        head=task.head.spec,
        rank=store.layout.factoring.rank_of(own),
        individual_accuracy=task.accuracy,
        files=files,
        ranks=own,
        combination=CombinationSpec(tasks=task.others),
    )


def combined_ranks(store: Store, others: tuple[str, ...]) -> dict[str, int]:
    """The ranks of a combination: of every matrix as many triplets as the task that has most."""
    ranks = [store.layout.ranks_of(store.task(name)) for name in others]
    return {name: max((of[name] for of in ranks), default=0) for name in store.layout.factoring.shapes}

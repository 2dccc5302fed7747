"""The merged base of a store, `pretrained + c merge(routed tasks)`, which a first pass may run on.

By TSV-M it follows from the blocks alone (`merging.merged_parameter`), so a store may leave it out and it is
rebuilt at load. By any other method it takes whole changes, and is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Literal, get_args

from torch import Tensor

from mass_serve.merging import merged_parameter
from mass_serve.merging.methods import METHODS, TSV_M, MergingMethod
from mass_serve.merging.methods.task_arithmetic import moved
from mass_serve.merging.threads import one_thread_per_operation
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.factoring import Ranks
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.format.manifest import MergedBaseForm
from mass_serve.model_store.format.tensor_files import is_moderate, write_tensors
from mass_serve.model_store.mergeable import MERGEABLE_NAMES
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.store import Store
from mass_serve.model_store.stored_vectors import StoredVectors, merged_changes, stored_vectors

MERGEABLE: dict[str, MergingMethod] = {
    method.name: method for method in METHODS if method.name in MERGEABLE_NAMES
}
# What a build is told of the form; auto: what is quicker at load.
FormChoice = Literal["auto", MergedBaseForm]
# Rebuilding costs eigendecompositions of [T R, T R] matrices. Below this sum of their cubes it takes about
# two seconds. ViT-B/32 is above it (2e10, about 15 s), whose 350 MB are read in a fraction of that.
REBUILD_LIMIT = 2e9


def is_slow_to_rebuild(tasks: Sequence[Ranks]) -> bool:
    """Tells whether rebuilding the merged base of tasks with these ranks would take so long at load that it
    had better be stored.
    """
    names = tasks[0] if tasks else ()
    return sum(sum(ranks[name] for ranks in tasks) ** 3 for name in names) > REBUILD_LIMIT


def merged_base_choice(text: str) -> tuple[FormChoice, str | None]:
    """Returns the form of a merged base and the name of its method, None for TSV-M.

    One that is merged by a named method is stored. Raises StoreError for a text that is neither a form nor a
    method.
    """
    forms: dict[str, FormChoice] = {form: form for form in ("auto", *get_args(MergedBaseForm))}
    if text in forms:
        return forms[text], None
    if text not in MERGEABLE:
        raise StoreError(
            f"the merged base must be {', '.join(forms)} or one of {', '.join(MERGEABLE)}, not {text[:80]!r}"
        )
    return "stored", None if text == TSV_M.name else text


def write_merged_base(store: Store, path: str, progress: Progress) -> str:
    """Merges the routed tasks by the store's method into a file of it. Returns its SHA-256.

    By TSV-M one parameter is in memory at a time, by other methods the merged change. Raises StoreError
    where weights overflow.
    """
    names = list(store.manifest.backbone.parameter_shapes())
    done = count()
    with ExitStack() as stack:
        pretrained = stack.enter_context(store.encoder_file(PRETRAINED_FILE))
        vectors = stack.enter_context(stored_vectors(store, store.manifest.routed_tasks))
        merged = _merged(store.manifest.merged_base_method, vectors, progress)
        stack.enter_context(one_thread_per_operation())

        def checked(name: str) -> Tensor:
            progress("merging all tasks", next(done), len(names))
            parameter = merged(name, pretrained.read(name))
            if not is_moderate(parameter):
                raise StoreError("the weights of the merged base overflow: give another --merged-base")
            return parameter

        file = stack.enter_context(store.files.writing(path))
        digest = write_tensors(file, pretrained.specs, checked)
    progress("merging all tasks", len(names), len(names))
    return digest


def _merged(name: str | None, vectors: StoredVectors, progress: Progress) -> Callable[[str, Tensor], Tensor]:
    """What gives the merged parameter of its name and of the pretrained one."""
    if name is None:
        return lambda parameter, before: merged_parameter(before, vectors.changes(parameter))
    method = MERGEABLE.get(name)
    if method is None:
        raise StoreError(
            f"this version cannot merge by {name!r}, as the store's merged base is: update mass-serve"
        )
    changes = merged_changes(method, vectors, progress)
    return lambda parameter, before: moved(before, changes.pop(parameter), method.coefficient)

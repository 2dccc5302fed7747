"""Plain models of a store: one task's as its blocks keep it, or one that routed tasks were merged into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from mass_serve.merging import merged_parameter
from mass_serve.merging.methods import MergingMethod
from mass_serve.merging.methods.task_arithmetic import moved
from mass_serve.model_store.combined_experts import load_experts
from mass_serve.model_store.errors import IntegrityError, StoreError, TaskError
from mass_serve.model_store.format.preprocessing import TextPreprocessing
from mass_serve.model_store.format.tensor_files import is_moderate
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.readers.text_tokenizers import StoredTokenizer
from mass_serve.model_store.store import Store
from mass_serve.model_store.stored_vectors import merged_changes, stored_vectors
from mass_serve.model_store.writers import PlainInputs, PlainModel, TextInputs


def task_model(store: Store, task: str, progress: Progress = silent) -> PlainModel:
    """Returns `pretrained + u diag(s) vh` of a task with its head: what a server answers with for the task.

    Raises TaskError for an unknown task.
    """
    entry, experts = store.task(task), load_experts(store, task)

    def parameter(name: str, before: Tensor) -> Tensor:
        return merged_parameter(before, [experts.change(name)])

    parameters = _parameters(store, parameter, progress)
    head = store.load_head(task).without_means()
    return PlainModel(store.manifest.backbone, parameters, _inputs(store), head, entry.labels)


def merged_model(
    store: Store,
    method: MergingMethod,
    head: str | None = None,
    coefficient: float | None = None,
    progress: Progress = silent,
) -> PlainModel:
    """Returns `pretrained + c merge(changes)` of the routed tasks' blocks, with the head of one or without.

    The coefficient is the method's own unless it is said. One encoder is in memory, the merged change, and
    of the blocks those of one parameter. Raises TaskError for a head that is of no routed task, and where
    no task is routed, and StoreError where weights overflow.
    """
    routed = store.manifest.routed_tasks
    if not routed:
        raise TaskError(f"no task of {store.files.url} has a part in a merged model: all classify tokens")
    own = None if head is None else store.task(head)
    if own is not None and own not in routed:
        raise TaskError(f"the task {head} classifies tokens, and has no part in the merged model")
    scale = method.coefficient if coefficient is None else coefficient
    with stored_vectors(store, routed) as vectors:
        merged = merged_changes(method, vectors, progress)
    parameters = _parameters(store, lambda name, before: moved(before, merged.pop(name), scale), progress)
    if not all(map(is_moderate, parameters.values())):
        raise StoreError(f"with the coefficient {scale:g} the merged weights overflow: give a smaller one")
    model = PlainModel(store.manifest.backbone, parameters, _inputs(store))
    return (
        model
        if own is None
        else replace(model, head=store.load_head(own.name).without_means(), labels=own.labels)
    )


def _parameters(store: Store, made: Callable[[str, Tensor], Tensor], progress: Progress) -> dict[str, Tensor]:
    """Makes every parameter of its name and the pretrained one, in float32, which is let go then."""
    pretrained = store.load_pretrained()
    names = list(pretrained)
    found = {}
    for done, name in enumerate(names, 1):
        found[name] = made(name, pretrained.pop(name).float())
        progress("putting together", done, len(names))
    return found


def _inputs(store: Store) -> PlainInputs:
    preprocessing = store.manifest.preprocessing
    if not isinstance(preprocessing, TextPreprocessing):
        return preprocessing
    content = store.load_tokenizer()
    if content is None:
        raise IntegrityError(f"{store.files.url} reads texts and has no tokenizer")
    tokenizer = StoredTokenizer.of(store.files.url, content)
    return TextInputs(tokenizer, preprocessing.max_tokens, preprocessing.cut_end)

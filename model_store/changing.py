"""A store under its lock, for whoever is about to write another revision of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.merged_base import is_slow_to_rebuild
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import commit, is_ours, writing_errors_explained

StoreUrl = str | os.PathLike[str]


@contextmanager
def changing(url: StoreUrl) -> Iterator[Store]:
    """Opens the store under its lock. It is opened before too, so that no lock is left where no store is.

    What a change has written that fails is deleted again. Raises StoreError.
    """
    files = open_files(url)
    Store.open_files(files)
    with writing_errors_explained(files.url), files.lock():
        before = files.list()
        try:
            yield Store.open_files(files)
        except BaseException:
            # What a failed change has written would fill a disk that may be full already.
            named = Store.open_files(files).manifest.all_files()
            for path in files.list():
                if path not in before and path not in named and is_ours(path):
                    files.delete(path)
            raise


def with_earlier(manifest: Manifest, entry: TaskEntry) -> dict[str, tuple[TaskEntry, ...]]:
    """Returns the history with `entry` as the latest earlier revision of its task."""
    earlier = manifest.history.get(entry.name, ())
    return {**manifest.history, entry.name: (*earlier, entry)}


def commit_tasks(
    store: Store,
    tasks: Sequence[TaskEntry],
    history: dict[str, tuple[TaskEntry, ...]],
    progress: Progress,
) -> Store:
    """Makes the store consist of `tasks`; the merged base is written anew where it is stored."""
    manifest = store.manifest
    # The calibration stays: it is not used while it does not fit, and may fit again after a rollback.
    files = {path: digest for path, digest in manifest.files.items() if path != manifest.merged_base_file}
    update = {"tasks": tuple(tasks), "history": history, "files": files, "merged_base": "rebuilt"}
    draft, form = manifest.model_copy(update=update), manifest.merged_base
    ranks = [store.layout.ranks_of(task) for task in draft.routed_tasks]
    outgrown = manifest.router.first_pass == "merged_base" and is_slow_to_rebuild(ranks)
    if outgrown or manifest.merged_base_method is not None:
        form = "stored"  # before, it may have been quick to rebuild, or there was nothing to merge
    return commit(store.files, draft, form, progress)

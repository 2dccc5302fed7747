"""A store under its lock, for whoever is about to write another revision of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import is_ours, writing_errors_explained

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

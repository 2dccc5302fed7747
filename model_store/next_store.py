"""Finds a store's next revision (`next_revision` makes it the store), importing nothing that writes one."""

from __future__ import annotations

import os

from mass_serve.model_store.described_store import DescribedStore
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.next_files import NEXT, NextFiles
from mass_serve.model_store.storage.opening import open_files


def next_url(url: str | os.PathLike[str]) -> str:
    """Returns the URL of the next revision of the store at `url`."""
    return open_files(url).url.removesuffix(NEXT) + NEXT


def find_next(url: str | os.PathLike[str]) -> DescribedStore | None:
    """Opens the next revision of the store at `url`; None where there is none. Raises StoreError."""
    files = NextFiles(files_of_store(url))
    DescribedStore.open_files(files.store)
    return DescribedStore.open_files(files) if files.is_there else None


def files_of_store(url: str | os.PathLike[str]) -> StoreFiles:
    """Returns the files of the store at `url`, also where that is its next revision's."""
    files = open_files(url)
    return files.store if isinstance(files, NextFiles) else files

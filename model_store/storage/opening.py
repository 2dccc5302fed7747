"""Opens the files of a store wherever its URL says they are."""

from __future__ import annotations

import os
from pathlib import Path

from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.next_files import NEXT, NextFiles


def open_files(url: str | os.PathLike[str]) -> StoreFiles:
    """Opens the files at a local path, a `file://` URL or any other URL that fsspec knows.

    With `#next` behind it they are those of the store's next revision.
    """
    text = os.fspath(url)
    if text.endswith(NEXT):
        return NextFiles(open_files(text.removesuffix(NEXT)))
    if "://" not in text:
        return LocalFiles(Path(text))
    protocol, _, rest = text.partition("://")
    if protocol in ("file", "local"):  # both fsspec's names, whose own reader would wait for a FIFO
        return LocalFiles(Path(rest))
    # fsspec and what it loads are needed for remote stores only.
    from mass_serve.model_store.storage.remote import RemoteFiles

    return RemoteFiles(text)

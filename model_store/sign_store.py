"""Signing a store: its manifest, and by the hashes in it every file (see `model_store.signing`)."""

from __future__ import annotations

import os

from mass_serve.model_store.format.file_names import MANIFEST_FILE, SIGNATURE_FILE
from mass_serve.model_store.format.manifest import parse_manifest
from mass_serve.model_store.signing import SigningKey
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import writing_errors_explained


def sign_store(url: str | os.PathLike[str], key: SigningKey) -> Store:
    """Signs a store as it is now, under its lock, and returns what was signed.

    The files that the manifest names are not read: who opens the store holds them to its hashes. Raises
    ManifestError where there is no store that could be opened, StoreLockedError, and StoreError.
    """
    files = open_files(url)
    Store.open_files(files)  # before the lock, so that none is left where no store is
    with writing_errors_explained(files.url), files.lock():
        content = files.read_bytes(MANIFEST_FILE)
        store = Store(files, parse_manifest(content))
        files.write_bytes(SIGNATURE_FILE, key.sign(content))
        return store

"""The files of a store's next revision: `my-store#next` is the store as it will be once that is promoted.

It shares every file with the store but two, the manifest and its signature, which are `next-<revision>.json`
and `next-<revision>.json.sig`, named by the store's revision that they were made from. So whatever changes a
store can change its next revision instead, nobody who reads the store sees it, and one that was made from an
earlier revision is none any more. While there is none, the store itself is read: a first change starts there.
"""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from typing import BinaryIO

from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.file_names import MANIFEST_FILE, SIGNATURE_FILE
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.regular_files import RegularFile

NEXT = "#next"
_MANIFEST = re.compile(r"next-[0-9a-f]{8,64}\.json")
_SIGNATURE_ENDING = SIGNATURE_FILE.removeprefix(MANIFEST_FILE)


def is_next_file(path: str) -> bool:
    """Tells whether a file of a store is the manifest of a next revision, or the signature of one."""
    return bool(_MANIFEST.fullmatch(path.removesuffix(_SIGNATURE_ENDING)))


def signature_of(manifest: str) -> str:
    """Returns the name of the signature of a next revision's manifest."""
    return manifest + _SIGNATURE_ENDING


class NextFiles(StoreFiles):
    """The files of a store's next revision, over those of the store."""

    def __init__(self, store: StoreFiles) -> None:
        self.store = store
        self.url = store.url + NEXT

    @property
    def manifest_file(self) -> str | None:
        """The next revision's own manifest, be it there or not; None where the store has no revision."""
        try:
            revision = json.loads(self.store.read_bytes(MANIFEST_FILE))["store_revision"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        name = f"next-{revision}.json"
        return name if _MANIFEST.fullmatch(name) else None

    @property
    def is_there(self) -> bool:
        """Tells whether the store has a next revision."""
        own = self.manifest_file
        return own is not None and self.store.exists(own)

    def exists(self, path: str) -> bool:
        return self.store.exists(self._read_from(path))

    def list(self) -> list[str]:
        return self.store.list()

    def size(self, path: str) -> int:
        return self.store.size(self._read_from(path))

    def read_bytes(self, path: str) -> bytes:
        return self.store.read_bytes(self._read_from(path))

    def opened(self, path: str) -> AbstractContextManager[RegularFile]:
        return self.store.opened(self._read_from(path))

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self.store.writing(self._written_to(path))

    def delete(self, path: str) -> None:
        self.store.delete(self._written_to(path))

    def lock(self) -> AbstractContextManager[None]:
        return self.store.lock()

    def _read_from(self, path: str) -> str:
        """Where a file lies in the store; without a next revision the store's own."""
        return self._written_to(path) if path in (MANIFEST_FILE, SIGNATURE_FILE) and self.is_there else path

    def _written_to(self, path: str) -> str:
        if path not in (MANIFEST_FILE, SIGNATURE_FILE):
            return path
        own = self.manifest_file
        if own is None:
            raise StoreError(f"there is no store at {self.store.url} that could have a next revision")
        return own if path == MANIFEST_FILE else signature_of(own)

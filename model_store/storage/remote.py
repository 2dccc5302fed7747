"""The files of a store on an object store, through fsspec (`s3://`, `gs://`, `memory://`, ...)."""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from mass_serve.model_store.errors import StoreError, StoreLockedError
from mass_serve.model_store.storage.files import LOCK_FILE, StoreFiles, without_credentials
from mass_serve.model_store.storage.regular_files import LARGEST_TEXT_BYTES, RegularFile, too_large


class RemoteFiles(StoreFiles):
    """A prefix of an object store. One put is atomic there, so a file is first completed on this machine."""

    def __init__(self, url: str) -> None:
        self.url = without_credentials(url.rstrip("/"))
        try:
            self._filesystem, root = fsspec.core.url_to_fs(url.rstrip("/"))
        except (ValueError, ImportError) as error:
            raise StoreError(f"{self.url} cannot be opened: {without_credentials(str(error))}") from error
        self._root = cast(str, root).rstrip("/")

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def exists(self, path: str) -> bool:
        return bool(self._filesystem.isfile(self._at(path)))

    def list(self) -> list[str]:
        self._filesystem.invalidate_cache()
        found = cast(list[str], self._filesystem.find(self._root))
        return sorted(name.split(self._root + "/", 1)[-1] for name in found)

    def size(self, path: str) -> int:
        return int(self._filesystem.size(self._at(path))) if self.exists(path) else 0

    def read_bytes(self, path: str) -> bytes:
        size = self._filesystem.size(self._at(path))
        if size is not None and size > LARGEST_TEXT_BYTES:
            raise too_large(size)
        return cast(bytes, self._filesystem.cat_file(self._at(path)))

    @contextmanager
    def opened(self, path: str) -> Iterator[RegularFile]:
        if not self.exists(path):
            raise FileNotFoundError(path)
        # The folder is this user's alone.
        with tempfile.TemporaryDirectory(prefix="mass-serve-") as folder:
            local = Path(folder) / Path(path).name
            self._filesystem.get_file(self._at(path), str(local))
            with RegularFile.open(local) as file:
                yield file

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        with tempfile.NamedTemporaryFile(prefix="mass-serve-") as file:
            yield cast(BinaryIO, file)
            # The upload reads the file by its name, past this process's buffer.
            file.flush()
            self._filesystem.put_file(file.name, self._at(path))

    def delete(self, path: str) -> None:
        if self.exists(path):
            self._filesystem.rm_file(self._at(path))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds an object that only one writer can create. It outlives a killed process."""
        try:
            self._filesystem.pipe_file(self._at(LOCK_FILE), _holder(), mode="create")
        except FileExistsError as error:
            raise StoreLockedError(self._locked_by_whom()) from error
        try:
            yield
        finally:
            self.delete(LOCK_FILE)

    def _locked_by_whom(self) -> str:
        holder = self.read_bytes(LOCK_FILE).decode(errors="replace")[:200]
        return (
            f"another process is writing to {self.url}: {holder}; "
            f"if it no longer runs, delete {self.url}/{LOCK_FILE}"
        )


def _holder() -> bytes:
    facts: dict[str, Any] = {
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items()).encode()

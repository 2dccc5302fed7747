"""The files of a store in a folder of this machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mass_serve.model_store.errors import StoreLockedError
from mass_serve.model_store.storage.files import LOCK_FILE, PARTIAL_SUFFIX, StoreFiles
from mass_serve.model_store.storage.regular_files import RegularFile, open_regular, read_text_file


class LocalFiles(StoreFiles):
    """A folder of this machine. Renames are atomic, and every one is followed by an fsync of its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def list(self) -> list[str]:
        return sorted(
            path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()
        )

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size if self.exists(path) else 0

    def read_bytes(self, path: str) -> bytes:
        return read_text_file(self.root / path)

    @contextmanager
    def opened(self, path: str) -> Iterator[RegularFile]:
        with RegularFile.open(self.root / path) as file:
            yield file

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        target = self.root / path
        self._make_folder(target.parent)
        partial = target.with_name(target.name + PARTIAL_SUFFIX)
        try:
            # A new file: what has the name already may be a link out of the store, or a FIFO.
            partial.unlink(missing_ok=True)
            with open(partial, "xb") as file:
                yield file
                file.flush()
                # Before the rename: a crash must not leave the new name on bytes that never reached the disk.
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        # The rename itself is durable only when the folder is; the manifest is written after this returns.
        _sync_folder(target.parent)

    def delete(self, path: str) -> None:
        target = self.root / path
        target.unlink(missing_ok=True)
        for folder in target.relative_to(self.root).parents:
            if folder == Path() or not (self.root / folder).is_dir() or any((self.root / folder).iterdir()):
                return
            (self.root / folder).rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds an flock, which the system releases when the process ends, however it ends."""
        self._make_folder(self.root)
        descriptor = open_regular(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        with open(descriptor, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreLockedError(
                    f"another process is writing to {self.url}: wait until it has finished"
                ) from error
            yield

    def _make_folder(self, folder: Path) -> None:
        """Makes a folder and its parents, each entry durable."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""How the bytes of a store reach a local folder or an fsspec URL such as `s3://bucket/store`.

Both kinds of place promise the same: `writing` makes a file appear whole or not at all, replacing what
was there, and is durable when it returns; `lock` excludes every other writer.
"""

from __future__ import annotations

import fcntl
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from model_store.errors import StoreLockedError

LOCK_FILE = ".lock"
PARTIAL_SUFFIX = ".partial"


class StoreFiles(ABC):
    """The files of one store, by `/`-separated paths relative to its root."""

    url: str

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def list(self) -> list[str]:
        """Every file, sorted; empty where the store's folder does not exist."""

    @abstractmethod
    def size(self, path: str) -> int:
        """The bytes of a file; 0 where it is missing."""

    @abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """The content of a small file. Raises FileNotFoundError."""

    @abstractmethod
    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        """A file on this machine with the content of `path`. Raises FileNotFoundError."""

    @abstractmethod
    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A new file, which becomes `path` when the block ends and vanishes when the block raises."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Removes a file if it is there, and the folders that it leaves empty."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Excludes other writers. Raises StoreLockedError at once when there is one."""

    def write_bytes(self, path: str, content: bytes) -> None:
        """Makes `content` the file `path`, whole or not at all."""
        with self.writing(path) as file:
            file.write(content)


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
        return (self.root / path).read_bytes()

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        local = self.root / path
        if not local.is_file():
            raise FileNotFoundError(path)
        yield local

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        target = self.root / path
        self._make_folder(target.parent)
        partial = target.with_name(target.name + PARTIAL_SUFFIX)
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
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
        with open(self.root / LOCK_FILE, "ab") as file:
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


def without_credentials(text: str) -> str:
    """For errors and logs: URLs without the user and password that they may hold."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def open_files(url: str | os.PathLike[str]) -> StoreFiles:
    """The files at a local path, a `file://` URL or any other URL that fsspec knows."""
    text = os.fspath(url)
    if "://" not in text:
        return LocalFiles(Path(text))
    if text.startswith("file://"):
        return LocalFiles(Path(text.removeprefix("file://")))
    # fsspec and what it loads are needed for remote stores only.
    from model_store.remote_files import RemoteFiles

    return RemoteFiles(text)

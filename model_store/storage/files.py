"""How the bytes of a store reach a local folder or an fsspec URL such as `s3://bucket/store`.

Both kinds of place promise the same: `writing` makes a file appear whole or not at all, replacing what
was there, and is durable when it returns; `lock` excludes every other writer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import BinaryIO

from mass_serve.model_store.storage.regular_files import RegularFile

LOCK_FILE = ".lock"
PARTIAL_SUFFIX = ".partial"


class StoreFiles(ABC):
    """The files of one store, by `/`-separated paths relative to its root."""

    url: str

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tells whether there is such a file."""

    @abstractmethod
    def list(self) -> list[str]:
        """Returns the paths of all files, sorted; empty where the store's folder does not exist."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Returns the number of bytes of a file; 0 where it is missing."""

    @abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """Reads a file that is held in memory. Raises FileNotFoundError, and OSError for a large one."""

    @abstractmethod
    def opened(self, path: str) -> AbstractContextManager[RegularFile]:
        """Opens a file, or a copy of it on this machine that nobody else sees. Raises FileNotFoundError."""

    @abstractmethod
    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Gives a new file, which becomes `path` when the block ends and vanishes when the block raises."""

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


def without_credentials(text: str) -> str:
    """Removes the user and password that URLs in a text may hold, for errors and logs."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)

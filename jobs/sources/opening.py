"""A file opened for streaming, with what compression it has undone, and how much of it is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from mass_serve.jobs.sources.content import read_whole
from mass_serve.jobs.sources.trees import Tree


def _ungzipped(raw: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw)


_READERS = {"gz": _ungzipped, "tgz": _ungzipped, "bz2": bz2.BZ2File, "xz": lzma.LZMAFile}
# What broken and cut off compressed data raise.
BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Opened:
    """A file that is read from its begin to its end."""

    tree: Tree
    path: str
    size: int  # bytes, as it lies there
    raw: BinaryIO  # as it lies there
    file: BinaryIO  # without compression

    @property
    def share(self) -> float:
        """How much of the file is read."""
        return min(1.0, self.raw.tell() / self.size) if self.size else 1.0

    def read_beside(self, name: str) -> bytes:
        """Reads the file that a row of this one names. Raises OSError and InputError."""
        with self.tree.open(self.tree.beside(self.path, name)) as file:
            return read_whole(file)


@contextmanager
def opened(tree: Tree, path: str, size: int) -> Iterator[Opened]:
    """Opens a file of a tree. Raises OSError."""
    with ExitStack() as stack:
        raw = stack.enter_context(tree.open(path))
        reader: Any = _READERS.get(path.rpartition(".")[2].lower())
        file = raw if reader is None else stack.enter_context(reader(raw))
        yield Opened(tree, path, size, raw, cast(BinaryIO, file))

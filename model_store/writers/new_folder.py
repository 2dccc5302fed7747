"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mass_serve.model_store.errors import StoreExistsError
from mass_serve.model_store.writing import writing_errors_explained


def refuse_taken(folder: Path) -> None:
    """Raises StoreExistsError unless a folder is new or empty: nothing is overwritten.

    Raises StoreError where it cannot be looked into.
    """
    with writing_errors_explained(str(folder)):
        taken = os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir()))
    if taken:
        raise StoreExistsError(f"{folder} exists and is not an empty folder: choose another, or remove it")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder beside `folder`, which becomes that when the block ends and vanishes when it raises.

    Raises StoreExistsError where `folder` is not new or empty, at the beginning or at the end.
    """
    refuse_taken(folder)
    target = Path(os.path.realpath(folder))  # of links that lead to themselves `resolve` makes no OSError
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        _sync(partial)
        try:
            # Of an empty folder it takes the place; one that was filled meanwhile is refused.
            os.rename(partial, target)
        except OSError:
            refuse_taken(target)
            raise
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

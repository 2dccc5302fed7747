"""Models at URLs that fsspec knows (`s3://`, `gs://`, ...), copied into a cache folder of this machine.

A copy that was cut short goes on where it stopped as long as the file is the same there; one that is complete
is used again while its bytes have the SHA-256 that they had.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mass_serve.model_store.errors import CheckpointError, StoreError
from mass_serve.model_store.format.origin import Origin, check_recordable
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.readers.weight_files import PICKLE_SUFFIXES
from mass_serve.model_store.sources.needed import files_beside, has_needed_files, needed_files
from mass_serve.model_store.sources.progress_of_bytes import ByteProgress
from mass_serve.model_store.sources.resolved import Resolved
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.model_store.storage.local import LocalFiles
from mass_serve.model_store.storage.regular_files import RegularFile, sha256_of

_CHUNK_BYTES = 8 << 20
_KNOWN = ".complete.json"  # what is complete in a cache folder: version and SHA-256 by file


def cache_folder() -> Path:
    """Returns where models of URLs are kept: in XDG_CACHE_HOME, or else in the home's .cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "mass-serve" / "models"


def fetch_from_url(url: str, allow_pickle: bool, progress: Progress) -> Resolved:
    """Copies what a reader needs of a model's folder, or one file and what describes it.

    Raises CheckpointError. Two programs that copy the same model exclude each other.
    """
    url = url.rstrip("/")
    shown = without_credentials(url)
    check_recordable(shown)
    with _errors_explained(shown):
        remote = _Remote.open(url, shown)
        wanted = remote.wanted(allow_pickle)
        check_recordable(shown, wanted)
        folder = cache_folder() / hashlib.sha256(shown.encode()).hexdigest()[:24]
        files = LocalFiles(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.lock():
            copy = _Copy(folder, remote, progress)
            digests = {file: copy.file(file) for file in wanted}
    path = folder / remote.file if remote.file else folder
    return Resolved(path, Origin(name=shown, files=digests))


@dataclass(frozen=True)
class _Remote:
    """A folder somewhere else, and the file in it that is asked for, if it is one."""

    shown: str  # the URL, without credentials
    filesystem: Any
    folder: str
    file: str | None

    @classmethod
    def open(cls, url: str, shown: str) -> _Remote:
        import fsspec

        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise CheckpointError(f"{shown} cannot be opened: {without_credentials(str(error))}") from error
        filesystem.invalidate_cache()
        if filesystem.isfile(root):
            return cls(shown, filesystem, str(PurePosixPath(root).parent), PurePosixPath(root).name)
        return cls(shown, filesystem, str(root).rstrip("/"), None)

    def wanted(self, allow_pickle: bool) -> list[str]:
        listed = self._names_in(self.folder)
        for folder in filter(has_needed_files, tuple(listed)):
            listed |= {f"{folder}/{name}" for name in self._names_in(self.path(folder))}
        if self.file is None:
            return needed_files(self.shown, listed, allow_pickle)
        if PurePosixPath(self.file).suffix in PICKLE_SUFFIXES and not allow_pickle:
            raise CheckpointError(
                f"{self.shown} is a pickle: convert it to safetensors, or pass --allow-pickle"
            )
        return list(dict.fromkeys([*files_beside(listed), self.file]))

    def _names_in(self, folder: str) -> set[str]:
        return {PurePosixPath(str(path)).name for path in self.filesystem.ls(folder, detail=False)}

    def path(self, file: str) -> str:
        return f"{self.folder}/{file}"

    def version(self, file: str) -> str:
        """What changes when the file does, as far as the place tells: an ETag, or size and time."""
        self.filesystem.invalidate_cache(str(PurePosixPath(self.path(file)).parent))
        return f"{self.filesystem.checksum(self.path(file)):x}"[:32]

    def size(self, file: str) -> int:
        return int(self.filesystem.size(self.path(file)))


class _Copy:
    """A folder of this machine that holds files of a remote one."""

    def __init__(self, folder: Path, remote: _Remote, progress: Progress) -> None:
        self._folder, self._remote, self._progress = folder, remote, progress
        self._known: dict[str, list[str]] = _read_known(folder / _KNOWN)

    def file(self, file: str) -> str:
        """Makes one file complete and returns its SHA-256."""
        version = self._remote.version(file)
        path = self._folder / file
        if path.exists() and self._known.get(file) == [version, digest := _sha256(path)]:
            return digest
        partial = self._folder / f"{file}.{version}.partial"
        for stale in self._folder.glob(f"{file}.*.partial"):
            if stale != partial:
                stale.unlink()
        path.parent.mkdir(exist_ok=True)
        self._fetch(file, partial)
        if self._remote.version(file) != version:
            raise CheckpointError(
                f"{self._remote.shown}: {file} was changed while it was fetched: run it again"
            )
        digest = _sha256(partial)
        os.replace(partial, path)
        self._remember(file, version, digest)
        return digest

    def _fetch(self, file: str, partial: Path) -> None:
        """Completes a partial copy."""
        size = self._remote.size(file)
        with partial.open("ab") as target:
            if target.tell() > size:
                target.truncate(0)
            bar = ByteProgress(f"fetching {self._remote.shown}: {file}", size, self._progress, target.tell())
            if target.tell() < size:
                self._append(file, target, bar)
            target.flush()
            os.fsync(target.fileno())
        if (found := partial.stat().st_size) != size:
            raise CheckpointError(
                f"{self._remote.shown}: {file} ended after {found:,} of {size:,} bytes: run the same command"
                " again, it goes on from there"
            )

    def _append(self, file: str, target: BinaryIO, bar: ByteProgress) -> None:
        with self._remote.filesystem.open(self._remote.path(file), "rb") as source:
            source.seek(target.tell())
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                bar.add(len(chunk))

    def _remember(self, file: str, version: str, digest: str) -> None:
        self._known[file] = [version, digest]
        LocalFiles(self._folder).write_bytes(_KNOWN, json.dumps(self._known).encode())


def _read_known(path: Path) -> dict[str, list[str]]:
    """What the cache folder says of itself; nothing where that is damaged, and all is fetched again."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _sha256(path: Path) -> str:
    with RegularFile.open(path) as file:
        return sha256_of(file)


@contextmanager
def _errors_explained(shown: str) -> Iterator[None]:
    """Turns what a place refuses into one sentence: each library behind fsspec has errors of its own."""
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{shown} does not exist") from error
    except PermissionError as error:
        raise CheckpointError(f"{shown} may not be read with the credentials found: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CheckpointError(
                f"{shown} does not fit: no space is left at {cache_folder()};"
                " set XDG_CACHE_HOME to another disk"
            ) from error
        text = without_credentials(str(error).strip().split("\n", 1)[0]) or type(error).__name__
        raise CheckpointError(
            f"{shown} cannot be fetched: {text}; run the same command again to go on"
        ) from error

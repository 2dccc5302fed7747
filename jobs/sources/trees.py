"""Where inputs lie: at paths of this machine, or at URLs that fsspec knows. Both list files and open them."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from mass_serve.jobs.errors import InputsError
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.model_store.storage.regular_files import open_regular

# What object stores and servers tell of a file, by which a changed one is known.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True)
class File:
    """A file, and what changes when somebody writes to it."""

    path: str
    size: int
    version: str
    named: bool  # by the user, and not found in a folder


class Tree(Protocol):
    """The files of one argument: a file, those of a folder, or those that a pattern matches."""

    def files(self) -> Iterator[File]:
        """Yields them, in no order. Raises InputsError where there is nothing at that place."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading. Raises OSError."""

    def shown(self, path: str) -> str:
        """Returns how a path is called in results and messages."""

    def beside(self, path: str, name: str) -> str:
        """Returns the path that a table at `path` calls `name`: from its own folder, or absolute."""


def tree_of(argument: str, without: Container[str] = ()) -> Tree:
    """Returns the files of an argument, of this machine without those at paths that `without` has.

    Raises InputsError for a URL that fsspec cannot open here.
    """
    if "://" not in argument:
        return LocalTree(argument, without)
    if argument.startswith("file://"):
        return LocalTree(argument.removeprefix("file://"), without)
    return RemoteTree.of(argument)


@dataclass(frozen=True)
class LocalTree:
    """Files of this machine."""

    argument: str
    without: Container[str] = ()  # paths of files that are none of them

    def files(self) -> Iterator[File]:
        found = [self.argument] if os.path.lexists(self.argument) else self._matches()
        for path in found:
            if os.path.isdir(path):
                yield from self._below(path)
            elif path not in self.without:
                yield self._file(path, named=path == self.argument)

    def _matches(self) -> list[str]:
        matches = glob.glob(self.argument, recursive=True) if glob.has_magic(self.argument) else []
        if not matches:
            raise InputsError(
                f"{self.argument} is no file or folder and matches none: give one that is there, or a"
                " pattern in quotes"
            )
        return matches

    def _below(self, folder: str) -> Iterator[File]:
        """Yields the regular files of a folder and of those within, and all links; hidden ones are left out.

        Raises InputsError for a folder that cannot be listed: what is in it would be missed.
        """
        folders = [folder]
        while folders:
            place = folders.pop()
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        # What a link leads to may be nothing, or itself: that is told when it is read.
                        elif (entry.is_symlink() or entry.is_file()) and entry.path not in self.without:
                            yield self._file(entry.path, named=False)
            except OSError as error:
                raise InputsError(f"{self.shown(place)} cannot be listed: {error.strerror}") from error

    def _file(self, path: str, *, named: bool) -> File:
        try:
            status = os.stat(path)
        except OSError:  # it is told of when it is read
            return File(path, 0, "", named)
        return File(path, status.st_size, f"{status.st_size} {status.st_mtime_ns}", named)

    def open(self, path: str) -> BinaryIO:
        return open(open_regular(Path(path), os.O_RDONLY), "rb")

    def shown(self, path: str) -> str:
        # Names are bytes, and need not be text.
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def beside(self, path: str, name: str) -> str:
        return os.path.join(os.path.dirname(path), name.removeprefix("file://"))


@dataclass(frozen=True)
class RemoteTree:
    """Files of an object store or server, through fsspec."""

    argument: str
    filesystem: Any
    root: str

    @classmethod
    def of(cls, argument: str) -> RemoteTree:
        """Opens the filesystem of a URL. Raises InputsError."""
        # fsspec and what it loads are needed for URLs only.
        import fsspec

        try:
            filesystem, root = fsspec.core.url_to_fs(argument)
        except (ValueError, ImportError) as error:
            raise InputsError(without_credentials(f"{argument} cannot be opened: {error}")) from error
        return cls(argument, filesystem, cast(str, root))

    def files(self) -> Iterator[File]:
        try:
            yield from self._found()
        except OSError as error:
            shown = without_credentials(self.argument)
            raise InputsError(f"{shown} cannot be listed: {error.strerror or error}") from error

    def _found(self) -> Iterator[File]:
        if glob.has_magic(self.root):
            matches = self.filesystem.glob(self.root, detail=True)
            yield from (_file(path, info) for path, info in matches.items() if info["type"] == "file")
            if matches:
                return
        elif self.filesystem.isfile(self.root):
            yield _file(self.root, self.filesystem.info(self.root), named=True)
            return
        elif self.filesystem.isdir(self.root):
            for _, _, files in self.filesystem.walk(self.root, detail=True):
                yield from (_file(info["name"], info) for info in files.values())
            return
        shown = without_credentials(self.argument)
        raise InputsError(f"{shown} is no file or folder and matches none: give one that is there")

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, self.filesystem.open(path, "rb"))

    def shown(self, path: str) -> str:
        return without_credentials(str(self.filesystem.unstrip_protocol(path)))

    def beside(self, path: str, name: str) -> str:
        stripped = cast(str, self.filesystem._strip_protocol(name))
        return stripped if "://" in name or name.startswith("/") else f"{path.rpartition('/')[0]}/{name}"


def _file(path: str, info: dict[str, Any], *, named: bool = False) -> File:
    size = int(info.get("size") or 0)
    told = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return File(path, size, f"{size} {told}".strip(), named)

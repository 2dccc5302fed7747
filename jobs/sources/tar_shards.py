"""Archives of input files, as webdataset writes them: read from their begin to their end, never unpacked.

A name in an archive is a name in the results, and nothing else: no file is made of it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from mass_serve.inputs.errors import CorruptInputError, InputError, InputTooLargeError
from mass_serve.jobs.sources.content import MOST_BYTES, PASSED, Found, Read, text_of
from mass_serve.jobs.sources.kinds import is_input
from mass_serve.jobs.sources.opening import BROKEN, Opened

# What goes beyond it, such as a name of a gigabyte, tarfile would read into memory.
MOST_HEADER_BYTES = 1 << 20
_END = bytes(tarfile.BLOCKSIZE)
# What tarfile raises of headers that cannot be; the last for headers within headers.
_WRONG = (tarfile.TarError, ValueError, OverflowError, RecursionError, *BROKEN)


def read_tar(opened: Opened, start: int, reads_texts: bool) -> Iterator[Read]:
    """Yields the images, or texts, those before the row `start` as PASSED; other members are none.

    Raises CorruptInputError behind the last member of an archive that is cut off or broken.
    """
    name, row = opened.tree.shown(opened.path), 0
    try:
        for member in _members(opened.file):
            if not member.isreg() or not is_input(member.name, reads_texts):
                continue
            if row < start:
                yield Read(row, PASSED)
            else:
                found = _content(opened.file, member, reads_texts)
                yield Read(row, found, f"{name}:{_shown(member.name)}", opened.share)
            row += 1
    except _WRONG as error:
        raise CorruptInputError(
            f"The archive is cut off or broken behind {row:,} inputs: {error}."
        ) from error


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the members of an archive, of which one is in memory. Raises what `_WRONG` has."""
    headers, last = _Headers(file), -1
    with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # it would keep all of them
            if member.offset <= last or member.size < 0:
                raise tarfile.ReadError("its members overlap")
            last = member.offset
            yield member
    # Behind a header that is cut off or wrong tarfile stops as it does at the end.
    if headers.last != _END:
        raise tarfile.ReadError("its end is missing")


def _content(file: BinaryIO, member: tarfile.TarInfo, reads_texts: bool) -> Found:
    """Returns the content of a member, or what is wrong with it. Raises ReadError for one that is cut off."""
    # Of a sparse one the holes would have to be made up.
    if member.issparse():
        return CorruptInputError("It is a sparse file in its archive; save it whole.")
    if member.size > MOST_BYTES:
        return InputTooLargeError(
            f"It has more than {MOST_BYTES >> 20} MiB, which is the limit for one input."
        )
    file.seek(member.offset_data)
    data = file.read(member.size)
    if len(data) < member.size:
        raise tarfile.ReadError("its last member is cut off")
    try:
        return text_of(data) if reads_texts else data
    except InputError as error:
        return error


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Headers:
    """An archive as tarfile reads it, header by header; what members hold is read past it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = b""  # that was read

    def read(self, size: int) -> bytes:
        """Reads so many bytes. Raises ReadError for more than a header should have."""
        if size > MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of it has {size:,} bytes")
        self.last = self._file.read(size)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

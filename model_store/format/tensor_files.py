"""Safetensors files, written one tensor at a time and read one tensor at a time.

    with RegularFile.open(path) as opened:
        file = TensorFile(opened)
        file.specs  # {"weight": TensorSpec(torch.float32, (4, 16)), ...}
        file.read("weight")

The layout is that of the safetensors README: 8 bytes little-endian header length, a JSON header padded
with spaces to a multiple of 8, then the tensors without gaps. Ours puts wider dtypes first, then sorts
by name, so that every tensor is aligned and the same content always has the same bytes.

The library itself maps a file that it opens by name. Here tensors are read through a descriptor instead, the
one that was hashed, into memory of their own: a file that is exchanged meanwhile is not read, and one that is
cut off is an error and not a SIGBUS.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from mass_serve.model_store.format.strict_json import parse_json
from mass_serve.model_store.storage.regular_files import RegularFile

DTYPE_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}
# Of the whole numbers that packed blocks are; in other files such numbers are not read.
_WHOLE_CODE = "I8"
# Those that a file may have beside ours, such as the position ids of a checkpoint; they are not read.
_OTHER_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("U16", "I16"), 16),
    **dict.fromkeys(("U32", "I32"), 32),
    **dict.fromkeys(("U64", "I64", "C64"), 64),
}
_BITS = {code: 8 * dtype.itemsize for code, dtype in DTYPES.items()} | _OTHER_BITS
# A hundred times what an encoder's takes. The header is parsed as a whole.
LARGEST_HEADER_BYTES = 16 << 20
LARGEST_RANK = 64  # torch has no more
# A file's tensors are read by one call where they have at most so many bytes.
MOST_AT_ONCE = 32 << 20
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
# Beyond it even the difference of two weights may overflow float32.
LARGEST_NUMBER = 1e30


@dataclass(frozen=True)
class TensorSpec:
    """One tensor as a file's header describes it."""

    dtype: torch.dtype | None  # None: one that we do not use, such as integers of other files
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers. Raises ValueError for one that we do not use."""
        return math.prod(self.shape) * _dtype(self).itemsize


class Digest(Protocol):
    """A hash that bytes are added to, as hashlib makes them."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Adds bytes."""


class TensorFileError(Exception):
    """A file is not a safetensors file; the text says why, without naming the file."""


@dataclass(frozen=True)
class _Place:
    """The bytes of one tensor, counted from the end of the header."""

    spec: TensorSpec
    start: int
    end: int
    is_whole: bool  # of whole numbers of 8 bits

    def holding_whole_numbers(self) -> _Place:
        """The same, where whole numbers are expected, and nothing else."""
        return replace(self, spec=replace(self.spec, dtype=torch.int8 if self.is_whole else None))


class TensorLayout:
    """Where the tensors of a safetensors file lie, of a header that was found to be right."""

    def __init__(self, file: RegularFile) -> None:
        """Reads the header. Raises TensorFileError."""
        try:
            self.head = _read_head(file)
            self.places = _places(self.head, file.size)
        except (ValueError, EOFError) as error:
            raise TensorFileError(f"it is not a complete safetensors file ({error})") from error
        self.specs = {name: place.spec for name, place in self.places.items()}


class TensorFile:
    """An open safetensors file whose header was found to be right. Threads may read at once."""

    def __init__(
        self, file: RegularFile, layout: TensorLayout | None = None, whole: Collection[str] = ()
    ) -> None:
        """Reads the header, unless it is known from an earlier time that the file was open.

        The tensors `whole` hold whole numbers of 8 bits, all others floating-point numbers. Raises
        TensorFileError.
        """
        self._file = file
        self.layout = layout or TensorLayout(file)
        self._whole = frozenset(whole)
        self._head = self.layout.head
        self._places = {
            name: place.holding_whole_numbers() if name in self._whole else place
            for name, place in self.layout.places.items()
        }
        self.specs = {name: place.spec for name, place in self._places.items()}

    def read(self, name: str) -> Tensor:
        """Reads one tensor, into memory of its own. Raises TensorFileError, and KeyError for another name."""
        place = self._places[name]
        tensor = torch.empty(place.spec.shape, dtype=self._dtype_of(name))
        try:
            self._file.read_into(_bytes_of(tensor), len(self._head) + place.start)
        except EOFError as error:
            raise TensorFileError(f"{name} cannot be read: {error}") from error
        return tensor

    def read_finite(self, name: str) -> Tensor:
        """Reads one tensor. Raises TensorFileError where it holds what nobody can compute with."""
        tensor = self.read(name)
        if problem := unusable_numbers(name, tensor):
            raise TensorFileError(problem)
        return tensor

    def read_all(self) -> dict[str, Tensor]:
        """Reads every tensor. Raises TensorFileError."""
        return {name: self.read(name) for name in self._places}

    def read_in_order(self, digest: Digest) -> Iterator[tuple[str, Tensor]]:
        """Reads every tensor in the order of the file, and adds the bytes that were read to a hash.

        The hash is that of the file once the last tensor has come. The tensors of a file of at most
        MOST_AT_ONCE bytes share their memory. Raises TensorFileError.
        """
        digest.update(self._head)
        ordered = _in_order(self._places)
        if ordered and ordered[-1][1].end <= MOST_AT_ONCE:
            yield from self._read_at_once(digest, ordered)
            return
        for name, _ in ordered:
            tensor = self.read(name)
            digest.update(_bytes_of(tensor))
            yield name, tensor

    def _read_at_once(
        self, digest: Digest, ordered: list[tuple[str, _Place]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Reads all tensors by one call: of an adapter's hundreds each has a few thousand numbers."""
        content = torch.empty(ordered[-1][1].end, dtype=torch.uint8)
        try:
            self._file.read_into(_bytes_of(content), len(self._head))
        except EOFError as error:
            raise TensorFileError(f"its tensors cannot be read: {error}") from error
        digest.update(_bytes_of(content))
        for name, place in ordered:
            dtype, own = self._dtype_of(name), content[place.start : place.end]
            if place.start % dtype.itemsize:
                own = own.clone()  # a view of wider numbers must begin at a multiple of their size
            yield name, own.view(dtype).view(place.spec.shape)

    def _dtype_of(self, name: str) -> torch.dtype:
        if (dtype := self._places[name].spec.dtype) is None:
            kind = "whole numbers of 8 bits" if name in self._whole else "floating-point numbers"
            raise TensorFileError(f"{name} must be {kind}")
        return dtype


def unusable_numbers(name: str, tensor: Tensor) -> str:
    """Says what is wrong with the numbers of a tensor; nothing where they can be computed with.

    Whole numbers are in rows, each of which stands for a direction, and floating-point ones are moderate.
    """
    if tensor.dtype == torch.int8:
        return "" if bool(tensor.any(dim=1).all()) else f"{name} has a row of zeros, which is no direction"
    return "" if is_moderate(tensor) else f"{name} holds NaN, Inf or a number beyond {LARGEST_NUMBER:g}"


def is_moderate(tensor: Tensor) -> bool:
    """Tells whether all numbers are finite and at most LARGEST_NUMBER in size."""
    if not tensor.numel():
        return True
    # Both are NaN where any number is. `isfinite` takes twenty times as long, and memory beside.
    least, most = tensor.aminmax()
    return float(least) >= -LARGEST_NUMBER and float(most) <= LARGEST_NUMBER


def _bytes_of(tensor: Tensor) -> memoryview:
    """Returns the memory of a contiguous tensor, not a copy of it."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_head(file: RegularFile) -> bytes:
    """Returns all that comes before the tensors. Raises ValueError and EOFError."""
    prefix = file.read(0, _LENGTH_BYTES)
    length = int.from_bytes(prefix, "little")
    if length > min(LARGEST_HEADER_BYTES, file.size - _LENGTH_BYTES):
        raise ValueError(f"a header of {length} bytes does not fit it")
    return prefix + file.read(_LENGTH_BYTES, length)


def _places(head: bytes, file_size: int) -> dict[str, _Place]:
    """Returns the place of every tensor. Raises ValueError."""
    header = parse_json(head[_LENGTH_BYTES:])
    if not isinstance(header, dict):
        raise ValueError("the header must be a JSON object")
    _check_metadata(header.pop(_METADATA, {}))
    places = {name: _place(name, described) for name, described in header.items()}
    _check_cover(places, file_size - len(head))
    return places


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{_METADATA} must hold texts by name")


def _place(name: str, described: Any) -> _Place:
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} must have a dtype, a shape and data_offsets")
    code, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not isinstance(code, str) or code not in _BITS:
        raise ValueError(f"{name} has no known dtype")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"the shape and data_offsets of {name} must be sizes")
    # Torch counts strides as if no dimension were 0, and has no numbers for more.
    if math.prod(max(1, size) for size in shape) >= 1 << 63:
        raise ValueError(f"the shape of {name} is too large")
    start, end = offsets
    if 8 * (end - start) != math.prod(shape) * _BITS[code]:
        raise ValueError(f"{name} does not have as many bytes as its shape takes")
    return _Place(TensorSpec(DTYPES.get(code), tuple(shape)), start, end, code == _WHOLE_CODE)


def _are_sizes(value: object) -> bool:
    if not isinstance(value, list) or len(value) > LARGEST_RANK:
        return False
    # A bool is an int to Python. Beyond 63 bits torch has no sizes.
    return all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _check_cover(places: Mapping[str, _Place], size: int) -> None:
    """Raises ValueError unless the tensors lie one after the other and fill the file."""
    ordered = _in_order(places)
    if ordered and ordered[0][1].start != 0:
        raise ValueError("its first tensor does not begin where the header ends")
    for (name, place), (following, after) in pairwise(ordered):
        if place.end != after.start:
            raise ValueError(f"{name} and {following} overlap or have a gap between them")
    if (ordered[-1][1].end if ordered else 0) != size:
        raise ValueError("its tensors do not end where the file does")


def _in_order(places: Mapping[str, _Place]) -> list[tuple[str, _Place]]:
    return sorted(places.items(), key=lambda item: (item[1].start, item[1].end))


def write_tensors(file: BinaryIO, specs: Mapping[str, TensorSpec], tensor: Callable[[str], Tensor]) -> str:
    """Writes the tensors of `specs`, calling `tensor(name)` for one at a time in file order.

    Returns the SHA-256 of the file. Raises ValueError when a tensor is not what its spec says.
    """
    digest = hashlib.sha256()
    for content in file_contents(specs, tensor):
        digest.update(content)
        file.write(content)
    return digest.hexdigest()


def file_contents(
    specs: Mapping[str, TensorSpec], tensor: Callable[[str], Tensor]
) -> Iterator[bytes | memoryview]:
    """Yields the content of a file in parts, as `write_tensors` writes it."""
    names = sorted(specs, key=lambda name: (-_dtype(specs[name]).itemsize, name))
    yield _header(specs, names)
    for name in names:
        value = tensor(name)
        if value.dtype != specs[name].dtype or tuple(value.shape) != specs[name].shape:
            raise ValueError(f"{name}: expected {specs[name]}, got {value.dtype} {tuple(value.shape)}")
        yield _bytes_of(value.detach().contiguous())


def _header(specs: Mapping[str, TensorSpec], names: list[str]) -> bytes:
    header: dict[str, object] = {_METADATA: {"format": "pt"}}
    start = 0
    for name in names:
        spec = specs[name]
        end = start + spec.nbytes
        header[name] = {
            "dtype": (DTYPE_CODES | {torch.int8: _WHOLE_CODE})[_dtype(spec)],
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _dtype(spec: TensorSpec) -> torch.dtype:
    if spec.dtype is None:
        raise ValueError("only floating-point numbers and whole ones of 8 bits are written")
    return spec.dtype

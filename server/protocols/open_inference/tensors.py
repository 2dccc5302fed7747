"""Tensors on the wire: JSON numbers and strings, or little-endian bytes in row-major order."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mass_serve.server.errors import BadRequestError

NUMBER_TYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}


@dataclass(frozen=True)
class WireTensor:
    """A tensor as a client sent it: `data` holds bytes in the binary extension, parsed JSON otherwise."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | list[Any]

    def strings(self) -> list[bytes]:
        """Reads the elements of a BYTES tensor. Raises BadRequestError."""
        most = math.prod(self.shape)
        found = (
            self._split_strings(self.data) if isinstance(self.data, memoryview) else self._texts(self.data)
        )
        # One more than there may be is enough to tell.
        elements = list(islice(found, most + 1))
        if len(elements) != most:
            raise self._wrong_count(len(elements), " or more" if len(elements) > most else "")
        return elements

    def numbers(self) -> NDArray[Any]:
        """Reads the values of a UINT8 or FP32 tensor, in its shape. Raises BadRequestError."""
        dtype = NUMBER_TYPES[self.datatype]
        if isinstance(self.data, memoryview):
            if len(self.data) != math.prod(self.shape) * dtype.itemsize:
                raise BadRequestError(
                    f"The input {self.name[:80]!a} has {len(self.data)} bytes; its shape and datatype need"
                    f" {math.prod(self.shape) * dtype.itemsize}."
                )
            return np.frombuffer(self.data, dtype).reshape(self.shape)
        values = self._json_numbers(self.data)
        if values.size != math.prod(self.shape):
            raise self._wrong_count(values.size)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return values.astype(dtype).reshape(self.shape)

    def _json_numbers(self, data: list[Any]) -> NDArray[Any]:
        try:
            values = np.array(data, dtype=np.float64).ravel()
        except (ValueError, TypeError, OverflowError) as error:
            raise self._no_numbers() from error
        if not _numbers_only(data):  # numpy takes "1" and true for numbers
            raise self._no_numbers()
        whole = values == np.floor(values)
        if self.datatype == "UINT8" and not np.all(whole & (values >= 0) & (values <= 255)):
            raise BadRequestError(
                f"The data of the input {self.name[:80]!a} must be whole numbers of 0 to 255."
            )
        return values

    def _texts(self, data: list[Any]) -> Iterator[bytes]:
        """Yields the strings in nested lists, in order; an empty list holds none."""
        open_lists = [iter(data)]
        while open_lists:
            for item in open_lists[-1]:
                if isinstance(item, list) and item:
                    open_lists.append(iter(item))
                    break
                if not isinstance(item, str):
                    raise BadRequestError(f"The data of the input {self.name[:80]!a} must be strings.")
                yield item.encode()
            else:
                open_lists.pop()

    def _split_strings(self, data: memoryview) -> Iterator[bytes]:
        """Yields the elements of the binary form: each behind its length."""
        position = 0
        while position < len(data):
            start = position + 4
            length = int.from_bytes(data[position:start], "little")
            if len(data) < start + length:
                raise BadRequestError(
                    f"The input {self.name[:80]!a} is cut off: an element of a BYTES tensor is its length in"
                    " 4 bytes, little-endian, and its bytes."
                )
            yield bytes(data[start : start + length])
            position = start + length

    def _no_numbers(self) -> BadRequestError:
        return BadRequestError(
            f"The data of the input {self.name[:80]!a} must be numbers, flat or nested evenly."
        )

    def _wrong_count(self, count: int, or_more: str = "") -> BadRequestError:
        return BadRequestError(
            f"The input {self.name[:80]!a} has {count} elements{or_more}, its shape says"
            f" {math.prod(self.shape)}."
        )


def _numbers_only(data: list[Any]) -> bool:
    """Tells whether evenly nested lists hold numbers and nothing else."""
    while data and isinstance(data[0], list):
        data = list(chain.from_iterable(data))
    return set(map(type, data)) <= {int, float}


def joined_strings(strings: Sequence[bytes]) -> bytes:
    """Writes a BYTES tensor as the binary extension does: each element behind its length."""
    return b"".join(struct.pack("<I", len(string)) + string for string in strings)

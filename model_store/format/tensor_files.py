"""Safetensors files, written one tensor at a time and read one tensor at a time.

The layout is that of the safetensors README: 8 bytes little-endian header length, a JSON header padded
with spaces to a multiple of 8, then the tensors without gaps. Ours puts wider dtypes first, then sorts
by name, so that every tensor is aligned and the same content always has the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

DTYPE_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class TensorSpec:
    """One tensor as a file's header describes it."""

    dtype: torch.dtype | None  # None: one that we do not use, such as integers
    shape: tuple[int, ...]


class TensorFileError(Exception):
    """A file is not a safetensors file; the text says why, without naming the file."""


def read_specs(path: Path) -> dict[str, TensorSpec]:
    """Reads the header of a file: the dtype and shape of every tensor. Raises TensorFileError."""
    with _opened(path) as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        return {
            key: TensorSpec(DTYPES.get(part.get_dtype()), tuple(part.get_shape()))
            for key, part in slices.items()
        }


def read_tensor(path: Path, key: str) -> Tensor:
    """Reads one tensor. The file is opened anew, so that pages of other tensors are not held in memory."""
    with _opened(path) as file:
        return cast(Tensor, file.get_tensor(key))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads every tensor of a file. Raises TensorFileError."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise TensorFileError(f"it is not a complete safetensors file ({error})") from error


def write_tensors(file: BinaryIO, specs: Mapping[str, TensorSpec], tensor: Callable[[str], Tensor]) -> str:
    """Writes the tensors of `specs`, calling `tensor(name)` for one at a time in file order.

    Returns the SHA-256 of the file. Raises ValueError when a tensor is not what its spec says.
    """
    names = sorted(specs, key=lambda name: (-_dtype(specs[name]).itemsize, name))
    header = _header(specs, names)
    digest = hashlib.sha256(header)
    file.write(header)
    for name in names:
        value = tensor(name)
        if value.dtype != specs[name].dtype or tuple(value.shape) != specs[name].shape:
            raise ValueError(f"{name}: expected {specs[name]}, got {value.dtype} {tuple(value.shape)}")
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
        content = flat.numpy().data  # the tensor's own memory, not a copy
        digest.update(content)
        file.write(content)
    return digest.hexdigest()


def _header(specs: Mapping[str, TensorSpec], names: list[str]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in names:
        spec = specs[name]
        end = start + math.prod(spec.shape) * _dtype(spec).itemsize
        header[name] = {
            "dtype": DTYPE_CODES[_dtype(spec)],
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _dtype(spec: TensorSpec) -> torch.dtype:
    if spec.dtype is None:
        raise ValueError("only floating-point tensors are written")
    return spec.dtype


def sha256_of(path: Path) -> str:
    """Computes the SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

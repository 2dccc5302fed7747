"""How the singular vectors of a task are written: which tensors, and what is read of them.

    form = BLOCK_FORMS["int4"]
    form.specs("proj", (128, 128), rank=16)  # {"proj.u_t": ..., "proj.s": ..., "proj.vh": ...}

A format is a field of a task's entry, so that tasks of one store may have different ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mass_serve.kernels.packed_rows import Bits, PackedRows, bytes_of_row
from mass_serve.merging import PackedSingularVectors, TaskSingularVectors, rounded
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.tensor_files import TensorSpec

Shape = tuple[int, int]  # [d_out, d_in]
# The singular vectors of one matrix, as they are stored.
StoredVectors = TaskSingularVectors | PackedSingularVectors[PackedRows]
ReadTensor = Callable[[str], Tensor]

S_BYTES = 4  # singular values are float32 whatever the vectors are


class BlockForm(Protocol):
    """What one format makes of the blocks of a parameter."""

    def specs(self, name: str, shape: Shape, rank: int) -> dict[str, TensorSpec]:
        """The tensors of a parameter of that shape and rank."""

    def kept(self, vectors: StoredVectors) -> StoredVectors:
        """The same singular vectors as this format has them, whichever they were in before."""

    def tensors(self, name: str, kept: StoredVectors) -> dict[str, Tensor]:
        """The content of the tensors of a parameter, of vectors that this format has."""

    def read(self, name: str, shape: Shape, read: ReadTensor) -> StoredVectors:
        """The singular vectors of a parameter, from its tensors."""

    def triplet_bytes(self, shape: Shape) -> int:
        """What one triplet takes: a column of u, a row of vh and a number s."""


@dataclass(frozen=True)
class FloatBlocks:
    """`NAME.u [d_out, R]` and `NAME.vh [R, d_in]` in a floating-point dtype, `NAME.s [R]` beside them."""

    dtype: torch.dtype

    def specs(self, name: str, shape: Shape, rank: int) -> dict[str, TensorSpec]:
        return {
            f"{name}.u": TensorSpec(self.dtype, (shape[0], rank)),
            f"{name}.s": TensorSpec(torch.float32, (rank,)),
            f"{name}.vh": TensorSpec(self.dtype, (rank, shape[1])),
        }

    def kept(self, vectors: StoredVectors) -> StoredVectors:
        plain = unpacked(vectors)
        return TaskSingularVectors(plain.u.to(self.dtype), plain.s.float(), plain.vh.to(self.dtype))

    def tensors(self, name: str, kept: StoredVectors) -> dict[str, Tensor]:
        assert isinstance(kept, TaskSingularVectors)
        return {f"{name}.u": kept.u, f"{name}.s": kept.s, f"{name}.vh": kept.vh}

    def read(self, name: str, shape: Shape, read: ReadTensor) -> StoredVectors:  # noqa: ARG002
        return TaskSingularVectors(read(f"{name}.u"), read(f"{name}.s"), read(f"{name}.vh"))

    def triplet_bytes(self, shape: Shape) -> int:
        return sum(shape) * self.dtype.itemsize + S_BYTES


@dataclass(frozen=True)
class PackedBlocks:
    """`NAME.u_t` and `NAME.vh`, rows of packed whole numbers (`kernels.packed_rows`), and `NAME.s [R]`."""

    bits: Bits

    def specs(self, name: str, shape: Shape, rank: int) -> dict[str, TensorSpec]:
        d_out, d_in = (bytes_of_row(width, self.bits) for width in shape)
        return {
            f"{name}.u_t": TensorSpec(torch.int8, (rank, d_out)),
            f"{name}.s": TensorSpec(torch.float32, (rank,)),
            f"{name}.vh": TensorSpec(torch.int8, (rank, d_in)),
        }

    def kept(self, vectors: StoredVectors) -> StoredVectors:
        if isinstance(vectors, PackedSingularVectors) and vectors.vh.bits == self.bits:
            return vectors
        of = rounded(unpacked(vectors), self.bits)
        return PackedSingularVectors(PackedRows.of(of.u_t, self.bits), of.s, PackedRows.of(of.vh, self.bits))

    def tensors(self, name: str, kept: StoredVectors) -> dict[str, Tensor]:
        assert isinstance(kept, PackedSingularVectors)
        return {f"{name}.u_t": kept.u_t.codes, f"{name}.s": kept.s, f"{name}.vh": kept.vh.codes}

    def read(self, name: str, shape: Shape, read: ReadTensor) -> StoredVectors:
        u_t, vh = (
            PackedRows(read(f"{name}.{side}"), width, self.bits)
            for side, width in zip(("u_t", "vh"), shape, strict=True)
        )
        return PackedSingularVectors(u_t, read(f"{name}.s"), vh)

    def triplet_bytes(self, shape: Shape) -> int:
        return sum(bytes_of_row(width, self.bits) for width in shape) + S_BYTES


def unpacked(vectors: StoredVectors) -> TaskSingularVectors:
    """The same in floating-point numbers."""
    return vectors.unpacked() if isinstance(vectors, PackedSingularVectors) else vectors


BLOCK_FORMS: Mapping[BlockFormat, BlockForm] = {
    "bfloat16": FloatBlocks(torch.bfloat16),
    "float16": FloatBlocks(torch.float16),
    "float32": FloatBlocks(torch.float32),
    "int8": PackedBlocks(8),
    "int4": PackedBlocks(4),
}

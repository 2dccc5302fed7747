"""What a plan's records say of the linears of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mass_serve.kernels.low_rank.deltas import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    SmallSides,
    TaskBlock,
)
from mass_serve.kernels.packed_rows import PackedRows
from mass_serve.kernels.records import Fields, LinearField, address


@dataclass(frozen=True)
class LinearPlace:
    """One linear of an encoder, as a plan's records describe it."""

    field: int  # where its fields begin in a record
    d_out: int
    d_in: int
    rank: int  # the largest of a task's blocks; 0 where no segment ever has any
    max_rank: int  # the largest of a set
    shared_weight: bool  # segments without weights of their own all have the same W
    packed: bool = False  # blocks of some tasks are


def linear_fields(delta: Delta, weight: Tensor) -> Fields:
    """A segment's fields in one linear (see `kernels.records`): addresses in tensors of the arguments.

    Raises ValueError for weights that are not contiguous, for a block of another dtype, for a core that is
    not folded and for small sides.
    """
    fields: Fields = {LinearField.WEIGHT: address(weight), LinearField.BIAS: address(delta.bias)}
    match delta:
        case BaseOnly():
            return fields
        case MaterialisedWeight():
            return fields | {LinearField.WEIGHT: address(delta.weight)}
        case FoldedSides():
            return fields | _sides(delta.left, delta.right)
        case OneTask(block=block):
            return fields | _block_fields(block, weight) | {LinearField.SCALE: address(delta.singular_values)}
        case SeveralTasks():
            raise ValueError(f"the core of {len(delta.blocks)} tasks must be folded")
        case SmallSides():
            raise ValueError("small sides are for a CPU")


def _block_fields(block: TaskBlock, weight: Tensor) -> Fields:
    """The fields of a task's block."""
    left, right = block.u_t, block.vh
    if isinstance(left, PackedRows) and isinstance(right, PackedRows):
        return _sides(left.codes, right.codes) | {LinearField.BITS: right.bits}
    if not isinstance(right, Tensor) or right.dtype != weight.dtype:
        raise ValueError(f"the kernels read packed blocks and those of {weight.dtype}, got another")
    assert isinstance(left, Tensor)  # both sides are of one kind
    return _sides(left, right)


def _sides(left: Tensor, right: Tensor) -> Fields:
    """The fields of left [rank, d_out] and right [rank, d_in]."""
    return {
        LinearField.LEFT: address(left),
        LinearField.RIGHT: address(right),
        LinearField.RANK: len(right),
    }

"""Task singular vectors whose directions are packed, in whichever layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor

from mass_serve.merging.formats.low_rank import TaskSingularVectors


class Directions(Protocol):
    """R directions of D numbers, each of length 1 (`kernels.PackedRows` has such)."""

    @property
    def shape(self) -> tuple[int, int]:
        """R and D."""

    def directions(self) -> Tensor:
        """Returns the directions [R, D] in float32."""

    def leading(self, rank: int) -> Self:
        """Returns the first `rank` directions, or all of them where there are fewer."""


Packed = TypeVar("Packed", bound=Directions)


@dataclass(frozen=True)
class PackedSingularVectors(Generic[Packed]):
    """`delta ~ u_t^T @ diag(s) @ vh` of packed directions: orthonormal but for their rounding."""

    u_t: Packed  # [R, d_out]
    s: Tensor  # [R], descending, >= 0
    vh: Packed  # [R, d_in]

    def __post_init__(self) -> None:
        if not len(self.s) == self.u_t.shape[0] == self.vh.shape[0]:
            raise ValueError(
                f"u_t [R, d_out], s [R] and vh [R, d_in] must share R; "
                f"got {self.u_t.shape}, {tuple(self.s.shape)}, {self.vh.shape}"
            )

    @property
    def rank(self) -> int:
        """R, the number of singular vectors kept."""
        return len(self.s)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [d_out, d_in] of the matrix."""
        return self.u_t.shape[1], self.vh.shape[1]

    def leading(self, rank: int) -> PackedSingularVectors[Packed]:
        """Returns the largest `rank` triplets, or all of them where there are fewer."""
        return PackedSingularVectors(self.u_t.leading(rank), self.s[:rank], self.vh.leading(rank))

    def unpacked(self) -> TaskSingularVectors:
        """Returns the same in float32."""
        return TaskSingularVectors(self.u_t.directions().T, self.s, self.vh.directions())

"""What becomes of tensors of a checkpoint that are no parameter of ours as they are; in float32.

Those of the forms that models are exported in are reversible: `undone` gives tensors of which the same change
makes the same parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerScale:
    """`gamma * W` [d_out, ...] of a weight or bias W, by the layer scale gamma [d_out] behind its linear."""

    key: str
    width: int

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {self.key: (self.width,)}

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:
        (gamma,) = further
        return gamma.float().view(-1, *[1] * (stacked.ndim - 1)) * stacked.float()

    def undone(self, parameter: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """W as it is, by a layer scale of ones."""
        return parameter, [torch.ones(self.width)]


@dataclass(frozen=True)
class Positions:
    """Positions [1 + R + s s, D] of positions [1, 1 + S S, D], which are the class token's and a grid's.

    R registers [1, R, D] come behind the class token's. A grid of another side than `side` is interpolated as
    DINOv2 does (its `interpolate_pos_encoding`; models with registers smooth what becomes smaller).
    """

    side: int  # s
    width: int
    registers: str | None = None
    num_registers: int = 0

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {} if self.registers is None else {self.registers: (1, self.num_registers, self.width)}

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:
        rows = stacked.float()[0]
        side = math.isqrt(len(rows) - 1)
        patches = rows[1:]
        if side != self.side:
            grid = patches.view(1, side, side, self.width).permute(0, 3, 1, 2)
            size, smooth = (self.side, self.side), self.registers is not None
            grid = F.interpolate(grid, size, mode="bicubic", align_corners=False, antialias=smooth)
            patches = grid.permute(0, 2, 3, 1).reshape(-1, self.width)
        return torch.cat([rows[:1], *(tokens.float()[0] for tokens in further), patches])

    def undone(self, parameter: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Positions for a grid of `side`, and the registers."""
        before = 1 + self.num_registers
        registers = [parameter[None, 1:before]] if self.registers is not None else []
        return torch.cat([parameter[:1], parameter[before:]]), registers


@dataclass(frozen=True)
class DistilledPositions:
    """Positions [2 + P, D] of positions [1, 2 + P, D] whose second is that of a distillation token [1, 1, D].

    That token, of DeiT, is the same in every image, as a register is: both are added up.
    """

    token: str
    width: int

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {self.token: (1, 1, self.width)}

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:
        (token,) = further
        rows = stacked.float()[0].clone()
        rows[1] += token.float()[0, 0]
        return rows

    def undone(self, parameter: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The positions as they are, and a distillation token of zeros."""
        return parameter, [torch.zeros(1, 1, self.width)]


@dataclass(frozen=True)
class Registers:
    """Positions [C + R + P, D] of positions [1, P, D] or [1, C + R + P, D], and R registers [1, R, D].

    C is 1 with a class token, else 0. Positions of the P patches alone are those of the tokens before them
    zero; the registers are added to their rows (timm's `_pos_embed`).
    """

    key: str | None  # of the registers
    num_registers: int
    width: int
    has_class_token: bool
    num_patches: int

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {} if self.key is None else {self.key: (1, self.num_registers, self.width)}

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:
        before = self.has_class_token + self.num_registers
        rows = torch.zeros(before + self.num_patches, self.width)
        rows[-stacked.shape[1] :] = stacked.float()[0]
        for registers in further:
            rows[self.has_class_token : before] += registers.float()[0]
        return rows


@dataclass(frozen=True)
class Zeros:
    """Zeros of a shape: a bias where a checkpoint has none."""

    shape: Shape

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {}

    def __call__(self, stacked: Tensor | None, further: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        return torch.zeros(self.shape)


@dataclass(frozen=True)
class TextPositions:
    """Positions [L, D] of positions [S + L, D], with what the first of the types [K, D] adds to every token.

    The first S are of no token (RoBERTa counts from behind its padding's id).
    """

    start: int  # S
    types: str | None = None
    num_types: int = 0
    width: int = 0

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {} if self.types is None else {self.types: (self.num_types, self.width)}

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:
        positions = stacked.float()[self.start :]
        return positions + further[0].float()[0] if further else positions

    def undone(self, parameter: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The positions behind S rows of zeros, and types that add nothing."""
        positions = torch.cat([torch.zeros(self.start, parameter.shape[1]), parameter])
        types = [] if self.types is None else [torch.zeros(self.num_types, self.width)]
        return positions, types


@dataclass(frozen=True)
class FurtherTypes:
    """What each of the types [K, D] of token but the first adds beyond that one, [K - 1, D]."""

    @property
    def tensors(self) -> Mapping[str, Shape]:
        return {}

    def __call__(self, stacked: Tensor, further: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        types = stacked.float()
        return types[1:] - types[0]

    def undone(self, parameter: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The types behind a first one that adds nothing."""
        return torch.cat([torch.zeros(1, parameter.shape[1]), parameter]), []

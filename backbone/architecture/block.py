"""The transformer block, and the names of the operations in it."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.backbone.architecture.names import Shapes, linear_shapes, norm_shapes
from mass_serve.kernels.activations import ACTIVATIONS, Activation


@dataclass(frozen=True)
class BlockNames:
    """The operations of one block, in forward order."""

    index: int

    @property
    def prefix(self) -> str:
        """Returns what the names of the block's parameters begin with."""
        return f"blocks.{self.index}."

    @property
    def norm1(self) -> str:
        """The LayerNorm before attention."""
        return f"{self.prefix}layer_norm1"

    @property
    def qkv(self) -> str:
        """The linear of queries, keys and values, one matrix [3 D, D]."""
        return f"{self.prefix}attention.qkv"

    @property
    def out(self) -> str:
        """The linear after attention."""
        return f"{self.prefix}attention.out"

    @property
    def norm2(self) -> str:
        """The LayerNorm before the MLP."""
        return f"{self.prefix}layer_norm2"

    @property
    def fc1(self) -> str:
        """The MLP's first linear; in a gated MLP one matrix [2 M, D], whose first half is activated."""
        return f"{self.prefix}mlp.fc1"

    @property
    def fc2(self) -> str:
        """The MLP's second linear."""
        return f"{self.prefix}mlp.fc2"

    @property
    def linears(self) -> tuple[str, str, str, str]:
        """The block's linears in forward order."""
        return self.qkv, self.out, self.fc1, self.fc2

    @property
    def norms(self) -> tuple[str, str]:
        """The block's LayerNorms in forward order."""
        return self.norm1, self.norm2


@dataclass(frozen=True)
class Block:
    """A pre-norm transformer block: attention and an MLP, each around a skip connection.

    A layer scale is no part of it: `gamma * (W x + b)` is another W and b, which readers make.
    """

    width: int  # D
    num_attention_heads: int
    mlp_width: int  # M
    activation: Activation
    layer_norm_eps: float
    is_gated: bool = False  # silu: SwiGLU, gelu: GeGLU
    qkv_has_bias: bool = True

    def __post_init__(self) -> None:
        if self.width % self.num_attention_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of {self.num_attention_heads} attention heads"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be {' or '.join(ACTIVATIONS)}, got {self.activation!r}")

    def shapes(self, index: int) -> Shapes:
        """The shape of every parameter of block `index`, in forward order."""
        names, width = BlockNames(index), self.width
        return {
            **norm_shapes(names.norm1, width),
            **linear_shapes(names.qkv, 3 * width, width, self.qkv_has_bias),
            **linear_shapes(names.out, width, width),
            **norm_shapes(names.norm2, width),
            **linear_shapes(names.fc1, (1 + self.is_gated) * self.mlp_width, width),
            **linear_shapes(names.fc2, width, self.mlp_width),
        }

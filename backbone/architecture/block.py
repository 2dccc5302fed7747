"""The transformer block, and the names of the operations in it."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.backbone.architecture.names import Shapes, linear_shapes, norm_shapes
from mass_serve.kernels.activation_names import ACTIVATIONS, Activation


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
        """The LayerNorm of the attention."""
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
        """The LayerNorm of the MLP."""
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


@dataclass(frozen=True)
class RotaryAttention:
    """Rotary positions (arXiv:2104.09864) and, in some blocks, attention to near tokens alone.

    Every `global_every`-th block from the first on attends to all tokens; the others to those at most `reach`
    tokens away (arXiv:2412.13663). Both kinds rotate by a base of their own.
    """

    global_theta: float
    local_theta: float
    global_every: int  # 1: all blocks attend to all tokens
    reach: int

    def is_global(self, index: int) -> bool:
        """Tells whether block `index` attends to all tokens."""
        return index % self.global_every == 0

    def theta(self, index: int) -> float:
        """The base of the rotations in block `index`."""
        return self.global_theta if self.is_global(index) else self.local_theta


@dataclass(frozen=True)
class Block:
    """A transformer block: attention and an MLP, each around a skip connection, each with a LayerNorm.

    The LayerNorm is before attention and MLP (pre-norm), or behind their skip connections (post-norm). A
    layer scale is no part of it: `gamma * (W x + b)` is another W and b, which readers make. So is no bias
    where a checkpoint has none, but of q, k and v: readers make zeros of it.
    """

    width: int  # D
    num_attention_heads: int
    mlp_width: int  # M
    activation: Activation
    layer_norm_eps: float
    is_gated: bool = False  # silu: SwiGLU, gelu: GeGLU
    qkv_has_bias: bool = True
    is_post_norm: bool = False
    has_first_norm: bool = True  # False: the attention of block 0 takes the tokens as they are
    rotary: RotaryAttention | None = None  # None: where a token stands, the embedding says

    def __post_init__(self) -> None:
        if self.width % self.num_attention_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of {self.num_attention_heads} attention heads"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be {' or '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.is_post_norm and not self.has_first_norm:
            raise ValueError(
                "a post-norm block has a LayerNorm behind its attention: has_first_norm is False"
            )
        if self.rotary is not None and self.head_width % 2:
            raise ValueError(f"rotary positions need an even width of the heads, not {self.head_width}")

    @property
    def head_width(self) -> int:
        """d, the width of one attention head."""
        return self.width // self.num_attention_heads

    def norms(self, index: int) -> tuple[str, ...]:
        """The LayerNorms of block `index`, in forward order."""
        names = BlockNames(index)
        return (names.norm1, names.norm2) if self._has_norm1(index) else (names.norm2,)

    def entered(self, index: int) -> dict[str, str]:
        """The linear that the rows of each LayerNorm of block `index` enter next, where one is left."""
        own, following = BlockNames(index), BlockNames(index + 1)
        if self.is_post_norm:
            return {own.norm1: own.fc1, own.norm2: following.qkv}
        return {own.norm1: own.qkv, own.norm2: own.fc1}

    def shapes(self, index: int) -> Shapes:
        """The shape of every parameter of block `index`, in forward order."""
        names, width = BlockNames(index), self.width
        return {
            **(norm_shapes(names.norm1, width) if self._has_norm1(index) else {}),
            **linear_shapes(names.qkv, 3 * width, width, self.qkv_has_bias),
            **linear_shapes(names.out, width, width),
            **norm_shapes(names.norm2, width),
            **linear_shapes(names.fc1, (1 + self.is_gated) * self.mlp_width, width),
            **linear_shapes(names.fc2, width, self.mlp_width),
        }

    def _has_norm1(self, index: int) -> bool:
        return index > 0 or self.has_first_norm

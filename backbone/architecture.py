"""THE definition of an encoder: its parts, their sizes, and its parameters' names and shapes.

    block = Block(768, 12, 3072, "quick_gelu", 1e-5)
    architecture = Architecture(PatchEmbedding(224, 32), block, depth=12, pooling=Pooling(512))
    architecture.parameter_shapes()  # {"patch_embedding.weight": (768, 3072), "class_embedding": (768,), ...}

An encoder is a choice of parts, each a type of its own: another kind of embedding, block or pooling is
another type beside those here, and its forward pass another file in `backbone.parts`. Everything else asks an
architecture for names, shapes and sizes and spells none of them. The names made here are the only parameter
names in a store; `model_store.readers` translate other people's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from mass_serve.kernels.activations import ACTIVATIONS, Activation

Shapes = dict[str, tuple[int, ...]]
# What stands for an image in a layer: its class token, or the mean over all tokens.
Token = Literal["class", "mean"]

CHANNELS = 3  # of an image


def weight_of(operation: str) -> str:
    """The parameter that holds the weight of a linear or LayerNorm."""
    return f"{operation}.weight"


def bias_of(operation: str) -> str:
    """The parameter that holds the bias of a linear or LayerNorm."""
    return f"{operation}.bias"


@dataclass(frozen=True)
class PatchEmbedding:
    """Patches through one linear, behind a class token and registers; learned positions are added.

    Registers are tokens that are the same in every image (arXiv:2309.16588): they are rows of the positions,
    behind the class token's. CLIP has none, but a LayerNorm after the positions.
    """

    image_size: int  # pixels, square
    patch_size: int
    has_bias: bool = False  # of the linear
    has_class_token: bool = True
    num_registers: int = 0
    has_norm: bool = True

    linear = "patch_embedding"
    class_token = "class_embedding"
    positions = "position_embedding.weight"
    norm = "pre_layernorm"

    def __post_init__(self) -> None:
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size {self.patch_size} exceeds image_size {self.image_size}")

    @property
    def tokens_before_patches(self) -> int:
        """How many tokens stand before the patches: the class token and the registers."""
        return self.has_class_token + self.num_registers

    @property
    def num_tokens(self) -> int:
        """L: class token, registers and one token for every whole patch."""
        return (self.image_size // self.patch_size) ** 2 + self.tokens_before_patches

    @property
    def patch_width(self) -> int:
        """How many numbers a flattened patch has."""
        return CHANNELS * self.patch_size**2

    def shapes(self, width: int) -> Shapes:
        """The shape of every parameter, in forward order."""
        return {
            **_linear(self.linear, width, self.patch_width, self.has_bias),
            **({self.class_token: (width,)} if self.has_class_token else {}),
            self.positions: (self.num_tokens, width),
            **(_norm(self.norm, width) if self.has_norm else {}),
        }


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
            **_norm(names.norm1, width),
            **_linear(names.qkv, 3 * width, width, self.qkv_has_bias),
            **_linear(names.out, width, width),
            **_norm(names.norm2, width),
            **_linear(names.fc1, (1 + self.is_gated) * self.mlp_width, width),
            **_linear(names.fc2, width, self.mlp_width),
        }


# What a pooling makes one vector of: see `backbone.parts.pooling`.
Pooled = Literal["class", "mean", "class_and_mean", "mean_before_norm", "mean_without_norm"]


@dataclass(frozen=True)
class Pooling:
    """Tokens through a LayerNorm, if any, and, where there is one, a projection without bias.

    class              the class token
    mean               the mean over the patches' tokens
    class_and_mean     both, side by side
    mean_before_norm   the mean over the patches' tokens, before the LayerNorm
    mean_without_norm  the mean over the patches' tokens, and no LayerNorm
    """

    projection_dim: int | None  # None: there is no projection
    pooled: Pooled = "class"

    norm = "post_layernorm"
    linear = "projection"
    positions = ()  # no parameter's rows are tokens

    @property
    def unprojected(self) -> Pooling:
        """The same without a projection."""
        return replace(self, projection_dim=None)

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product, in forward order."""
        return (self.linear,) if self.projection_dim else ()

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm, in forward order."""
        return () if self.pooled == "mean_without_norm" else (self.norm,)

    @property
    def needs_class_token(self) -> bool:
        """Tells whether the class token is a part of the embedding."""
        return self.pooled in ("class", "class_and_mean")

    @property
    def needs_all_tokens(self) -> bool:
        """Tells whether anything but the class token is a part of the embedding."""
        return self.pooled != "class"

    def pooled_width(self, width: int) -> int:
        """The width of what enters the projection."""
        return 2 * width if self.pooled == "class_and_mean" else width

    def embedding_dim(self, width: int) -> int:
        """P, the width of the embedding of tokens of that width."""
        return self.projection_dim or self.pooled_width(width)

    def shapes(self, width: int) -> Shapes:
        """The shape of every parameter, in forward order."""
        projection: Shapes = {}
        if self.projection_dim:
            projection = _linear(self.linear, self.projection_dim, self.pooled_width(width), has_bias=False)
        norm = _norm(self.norm, width) if self.norms else {}
        return {**norm, **projection}


@dataclass(frozen=True)
class AttentionPooling:
    """Tokens through a LayerNorm; one learned query, the probe, attends to them; then an MLP.

    The MLP has a skip connection around it (arXiv:2106.04560, section 3.3). No projection follows.
    """

    num_attention_heads: int
    mlp_width: int
    activation: Activation

    pooled = "attention"
    projection_dim = None
    norm = "post_layernorm"
    probe = "attention_pooling.probe"
    qkv = "attention_pooling.attention.qkv"
    out = "attention_pooling.attention.out"
    mlp_norm = "attention_pooling.layer_norm"
    fc1 = "attention_pooling.mlp.fc1"
    fc2 = "attention_pooling.mlp.fc2"
    needs_class_token = False
    needs_all_tokens = True

    @property
    def unprojected(self) -> AttentionPooling:
        """The same without a projection."""
        return self

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product, in forward order."""
        return self.qkv, self.out, self.fc1, self.fc2

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm, in forward order."""
        return self.norm, self.mlp_norm

    @property
    def positions(self) -> tuple[str, ...]:
        """Every parameter whose rows are tokens: the probe."""
        return (self.probe,)

    def embedding_dim(self, width: int) -> int:
        """P, the width of the embedding of tokens of that width."""
        return width

    def shapes(self, width: int) -> Shapes:
        """The shape of every parameter, in forward order."""
        return {
            **_norm(self.norm, width),
            self.probe: (1, width),
            **_linear(self.qkv, 3 * width, width),
            **_linear(self.out, width, width),
            **_norm(self.mlp_norm, width),
            **_linear(self.fc1, self.mlp_width, width),
            **_linear(self.fc2, width, self.mlp_width),
        }


AnyPooling = Pooling | AttentionPooling


@dataclass(frozen=True)
class Architecture:
    """An encoder as a choice of parts: CLIP's, ViT's and DINOv2's vision encoders are such choices."""

    embedding: PatchEmbedding
    block: Block
    depth: int  # blocks
    pooling: AnyPooling

    def __post_init__(self) -> None:
        match self.pooling:
            case Pooling(pooled=pooled) if self.pooling.needs_class_token:
                if not self.embedding.has_class_token:
                    raise ValueError(f"pooling {pooled!r} needs a class token, and there is none")
            case AttentionPooling(num_attention_heads=heads) if self.width % heads:
                raise ValueError(f"width {self.width} is not a multiple of {heads} heads of the pooling")

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return self.block.width

    @property
    def num_tokens(self) -> int:
        """L."""
        return self.embedding.num_tokens

    @property
    def embedding_dim(self) -> int:
        """P, the width of what the classification heads take."""
        return self.pooling.embedding_dim(self.width)

    @property
    def tokens(self) -> tuple[Token, ...]:
        """What can stand for an image in a layer, the usual one first."""
        return ("class", "mean") if self.embedding.has_class_token else ("mean",)

    def blocks(self) -> Iterator[BlockNames]:
        """The names of every block's operations."""
        return map(BlockNames, range(self.depth))

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product, in forward order."""
        of_blocks = (linear for block in self.blocks() for linear in block.linears)
        return (self.embedding.linear, *of_blocks, *self.pooling.linears)

    @property
    def positions(self) -> tuple[str, ...]:
        """Every parameter whose rows are added to tokens, or are tokens."""
        return (self.embedding.positions, *self.pooling.positions)

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm, in forward order."""
        of_blocks = (norm for block in self.blocks() for norm in block.norms)
        before = (self.embedding.norm,) if self.embedding.has_norm else ()
        return (*before, *of_blocks, *self.pooling.norms)

    def parameter_shapes(self) -> Shapes:
        """The shape of every parameter by its canonical name, in forward order."""
        shapes = self.embedding.shapes(self.width)
        for index in range(self.depth):
            shapes |= self.block.shapes(index)
        return shapes | self.pooling.shapes(self.width)

    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """The shape [d_out, d_in] of every parameter with two dimensions: what can be factored."""
        shapes = self.parameter_shapes()
        return {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}

    def residual_linear(self, layer: int) -> str:
        """The linear that the router's feature of block `layer` enters: the MLP's first."""
        return BlockNames(layer).fc1

    def early_linears(self, stop: int) -> list[str]:
        """The linears whose inputs early evidence is made of, all of width D, in forward order.

        They are those of the blocks before `stop`, and block `stop`'s qkv, which costs no attention. Block
        0's qkv is left out: what enters it is hardly more than the patch itself.
        """
        names = [linear for i in range(stop) for linear in BlockNames(i).linears[:3]]
        return [*names[1:], BlockNames(stop).qkv]

    def first_pass_parameters(self, parameters: Iterable[str], layer: int) -> frozenset[str]:
        """The parameters that a first pass up to the router's feature of block `layer` reads."""
        last = BlockNames(layer)
        before = (
            *self.embedding.shapes(self.width),
            *(BlockNames(i).prefix for i in range(layer)),
            *(f"{name}." for name in (last.norm1, last.qkv, last.out, last.norm2)),
        )
        return frozenset(name for name in parameters if name.startswith(before))


def _linear(name: str, d_out: int, d_in: int, has_bias: bool = True) -> Shapes:
    return {weight_of(name): (d_out, d_in), **({bias_of(name): (d_out,)} if has_bias else {})}


def _norm(name: str, width: int) -> Shapes:
    return {weight_of(name): (width,), bias_of(name): (width,)}

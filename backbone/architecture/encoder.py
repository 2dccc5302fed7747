"""An encoder: parts put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mass_serve.backbone.architecture.block import Block, BlockNames
from mass_serve.backbone.architecture.embedding import AnyEmbedding, PatchEmbedding, WordEmbedding
from mass_serve.backbone.architecture.names import Shapes
from mass_serve.backbone.architecture.pooling import AnyPooling, AttentionPooling, Pooling

# What stands for an input in a layer: its class token, or the mean over all tokens.
Token = Literal["class", "mean"]
# Every third patch tells as much as all of them (the suites of docs/accuracy.md), at a third of the cost.
# Three divides the side of hardly any grid of patches, so that the tokens are of all its columns.
PATCH_STRIDE = 3
# A third of the words of a short text tells far less than all (docs/accuracy.md, routing on text).
WORD_STRIDE = 1


@dataclass(frozen=True)
class Architecture:
    """An encoder as a choice of parts: CLIP's vision encoder is such a choice, and so is BERT."""

    embedding: AnyEmbedding
    block: Block
    depth: int  # blocks
    pooling: AnyPooling

    def __post_init__(self) -> None:
        match self.pooling:
            case Pooling(pooled=pooled) if self.pooling.needs_class_token:
                if not self.embedding.has_class_token:
                    raise ValueError(f"pooling {pooled!r} needs a class token, and there is none")
            case AttentionPooling() if self.reads_text:
                raise ValueError("a text has no attention pooling")
            case AttentionPooling(num_attention_heads=heads) if self.width % heads:
                raise ValueError(f"width {self.width} is not a multiple of {heads} heads of the pooling")

    @property
    def reads_text(self) -> bool:
        """Tells whether its input is words; otherwise it is the patches of an image."""
        return isinstance(self.embedding, WordEmbedding)

    @property
    def patches(self) -> PatchEmbedding:
        """The embedding of an encoder of images. Raises ValueError for one that reads text."""
        if not isinstance(self.embedding, PatchEmbedding):
            raise ValueError("this encoder reads text, not images")
        return self.embedding

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
        """What can stand for an input in a layer, the usual one first."""
        if self.reads_text:
            return ("mean", "class")
        return ("class", "mean") if self.embedding.has_class_token else ("mean",)

    def blocks(self) -> Iterator[BlockNames]:
        """The names of every block's operations."""
        return map(BlockNames, range(self.depth))

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product, in forward order."""
        of_blocks = (linear for block in self.blocks() for linear in block.linears)
        return (*self.embedding.linears, *of_blocks, *self.pooling.linears)

    @property
    def positions(self) -> tuple[str, ...]:
        """Every parameter whose rows are added to tokens, or are tokens."""
        return (*self.embedding.tables, *self.pooling.positions)

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm, in forward order."""
        of_blocks = (norm for index in range(self.depth) for norm in self.block.norms(index))
        return (*self.embedding.norms, *of_blocks, *self.pooling.norms)

    @property
    def entered(self) -> dict[str, str]:
        """The linear that the rows of a LayerNorm enter next, by the names of both."""
        blocks = (self.block.entered(index) for index in range(self.depth))
        return {norm: linear for block in blocks for norm, linear in block.items()}

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

    @property
    def evidence_stride(self) -> int:
        """Every how many tokens the early evidence is measured."""
        return WORD_STRIDE if self.reads_text else PATCH_STRIDE

    def early_linears(self, stop: int) -> list[str]:
        """The linears whose inputs early evidence is made of, all of width D, in forward order.

        They are those of the blocks before `stop`, and block `stop`'s qkv, which costs no attention. Block
        0's qkv is left out: what enters it is hardly more than the patch itself.
        """
        names = [linear for i in range(stop) for linear in BlockNames(i).linears[:3]]
        return [*names[1:], BlockNames(stop).qkv]

    def late_linears(self, stop: int) -> list[str]:
        """The linears of width D behind the early ones, in forward order; none where no block is left.

        The last block's are left out: a pass computes there what is asked of it alone.
        """
        names = [linear for i in range(stop, self.depth - 1) for linear in BlockNames(i).linears[:3]]
        return names[1:]

    def first_pass_parameters(self, parameters: Iterable[str], layer: int) -> frozenset[str]:
        """The parameters that a first pass up to the router's feature of block `layer` reads."""
        last = BlockNames(layer)
        before = (
            *self.embedding.shapes(self.width),
            *(BlockNames(i).prefix for i in range(layer)),
            *(f"{name}." for name in (last.norm1, last.qkv, last.out, last.norm2)),
        )
        return frozenset(name for name in parameters if name.startswith(before))

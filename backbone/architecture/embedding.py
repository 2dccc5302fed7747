"""The parts that make tokens of an input."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.backbone.architecture.names import Shapes, linear_shapes, norm_shapes, weight_of

CHANNELS = 3  # of an image


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
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product: the patches' linear."""
        return (self.linear,)

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm."""
        return (self.norm,) if self.has_norm else ()

    @property
    def tables(self) -> tuple[str, ...]:
        """Every parameter whose rows are added to tokens, or are tokens."""
        return (self.positions,)

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
            **linear_shapes(self.linear, width, self.patch_width, self.has_bias),
            **({self.class_token: (width,)} if self.has_class_token else {}),
            self.positions: (self.num_tokens, width),
            **(norm_shapes(self.norm, width) if self.has_norm else {}),
        }


@dataclass(frozen=True)
class WordEmbedding:
    """Tokens of a text by a table of words; positions and types are added, and a LayerNorm follows.

    Positions are learned, or the blocks have rotary ones and there are none here. What the first type of
    token adds is a part of the positions, so a model with one type has no table of them (BERT has two,
    RoBERTa one). The first token stands for the text where one does: it is a class token.
    """

    vocabulary: int  # V
    max_tokens: int  # of one text
    has_positions: bool = True
    num_types: int = 1

    words = "word_embedding"
    positions = "position_embedding.weight"
    types = "type_embedding.weight"
    norm = "pre_layernorm"
    norms = (norm,)
    has_class_token = True
    tokens_before_patches = 0

    def __post_init__(self) -> None:
        if self.num_types > 1 and not self.has_positions:
            raise ValueError(
                "what the first type of token adds is a part of the positions, and there are none"
            )

    @property
    def num_tokens(self) -> int:
        """L, the most that a text has."""
        return self.max_tokens

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product: choosing rows of the words' table is one."""
        return (self.words,)

    @property
    def tables(self) -> tuple[str, ...]:
        """Every parameter whose rows are added to tokens."""
        types = (self.types,) if self.num_types > 1 else ()
        return (self.positions, *types) if self.has_positions else ()

    def shapes(self, width: int) -> Shapes:
        """The shape of every parameter, in forward order."""
        return {
            weight_of(self.words): (self.vocabulary, width),
            **({self.positions: (self.max_tokens, width)} if self.has_positions else {}),
            # A row for every type but the first: what it adds beyond that one.
            **({self.types: (self.num_types - 1, width)} if self.num_types > 1 else {}),
            **norm_shapes(self.norm, width),
        }


AnyEmbedding = PatchEmbedding | WordEmbedding

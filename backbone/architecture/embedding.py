"""The parts that make tokens of an input."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.backbone.architecture.names import Shapes, linear_shapes, norm_shapes

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

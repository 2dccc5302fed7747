"""The sizes of a CLIP vision encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EncoderConfig:
    """A CLIP vision encoder: pre-norm transformer blocks over patches and a class token."""

    image_size: int  # pixels, square
    patch_size: int
    width: int  # D
    depth: int  # transformer blocks
    num_attention_heads: int
    mlp_width: int
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int | None = None  # None: the embedding is the normalised class token, of width D

    def __post_init__(self) -> None:
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size {self.patch_size} exceeds image_size {self.image_size}")
        if self.width % self.num_attention_heads:
            raise ValueError(
                f"width {self.width} is no multiple of {self.num_attention_heads} attention heads"
            )
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation must be quick_gelu or gelu, got {self.activation!r}")

    @property
    def num_tokens(self) -> int:
        """L: one class token and one token for every whole patch."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def embedding_dim(self) -> int:
        """The width of what the classification heads see."""
        return self.projection_dim or self.width

    @property
    def linears(self) -> tuple[str, ...]:
        """The names of all parameters that are applied as matrix products, without `.weight`."""
        blocks = tuple(
            f"blocks.{i}.{linear}"
            for i in range(self.depth)
            for linear in ("attention.qkv", "attention.out", "mlp.fc1", "mlp.fc2")
        )
        return ("patch_embedding", *blocks, *(("projection",) if self.projection_dim else ()))

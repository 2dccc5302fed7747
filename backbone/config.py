"""The sizes of a CLIP vision encoder, and the parameters they imply."""

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
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.width % self.num_attention_heads:
            raise ValueError(
                f"width {self.width} is no multiple of {self.num_attention_heads} attention heads"
            )
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation must be quick_gelu or gelu, got {self.activation!r}")

    @property
    def num_tokens(self) -> int:
        """L: one class token and one token a patch."""
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

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name and shape."""
        width, mlp = self.width, self.mlp_width
        shapes: dict[str, tuple[int, ...]] = {
            "patch_embedding.weight": (width, 3 * self.patch_size**2),
            "class_embedding": (width,),
            "position_embedding.weight": (self.num_tokens, width),
            **_layer_norm("pre_layernorm", width),
        }
        for i in range(self.depth):
            shapes |= _layer_norm(f"blocks.{i}.layer_norm1", width)
            shapes |= _linear(f"blocks.{i}.attention.qkv", 3 * width, width)
            shapes |= _linear(f"blocks.{i}.attention.out", width, width)
            shapes |= _layer_norm(f"blocks.{i}.layer_norm2", width)
            shapes |= _linear(f"blocks.{i}.mlp.fc1", mlp, width)
            shapes |= _linear(f"blocks.{i}.mlp.fc2", width, mlp)
        shapes |= _layer_norm("post_layernorm", width)
        if self.projection_dim:
            shapes["projection.weight"] = (self.projection_dim, width)
        return shapes


def _layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, d_out: int, d_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (d_out, d_in), f"{name}.bias": (d_out,)}

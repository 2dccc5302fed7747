"""The sizes of the encoder, and the parameters that follow from them.

The names made here are the only parameter names in a store; `checkpoints` translates other people's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mass_serve.model_store.format.field_types import StrictModel

# The bounds keep a hostile manifest from asking for more memory than any encoder needs.
Size = Annotated[int, Field(ge=1, le=65_536)]

PatchEmbeddingForm = Literal["factored", "averaged"]

PATCH_EMBEDDING = "patch_embedding.weight"
PROJECTION = "projection.weight"


class BackboneSpec(StrictModel):
    """A CLIP vision encoder."""

    family: Literal["clip_vision"] = "clip_vision"
    image_size: Size
    patch_size: Size
    width: Size
    depth: Annotated[int, Field(ge=1, le=1024)]
    num_attention_heads: Size
    mlp_width: Size
    activation: Literal["quick_gelu", "gelu"]
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)]
    projection_dim: Size | None

    @model_validator(mode="after")
    def _sizes_fit(self) -> BackboneSpec:
        if self.width % self.num_attention_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of {self.num_attention_heads} attention heads"
            )
        if self.patch_size > self.image_size:
            raise ValueError(f"patch_size {self.patch_size} exceeds image_size {self.image_size}")
        return self

    @property
    def num_tokens(self) -> int:
        """L: the class token and one token per whole patch."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def embedding_width(self) -> int:
        """The width of what a classification head takes."""
        return self.projection_dim or self.width


def parameter_shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of the encoder by its canonical name, in forward order."""
    width = spec.width
    shapes: dict[str, tuple[int, ...]] = {
        PATCH_EMBEDDING: (width, 3 * spec.patch_size**2),
        "class_embedding": (width,),
        "position_embedding.weight": (spec.num_tokens, width),
        **_layer_norm("pre_layernorm", width),
    }
    for index in range(spec.depth):
        shapes |= _block_shapes(f"blocks.{index}", width, spec.mlp_width)
    shapes |= _layer_norm("post_layernorm", width)
    if spec.projection_dim is not None:
        shapes[PROJECTION] = (spec.projection_dim, width)
    return shapes


def _block_shapes(block: str, width: int, mlp_width: int) -> dict[str, tuple[int, ...]]:
    return {
        **_layer_norm(f"{block}.layer_norm1", width),
        **_linear(f"{block}.attention.qkv", 3 * width, width),
        **_linear(f"{block}.attention.out", width, width),
        **_layer_norm(f"{block}.layer_norm2", width),
        **_linear(f"{block}.mlp.fc1", mlp_width, width),
        **_linear(f"{block}.mlp.fc2", width, mlp_width),
    }


def _linear(name: str, d_out: int, d_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (d_out, d_in), f"{name}.bias": (d_out,)}


def _layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def factored_shapes(spec: BackboneSpec, patch_embedding: PatchEmbeddingForm) -> dict[str, tuple[int, int]]:
    """Shapes [d_out, d_in] of the parameters kept as singular vectors: every matrix.

    `averaged` keeps the patch convolution dense, as the code of arXiv:2504.05342 does.
    """
    return {
        name: (shape[0], shape[1])
        for name, shape in parameter_shapes(spec).items()
        if len(shape) == 2 and not (name == PATCH_EMBEDDING and patch_embedding == "averaged")
    }

"""The encoder's architecture as format version 2 writes it: an object for each of its parts.

    "backbone": {"embedding": {"kind": "patches", ...}, "block": {"kind": "pre_norm", ...}, "depth": 12,
                 "pooling": {"kind": "class_and_mean", "projection_dim": null}}

In memory it is `backbone.architecture.Architecture`; these objects exist only between that and JSON.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, GetPydanticSchema, model_validator

from mass_serve.backbone.architecture import (
    Architecture,
    AttentionPooling,
    Block,
    PatchEmbedding,
    Pooled,
    Pooling,
)
from mass_serve.kernels.activations import Activation
from mass_serve.model_store.format.architecture_v1 import Depth, Epsilon, architecture_schema
from mass_serve.model_store.format.field_types import Size, StrictModel


class StoredPatches(StrictModel):
    """`backbone.architecture.PatchEmbedding` in a manifest."""

    kind: Literal["patches"]
    image_size: Size
    patch_size: Size
    bias: bool
    class_token: bool
    registers: Annotated[int, Field(ge=0, le=65_536)]
    norm: bool


class StoredBlock(StrictModel):
    """`backbone.architecture.Block` in a manifest."""

    kind: Literal["pre_norm"]
    width: Size
    num_attention_heads: Size
    mlp_width: Size
    activation: Activation
    gated: bool
    qkv_bias: bool
    layer_norm_eps: Epsilon


class StoredPooling(StrictModel):
    """`backbone.architecture.Pooling` in a manifest."""

    kind: Pooled
    projection_dim: Size | None

    @classmethod
    def of(cls, pooling: Pooling) -> StoredPooling:
        """Makes what stands for a pooling."""
        return cls(kind=pooling.pooled, projection_dim=pooling.projection_dim)

    def pooling(self) -> Pooling:
        """The pooling that it stands for."""
        return Pooling(self.projection_dim, self.kind)


class StoredAttentionPooling(StrictModel):
    """`backbone.architecture.AttentionPooling` in a manifest."""

    kind: Literal["attention"]
    num_attention_heads: Size
    mlp_width: Size
    activation: Activation

    @classmethod
    def of(cls, pooling: AttentionPooling) -> StoredAttentionPooling:
        """Makes what stands for a pooling."""
        return cls(
            kind="attention",
            num_attention_heads=pooling.num_attention_heads,
            mlp_width=pooling.mlp_width,
            activation=pooling.activation,
        )

    def pooling(self) -> AttentionPooling:
        """The pooling that it stands for."""
        return AttentionPooling(self.num_attention_heads, self.mlp_width, self.activation)


class NestedArchitecture(StrictModel):
    """An encoder by its parts, in the order and under the names of format version 2."""

    embedding: StoredPatches
    block: StoredBlock
    depth: Depth
    pooling: Annotated[StoredPooling | StoredAttentionPooling, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _parts_fit(self) -> NestedArchitecture:
        self.architecture()  # the parts say which sizes do not go together
        return self

    @classmethod
    def of(cls, architecture: Architecture) -> NestedArchitecture:
        """The objects that stand for an architecture. Raises ValidationError for sizes out of bounds."""
        embedding, block, pooling = architecture.embedding, architecture.block, architecture.pooling
        return cls(
            embedding=StoredPatches(
                kind="patches",
                image_size=embedding.image_size,
                patch_size=embedding.patch_size,
                bias=embedding.has_bias,
                class_token=embedding.has_class_token,
                registers=embedding.num_registers,
                norm=embedding.has_norm,
            ),
            block=StoredBlock(
                kind="pre_norm",
                width=block.width,
                num_attention_heads=block.num_attention_heads,
                mlp_width=block.mlp_width,
                activation=block.activation,
                gated=block.is_gated,
                qkv_bias=block.qkv_has_bias,
                layer_norm_eps=block.layer_norm_eps,
            ),
            depth=architecture.depth,
            pooling=(
                StoredAttentionPooling.of(pooling)
                if isinstance(pooling, AttentionPooling)
                else StoredPooling.of(pooling)
            ),
        )

    def architecture(self) -> Architecture:
        """The architecture of these parts. Raises ValueError for parts that do not go together."""
        patches, block = self.embedding, self.block
        return Architecture(
            PatchEmbedding(
                patches.image_size,
                patches.patch_size,
                has_bias=patches.bias,
                has_class_token=patches.class_token,
                num_registers=patches.registers,
                has_norm=patches.norm,
            ),
            Block(
                block.width,
                block.num_attention_heads,
                block.mlp_width,
                block.activation,
                block.layer_norm_eps,
                is_gated=block.gated,
                qkv_has_bias=block.qkv_bias,
            ),
            self.depth,
            self.pooling.pooling(),
        )


# An architecture as a field of a manifest of version 2.
NestedStoredArchitecture = Annotated[Architecture, GetPydanticSchema(architecture_schema(NestedArchitecture))]

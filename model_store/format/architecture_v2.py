"""The encoder's architecture as format version 2 writes it: an object for each of its parts.

    "backbone": {"embedding": {"kind": "patches", ...}, "block": {"kind": "pre_norm", ...}, "depth": 12,
                 "pooling": {"kind": "class_and_mean", "projection_dim": null}}

In memory it is `backbone.architecture.Architecture`; these objects exist only between that and JSON.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, GetPydanticSchema, model_validator

from mass_serve.backbone.architecture import (
    AnyEmbedding,
    Architecture,
    AttentionPooling,
    Block,
    PatchEmbedding,
    Pooled,
    Pooling,
    RotaryAttention,
    WordEmbedding,
)
from mass_serve.kernels.activation_names import Activation
from mass_serve.model_store.format.architecture_v1 import Depth, Epsilon, architecture_schema
from mass_serve.model_store.format.field_types import Size, StrictModel


def _is_none(value: object) -> bool:
    return value is None


class StoredPatches(StrictModel):
    """`backbone.architecture.PatchEmbedding` in a manifest."""

    kind: Literal["patches"]
    image_size: Size
    patch_size: Size
    bias: bool
    class_token: bool
    registers: Annotated[int, Field(ge=0, le=65_536)]
    norm: bool

    @classmethod
    def of(cls, embedding: PatchEmbedding) -> StoredPatches:
        """Makes what stands for an embedding of patches."""
        return cls(
            kind="patches",
            image_size=embedding.image_size,
            patch_size=embedding.patch_size,
            bias=embedding.has_bias,
            class_token=embedding.has_class_token,
            registers=embedding.num_registers,
            norm=embedding.has_norm,
        )

    def embedding(self) -> PatchEmbedding:
        """The embedding that it stands for."""
        return PatchEmbedding(
            self.image_size,
            self.patch_size,
            has_bias=self.bias,
            has_class_token=self.class_token,
            num_registers=self.registers,
            has_norm=self.norm,
        )


class StoredWords(StrictModel):
    """`backbone.architecture.WordEmbedding` in a manifest."""

    kind: Literal["words"]
    vocabulary: Annotated[int, Field(ge=1, le=1 << 24)]
    max_tokens: Size
    positions: bool
    types: Annotated[int, Field(ge=1, le=65_536)]

    @classmethod
    def of(cls, embedding: WordEmbedding) -> StoredWords:
        """Makes what stands for an embedding of words."""
        return cls(
            kind="words",
            vocabulary=embedding.vocabulary,
            max_tokens=embedding.max_tokens,
            positions=embedding.has_positions,
            types=embedding.num_types,
        )

    def embedding(self) -> WordEmbedding:
        """The embedding that it stands for."""
        return WordEmbedding(self.vocabulary, self.max_tokens, self.positions, self.types)


# Of rotary positions: beyond any that was ever used, and float32 computes with all of them.
Theta = Annotated[float, Field(ge=1, le=1e12)]


class StoredRotary(StrictModel):
    """`backbone.architecture.RotaryAttention` in a manifest."""

    global_theta: Theta
    local_theta: Theta
    global_every: Size
    reach: Size

    @classmethod
    def of(cls, rotary: RotaryAttention) -> StoredRotary:
        """Makes what stands for rotary positions."""
        return cls(
            global_theta=rotary.global_theta,
            local_theta=rotary.local_theta,
            global_every=rotary.global_every,
            reach=rotary.reach,
        )

    def attention(self) -> RotaryAttention:
        """The rotary positions that it stands for."""
        return RotaryAttention(self.global_theta, self.local_theta, self.global_every, self.reach)


class StoredBlock(StrictModel):
    """`backbone.architecture.Block` in a manifest; keys that only text encoders need may be left out."""

    kind: Literal["pre_norm", "post_norm"]
    width: Size
    num_attention_heads: Size
    mlp_width: Size
    activation: Activation
    gated: bool
    qkv_bias: bool
    layer_norm_eps: Epsilon
    first_norm: bool = Field(default=True, exclude_if=bool)
    rotary: StoredRotary | None = Field(default=None, exclude_if=_is_none)

    @classmethod
    def of(cls, block: Block) -> StoredBlock:
        """Makes what stands for a block."""
        return cls(
            kind="post_norm" if block.is_post_norm else "pre_norm",
            width=block.width,
            num_attention_heads=block.num_attention_heads,
            mlp_width=block.mlp_width,
            activation=block.activation,
            gated=block.is_gated,
            qkv_bias=block.qkv_has_bias,
            layer_norm_eps=block.layer_norm_eps,
            first_norm=block.has_first_norm,
            rotary=None if block.rotary is None else StoredRotary.of(block.rotary),
        )

    def block(self) -> Block:
        """The block that it stands for. Raises ValueError for sizes that do not go together."""
        return Block(
            self.width,
            self.num_attention_heads,
            self.mlp_width,
            self.activation,
            self.layer_norm_eps,
            is_gated=self.gated,
            qkv_has_bias=self.qkv_bias,
            is_post_norm=self.kind == "post_norm",
            has_first_norm=self.first_norm,
            rotary=None if self.rotary is None else self.rotary.attention(),
        )


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

    embedding: Annotated[StoredPatches | StoredWords, Field(discriminator="kind")]
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
        pooling = architecture.pooling
        return cls(
            embedding=_stored_embedding(architecture.embedding),
            block=StoredBlock.of(architecture.block),
            depth=architecture.depth,
            pooling=(
                StoredAttentionPooling.of(pooling)
                if isinstance(pooling, AttentionPooling)
                else StoredPooling.of(pooling)
            ),
        )

    def architecture(self) -> Architecture:
        """The architecture of these parts. Raises ValueError for parts that do not go together."""
        return Architecture(
            self.embedding.embedding(), self.block.block(), self.depth, self.pooling.pooling()
        )


def _stored_embedding(embedding: AnyEmbedding) -> StoredPatches | StoredWords:
    if isinstance(embedding, WordEmbedding):
        return StoredWords.of(embedding)
    return StoredPatches.of(embedding)


# An architecture as a field of a manifest of version 2.
NestedStoredArchitecture = Annotated[Architecture, GetPydanticSchema(architecture_schema(NestedArchitecture))]

"""The encoder's architecture as format version 1 writes it: CLIP vision's sizes in one flat object.

    "backbone": {"family": "clip_vision", "image_size": 224, "patch_size": 32, "width": 768, ...}

In memory it is `backbone.architecture.Architecture`; the flat object exists only between that and JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

from pydantic import Field, GetCoreSchemaHandler, GetPydanticSchema, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from mass_serve.backbone.architecture import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.model_store.format.field_types import Size, StrictModel

Depth = Annotated[int, Field(ge=1, le=1024)]
Epsilon = Annotated[float, Field(ge=1e-12, lt=1)]  # float32 adds smaller ones to nothing


class FlatArchitecture(StrictModel):
    """The sizes of a CLIP vision encoder, in the order and under the names of format version 1."""

    family: Literal["clip_vision"] = "clip_vision"
    image_size: Size
    patch_size: Size
    width: Size
    depth: Depth
    num_attention_heads: Size
    mlp_width: Size
    activation: Literal["quick_gelu", "gelu"]
    layer_norm_eps: Epsilon
    projection_dim: Size | None

    @model_validator(mode="after")
    def _parts_fit(self) -> FlatArchitecture:
        self.architecture()  # the parts say which sizes do not go together
        return self

    @classmethod
    def of(cls, architecture: Architecture) -> FlatArchitecture:
        """The flat object that stands for an architecture. Raises ValidationError for sizes out of bounds."""
        embedding, block = architecture.patches, architecture.block
        return cls(
            image_size=embedding.image_size,
            patch_size=embedding.patch_size,
            width=block.width,
            depth=architecture.depth,
            num_attention_heads=block.num_attention_heads,
            mlp_width=block.mlp_width,
            activation=block.activation,  # type: ignore[arg-type]  # it refuses others
            layer_norm_eps=block.layer_norm_eps,
            projection_dim=architecture.pooling.projection_dim,
        )

    def architecture(self) -> Architecture:
        """The architecture of these sizes. Raises ValueError for sizes that do not go together."""
        block = Block(
            self.width, self.num_attention_heads, self.mlp_width, self.activation, self.layer_norm_eps
        )
        embedding = PatchEmbedding(self.image_size, self.patch_size)
        return Architecture(embedding, block, self.depth, Pooling(self.projection_dim))


class ArchitectureForm(Protocol):
    """What stands for an architecture in JSON: `FlatArchitecture`, and what a later version has."""

    @classmethod
    def of(cls, architecture: Architecture) -> ArchitectureForm:
        """Makes what stands for an architecture."""
        ...

    def architecture(self) -> Architecture:
        """The architecture that it stands for."""
        ...


def is_flat(architecture: Architecture) -> bool:
    """Tells whether the flat object says everything about an architecture."""
    if architecture.reads_text:
        return False
    try:
        return FlatArchitecture.of(architecture).architecture() == architecture
    except ValidationError:
        return False


def architecture_schema(
    form: type[ArchitectureForm],
) -> Callable[[object, GetCoreSchemaHandler], CoreSchema]:
    """The schema of an architecture that JSON has as `form`; Python code hands over an architecture."""

    def schema(_source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        stored = handler.generate_schema(form)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(form.architecture, stored),
            python_schema=core_schema.is_instance_schema(Architecture),
            serialization=core_schema.plain_serializer_function_ser_schema(form.of, return_schema=stored),
        )

    return schema


# An architecture as a field of a manifest of version 1.
StoredArchitecture = Annotated[Architecture, GetPydanticSchema(architecture_schema(FlatArchitecture))]

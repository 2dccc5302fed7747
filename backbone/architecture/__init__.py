"""THE definition of an encoder: its parts, their sizes, and its parameters' names and shapes.

    block = Block(768, 12, 3072, "quick_gelu", 1e-5)
    architecture = Architecture(PatchEmbedding(224, 32), block, depth=12, pooling=Pooling(512))
    architecture.parameter_shapes()  # {"patch_embedding.weight": (768, 3072), "class_embedding": (768,), ...}

An encoder is a choice of parts, each a type of its own, in one file a kind of part: another embedding, block
or pooling is another type beside those there, and its forward pass another file in `backbone.parts`.
Everything else asks an architecture for names, shapes and sizes and spells none of them. The names made here
are the only parameter names in a store; `model_store.readers` translate other people's.
"""

from mass_serve.backbone.architecture.block import Block, BlockNames, RotaryAttention
from mass_serve.backbone.architecture.embedding import CHANNELS, AnyEmbedding, PatchEmbedding, WordEmbedding
from mass_serve.backbone.architecture.encoder import Architecture, Token
from mass_serve.backbone.architecture.names import Shapes, bias_of, weight_of
from mass_serve.backbone.architecture.pooling import AnyPooling, AttentionPooling, Pooled, Pooling

__all__ = [
    "CHANNELS",
    "AnyEmbedding",
    "AnyPooling",
    "Architecture",
    "AttentionPooling",
    "Block",
    "BlockNames",
    "PatchEmbedding",
    "Pooled",
    "Pooling",
    "RotaryAttention",
    "Shapes",
    "Token",
    "WordEmbedding",
    "bias_of",
    "weight_of",
]

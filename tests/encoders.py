"""One small encoder of images of 32 pixels, or of texts, for each choice of parts that is served."""

from __future__ import annotations

from mass_serve.backbone import (
    Architecture,
    AttentionPooling,
    Block,
    PatchEmbedding,
    Pooling,
    RotaryAttention,
    WordEmbedding,
)

_VIT = PatchEmbedding(32, 8, has_bias=True, has_norm=False)
_REGISTERS = PatchEmbedding(32, 10, has_bias=True, num_registers=3, has_norm=False)
_PATCHES_ALONE = PatchEmbedding(32, 9, has_bias=True, has_class_token=False, has_norm=False)
_REGISTERS_ALONE = PatchEmbedding(32, 16, has_class_token=False, num_registers=2)

ENCODERS: dict[str, Architecture] = {
    "vit": Architecture(_VIT, Block(32, 4, 64, "gelu", 1e-12), 2, Pooling(None)),
    "no qkv bias": Architecture(
        _VIT, Block(40, 5, 72, "gelu_tanh", 1e-6, qkv_has_bias=False), 3, Pooling(None, "mean")
    ),
    "registers, swiglu": Architecture(
        _REGISTERS, Block(48, 3, 56, "silu", 1e-6, is_gated=True), 3, Pooling(None, "class_and_mean")
    ),
    "no class token": Architecture(
        _PATCHES_ALONE, Block(32, 2, 100, "gelu_tanh", 1e-6), 2, Pooling(None, "mean")
    ),
    "geglu, mean before norm": Architecture(
        _REGISTERS_ALONE, Block(24, 3, 40, "gelu", 1e-5, is_gated=True), 1, Pooling(20, "mean_before_norm")
    ),
    "attention pooling": Architecture(
        PatchEmbedding(32, 8, has_bias=True, has_class_token=False, has_norm=False),
        Block(32, 4, 64, "gelu_tanh", 1e-6),
        2,
        AttentionPooling(4, 72, "gelu_tanh"),
    ),
    "mean without norm": Architecture(
        PatchEmbedding(32, 8), Block(32, 4, 64, "gelu", 1e-5), 2, Pooling(None, "mean_without_norm")
    ),
    "projected pair": Architecture(
        _REGISTERS, Block(32, 4, 64, "quick_gelu", 1e-5), 2, Pooling(12, "class_and_mean")
    ),
}

ROTARY_REACH = 8
_WORDS = WordEmbedding(61, 70, num_types=2)
_POST_NORM = Block(48, 4, 80, "gelu", 1e-12, is_post_norm=True)
_ROTARY = RotaryAttention(160_000.0, 10_000.0, global_every=2, reach=ROTARY_REACH)
_MODERN = Block(
    48, 6, 40, "gelu", 1e-5, is_gated=True, qkv_has_bias=False, has_first_norm=False, rotary=_ROTARY
)
# The same of texts.
TEXT_ENCODERS: dict[str, Architecture] = {
    "bert": Architecture(_WORDS, _POST_NORM, 3, Pooling(None, "class_without_norm")),
    "mean of bert": Architecture(_WORDS, _POST_NORM, 3, Pooling(None, "mean_without_norm")),
    "modernbert": Architecture(WordEmbedding(61, 70, has_positions=False), _MODERN, 4, Pooling(None)),
    "mean of modernbert": Architecture(
        WordEmbedding(61, 70, has_positions=False), _MODERN, 4, Pooling(20, "mean")
    ),
    "both of pre-norm": Architecture(
        _WORDS, Block(32, 2, 64, "gelu", 1e-5), 2, Pooling(None, "class_and_mean")
    ),
    "mean before norm": Architecture(
        WordEmbedding(61, 70), Block(32, 2, 64, "gelu", 1e-5), 2, Pooling(None, "mean_before_norm")
    ),
}

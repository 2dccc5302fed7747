"""The parts that make an embedding of the tokens that leave the last block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mass_serve.backbone.architecture.names import Shapes, linear_shapes, norm_shapes
from mass_serve.kernels.activation_names import Activation

# What a pooling makes one vector of: see `backbone.parts.pooling`.
Pooled = Literal[
    "class", "mean", "class_and_mean", "mean_before_norm", "mean_without_norm", "class_without_norm"
]
_WITHOUT_NORM = ("mean_without_norm", "class_without_norm")


@dataclass(frozen=True)
class Pooling:
    """Tokens through a LayerNorm, if any, and, where there is one, a projection without bias.

    class               the class token
    mean                the mean over the patches' tokens
    class_and_mean      both, side by side
    mean_before_norm    the mean over the patches' tokens, before the LayerNorm
    mean_without_norm   the mean over the patches' tokens, and no LayerNorm
    class_without_norm  the class token, and no LayerNorm

    Every token of a text counts as a patch's: its class token is a word like others.
    """

    projection_dim: int | None  # None: there is no projection
    pooled: Pooled = "class"

    norm = "post_layernorm"
    linear = "projection"
    positions = ()  # no parameter's rows are tokens

    @property
    def unprojected(self) -> Pooling:
        """The same without a projection."""
        return replace(self, projection_dim=None)

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product, in forward order."""
        return (self.linear,) if self.projection_dim else ()

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm, in forward order."""
        return () if self.pooled in _WITHOUT_NORM else (self.norm,)

    @property
    def needs_class_token(self) -> bool:
        """Tells whether the class token is a part of the embedding."""
        return self.pooled in ("class", "class_and_mean", "class_without_norm")

    @property
    def needs_all_tokens(self) -> bool:
        """Tells whether anything but the class token is a part of the embedding."""
        return self.pooled not in ("class", "class_without_norm")

    def pooled_width(self, width: int) -> int:
        """The width of what enters the projection."""
        return 2 * width if self.pooled == "class_and_mean" else width

    def embedding_dim(self, width: int) -> int:
        """P, the width of the embedding of tokens of that width."""
        return self.projection_dim or self.pooled_width(width)

    def shapes(self, width: int) -> Shapes:
        """The shape of every parameter, in forward order."""
        projection: Shapes = {}
        if self.projection_dim:
            projection = linear_shapes(
                self.linear, self.projection_dim, self.pooled_width(width), has_bias=False
            )
        norm = norm_shapes(self.norm, width) if self.norms else {}
        return {**norm, **projection}


@dataclass(frozen=True)
class AttentionPooling:
    """Tokens through a LayerNorm; one learned query, the probe, attends to them; then an MLP.

    The MLP has a skip connection around it (arXiv:2106.04560, section 3.3). No projection follows.
    """

    num_attention_heads: int
    mlp_width: int
    activation: Activation

    pooled = "attention"
    projection_dim = None
    norm = "post_layernorm"
    probe = "attention_pooling.probe"
    qkv = "attention_pooling.attention.qkv"
    out = "attention_pooling.attention.out"
    mlp_norm = "attention_pooling.layer_norm"
    fc1 = "attention_pooling.mlp.fc1"
    fc2 = "attention_pooling.mlp.fc2"
    needs_class_token = False
    needs_all_tokens = True

    @property
    def unprojected(self) -> AttentionPooling:
        """The same without a projection."""
        return self

    @property
    def linears(self) -> tuple[str, ...]:
        """Every operation that is a matrix product, in forward order."""
        return self.qkv, self.out, self.fc1, self.fc2

    @property
    def norms(self) -> tuple[str, ...]:
        """Every operation that is a LayerNorm, in forward order."""
        return self.norm, self.mlp_norm

    @property
    def positions(self) -> tuple[str, ...]:
        """Every parameter whose rows are tokens: the probe."""
        return (self.probe,)

    def embedding_dim(self, width: int) -> int:
        """P, the width of the embedding of tokens of that width."""
        return width

    def shapes(self, width: int) -> Shapes:
        """The shape of every parameter, in forward order."""
        return {
            **norm_shapes(self.norm, width),
            self.probe: (1, width),
            **linear_shapes(self.qkv, 3 * width, width),
            **linear_shapes(self.out, width, width),
            **norm_shapes(self.mlp_norm, width),
            **linear_shapes(self.fc1, self.mlp_width, width),
            **linear_shapes(self.fc2, width, self.mlp_width),
        }


AnyPooling = Pooling | AttentionPooling

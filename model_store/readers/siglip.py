"""SigLIP and SigLIP 2 as Hugging Face writes them: sizes from config.json, and a table of names.

`SiglipVisionModel` and `SiglipModel` (whose text tower is ignored) pool by attention; the classifier of
`SiglipForImageClassification` takes the mean over the patches instead. SigLIP 2 of a fixed resolution is of
the same classes. Configurations on disk may leave out whatever equals the defaults, so the defaults are part
of the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mass_serve.backbone.architecture import Architecture, AttentionPooling, Pooled, bias_of, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.clip import block_table
from mass_serve.model_store.readers.family import Description, LinearClassifier, Source
from mass_serve.model_store.readers.transformers_names import (
    activation_of,
    check_channels,
    checked_architecture,
    square_edge,
    stacked_sources,
    weight_and_bias,
    with_prefix,
)

DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "num_channels": 3,
}
_VISION_ALONE = "siglip_vision_model"
_NAFLEX = ("siglip2", "siglip2_vision_model")
_TEXT = ("text_model.", "logit_scale", "logit_bias")
_PREFIX = "vision_model."
_HEAD = "head."
_PROBE = f"{_HEAD}probe"


class Siglip(LinearClassifier):
    """The family of SigLIP's vision encoders."""

    title = "SigLIP (siglip, siglip_vision_model)"
    config_file = "config.json"
    classifier = "classifier"
    classifier_pooling: Pooled = "mean"

    def reads(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:  # noqa: ARG002
        """Tells a checkpoint by its `model_type`."""
        return config.get("model_type") in ("siglip", _VISION_ALONE, *_NAFLEX)

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Strips the prefix; None for the text tower and for buffers.

        A model with a classifier has an attention pooling, too, which it does not use.
        """
        bare = {key: key.removeprefix(_PREFIX) for key in keys}
        classifies = weight_of(self.classifier) in bare.values()
        unused = (*_TEXT, _HEAD) if classifies else _TEXT
        return {
            key: None if name.startswith(unused) or name.endswith(".position_ids") else name
            for key, name in bare.items()
        }

    def key(self, name: str, description: Description) -> str:  # noqa: ARG002
        """Returns the name in a file of transformers: `names` undone."""
        return with_prefix(name, _PREFIX, (self.classifier,))

    def architecture(self, description: Description) -> Architecture:
        """Reads the encoder's sizes from config.json: of a full SiglipModel the vision tower's.

        Raises CheckpointError for sizes that cannot be, and for images of any shape (naflex).
        """
        path, config = description.path, DEFAULTS | dict(_vision_config(description))
        check_channels(path, config)
        activation, heads = activation_of(path, config), config["num_attention_heads"]
        pooling: dict[str, Any] = {"kind": self.classifier_pooling, "projection_dim": None}
        if _PROBE in description.weights:
            pooling = {
                "kind": "attention",
                "num_attention_heads": heads,
                "mlp_width": config["intermediate_size"],
                "activation": activation,
            }
        return checked_architecture(
            path,
            {
                "embedding": {
                    "kind": "patches",
                    "image_size": square_edge(path, config, "image_size"),
                    "patch_size": square_edge(path, config, "patch_size"),
                    "bias": True,
                    "class_token": False,
                    "registers": 0,
                    "norm": False,
                },
                "block": {
                    "kind": "pre_norm",
                    "width": config["hidden_size"],
                    "num_attention_heads": heads,
                    "mlp_width": config["intermediate_size"],
                    "activation": activation,
                    "gated": False,
                    "qkv_bias": True,
                    "layer_norm_eps": config["layer_norm_eps"],
                },
                "depth": config["num_hidden_layers"],
                "pooling": pooling,
            },
        )

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:  # noqa: ARG002
        """Returns the place of every canonical parameter."""
        sources = stacked_sources(architecture, _table(architecture))
        if isinstance(architecture.pooling, AttentionPooling):
            sources[architecture.pooling.probe] = Source((_PROBE,), (1, 1, architecture.width))
        return sources


def _vision_config(description: Description) -> Mapping[str, Any]:
    path, config = description.path, description.config
    if (model_type := config["model_type"]) in _NAFLEX:
        raise CheckpointError(
            f"{path}: model_type {model_type!r} cuts images of any shape into patches (naflex), and the"
            " images of a store have one size: take a SigLIP 2 of a fixed resolution, such as patch16-224"
        )
    if model_type == _VISION_ALONE:
        return config
    vision = config.get("vision_config") or {}
    if not isinstance(vision, dict):
        raise CheckpointError(f"{path}: vision_config must be an object")
    return vision


def _table(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """THE table: SigLIP's names for every canonical parameter; its blocks are named as CLIP's."""
    embedding, pooling = architecture.patches, architecture.pooling
    table = {
        **weight_and_bias(embedding.linear, "embeddings.patch_embedding"),
        embedding.positions: ("embeddings.position_embedding.weight",),
        **block_table(architecture),
        **weight_and_bias(pooling.norm, "post_layernorm"),
    }
    if isinstance(pooling, AttentionPooling):
        table |= {
            pooling.probe: (_PROBE,),
            weight_of(pooling.qkv): ("head.attention.in_proj_weight",),
            bias_of(pooling.qkv): ("head.attention.in_proj_bias",),
            **weight_and_bias(pooling.out, "head.attention.out_proj"),
            **weight_and_bias(pooling.mlp_norm, "head.layernorm"),
            **weight_and_bias(pooling.fc1, "head.mlp.fc1"),
            **weight_and_bias(pooling.fc2, "head.mlp.fc2"),
        }
    return table

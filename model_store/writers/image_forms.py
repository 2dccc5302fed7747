"""Forms of encoders of images: CLIP, ViT, DeiT, SigLIP and DINOv2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone.architecture import CHANNELS, Architecture, AttentionPooling, PatchEmbedding
from mass_serve.model_store.readers.clip import ClipVision
from mass_serve.model_store.readers.dinov2 import Dinov2
from mass_serve.model_store.readers.family import WritableFamily
from mass_serve.model_store.readers.siglip import Siglip
from mass_serve.model_store.readers.transformers_names import ACTIVATION_NAMES
from mass_serve.model_store.readers.vit import Vit
from mass_serve.model_store.writers.form import Form, neutral_norm
from mass_serve.model_store.writers.plain_model import PlainModel

_CLASSIFIES = "ForImageClassification"
_TOKENS = "output.last_hidden_state"


class ImageForm(Form):
    """A form of models whose configuration has the usual words for sizes."""

    stem: str  # of the classes' names
    model_type: str
    norm_is_last = True  # whether the last hidden states have left the last LayerNorm

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:  # noqa: ARG002
        if not isinstance(model.architecture.embedding, PatchEmbedding):
            return None
        return {"model_type": self.model_type, **_sizes(model.architecture)}

    def class_name(self, model: PlainModel, *, classifies: bool) -> str:  # noqa: ARG002
        return f"{self.stem}{_CLASSIFIES if classifies else 'Model'}"

    def embedding(self, model: PlainModel) -> str | None:
        pooling = model.architecture.pooling
        if pooling.projection_dim or pooling.pooled.endswith("_norm") == self.norm_is_last:
            return None
        pooled = _pooled(model.architecture.patches.tokens_before_patches)
        return pooled.get(pooling.pooled.removesuffix("_without_norm"))


class ClipForm(ImageForm):
    """CLIP's vision encoder; its classifier takes the mean over the patches, without the last LayerNorm."""

    family = ClipVision()
    stem = "CLIPVision"
    model_type = "clip_vision_model"
    norm_is_last = False

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        config = super().config(model, classifies=classifies)
        if config is None:
            return None
        if classifies:
            return {"model_type": "clip", "vision_config": config}
        dim = model.architecture.pooling.projection_dim
        return config if dim is None else {**config, "projection_dim": dim}

    def class_name(self, model: PlainModel, *, classifies: bool) -> str:
        if classifies:
            return f"CLIP{_CLASSIFIES}"
        projected = "WithProjection" if model.architecture.pooling.projection_dim else ""
        return f"{self.stem}Model{projected}"

    def unused(self, model: PlainModel, *, classifies: bool) -> Mapping[str, Tensor]:
        if classifies or not model.architecture.pooling.norms:
            return neutral_norm("vision_model.post_layernorm", model.architecture.width)
        return {}

    def embedding(self, model: PlainModel) -> str | None:
        pooling = model.architecture.pooling
        if pooling.pooled == "class":
            return "output.image_embeds" if pooling.projection_dim else "output.pooler_output"
        return super().embedding(model)


class VitForm(ImageForm):
    """ViT, whose classifier takes the class token."""

    family: WritableFamily = Vit()
    stem = "ViT"
    model_type = "vit"
    num_registers = 0  # the reader is of DeiT's, too

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        config = super().config(model, classifies=classifies)
        if config is None or model.architecture.patches.num_registers != self.num_registers:
            return None
        return {**config, "qkv_bias": model.architecture.block.qkv_has_bias}


class DeitForm(VitForm):
    """DeiT, which is ViT with a distillation token: a register."""

    stem = "DeiT"
    model_type = "deit"
    num_registers = 1


class SiglipForm(ImageForm):
    """SigLIP's vision encoder; it pools by attention, and its classifier takes the mean over the patches."""

    family = Siglip()
    stem = "SiglipVision"
    model_type = "siglip_vision_model"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        config = super().config(model, classifies=classifies)
        if config is None:
            return None
        config["vision_use_head"] = isinstance(model.architecture.pooling, AttentionPooling)
        return {"model_type": "siglip", "vision_config": config} if classifies else config

    def class_name(self, model: PlainModel, *, classifies: bool) -> str:
        return f"Siglip{_CLASSIFIES}" if classifies else super().class_name(model, classifies=classifies)

    def embedding(self, model: PlainModel) -> str | None:
        if isinstance(model.architecture.pooling, AttentionPooling):
            return "output.pooler_output"
        return super().embedding(model)


class Dinov2Form(ImageForm):
    """DINOv2, whose classifier takes the class token and the mean over the patches; layer scales of ones."""

    family = Dinov2()
    stem = "Dinov2"
    model_type = "dinov2"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        config = super().config(model, classifies=classifies)
        if config is None:
            return None
        block = model.architecture.block
        return {
            **config,
            "qkv_bias": block.qkv_has_bias,
            "use_swiglu_ffn": block.is_gated,
            "mlp_ratio": _mlp_ratio(model.architecture),
        }

    def unused(self, model: PlainModel, *, classifies: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        return {f"{self.model_type}.embeddings.mask_token": torch.zeros(1, model.architecture.width)}


class Dinov2WithRegistersForm(Dinov2Form):
    """DINOv2 with registers."""

    stem = "Dinov2WithRegisters"
    model_type = "dinov2_with_registers"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        config = super().config(model, classifies=classifies)
        if config is None or not model.architecture.patches.num_registers:
            return None
        return {**config, "num_register_tokens": model.architecture.patches.num_registers}


def _sizes(architecture: Architecture) -> dict[str, Any]:
    block, patches = architecture.block, architecture.patches
    return {
        "image_size": patches.image_size,
        "patch_size": patches.patch_size,
        "num_channels": CHANNELS,
        "hidden_size": block.width,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": block.num_attention_heads,
        "intermediate_size": block.mlp_width,
        # In a gated MLP it is silu whatever a configuration says.
        "hidden_act": ACTIVATION_NAMES.get(block.activation, "gelu"),
        "layer_norm_eps": block.layer_norm_eps,
    }


def _mlp_ratio(architecture: Architecture) -> int:
    """The whole ratio that comes next to the MLP's width: a reader tells whether it gives that width."""
    block = architecture.block
    # SwiGLU has three matrices where an MLP has two, and so two thirds of the width.
    wanted = block.mlp_width * 3 / 2 if block.is_gated else block.mlp_width
    return round(wanted / architecture.width)


def _pooled(before: int) -> dict[str, str]:
    """What some poolings take of the last hidden states, with so many tokens before the patches."""
    class_token, mean = f"{_TOKENS}[:, 0]", f"{_TOKENS}[:, {before}:].mean(1)"
    return {
        "class": class_token,
        "mean": mean,
        "class_and_mean": f"torch.cat([{class_token}, {mean}], dim=1)",
    }


IMAGE_FORMS: tuple[Form, ...] = (
    *(ClipForm(), VitForm(), DeitForm()),
    *(SiglipForm(), Dinov2Form(), Dinov2WithRegistersForm()),
)

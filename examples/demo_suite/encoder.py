"""The small CLIP vision encoder, and pictures as it takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from examples.demo_suite.canvas import IMAGE_SIZE, Pixels

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
WIDTH = 128
BICUBIC = 3


def new_encoder() -> CLIPVisionModelWithProjection:
    """An untrained encoder of 1.2 million parameters: 17 tokens, 6 blocks of width 128."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=8,
        hidden_act="quick_gelu",
    )
    encoder = CLIPVisionModelWithProjection(config)
    start_wide_awake(encoder)
    return encoder


def position_waves(side: int, width: int) -> Tensor:
    """Sines and cosines of the patches' rows and columns, [side * side, width]."""
    frequencies = torch.pi / 2 * torch.logspace(0, -1, width // 4, base=side)
    phases = torch.outer(torch.arange(side).float(), frequencies)
    waves = torch.cat([phases.sin(), phases.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


@torch.no_grad()
def start_wide_awake(encoder: CLIPVisionModelWithProjection) -> None:
    """Initial weights with which the patches' places count and attention is not even from the start.

    Those of the library are made for long trainings: a small encoder sees a bag of patches for its first
    hundred thousand pictures.
    """
    vision = encoder.vision_model
    nn.init.normal_(vision.embeddings.patch_embedding.weight, std=(3 * 8 * 8) ** -0.5)
    vision.embeddings.position_embedding.weight[1:] = position_waves(IMAGE_SIZE // 8, WIDTH)
    for block in vision.encoder.layers:
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            nn.init.normal_(projection.weight, std=WIDTH**-0.5)


def to_input(pixels: Tensor) -> Tensor:
    """uint8 or 0..255 float pictures [B, 32, 32, 3] as the encoder's input [B, 3, 32, 32]."""
    scaled = pixels.permute(0, 3, 1, 2).float() / 255.0
    return (scaled - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


class SwiftQuickGELU(nn.Module):
    """x sigmoid(1.702 x), written with SiLU, which keeps one tensor for the backward pass, not three."""

    def forward(self, x: Tensor) -> Tensor:
        """The activation of each element."""
        return silu(1.702 * x) / 1.702


@contextmanager
def swift_activations(encoder: CLIPVisionModelWithProjection) -> Iterator[None]:
    """Within it the encoder's blocks use SwiftQuickGELU, a tenth quicker to train."""
    blocks = list(encoder.vision_model.encoder.layers)
    plain = [block.mlp.activation_fn for block in blocks]
    for block in blocks:
        block.mlp.activation_fn = SwiftQuickGELU()
    try:
        yield
    finally:
        for block, activation in zip(blocks, plain, strict=True):
            block.mlp.activation_fn = activation


def token_and_embedding(encoder: CLIPVisionModelWithProjection, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The class token after the last norm [B, 128] and its projection [B, 128].

    As the encoder's own forward pass, but the last block's MLP runs on the class token alone:
    nothing reads what it makes of the others.
    """
    vision = encoder.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(to_input(pixels)))
    *blocks, last = vision.encoder.layers
    for block in blocks:
        hidden = block(hidden, attention_mask=None)
    attended, _ = last.self_attn(last.layer_norm1(hidden))
    token = (hidden + attended)[:, 0]
    token = vision.post_layernorm(token + last.mlp(last.layer_norm2(token)))
    return token, encoder.visual_projection(token)


@torch.no_grad()
def embed(encoder: CLIPVisionModelWithProjection, pixels: Pixels, batch: int = 512) -> Tensor:
    """Embeddings of unit length [N, 128] of uint8 pictures [N, 32, 32, 3]."""
    encoder.train(False)
    parts = torch.split(torch.from_numpy(pixels), batch)
    return normalize(torch.cat([token_and_embedding(encoder, part)[1] for part in parts]), dim=-1)


def save_encoder(encoder: CLIPVisionModelWithProjection, folder: Path) -> None:
    """A Hugging Face directory: config.json, model.safetensors and preprocessor_config.json."""
    encoder.save_pretrained(folder)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")

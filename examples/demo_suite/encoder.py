"""The small CLIP vision encoder, and pictures as it takes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
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
    return CLIPVisionModelWithProjection(config)


def to_input(pixels: Tensor) -> Tensor:
    """uint8 or 0..255 float pictures [B, 32, 32, 3] as the encoder's input [B, 3, 32, 32]."""
    scaled = pixels.permute(0, 3, 1, 2).float() / 255.0
    return (scaled - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@torch.no_grad()
def embed(encoder: CLIPVisionModelWithProjection, pixels: Pixels, batch: int = 512) -> Tensor:
    """Embeddings of unit length [N, 128] of uint8 pictures [N, 32, 32, 3]."""
    encoder.train(False)
    parts = torch.split(torch.from_numpy(pixels), batch)
    embedded = torch.cat([encoder(pixel_values=to_input(part)).image_embeds for part in parts])
    return torch.nn.functional.normalize(embedded, dim=-1)


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

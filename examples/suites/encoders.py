"""The two encoders that the suites fine-tune: the demo's, as it ships in its store, and a weak one.

The weak one is pretrained on too little: shortly, on letters alone, by what they are and where their ink is.
No objects, surfaces or scenes, and no target that says what a picture looks like apart from its letter, so
that little inside it tells one domain from another: what routing has to cope with at its hardest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from examples.demo_suite.encoder import new_encoder
from examples.demo_suite.foundation import Shares, draw_foundation
from examples.demo_suite.pretraining import LossWeights, PretrainingPlan, Report, pretrain

MakeEncoder = Callable[[Report], CLIPVisionModelWithProjection]

SHIPPED = Path(__file__).resolve().parents[2] / "server" / "demo_store" / "pretrained.safetensors"
LETTERS_ONLY: Shares = (1.0, 0.0, 0.0, 0.0)
WEAK_PICTURES = 40_000
WEAK_PLAN = PretrainingPlan(steps=1_500, weights=LossWeights(kind=0.0, look=0.0, style=0.0))
WORKERS = 2


def weak_encoder(report: Report) -> CLIPVisionModelWithProjection:
    """A new encoder after its short and narrow pretraining."""
    report(f"Drawing {WEAK_PICTURES} letters to pretrain on")
    pictures = draw_foundation(WEAK_PICTURES, WORKERS, LETTERS_ONLY)
    report("Pretraining on letters alone")
    return pretrain(pictures, WEAK_PLAN, report)


def shipped_encoder(report: Report) -> CLIPVisionModelWithProjection:
    """The demo's pretrained encoder, from the store that ships with the package."""
    report(f"Reading {SHIPPED}")
    stored = load_file(SHIPPED)
    encoder = new_encoder()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(as_stored(stored, name).reshape(parameter.shape))
    return encoder


def as_stored(stored: dict[str, Tensor], name: str) -> Tensor:
    """A store's weights by the name that Hugging Face gives them; in a store q, k and v are one matrix."""
    name = name.removeprefix("vision_model.").removeprefix("embeddings.").removeprefix("visual_")
    name = name.replace("encoder.layers.", "blocks.").replace("pre_layrnorm", "pre_layernorm")
    name = name.replace(".self_attn.out_proj.", ".attention.out.")
    if ".self_attn." not in name:
        return stored[name]
    block, part = name.split(".self_attn.")
    which, kind = part.split("_proj.")
    return stored[f"{block}.attention.qkv.{kind}"].chunk(3)["qkv".index(which)]

"""What else could serve the same batch: dense models and PEFT's mixed-adapter batches, by transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.gpu_timing import graphed
from mass_serve.backbone import Architecture

ADAPTED = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def dense_model(architecture: Architecture, dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' CLIP vision encoder of those sizes."""
    embedding, block = architecture.patches, architecture.block
    settings = CLIPVisionConfig(
        hidden_size=architecture.width,
        intermediate_size=block.mlp_width,
        num_hidden_layers=architecture.depth,
        num_attention_heads=block.num_attention_heads,
        image_size=embedding.image_size,
        patch_size=embedding.patch_size,
        projection_dim=architecture.embedding_dim,
        hidden_act=block.activation,
    )
    # It attends by PyTorch's scaled_dot_product_attention, as the backbone does.
    model: Any = CLIPVisionModelWithProjection(settings).eval()  # type: ignore[no-untyped-call]
    return model.to(device, dtype)


def dense_forward(model: Any, pixels: Tensor) -> Callable[[], object]:
    """The model over a batch, replayed from a graph."""

    @torch.inference_mode()
    def run() -> object:
        return model(pixels).image_embeds

    return graphed(run, pixels.device)


def compiled_forward(model: Any, pixels: Tensor) -> Callable[[], object]:
    """The same, compiled for this batch first."""
    return dense_forward(torch.compile(model, dynamic=False), pixels)


def peft_forward(model: Any, pixels: Tensor, tasks: Sequence[int], rank: int) -> Callable[[], object]:
    """A mixed batch by PEFT: one adapter of that rank for each task, named for each sample.

    It changes the model: the adapters are inserted into its layers.
    """
    import peft

    names = [f"task{task}" for task in range(max(tasks) + 1)]
    settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED)
    adapted = peft.get_peft_model(model, settings, adapter_name=names[0])
    for name in names[1:]:
        adapted.add_adapter(name, settings)
    adapted = adapted.to(pixels.device, pixels.dtype).eval()
    chosen = [names[task] for task in tasks]

    @torch.inference_mode()
    def run() -> object:
        return adapted(pixel_values=pixels, adapter_names=chosen).image_embeds

    return run

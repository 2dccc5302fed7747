"""The dense classifier of the other servers: an encoder of the demo's sizes by transformers, and a head."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu_peers import dense_model
from mass_serve.model_store.store import Store
from mass_serve.server.startup import demo_store

CLASSES = 10
BATCH = 32
DECODERS = 2  # processes that decode
SIZE = 32  # of the demo store's images


def pixels(file: str) -> Tensor:
    """Makes an image file in base64 into pixels [3, SIZE, SIZE]."""
    with Image.open(BytesIO(b64decode(file))) as image:
        resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


class DenseClassifier:
    """Answers images as those servers' users write it: Pillow, one batch through the encoder, a softmax."""

    def __init__(self) -> None:
        """Makes an encoder of the demo store's sizes, with random weights, on one thread."""
        torch.set_num_threads(1)
        manifest = Store.open(demo_store()).manifest
        self._encoder = dense_model(manifest.backbone, torch.float32, torch.device("cpu"))
        self._head = torch.nn.Linear(manifest.backbone.embedding_dim, CLASSES)

    @torch.inference_mode()
    def answers(self, images: Sequence[Tensor]) -> list[dict[str, object]]:
        """Returns the label and the score of each image of a batch."""
        batch = (torch.stack(list(images)).float() / 255 - 0.5) / 0.25
        scores = self._head(self._encoder(batch).image_embeds).softmax(-1)
        best, labels = scores.max(-1)
        return [
            {"label": str(label), "score": score}
            for label, score in zip(labels.tolist(), best.tolist(), strict=True)
        ]

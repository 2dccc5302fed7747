"""What else could serve images whose task is known: a model for each task, or an adapter for each."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from benchmarks.engine.dense import ONNX, PEFT, DenseModels, Forward, left_out
from benchmarks.gpu_peers import dense_model, peft_forward
from benchmarks.text_peers import onnx_session

SESSIONS, ADAPTERS = f"{ONNX}, a session for each task", f"{PEFT}, a mixed batch"


def forwards(models: DenseModels, tasks: int, dtype: str, pixels: Tensor) -> dict[str, Forward]:
    """The ways of that dtype over pixels [B, 3, H, W], of which image i is of task `i % tasks`.

    Sessions are of the same file, and each has its weights in memory of its own. Adapters have the rank of
    the store's blocks.
    """
    missing = left_out()
    found: dict[str, Forward] = {}
    if dtype == "int8" and ONNX not in missing:
        found[SESSIONS] = _sessions(models, tasks, pixels)
    if dtype != "int8" and PEFT not in missing:
        wide = getattr(torch, dtype)
        encoder = dense_model(models.architecture, wide, pixels.device)
        chosen = [row % tasks for row in range(len(pixels))]
        rank = models.architecture.width // tasks
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for what it renames
            found[ADAPTERS] = peft_forward(encoder, pixels.to(wide), chosen, rank)
    return found


def _sessions(models: DenseModels, tasks: int, pixels: Tensor) -> Forward:
    asked = [pixels[task::tasks].numpy() for task in range(min(tasks, len(pixels)))]
    sessions = [onnx_session(models.quantised) for _ in asked]

    def forward() -> object:
        return [session.run(None, {"pixels": own}) for session, own in zip(sessions, asked, strict=True)]

    return forward

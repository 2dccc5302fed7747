"""What is asked of an engine, and the tensors that a batch of it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.backbone import patchify
from mass_serve.engine.preprocessing import ImagePreprocessor


@dataclass(frozen=True)
class Query:
    """One image to classify."""

    # [3, crop, crop], RGB: uint8 as `ImagePreprocessor.preprocess` gives it, or float32 and normalised
    pixels: Tensor
    candidates: tuple[str, ...] | None = None  # names of the tasks to choose from; None: all of the store


def candidate_mask(queries: Sequence[Query], task_names: Sequence[str]) -> Tensor:
    """The tasks that each query may have, [B, T] bool. Raises ValueError for names that are not served."""
    mask = torch.ones(len(queries), len(task_names), dtype=torch.bool)
    for row, query in enumerate(queries):
        if query.candidates is not None:
            if not query.candidates or not set(query.candidates) <= set(task_names):
                raise ValueError(f"candidates must be among {', '.join(task_names)}; got {query.candidates}")
            mask[row] = torch.tensor([name in query.candidates for name in task_names])
    return mask


def batch_patches(
    queries: Sequence[Query], preprocessing: ImagePreprocessor, patch_size: int, like: Tensor
) -> Tensor:
    """Normalised patches [B, (crop // p)^2, 3 p p], on the device and in the dtype of `like`.

    Raises ValueError for pixels of another size or type than the preprocessing makes.
    """
    expected = (3, preprocessing.crop, preprocessing.crop)
    for query in queries:
        if query.pixels.shape != expected or query.pixels.dtype not in (torch.uint8, torch.float32):
            found = f"{query.pixels.dtype} {tuple(query.pixels.shape)}"
            raise ValueError(f"pixels must be uint8 or float32 {expected}, got {found}")
    normalised = torch.empty(len(queries), *expected, device=like.device)
    # Bytes and numbers that are normalised already are sent to the device as one tensor of each.
    for dtype in (torch.uint8, torch.float32):
        rows = [row for row, query in enumerate(queries) if query.pixels.dtype == dtype]
        if rows:
            pixels = torch.stack([queries[row].pixels for row in rows]).to(like.device)
            normalised[rows] = preprocessing.normalise(pixels) if dtype == torch.uint8 else pixels
    return patchify(normalised.to(like.dtype), patch_size)

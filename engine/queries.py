"""What is asked of an engine, and the tensors that a batch of it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.backbone import Packed, WordEmbedding, patchify
from mass_serve.engine.preprocessing import ImagePreprocessor


@dataclass(frozen=True)
class Query:
    """One image to classify."""

    # [3, crop, crop], RGB: uint8 as `ImagePreprocessor.preprocess` gives it, or float32 and normalised
    pixels: Tensor
    candidates: tuple[str, ...] | None = None  # names of the tasks to choose from; None: all of the store
    # Queries with the same object here are known to be of one task, which the evidence of all of them
    # chooses; a batch has all or none. None: the query is by itself.
    pool: object | None = None


@dataclass(frozen=True)
class TextQuery:
    """One text to classify."""

    words: Tensor  # [n, 2] int64: the id and the type of each of its tokens
    candidates: tuple[str, ...] | None = None  # as of an image
    pool: object | None = None  # as of an image


AnyQuery = Query | TextQuery


def unsplit(queries: Sequence[AnyQuery]) -> list[list[AnyQuery]]:
    """Queries in the runs that no batch may split: those of one pool together, others by themselves."""
    runs: list[list[AnyQuery]] = []
    for query in queries:
        if runs and query.pool is not None and query.pool is runs[-1][-1].pool:
            runs[-1].append(query)
        else:
            runs.append([query])
    return runs


def pool_numbers(queries: Sequence[AnyQuery]) -> Tensor | None:
    """Numbers that queries of one pool share, [B] int64; None where every query is by itself.

    Raises ValueError for a pool whose queries have different candidates.
    """
    if all(query.pool is None for query in queries):
        return None
    firsts: dict[int, int] = {}
    numbers = []
    for row, query in enumerate(queries):
        number = row if query.pool is None else firsts.setdefault(id(query.pool), row)
        if query.candidates != queries[number].candidates:
            raise ValueError("queries of one pool must have the same candidates")
        numbers.append(number)
    return torch.tensor(numbers)


def candidate_mask(queries: Sequence[AnyQuery], task_names: Sequence[str]) -> Tensor:
    """The tasks that each query may have, [B, T] bool. Raises ValueError for names that are not served."""
    mask = torch.ones(len(queries), len(task_names), dtype=torch.bool)
    for row, query in enumerate(queries):
        if query.candidates is not None:
            if not query.candidates or not set(query.candidates) <= set(task_names):
                raise ValueError(f"candidates must be among {', '.join(task_names)}; got {query.candidates}")
            mask[row] = torch.tensor([name in query.candidates for name in task_names])
    return mask


def batch_words(queries: Sequence[AnyQuery], embedding: WordEmbedding, device: torch.device) -> Packed:
    """The tokens of all texts, packed: rows [N, 2] int64 on that device.

    Raises ValueError for images, and for tokens that the encoder does not have.
    """
    texts = [query.words for query in queries if isinstance(query, TextQuery)]
    if len(texts) != len(queries):
        raise ValueError("this store reads texts, and an image was given")
    for words in texts:
        if words.dtype != torch.int64 or words.ndim != 2 or words.shape[1] != 2:
            raise ValueError(f"words must be int64 [n, 2], got {words.dtype} {tuple(words.shape)}")
        if not 1 <= len(words) <= embedding.max_tokens:
            raise ValueError(f"a text must have 1 to {embedding.max_tokens} tokens, got {len(words)}")
    packed = Packed.of(texts)
    # Tokenizers have types that an encoder of one type does not look at.
    most_types = embedding.num_types if embedding.num_types > 1 else torch.iinfo(torch.int64).max
    bounds = torch.tensor([embedding.vocabulary, most_types])
    if bool(((packed.rows < 0) | (packed.rows >= bounds)).any()):
        raise ValueError(
            f"ids of words must be below {embedding.vocabulary} and types below {embedding.num_types}"
        )
    return Packed(packed.rows.to(device), packed.lengths)


def batch_patches(
    queries: Sequence[AnyQuery], preprocessing: ImagePreprocessor, patch_size: int, like: Tensor
) -> Tensor:
    """Normalised patches [B, (crop // p)^2, 3 p p], on the device and in the dtype of `like`.

    Pixels that several queries share, one image for many tasks, are prepared once.

    Raises ValueError for texts, and for pixels of another size or type than the preprocessing makes.
    """
    expected = (3, preprocessing.crop, preprocessing.crop)
    of_images = [query for query in queries if isinstance(query, Query)]
    if len(of_images) != len(queries):
        raise ValueError("this store reads images, and a text was given")
    for query in of_images:
        if query.pixels.shape != expected or query.pixels.dtype not in (torch.uint8, torch.float32):
            found = f"{query.pixels.dtype} {tuple(query.pixels.shape)}"
            raise ValueError(f"pixels must be uint8 or float32 {expected}, got {found}")
    images = list({id(query.pixels): query.pixels for query in of_images}.values())
    normalised = torch.empty(len(images), *expected, device=like.device)
    # Bytes and numbers that are normalised already are sent to the device as one tensor of each.
    for dtype in (torch.uint8, torch.float32):
        rows = [row for row, image in enumerate(images) if image.dtype == dtype]
        if rows:
            pixels = torch.stack([images[row] for row in rows]).to(like.device)
            normalised[rows] = preprocessing.normalise(pixels) if dtype == torch.uint8 else pixels
    patches = patchify(normalised.to(like.dtype), patch_size)
    if len(images) == len(queries):
        return patches
    rows_of = {id(image): row for row, image in enumerate(images)}
    return patches[[rows_of[id(query.pixels)] for query in of_images]]

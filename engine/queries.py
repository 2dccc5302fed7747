"""What is asked of an engine, and the tensors that a batch of it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.backbone import Packed, WordEmbedding, patchify
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.engine.priors import Priors, log_prior_rows
from mass_serve.inputs.texts import Places
from mass_serve.kernels.transfers import UploadedStacks, selected_rows, uploaded, uploaded_stack
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.router import ModeName, Prior, Remembered


@dataclass(frozen=True, eq=False)
class Pool:
    """Inputs that are said to be of one task, which the evidence of all of them chooses."""

    remembered: Remembered | None = None  # the evidence of earlier inputs of their stream


@dataclass(frozen=True)
class Query:
    """One image to classify."""

    # [3, crop, crop], RGB: uint8 as `ImagePreprocessor.preprocess` gives it, or float32 and normalised
    pixels: Tensor
    candidates: tuple[str, ...] | None = None  # names of the tasks to choose from; see `choice`
    pool: Pool | None = None  # of which a batch has all queries or none; None: the query is by itself
    # Wanted is the embedding and no class: that of the candidate, or of the pretrained encoder without one.
    embeds: bool = False
    mode: ModeName | None = None  # of the search among the candidates; None: that of the engine
    priors: Priors | None = None  # of the candidates; None: all are as likely


@dataclass(frozen=True)
class TextQuery:
    """One text to classify."""

    words: Tensor  # [n, 2] int64: the id and the type of each of its tokens
    candidates: tuple[str, ...] | None = None  # as of an image
    pool: Pool | None = None  # as of an image
    places: Places | None = None  # of its tokens, for who wants to know the entities in it
    embeds: bool = False  # as of an image
    mode: ModeName | None = None  # as of an image
    priors: Priors | None = None  # as of an image


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


def prior_of(queries: Sequence[AnyQuery], candidates: Tensor, tasks: Mapping[str, TaskEntry]) -> Prior | None:
    """What is known of the queries beforehand, with candidates [B, T]; None where that is nothing.

    Raises ValueError for a pool whose queries have different candidates, modes or priors.
    """
    log_priors = log_prior_rows([query.priors for query in queries], candidates, list(tasks))
    if log_priors is None and all(query.pool is None for query in queries):
        return None
    firsts: dict[Pool, int] = {}
    numbers = []
    for row, query in enumerate(queries):
        number = row if query.pool is None else firsts.setdefault(query.pool, row)
        first = queries[number]
        if (query.candidates, query.mode, query.priors) != (first.candidates, first.mode, first.priors):
            raise ValueError("queries of one pool must have the same candidates, mode and priors")
        numbers.append(number)
    remembered = {row: pool.remembered for pool, row in firsts.items() if pool.remembered is not None}
    return Prior(torch.tensor(numbers), remembered, log_priors)


def choice(candidates: Iterable[str] | None, tasks: Mapping[str, TaskEntry]) -> tuple[str, ...]:
    """The names of the tasks that an input is to be routed among, or the one that answers without that.

    Without candidates it is all that are routed. A task that classifies tokens is not: it is there where it
    is named alone, or the only task. Raises ValueError for names that are not served, and for a choice that
    has such a task in it.
    """
    of_tokens = [name for name, task in tasks.items() if task.head.each_token]
    if candidates is None:
        routed = tuple(name for name in tasks if name not in of_tokens) or tuple(tasks)
        if len(routed) > 1 and routed[0] in of_tokens:
            raise ValueError(
                "all tasks here classify tokens, and there is no choosing among such;"
                f" name one of {', '.join(tasks)}, or ask with answer 'each'."
            )
        return routed
    named = tuple(dict.fromkeys(candidates))
    if not named or not set(named) <= set(tasks):
        raise ValueError(f"candidates must be among {', '.join(tasks)}; got {named}")
    if len(named) > 1 and (unrouted := [name for name in named if name in of_tokens]):
        raise ValueError(
            f"{unrouted[0]!r} classifies tokens, and there is no choosing between it and others;"
            " name it alone, or ask with answer 'each'."
        )
    return named


def candidate_mask(queries: Sequence[AnyQuery], tasks: Mapping[str, TaskEntry]) -> Tensor:
    """The tasks that each query may have, [B, T] bool; none where the pretrained encoder embeds it.

    Raises what `choice` raises.
    """
    asked = [(query.candidates, query.embeds) for query in queries]
    places = {one: place for place, one in enumerate(dict.fromkeys(asked))}
    choices = [set[str]() if one == (None, True) else set(choice(one[0], tasks)) for one in places]
    rows = torch.tensor([[name in chosen for name in tasks] for chosen in choices])
    return rows[[places[one] for one in asked]]


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
    return Packed(uploaded(packed.rows, device), packed.lengths)


def batch_patches(
    queries: Sequence[AnyQuery],
    preprocessing: ImagePreprocessor,
    patch_size: int,
    like: Tensor,
    uploads: UploadedStacks | None = None,
) -> Tensor:
    """Normalised patches [B, (crop // p)^2, 3 p p], on the device and in the dtype of `like`.

    Pixels that several queries share, one image for many tasks, are prepared once. `uploads` may have been
    sent them ahead.

    Raises ValueError for texts, and for pixels of another size or type than the preprocessing makes.
    """
    images = _images(queries, preprocessing)
    order, parts = [], []
    for dtype, rows in _rows_by_dtype(images).items():
        own = [images[row] for row in rows]
        pixels = uploaded_stack(own, like.device) if uploads is None else uploads.stack(own)
        parts.append(preprocessing.normalise(pixels) if dtype == torch.uint8 else pixels)
        order += rows
    normalised = parts[0] if len(parts) == 1 else torch.cat(parts)
    normalised = selected_rows(normalised, sorted(range(len(order)), key=order.__getitem__))
    patches = patchify(normalised.to(like.dtype), patch_size)
    if len(images) == len(queries):
        return patches
    places = {id(image): row for row, image in enumerate(images)}
    return selected_rows(patches, [places[id(query.pixels)] for query in queries if isinstance(query, Query)])


def send_pixels_ahead(
    queries: Sequence[AnyQuery], preprocessing: ImagePreprocessor, uploads: UploadedStacks
) -> None:
    """Begins to send what `batch_patches` will ask for. Raises as that does."""
    images = _images(queries, preprocessing)
    rows_by_dtype = _rows_by_dtype(images)
    uploads.send_ahead([images[row] for row in rows] for rows in rows_by_dtype.values())


def _images(queries: Sequence[AnyQuery], preprocessing: ImagePreprocessor) -> list[Tensor]:
    """The pixels of all queries, those that several share once. Raises as `batch_patches` does."""
    expected = (3, preprocessing.crop, preprocessing.crop)
    of_images = [query for query in queries if isinstance(query, Query)]
    if len(of_images) != len(queries):
        raise ValueError("this store reads images, and a text was given")
    for query in of_images:
        if query.pixels.shape != expected or query.pixels.dtype not in (torch.uint8, torch.float32):
            found = f"{query.pixels.dtype} {tuple(query.pixels.shape)}"
            raise ValueError(f"pixels must be uint8 or float32 {expected}, got {found}")
    return list({id(query.pixels): query.pixels for query in of_images}.values())


def _rows_by_dtype(images: Sequence[Tensor]) -> dict[torch.dtype, list[int]]:
    """Which images are bytes and which are normalised already: each kind is sent as one tensor."""
    rows: dict[torch.dtype, list[int]] = {}
    for dtype in (torch.uint8, torch.float32):
        if own := [row for row, image in enumerate(images) if image.dtype == dtype]:
            rows[dtype] = own
    return rows

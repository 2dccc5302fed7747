"""Inputs drawn from a fixed seed that are of no task: what evidence is of such is measured on them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mass_serve.backbone import Batch, WordEmbedding
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.engine.queries import Query, TextQuery, batch_patches, batch_words
from mass_serve.engine.shapes import pictures_of_shapes

NOISE_INPUTS = 16  # of images; a text has noise alone, of as many inputs in all
SHAPE_INPUTS = 32
SEED = 0
LONGEST_TEXT = 48  # in tokens
STEEPEST = 2.0  # the largest power of 1/f that the spectrum of an image has


def drawn_inputs(loaded: LoadedStore, num_shapes: int = SHAPE_INPUTS) -> Batch:
    """Inputs as passes take them: images of noise and then of shapes, or texts of random words.

    The noise has spectra from white to 1/f^2. With fewer shapes they are the first ones, the same every time:
    large ones take long to draw.
    """
    generator = torch.Generator().manual_seed(SEED)
    embedding, like = loaded.architecture.embedding, next(iter(loaded.first_pass.values()))
    if isinstance(embedding, WordEmbedding):
        longest = min(LONGEST_TEXT, embedding.max_tokens)
        num_texts = NOISE_INPUTS + num_shapes
        texts = [TextQuery(words) for words in _texts(num_texts, embedding.vocabulary, longest, generator)]
        return batch_words(texts, embedding, like.device)
    assert isinstance(loaded.preprocessing, ImagePreprocessor)  # of a store that reads images
    noise = _noise(embedding.image_size, generator)
    shapes = pictures_of_shapes(num_shapes, embedding.image_size, generator)
    images = [Query(pixels) for pixels in (*noise, *shapes)]
    return batch_patches(images, loaded.preprocessing, embedding.patch_size, like)


def _texts(count: int, vocabulary: int, longest: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields words [n, 2] int64 of so many texts of all lengths up to the longest."""
    for _ in range(count):
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        ids = torch.randint(vocabulary, (length, 1), generator=generator)
        yield torch.cat([ids, torch.zeros_like(ids)], dim=1)


def _noise(size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields pixels [3, size, size] uint8 of random colours and contrast, every second one without colour."""
    frequencies = torch.fft.fftfreq(size)
    distance = (frequencies.square() + frequencies.square().unsqueeze(1)).sqrt().clamp_min(1 / size)
    for number in range(NOISE_INPUTS):
        noise = torch.randn(3, size, size, generator=generator)
        steepness, contrast, *colour = torch.rand(5, generator=generator).tolist()
        image = torch.fft.ifft2(torch.fft.fft2(noise) / distance ** (STEEPEST * steepness)).real
        if number % 2:
            image = image.mean(0, keepdim=True).expand(3, -1, -1)
        image = (image - image.mean()) / image.std() * (0.05 + 0.3 * contrast)
        pixels = (image + torch.tensor(colour).view(3, 1, 1)).clamp(0, 1)
        yield (255 * pixels).to(torch.uint8)

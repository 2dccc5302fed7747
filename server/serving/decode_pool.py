"""Image files decoded on threads, off the event loop."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor

from mass_serve.engine.inputs.decode import decoded, opened
from mass_serve.engine.inputs.errors import InputError
from mass_serve.engine.inputs.preprocessing import ImagePreprocessor
from mass_serve.server.errors import input_refused
from mass_serve.server.serving.threads import Threads

# Beyond it an image counts as large: decoding takes ten bytes per pixel, and more for unusual modes.
LARGE_PIXELS = 12_000_000


class DecodePool:
    """Threads that decode images, off the event loop; Pillow's decoders release the interpreter lock.

    Large images have a thread of their own: one at a time, so that many at once cannot exhaust the memory,
    and beside the others, which do not wait for them.
    """

    def __init__(
        self,
        threads: int,
        max_pixels: int,
        took: Callable[[float, float], None] = lambda _pixels, _seconds: None,
    ) -> None:
        """Starts the threads; `took` is told of each image's pixels and the seconds that it took."""
        self._took = took
        self._max_pixels = max_pixels
        self._threads = Threads(threads, "decode")
        self._thread_for_large = Threads(1, "decode-large")
        # Now, and not with the first image, when there may be no descriptor left to open its formats with.
        Image.init()
        # Pillow's warnings are about callers' files: nothing that an operator could act on.
        warnings.filterwarnings("ignore", module=r"PIL\b")

    @property
    def busy(self) -> bool:
        """Tells whether an image is being decoded."""
        return self._threads.busy or self._thread_for_large.busy

    async def pixels(self, files: Sequence[bytes], preprocessing: ImagePreprocessor) -> list[Tensor]:
        """Decodes all files at once, [3, crop, crop] uint8 each; the error of a bad one says which it was."""

        async def one(index: int, data: bytes) -> Tensor:
            try:
                return await self._decoded(data, preprocessing)
            except InputError as error:
                where = "" if len(files) == 1 else f"images[{index}]: "
                raise input_refused(error, where) from error

        running = [asyncio.ensure_future(one(index, data)) for index, data in enumerate(files)]
        try:
            return await asyncio.gather(*running)
        finally:
            for decoding in running:  # after the first bad image nobody wants the others
                decoding.cancel()

    async def _decoded(self, data: bytes, preprocessing: ImagePreprocessor) -> Tensor:
        def decode() -> Tensor | Image.Image:
            image = opened(data, self._max_pixels)
            large = image.width * image.height > LARGE_PIXELS
            return image if large else self._preprocessed(image, preprocessing)

        result = await self._threads.run(decode)
        if isinstance(result, Tensor):
            return result
        return await self._thread_for_large.run(self._preprocessed, result, preprocessing)

    def _preprocessed(self, image: Image.Image, preprocessing: ImagePreprocessor) -> Tensor:
        started = time.monotonic()
        pixels = preprocessing.preprocess(decoded(image))
        self._took(image.width * image.height, time.monotonic() - started)
        return pixels

    def close(self) -> None:
        """Drops what waits; what runs is not waited for."""
        self._threads.close()
        self._thread_for_large.close()

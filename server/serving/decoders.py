"""Image files made into pixels, in worker processes that the kernel bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.engine import ServingEngine
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey
from mass_serve.inputs.preprocessing import Resizing
from mass_serve.sandbox.bounds import ExceededError, MemoryShortError, SandboxError
from mass_serve.sandbox.decoding import DecodeOptions
from mass_serve.sandbox.image_jobs import DECODE, bounds_of, image_error, predicted_seconds
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.server.errors import NoMemoryError, ServiceError, SlowInputError, input_refused
from mass_serve.server.serving.fair_queue import Turn

SMALL, LARGE = "decode", "decode-large"
# Beyond it an image counts as large: those are decoded one at a time, beside the others. Photographs of
# telephones have 12.2 million pixels.
LARGE_WORK = 16_000_000


def survey_files(files: Sequence[bytes], limits: ImageLimits) -> list[ImageSurvey]:
    """Reads what image files declare. Raises the ServiceError of the first bad one, naming it."""
    found = []
    for index, data in enumerate(files):
        try:
            found.append(survey(data, limits))
        except InputError as error:
            raise input_refused(error, where(index, files)) from error
    return found


def where(index: int, files: Sequence[bytes]) -> str:
    """Returns the words that an image of a request is named by: none where it is the only one."""
    return "" if len(files) == 1 else f"images[{index}]: "


def decode_cost(files: Sequence[bytes], surveys: Sequence[ImageSurvey], workers: int) -> float:
    """Returns the time that decoding should take all workers; large images have the time of one."""
    return sum(
        predicted_seconds(data, surveyed) * (workers if surveyed.work > LARGE_WORK else 1)
        for data, surveyed in zip(files, surveys, strict=True)
    )


class Decoders:
    """Makes the files of a request into pixels."""

    def __init__(self, pool: SandboxPool) -> None:
        self._pool = pool

    async def pixels(
        self, files: Sequence[bytes], surveys: Sequence[ImageSurvey], engine: ServingEngine, turn: Turn
    ) -> list[Tensor]:
        """Decodes all files at once, [3, crop, crop] uint8 each; the error of a bad one says which it was."""
        resizing = engine.preprocessing.resizing
        running: list[asyncio.Future[bytearray]] = []
        try:
            for data, surveyed in zip(files, surveys, strict=True):
                running.append(self._submit(data, surveyed, resizing, turn))
            return [_tensor(result, resizing) for result in await asyncio.gather(*running)]
        except SandboxError as error:
            failed = next(
                index
                for index, decoding in enumerate(running)
                if decoding.done() and not decoding.cancelled() and decoding.exception() is error
            )
            raise _refused(error, where(failed, files)) from error
        finally:
            for decoding in running:  # after the first bad image nobody wants the others
                decoding.cancel()

    def _submit(
        self, data: bytes, surveyed: ImageSurvey, resizing: Resizing, turn: Turn
    ) -> asyncio.Future[bytearray]:
        return self._pool.submit(
            DECODE,
            data,
            DecodeOptions(surveyed, resizing).packed(),
            lane=LARGE if surveyed.work > LARGE_WORK else SMALL,
            turn=turn,
            cost=predicted_seconds(data, surveyed),
            bounds=bounds_of(surveyed, resizing),
        )


def _tensor(result: bytearray, resizing: Resizing) -> Tensor:
    return torch.frombuffer(result, dtype=torch.uint8).view(3, resizing.crop, resizing.crop)


def _refused(error: SandboxError, place: str) -> ServiceError:
    """Returns the error that a caller gets for an image whose worker had no result."""
    if isinstance(error, MemoryShortError):
        return NoMemoryError(f"{place}The server has not the memory to decode this image now; try again.")
    if isinstance(error, ExceededError) and error.reason == "wall":
        return SlowInputError(f"{place}The image took too long to decode; send a smaller one.")
    return input_refused(image_error(error), place)

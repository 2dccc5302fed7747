"""Image files made into pixels, in worker processes that the kernel bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.engine import ServingEngine
from mass_serve.inputs.errors import CorruptInputError, InputError, InputTooLargeError
from mass_serve.inputs.images import ImageLimits, ImageSurvey, survey
from mass_serve.inputs.preprocessing import Resizing
from mass_serve.server.errors import NoMemoryError, ServiceError, SlowInputError, input_refused
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.sandbox.bounds import (
    Bounds,
    ExceededError,
    MemoryShortError,
    RefusedError,
    SandboxError,
)
from mass_serve.server.serving.sandbox.decoding import DecodeOptions
from mass_serve.server.serving.sandbox.pool import SandboxPool

SMALL, LARGE = "decode", "decode-large"
DECODE = "mass_serve.server.serving.sandbox.decoding:decode"
# Beyond it an image counts as large: those are decoded one at a time, beside the others. Photographs of
# telephones have 12.2 million pixels.
LARGE_WORK = 16_000_000
# A decoder makes five to fifty times as many on the machines that this was tried on.
SLOWEST_PIXELS_PER_SECOND = 10_000_000
LEAST_SECONDS = 1.0
# What no job may exceed, whatever its file declares: runs in a BMP would have minutes.
MOST_SECONDS = 10.0
# By the clock a job may take so many times longer: the processors have other work.
WALL_FACTOR, LEAST_WALL_SECONDS = 5.0, 10.0
# Of the modes that are rare the dearest takes thirty: floats, which are stretched in double precision.
BYTES_PER_PIXEL, LEAST_BYTES = 40, 128 << 20
# What is expected of a processor that has other work too, until the pace is known: of what is admitted too
# early some stays without an answer.
PIXELS_PER_SECOND, IMAGE_SECONDS = 30e6, 0.0005
# Bytes take time too, also those that show nothing: 3 ns in a PNG's private chunk, 20 in a noisy JPEG.
BYTES_PER_SECOND = 100e6


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


def predicted_seconds(data: bytes, surveyed: ImageSurvey) -> float:
    """Returns the processor's time that decoding an image should take."""
    return IMAGE_SECONDS + surveyed.work / PIXELS_PER_SECOND + len(data) / BYTES_PER_SECOND


def decode_cost(files: Sequence[bytes], surveys: Sequence[ImageSurvey], workers: int) -> float:
    """Returns the time that decoding should take all workers; large images have the time of one."""
    return sum(
        predicted_seconds(data, surveyed) * (workers if surveyed.work > LARGE_WORK else 1)
        for data, surveyed in zip(files, surveys, strict=True)
    )


def bounds_of(surveyed: ImageSurvey, resizing: Resizing) -> Bounds:
    """Returns what decoding an image may take."""
    seconds = min(MOST_SECONDS, LEAST_SECONDS + surveyed.work / SLOWEST_PIXELS_PER_SECOND)
    pixels = surveyed.width * surveyed.height
    return Bounds(
        cpu_seconds=seconds,
        wall_seconds=max(LEAST_WALL_SECONDS, WALL_FACTOR * seconds),
        memory_bytes=LEAST_BYTES + BYTES_PER_PIXEL * pixels,
        result_bytes=3 * resizing.crop**2,
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
    if isinstance(error, RefusedError) and error.kind == CorruptInputError.__name__:
        return input_refused(CorruptInputError(str(error)), place)
    if isinstance(error, MemoryShortError):
        return NoMemoryError(f"{place}The server has not the memory to decode this image now; try again.")
    if isinstance(error, ExceededError) and error.reason == "wall":
        return SlowInputError(f"{place}The image took too long to decode; send a smaller one.")
    if isinstance(error, ExceededError) and error.reason in ("cpu", "memory"):
        what = "time" if error.reason == "cpu" else "memory"
        too_large = InputTooLargeError(
            f"The image takes more {what} to decode than one of its size may; save it anew, or smaller."
        )
        return input_refused(too_large, place)
    broken = CorruptInputError("The image is truncated or corrupt: it broke its decoder; save it anew.")
    return input_refused(broken, place)

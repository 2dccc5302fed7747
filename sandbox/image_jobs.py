"""Jobs that decode an image, as whoever gives them to a pool sees them: what they take, and how they fail."""

from __future__ import annotations

from mass_serve.inputs.errors import CorruptInputError, InputError, InputTooLargeError
from mass_serve.inputs.images import ImageSurvey
from mass_serve.inputs.preprocessing import Resizing
from mass_serve.sandbox.bounds import Bounds, ExceededError, RefusedError, SandboxError

DECODE = "mass_serve.sandbox.decoding:decode"
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


def predicted_seconds(data: bytes, surveyed: ImageSurvey) -> float:
    """Returns the processor's time that decoding an image should take."""
    return IMAGE_SECONDS + surveyed.work / PIXELS_PER_SECOND + len(data) / BYTES_PER_SECOND


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


def image_error(error: SandboxError) -> InputError:
    """Returns what is wrong with an image whose job had no result, if it is the image that is wrong.

    A machine without memory, and the time that passes by the clock, are nothing that an image is to blame
    for: `MemoryShortError`, and `ExceededError` for "wall".
    """
    if isinstance(error, RefusedError) and error.kind == CorruptInputError.__name__:
        return CorruptInputError(str(error))
    if isinstance(error, ExceededError) and error.reason in ("cpu", "memory"):
        what = "time" if error.reason == "cpu" else "memory"
        return InputTooLargeError(
            f"The image takes more {what} to decode than one of its size may; save it anew, or smaller."
        )
    return CorruptInputError("The image is truncated or corrupt: it broke its decoder; save it anew.")

"""Images are decoded side by side, in order, large ones beside the others; what fails says which it was."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import Tensor

from mass_serve.engine import ServingEngine
from mass_serve.inputs.images import ImageLimits, ImageSurvey, decode_surveyed
from mass_serve.sandbox.bounds import (
    ExceededError,
    MemoryShortError,
    RefusedError,
    SandboxError,
)
from mass_serve.sandbox.image_jobs import DECODE, bounds_of, predicted_seconds
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.server.errors import (
    BadImageError,
    NoMemoryError,
    NotAnImageError,
    ServiceError,
    SlowInputError,
    TooLargeError,
)
from mass_serve.server.serving.decoders import LARGE, SMALL, Decoders, decode_cost, survey_files
from mass_serve.server.serving.fair_queue import Turn
from tests.pictures import Colour, bomb, encode, picture
from tests.server.fakes import FakeEngine

LIMITS = ImageLimits(20_000_000)
ENGINE: ServingEngine = FakeEngine()
PREPROCESSING = ENGINE.preprocessing


async def decoded(made: Decoders, files: Sequence[bytes]) -> list[Tensor]:
    return await made.pixels(files, survey_files(files, LIMITS), ENGINE, Turn("all", 2))


def with_decoders(test: Callable[[Decoders, SandboxPool], Awaitable[None]], count: int = 2) -> None:
    async def run() -> None:
        pool = SandboxPool([DECODE], {SMALL: count, LARGE: 1}, 8 << 20)
        pool.start()
        try:
            await test(Decoders(pool), pool)
        finally:
            pool.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_the_order_is_kept_and_the_bits_are_those_of_this_process() -> None:
    colours: list[Colour] = [(n, 0, 0) for n in range(20)]
    files = [encode(Image.new("RGB", (8, 8), colour)) for colour in colours]
    large = bomb(4000, 4001)

    async def test(made: Decoders, _: SandboxPool) -> None:
        pixels = await decoded(made, [*files, large, encode(Image.effect_noise((300, 200), 90), "JPEG")])
        assert [int(image[0, 0, 0]) for image in pixels[:20]] == list(range(20))
        assert pixels[-1].dtype == torch.uint8
        assert pixels[-1].shape == (3, 8, 8)
        noise = encode(Image.effect_noise((300, 200), 90), "JPEG")
        (here,) = await decoded(made, [noise])
        surveyed = survey_files([noise], LIMITS)[0]
        assert torch.equal(here, PREPROCESSING.preprocess(decode_surveyed(noise, surveyed).image))

    with_decoders(test)


def test_what_is_no_image_is_refused_before_anything_is_decoded() -> None:
    files = [picture(1), b"no image", picture(2)]
    with pytest.raises(NotAnImageError, match=r"images\[1\]: "):
        survey_files(files, LIMITS)
    with pytest.raises(TooLargeError, match="30000 x 30000"):
        survey_files([bomb()], LIMITS)


def test_an_image_that_does_not_decode_is_named() -> None:
    broken = picture(1, size=(64, 64))[:-30]

    async def test(made: Decoders, _: SandboxPool) -> None:
        with pytest.raises(BadImageError, match=r"images\[2\]: The PNG image is truncated"):
            await decoded(made, [picture(1), picture(2), broken, picture(3)])
        with pytest.raises(BadImageError, match=r"^The PNG image"):
            await decoded(made, [broken])

    with_decoders(test)


def test_small_images_do_not_wait_for_large_ones() -> None:
    async def test(made: Decoders, _: SandboxPool) -> None:
        large = asyncio.ensure_future(decoded(made, [bomb(4000, 4001)] * 4))
        await asyncio.sleep(0)
        assert len(await decoded(made, [picture(1)] * 4)) == 4
        assert not large.done()
        await large

    with_decoders(test)


def test_after_a_bad_image_the_others_are_dropped() -> None:
    async def test(made: Decoders, pool: SandboxPool) -> None:
        broken = picture(1, size=(64, 64))[:-30]
        with pytest.raises(BadImageError):
            await decoded(made, [broken] + [bomb(900, 900)] * 200)
        await asyncio.sleep(0)
        assert pool.oldest_seconds((SMALL,)) == 0
        leaving = asyncio.ensure_future(decoded(made, [bomb(900, 900)] * 200))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.sleep(0.01)
        assert pool.oldest_seconds((SMALL,)) == 0

    with_decoders(test, 1)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (RefusedError("CorruptInputError", "The PNG image is truncated"), BadImageError),
        (RefusedError("KeyError", "of a decoder"), BadImageError),
        (ExceededError("cpu"), TooLargeError),
        (ExceededError("memory"), TooLargeError),
        (ExceededError("wall"), SlowInputError),
        (ExceededError("crash"), BadImageError),
        (MemoryShortError("killed"), NoMemoryError),
    ],
)
def test_how_each_failure_is_answered(failure: SandboxError, error: type[ServiceError]) -> None:
    """The status tells the caller whether to send another image or the same one again."""

    def submit(*_: Any, **__: Any) -> asyncio.Future[bytearray]:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(failure)
        return future

    async def run() -> None:
        pool = cast(SandboxPool, SimpleNamespace(submit=submit))
        await decoded(Decoders(pool), [picture(1)])

    with pytest.raises(error):
        asyncio.run(run())


def test_images_get_time_and_memory_by_their_size() -> None:
    small, large = ImageSurvey("PNG", 100, 100, 10_000), ImageSurvey("PNG", 7000, 7000, 49_000_000)
    resizing = PREPROCESSING.resizing
    assert bounds_of(small, resizing).cpu_seconds < 1.5
    assert bounds_of(large, resizing).cpu_seconds > 5
    assert bounds_of(large, resizing).memory_bytes < 4 << 30
    assert bounds_of(small, replace(resizing, crop=224)).result_bytes == 3 * 224 * 224
    assert predicted_seconds(b"", large) > 100 * predicted_seconds(b"", small)


def test_photographs_of_telephones_are_not_large() -> None:
    lanes: list[str] = []

    def submit(*_: Any, lane: str, **__: Any) -> asyncio.Future[bytearray]:
        lanes.append(lane)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(RefusedError("CorruptInputError", "asked only for its lane"))
        return future

    async def run() -> None:
        pool = cast(SandboxPool, SimpleNamespace(submit=submit))
        for size in ((4032, 3024), (4000, 4000), (4000, 4001), (8000, 6000)):
            surveys = [ImageSurvey("JPEG", *size, size[0] * size[1])]
            with pytest.raises(BadImageError):
                await Decoders(pool).pixels([b"x"], surveys, ENGINE, Turn("all", 2))

    asyncio.run(run())
    assert lanes == [SMALL, SMALL, LARGE, LARGE]


def test_no_job_has_more_than_ten_seconds() -> None:
    """Twenty scans of the largest image, and a BMP of runs of one pixel each, would have more."""
    resizing = PREPROCESSING.resizing
    for surveyed in (
        ImageSurvey("JPEG", 7000, 7000, 49_000_000 * 6),
        ImageSurvey("BMP", 4000, 4000, 16_000_000 * 101),
    ):
        assert bounds_of(surveyed, resizing).cpu_seconds == 10.0
        assert bounds_of(surveyed, resizing).wall_seconds == 50.0
    small = ImageSurvey("JPEG", 4000, 4000, 16_000_000)
    assert bounds_of(small, resizing).cpu_seconds == pytest.approx(2.6)


def test_bytes_that_show_nothing_are_expected_to_take_time_too() -> None:
    """A PNG with 20 MB of private chunks takes a hundred times as long as its pixels alone."""
    tiny = ImageSurvey("PNG", 16, 16, 256)
    assert predicted_seconds(bytes(20_000_000), tiny) > 100 * predicted_seconds(bytes(100), tiny)
    alone, together = predicted_seconds(bytes(100), tiny), decode_cost([bytes(100)] * 3, [tiny] * 3, 2)
    assert together == pytest.approx(3 * alone)
    large = ImageSurvey("PNG", 7000, 7000, 49_000_000)
    assert decode_cost([b"x"], [large], 3) == pytest.approx(3 * predicted_seconds(b"x", large))


def test_what_is_told_of_the_pace_is_measured_against_the_whole_file() -> None:
    heavy = with_private_chunk(encode(Image.new("RGB", (16, 16))), 4_000_000)
    told: list[tuple[float, float]] = []

    async def run() -> None:
        pool = SandboxPool([DECODE], {SMALL: 1, LARGE: 1}, 16 << 20, took=lambda _, *rest: told.append(rest))
        pool.start()
        try:
            await decoded(Decoders(pool), [heavy])
        finally:
            pool.close()
            await asyncio.sleep(0)

    asyncio.run(run())
    [(cost, seconds)] = told
    assert cost == predicted_seconds(heavy, survey_files([heavy], LIMITS)[0])
    assert cost > 0.03
    assert seconds > 0


def with_private_chunk(png: bytes, nbytes: int) -> bytes:
    """The same picture, with so many bytes before its pixels that show nothing."""
    chunk = b"prVt" + bytes(nbytes)
    place = png.index(b"IDAT") - 4
    packed = struct.pack(">I", nbytes) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:place] + packed + png[place:]

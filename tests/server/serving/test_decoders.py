"""Images are decoded side by side, in order, large ones beside the others; what fails says which it was."""

from __future__ import annotations

import asyncio
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
from mass_serve.server.errors import (
    BadImageError,
    NoMemoryError,
    NotAnImageError,
    ServiceError,
    SlowInputError,
    TooLargeError,
)
from mass_serve.server.serving import decoders
from mass_serve.server.serving.decoders import DECODE, LARGE, SMALL, Decoders, bounds_of, survey_files
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.sandbox.bounds import (
    ExceededError,
    MemoryShortError,
    RefusedError,
    SandboxError,
)
from mass_serve.server.serving.sandbox.pool import SandboxPool
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
    large = bomb(4000, 3001)

    async def test(made: Decoders, _: SandboxPool) -> None:
        pixels = await decoded(made, [*files, large, encode(Image.effect_noise((300, 200), 90), "JPEG")])
        assert [int(image[0, 0, 0]) for image in pixels[:20]] == list(range(20))
        assert pixels[-1].dtype == torch.uint8
        assert pixels[-1].shape == (3, 8, 8)
        noise = encode(Image.effect_noise((300, 200), 90), "JPEG")
        (here,) = await decoded(made, [noise])
        surveyed = survey_files([noise], LIMITS)[0]
        assert torch.equal(here, PREPROCESSING.preprocess(decode_surveyed(noise, surveyed)))

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
        large = asyncio.ensure_future(decoded(made, [bomb(4000, 4000)] * 4))
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
    assert decoders.predicted_seconds(large) > 100 * decoders.predicted_seconds(small)

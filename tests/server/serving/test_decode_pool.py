"""Images are decoded side by side, in order, large ones one at a time, and none that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from PIL import Image
from torch import Tensor

from mass_serve.engine.inputs.preprocessing import Preprocessing
from mass_serve.server.errors import NotAnImageError
from mass_serve.server.serving.decode_pool import DecodePool
from tests.pictures import Colour, bomb, encode, picture

LIMIT = 1_000_000
PREPROCESSING = Preprocessing(8, 8, "nearest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_the_pool_keeps_the_order_and_names_the_bad_image() -> None:
    pool = DecodePool(2, LIMIT)
    colours: list[Colour] = [(n, 0, 0) for n in range(20)]
    files = [encode(Image.new("RGB", (8, 8), colour)) for colour in colours]
    pixels = asyncio.run(pool.pixels(files, PREPROCESSING))
    assert [int(image[0, 0, 0]) for image in pixels] == list(range(20))
    with pytest.raises(NotAnImageError, match=r"images\[3\]: "):
        asyncio.run(pool.pixels([*files[:3], b"no image", *files[3:]], PREPROCESSING))
    pool.close()


class Watching(Preprocessing):
    """Sees how many images are in memory at once."""

    most = 0

    def preprocess(self, image: Image.Image) -> Tensor:
        with LOCK:
            OPEN.append(image)
            Watching.most = max(Watching.most, len(OPEN))
        time.sleep(0.02)
        with LOCK:
            OPEN.remove(image)
        return super().preprocess(image)


LOCK = threading.Lock()
OPEN: list[Image.Image] = []


@pytest.mark.parametrize(("size", "alone"), [((100, 100), False), ((4000, 3001), True)])
def test_large_images_are_decoded_one_at_a_time(size: tuple[int, int], alone: bool) -> None:
    pool = DecodePool(8, 20_000_000)
    Watching.most = 0
    watching = Watching(8, 8, "nearest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    asyncio.run(pool.pixels([bomb(*size)] * 4, watching))
    assert (Watching.most == 1) == alone
    pool.close()


class Gated(Preprocessing):
    """Large images wait for a gate; counts what is decoded.

    No image is decoded so fast that a busy machine cannot stop in time.
    """

    gate = threading.Event()
    decoded = 0

    def preprocess(self, image: Image.Image) -> Tensor:
        Gated.decoded += 1
        time.sleep(0.005)
        if image.width > 3000:
            assert self.gate.wait(20)
        return super().preprocess(image)


@pytest.fixture
def gated() -> Gated:
    Gated.gate.clear()
    Gated.decoded = 0
    return Gated(8, 8, "nearest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_small_images_do_not_wait_for_large_ones(gated: Gated) -> None:
    pool = DecodePool(2, 20_000_000)

    async def both() -> list[Tensor]:
        large = asyncio.ensure_future(pool.pixels([bomb(4000, 3001)] * 4, gated))
        await asyncio.sleep(0.5)  # long enough to fill every thread
        small = await asyncio.wait_for(pool.pixels([picture(1)] * 4, gated), 10)
        assert not large.done()
        gated.gate.set()
        await large
        return small

    assert len(asyncio.run(both())) == 4
    pool.close()


def test_after_a_bad_image_the_others_are_not_decoded(gated: Gated) -> None:
    """Neither when the caller leaves: one of them is at work, the others are dropped."""
    pool = DecodePool(1, 20_000_000)
    with pytest.raises(NotAnImageError):
        asyncio.run(pool.pixels([b"no image"] + [bomb(900, 900)] * 200, gated))

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.pixels([bomb(900, 900)] * 200, gated), 0.1)
        await asyncio.wait_for(pool.pixels([picture(1)], gated), 10)

    asyncio.run(leave())
    assert Gated.decoded < 100
    pool.close()

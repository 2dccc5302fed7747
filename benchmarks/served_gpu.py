"""What an engine does on one GPU: whole batches in every mode, a reload under load, images from JPEGs.

`python -m benchmarks.engine_gpu` calls it with a store of random weights that it builds; on any device the
same functions run by the wall clock.
"""

from __future__ import annotations

import io
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu_timing import medians
from mass_serve.engine import Engine, EngineOptions, Query, StoreSource
from mass_serve.inputs.images.decode import decode_image
from mass_serve.inputs.images.surveyed import ImageLimits
from mass_serve.router import MODES, PAPER, ModeName

JPEG_EDGES = (500, 375)  # of a photograph as data sets have them


def source(store: Path, device: str, mode: ModeName, max_batch: int) -> StoreSource:
    """Where engines of that mode come from, ready for batches of up to so many images."""
    return StoreSource(str(store), EngineOptions(device=device, mode=mode), max_batch=max_batch)


def random_queries(engine: Engine, batch: int) -> list[Query]:
    """Images of noise. Where a search depends on what is in them, it goes the longer way."""
    crop = engine.preprocessing.crop
    pixels = torch.randint(0, 256, (batch, 3, crop, crop), dtype=torch.uint8)
    return [Query(image) for image in pixels]


def batch_seconds(
    store: Path, device: str, batches: Sequence[int], budget: float, warm_up: int = 3
) -> dict[str, float]:
    """Median seconds of `Engine.classify_batch` in every mode, and with tasks named, at each batch size."""
    engines: dict[ModeName, Engine] = {PAPER: source(store, device, PAPER, max(batches)).load()}
    engines |= dict.fromkeys(MODES, source(store, device, "exact", max(batches)).load())
    times: dict[str, float] = {}
    for batch in batches:
        times |= medians(_variants(engines, batch), torch.device(device), budget, warm_up)
    return times


def _variants(engines: Mapping[ModeName, Engine], batch: int) -> Mapping[str, Callable[[], object]]:
    """A batch in each mode by that mode's engine, and one whose images have tasks named, each in turn."""
    engine = engines["exact"]
    pixels, names = [query.pixels for query in random_queries(engine, batch)], list(engine.tasks)
    named = [Query(image, (names[row % len(names)],)) for row, image in enumerate(pixels)]
    return {
        f"classify_batch {mode} batch {batch}": partial(
            own.classify_batch, [Query(image, mode=mode) for image in pixels]
        )
        for mode, own in engines.items()
    } | {f"classify_batch named batch {batch}": partial(engine.classify_batch, named)}


def reload_under_load(store: Path, device: str, batch: int, least_seconds: float) -> dict[str, float]:
    """Seconds of batches in `exact` while the store is loaded once more beside the engine that answers."""
    own = source(store, device, "exact", batch)
    engine = own.load()
    queries = random_queries(engine, batch)
    engine.classify_batch(queries)
    alone = list(_batches(engine, queries, time.perf_counter() + least_seconds))
    beside: list[float] = []
    with ThreadPoolExecutor(1) as loader:
        start = time.perf_counter()
        loading = loader.submit(lambda: (own.load(previous=engine), time.perf_counter()))
        while not loading.done():
            beside += _batches(engine, queries, 0.0)
        following, end = loading.result()
    following.classify_batch(queries)
    return {
        "reload_seconds": end - start,
        "reload_batch_seconds_before": statistics.median(alone),
        "reload_batch_seconds_during": statistics.median(beside),
        "reload_batch_seconds_longest": max(beside),
    }


def _batches(engine: Engine, queries: Sequence[Query], until: float) -> Iterator[float]:
    """Yields how long each batch takes, until that time: at least one."""
    while True:
        before = time.perf_counter()
        engine.classify_batch(queries)
        yield (after := time.perf_counter()) - before
        if after >= until:
            return


def images_per_second(
    store: Path, device: str, batch: int, batches: int, workers: int, mode: ModeName = "exact"
) -> dict[str, float]:
    """Images a second from JPEGs to answers: two batches are decoded while one is answered.

    It is measured with pixels that are sent when their batch runs, and with those sent during the one before.
    """
    engine = source(store, device, mode, batch).load()
    files = _jpegs(batch)

    def prepared(data: bytes) -> Tensor:
        return engine.preprocessing.preprocess(decode_image(data, ImageLimits(JPEG_EDGES[0] * JPEG_EDGES[1])))

    with ThreadPoolExecutor(workers) as pool:

        def begun() -> list[Future[Tensor]]:
            return [pool.submit(prepared, data) for data in files]

        def decoded(count: int) -> Iterator[list[Query]]:
            pending = deque(begun() for _ in range(min(count, 2)))
            for left in reversed(range(count)):
                ready = [Query(one.result()) for one in pending.popleft()]
                if left > len(pending):
                    pending.append(begun())
                yield ready

        def seconds(count: int, *, ahead: bool) -> float:
            start, of_batches = time.perf_counter(), decoded(count)
            queries = next(of_batches)
            while queries:
                following = next(of_batches, [])
                engine.classify_batch(queries, following if ahead else ())
                queries = following
            return time.perf_counter() - start

        forms = {"": False, "_sent_ahead": True}
        for ahead in forms.values():
            seconds(2, ahead=ahead)
        rates = {
            f"images_per_second_{mode}{name}": batch * batches / seconds(batches, ahead=ahead)
            for name, ahead in forms.items()
        }
    return rates | {"decoding_threads": float(workers)}


def _jpegs(count: int) -> list[bytes]:
    """Photographs' sizes and textures, of noise that is smooth."""
    generator = torch.Generator().manual_seed(0)
    files = []
    for _ in range(count):
        small = torch.randint(0, 256, (24, 32, 3), generator=generator, dtype=torch.uint8).numpy()
        image, stream = Image.fromarray(small).resize(JPEG_EDGES, Image.Resampling.BICUBIC), io.BytesIO()
        image.save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files

"""What HTTP adds to a batch: one request with a batch of images, against decoding and the engine alone."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.timing import medians
from mass_serve.engine import Engine, Query
from mass_serve.inputs.images import ImageLimits, decode_image

BATCH = 32


def photographs(count: int) -> list[bytes]:
    """JPEG files of about 224 pixels, smooth as photographs are."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((240, 224), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def start_server(store: Path) -> tuple[subprocess.Popen[str], str]:
    """A server for a store, ready, and its address."""
    command = [
        sys.executable,
        "-m",
        "mass_serve.cli",
        "serve",
        str(store),
        "--port",
        "0",
        "--log-format",
        "json",
        "--dtype",
        "float32",
    ]
    # The same batch as the engine's: as it is set, the server divides one that takes longer than a second.
    whole = ("--max-batch-images", str(BATCH), "--max-batch-seconds", "30")
    process = subprocess.Popen(
        [*command, *whole],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if address := re.search(r"http://[\d.]+:\d+", line):
            break
    else:
        raise RuntimeError("the server ended before it named its address")
    deadline = time.monotonic() + 300
    while httpx.get(f"{address[0]}/readyz").status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not become ready")
        time.sleep(0.5)
    return process, address[0]


def measure(engine: Engine, store: Path, rounds: int) -> dict[str, float]:
    """Median seconds of the same batch over HTTP, in the engine, and in decoding on one thread."""
    files = photographs(BATCH)
    process, address = start_server(store)
    try:
        with httpx.Client(base_url=address, timeout=300) as client:
            parts = [("images", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(files)]

            def decode() -> list[Query]:
                images = [decode_image(data, ImageLimits(10**8)) for data in files]
                return [Query(engine.preprocessing.preprocess(image)) for image in images]

            queries = decode()
            times = medians(
                {
                    "http_seconds": lambda: client.post("/v1/classify", files=parts).raise_for_status(),
                    "engine_seconds": lambda: engine.classify_batch(queries),
                    "decode_seconds": decode,
                },
                rounds,
            )
    finally:
        process.terminate()
        process.wait(60)
    return times

"""Good images from two versions of the program in one run, in short rounds in turn."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from benchmarks.hostile.arena import PICTURE
from benchmarks.hostile.lines import Line
from benchmarks.hostile.pictures import photograph
from benchmarks.hostile.wire import post
from benchmarks.service.generator import Connection
from benchmarks.service.processes import running_server

# Enough to fill the batches while others are decoded.
CLIENTS = 32
VARIETY = 8
WARM_UP_ROUNDS = 1
# Of two runs of the same version the medians differ by about so much.
LEAST_RATIO = 0.97


def requests() -> dict[str, list[bytes]]:
    """Requests with images of each kind, on connections that stay open."""
    pictures = sorted(PICTURE.parents[1].glob("*/*.png"))[:VARIETY]
    kinds = {
        "images of the demo's size": [path.read_bytes() for path in pictures],
        "JPEGs of 1024 pixels": [photograph(1024, quality) for quality in range(85, 85 + VARIETY)],
    }
    return {
        kind: [post("/v1/classify", file).replace(b"Connection: close\r\n", b"") for file in files]
        for kind, files in kinds.items()
    }


def compare(checkout: Path, seconds: float, rounds: int) -> Iterator[Line]:
    """Says for each kind of image how many a second either version serves, and their ratio."""
    with running_server(None) as ours, running_server(None, checkout=checkout) as theirs:
        for kind, made in requests().items():
            rates: tuple[list[float], list[float]] = [], []
            for number in range(WARM_UP_ROUNDS + rounds):
                # Whoever goes first has the cooler processor.
                for which in (0, 1) if number % 2 else (1, 0):
                    rate = asyncio.run(_rate((ours, theirs)[which].port, made, seconds))
                    if number >= WARM_UP_ROUNDS:
                        rates[which].append(rate)
            yield compared(kind, *rates)


def compared(kind: str, ours: Sequence[float], theirs: Sequence[float]) -> Line:
    """Says how the images a second of either version compare, whose rounds took turns."""
    here, there = statistics.median(ours), statistics.median(theirs)
    spread = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    return Line(
        f"{kind}: {here:.1f} images a second, {there:.1f} there, ratio of medians {here / there:.3f}"
        f" (rounds {spread[0]:.3f} to {spread[-1]:.3f})",
        held=here / there >= LEAST_RATIO,
    )


async def _rate(port: int, made: Sequence[bytes], seconds: float) -> float:
    """Answers a second in a closed loop. Raises RuntimeError for any other than 200."""
    remaining = cycle(made)
    answered = 0
    started = time.perf_counter()

    async def client() -> None:
        nonlocal answered
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        while time.perf_counter() < started + seconds:
            status = await connection.ask(next(remaining))
            if status != 200:
                raise RuntimeError(f"a good image got {status}")
            answered += 1
        connection.transport.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered / (time.perf_counter() - started)

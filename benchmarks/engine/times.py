"""The time of an answer in every mode, beside that of dense passes in the same dtype and the same run.

All is processor seconds of one thread, the least of the rounds; variants take turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from benchmarks.engine import many_models
from benchmarks.engine.dense import DenseModels, Forward, ours
from benchmarks.timing import minima
from mass_serve.engine import Engine, Query
from mass_serve.router import MODES, PAPER

DTYPES = ("float32", "bfloat16", "int8")
# What is so large warms up for no round of its own: of ViT-B/32 one takes half a minute, and smaller batches,
# which come first, have touched all there is.
LARGE_BATCH = 32
NAMED = "named"  # each image with a task of its own, which nobody searches for
OURS = "ours"


@dataclass(frozen=True)
class Times:
    """What one batch took, in seconds, by the name of what was measured."""

    store: str
    dtype: str
    batch: int
    dense: Mapping[str, float]
    answers: Mapping[str, float]  # by mode
    passes: Mapping[str, float]  # by mode, of an image on average
    many_models: Mapping[str, float]

    def as_json(self) -> dict[str, object]:
        """The same for a file."""
        return asdict(self)


class Answering:
    """Answers a batch, and keeps how many passes that took."""

    def __init__(self, engine: Engine, queries: Sequence[Query]) -> None:
        self._engine = engine
        self._queries = queries
        self.passes = 0.0

    def __call__(self) -> None:
        answers = self._engine.classify_batch(self._queries).all_answers()
        self.passes = statistics.fmean(answer.passes for answer in answers)


def times_of(
    store: str, name: str, models: DenseModels, images: Sequence[torch.Tensor], rounds: Mapping[int, int]
) -> Iterator[Times]:
    """Yields the times of a store in every dtype for batches of the first of the images, [3, H, W] uint8.

    `rounds` has for each size of a batch how often it is measured.
    """
    for dtype in DTYPES:
        engine = Engine.load(store, device="cpu", dtype=dtype, mode="exact")
        paper = Engine.load(store, device="cpu", dtype=dtype, mode=PAPER)
        for batch, often in rounds.items():
            queries = [Query(image) for image in images[:batch]]
            yield _measured(name, dtype, engine, paper, models, queries, often)


def _measured(
    name: str,
    dtype: str,
    engine: Engine,
    paper: Engine,
    models: DenseModels,
    queries: Sequence[Query],
    rounds: int,
) -> Times:
    tasks, batch = list(engine.tasks), len(queries)
    pixels = engine.preprocessing.normalise(torch.stack([query.pixels for query in queries]))
    dense: dict[str, Forward] = {OURS: ours(engine, queries), **models.forwards(dtype, pixels)}
    named = [replace(query, candidates=(tasks[row % len(tasks)],)) for row, query in enumerate(queries)]
    answers: dict[str, Answering] = {NAMED: Answering(engine, named)}
    for mode in MODES:
        answers[mode] = Answering(engine, [replace(query, mode=mode) for query in queries])
    answers[PAPER] = Answering(paper, queries)
    others = many_models.forwards(models, len(tasks), dtype, pixels)
    seconds = minima({**dense, **answers, **others}, rounds, warm_up=batch < LARGE_BATCH)
    return Times(
        store=name,
        dtype=dtype,
        batch=batch,
        dense={own: seconds[own] for own in dense},
        answers={own: seconds[own] for own in answers},
        passes={own: answering.passes for own, answering in answers.items()},
        many_models={own: seconds[own] for own in others},
    )

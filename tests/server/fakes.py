"""A small engine: the pixel in the corner is the answer, and misbehaviour is asked for by colour."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mass_serve.engine import AnyAnswer, AnyQuery, BatchReport, Classification, Embedding, Query
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.model_store.errors import IntegrityError
from mass_serve.model_store.format.entries import HeadSpec, TaskEntry
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.router import ModeName

EIGHT_PIXELS = Preprocessing(
    size=8, crop=8, interpolation="nearest", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
LABELS = tuple(str(n) for n in range(256))

# The green value of the corner pixel makes the fake engine misbehave.
FAIL, DIE, SLOW, HANG, NOT_FINITE, LARGE, STRANGE, UNREADABLE = 10, 20, 30, 40, 50, 60, 70, 80
SLOW_SECONDS = 1.0
HANG_SECONDS = 3600.0
# Longer than any test waits for what it waits for.
GATE_SECONDS = 120.0


def task_entry(name: str, labels: Sequence[str], accuracy: float | None = None) -> TaskEntry:
    """A task as a manifest describes it, but for its files, and with a revision that tests can read."""
    return TaskEntry.model_construct(
        name=name,
        revision="r1",
        labels=tuple(labels),
        head=HeadSpec(kind="cosine"),
        rank=4,
        individual_accuracy=accuracy,
    )


def words() -> TextTokenizer:
    """The tokenizer of a store of texts: every word is the same, and what marks begin and end is BERT's."""
    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "a": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    return TextTokenizer(tokenizer.to_str().encode(), max_tokens=50)


@dataclass
class FakeSetCache:
    """Figures of a cache that has been used."""

    hits: int = 3
    misses: int = 2
    nbytes: int = 1
    used: dict[str, int] = field(default_factory=lambda: {"low_rank": 4, "materialised": 1})


@dataclass
class FakeResidentTasks:
    """Figures of tasks of which one was dropped and read again."""

    hits: int = 7
    misses: int = 1
    nbytes: int = 40


@dataclass
class FakeEngine:
    """Answers label n for an image whose corner has red n, or a text whose second token has that id.

    It is the answer of the first candidate task or "digits".
    """

    gate: threading.Event | None = None  # batches wait for it, where given
    batches: list[int] = field(default_factory=list)
    large_images: int = 1  # as many as fit the memory, in a batch that has a LARGE one
    store_revision: str = "fake-1"
    left_out: tuple[str, ...] = ()
    preprocessing: ImagePreprocessor = field(default_factory=lambda: ImagePreprocessor(EIGHT_PIXELS))
    tasks: dict[str, TaskEntry] = field(
        default_factory=lambda: {n: task_entry(n, LABELS, 0.9) for n in ("digits", "signs")}
    )
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tokenizer: TextTokenizer | None = None
    modes: tuple[ModeName, ...] = ("exact", "balanced")
    gives_residuals: bool = True
    nbytes: dict[str, int] = field(default_factory=lambda: {"pretrained": 1000})
    set_cache: FakeSetCache = field(default_factory=FakeSetCache)
    resident_tasks: FakeResidentTasks = field(default_factory=FakeResidentTasks)
    prefetched: list[str] = field(default_factory=list)

    def prefetch(self, tasks: Collection[str]) -> None:
        self.prefetched.extend(tasks)

    def classify_batch(self, queries: Sequence[AnyQuery]) -> BatchReport:
        self.batches.append(len(queries))
        if self.gate is not None:
            assert self.gate.wait(GATE_SECONDS)
        greens = set(map(_green, queries))
        if SLOW in greens:
            time.sleep(SLOW_SECONDS)
        if HANG in greens:
            time.sleep(HANG_SECONDS)
        if LARGE in greens and len(queries) > self.large_images:
            raise torch.OutOfMemoryError("asked to have no memory")
        if UNREADABLE in greens:
            raise IntegrityError("asked to be damaged")
        if FAIL in greens:
            raise RuntimeError("asked to fail")
        if DIE in greens:
            raise SystemExit("asked to die")
        answers = [None if _green(query) == NOT_FINITE else _any_answer(query) for query in queries]
        return BatchReport(answers, {"first_pass": 0.001, "second_pass": 0.002}, [("digits",)], fallbacks=0)


def _green(query: AnyQuery) -> int:
    return int(query.pixels[1, 0, 0]) if isinstance(query, Query) else 0


def _any_answer(query: AnyQuery) -> AnyAnswer:
    if not query.embeds:
        return _answer(query)
    task = query.candidates[0] if query.candidates else None
    values = (query.pixels[:, 0, 0] if isinstance(query, Query) else query.words[:3, 0]).float()
    return Embedding(task, None if task is None else "r1", values)


def _answer(query: AnyQuery) -> Classification:
    # The text that an engine is warmed up with has one token.
    red = int(query.pixels[0, 0, 0] if isinstance(query, Query) else query.words[:2, 0][-1])
    probabilities = torch.full((len(LABELS),), 0.1 / 255)
    probabilities[red] = 0.9
    task = query.candidates[0] if query.candidates else "digits"
    residuals = {} if query.candidates else {"digits": 3.0, "signs": 4.0}
    familiarity = 0.5 if residuals else None
    unrouted = _green(query) == STRANGE and not query.candidates
    routed = ((task,), {task: 0.9}, residuals, familiarity, unrouted, 2.0)
    return Classification(task, "r1", LABELS, probabilities.log(), *routed)

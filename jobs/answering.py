"""Inputs through an engine: read and made ready ahead of the device, answered in full batches.

for answered in answer_all(engine, asked, stream, preparing):
    for one in answered: one.input.id, one.answers, one.problem
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace

from mass_serve.engine import (
    AnyAnswer,
    AnyQuery,
    Classification,
    Embedding,
    EmbeddingQuestion,
    Engine,
    PreparedInput,
    Question,
)
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.texts import TokenizerError, Tokens
from mass_serve.jobs.ahead import Ahead
from mass_serve.jobs.batches import SORTED_BATCHES, BatchLimits, Ready, batches
from mass_serve.jobs.groups import batches_of_groups, runs_in
from mass_serve.jobs.preparing import DEFAULT_LIMITS, Limits, NotPreparedError, Preparer
from mass_serve.jobs.sources import JobInput, weight

# Of files that wait to be decoded, or are.
MOST_BYTES_AHEAD = 512 << 20
NOT_FINITE = "The model's output is not finite; verify the store, or run the job in float32."
NOBODY_ELSE = nullcontext()


@dataclass(frozen=True)
class Asked:
    """What is asked about every input, and how the machine is used for it."""

    question: Question
    embeds: bool = False  # the embedding of the pretrained encoder is wanted, too
    batch_inputs: int = 32
    batch_tokens: int = 16_384
    workers: int = 1  # processes that decode
    limits: Limits = DEFAULT_LIMITS
    grouped: bool = False  # inputs of one group are of one task, and judged together


@dataclass(frozen=True, slots=True)
class Answered:
    """An input with its answers, in the order of the tasks that were asked, or with what is wrong with it."""

    input: JobInput
    answers: Sequence[Classification] = ()
    embedding: Embedding | None = None
    problem: str = ""
    cut: int | None = None  # of a text: how many of its tokens were not read


Stream = Generator[JobInput, None, None]
_Pending = tuple[JobInput, Future[PreparedInput] | None]


def answer_all(engine: Engine, asked: Asked, stream: Stream) -> Generator[list[Answered], None, None]:
    """Yields the answers batch by batch, of texts not in their order.

    Raises JobError where no input can be made ready on this machine, and what the device raises.
    """
    with preparer_of(engine, asked) as preparer:
        yield from answer_prepared(engine, asked, stream, preparer)


def preparer_of(engine: Engine, asked: Asked) -> Preparer:
    """Returns what makes inputs ready for a question."""
    placed = asked.question.asks_of_tokens(engine.tasks)
    return Preparer.of(engine, asked.limits, asked.workers, placed=placed)


def answer_prepared(
    engine: Engine,
    asked: Asked,
    stream: Stream,
    preparer: Preparer,
    device: AbstractContextManager[object] = NOBODY_ELSE,
) -> Generator[list[Answered], None, None]:
    """Yields the answers as `answer_all` does, made ready by what several streams may share.

    `device` is entered for each batch: a lock where several threads have one engine.
    """
    sorted_batches = 1 if engine.tokenizer is None else SORTED_BATCHES
    limits = BatchLimits(asked.batch_inputs, asked.batch_tokens, sorted_batches)
    # All processes have work while what was taken together is on the device.
    most = limits.window + 2 * asked.workers
    ahead = Ahead(_pending(stream, preparer), most, MOST_BYTES_AHEAD, lambda one: weight(one[0].found))
    with closing(ahead):
        put_together = batches_of_groups if asked.grouped else batches
        for batch in put_together(map(_ready, ahead), limits):
            with device:
                answered = _answered(engine, asked, batch)
            yield answered


def in_order(batches: Iterable[Sequence[Answered]]) -> Iterator[Answered]:
    """Yields what was answered in the order of the inputs, whose numbers begin with 0."""
    waiting: dict[int, Answered] = {}
    number = 0
    for batch in batches:
        waiting |= {one.input.at.number: one for one in batch}
        while number in waiting:
            yield waiting.pop(number)
            number += 1


def _pending(stream: Stream, preparer: Preparer) -> Generator[_Pending, None, None]:
    with closing(stream):
        for one in stream:
            yield one, None if isinstance(one.found, InputError) else preparer.submit(one.found)


def _ready(pending: _Pending) -> Ready:
    one, prepared = pending
    try:
        return Ready(one, None, str(one.found)) if prepared is None else Ready(one, prepared.result())
    except (InputError, TokenizerError, NotPreparedError) as error:
        return Ready(one, None, str(error))


def _answered(engine: Engine, asked: Asked, batch: Sequence[Ready]) -> list[Answered]:
    """Answers a batch, in so many calls of the engine that none has more queries than it may have inputs."""
    usable = [one for one in batch if one.prepared is not None]
    inputs = [one.prepared for one in usable if one.prepared is not None]
    queries = _queries(engine, asked, batch)
    if asked.embeds:
        queries += EmbeddingQuestion().queries(inputs, engine.tasks)
    answers: list[AnyAnswer | None] = []
    for start in range(0, len(queries), asked.batch_inputs):
        answers += engine.classify_batch(queries[start : start + asked.batch_inputs]).answers
    each = asked.question.answers(1, engine.tasks)
    classes = [answers[each * row : each * (row + 1)] for row in range(len(usable))]
    embeddings = answers[each * len(usable) :] if asked.embeds else [None] * len(usable)
    unusable = [Answered(one.input, problem=one.problem) for one in batch if one.prepared is None]
    return unusable + [
        _of_input(one, own, vector, asked.embeds)
        for one, own, vector in zip(usable, classes, embeddings, strict=True)
    ]


def _queries(engine: Engine, asked: Asked, batch: Sequence[Ready]) -> list[AnyQuery]:
    """What is asked about the inputs of a batch that are ready; those of a run are asked about together."""
    question = replace(asked.question, same_task=True) if asked.grouped else asked.question
    return [
        query
        for run in (runs_in(batch) if asked.grouped else [batch])
        for query in question.queries([one.prepared for one in run if one.prepared is not None], engine.tasks)
    ]


def _of_input(
    ready: Ready, answers: Sequence[AnyAnswer | None], embedding: AnyAnswer | None, embeds: bool
) -> Answered:
    classes = [one for one in answers if isinstance(one, Classification)]
    vector = embedding if isinstance(embedding, Embedding) else None
    if len(classes) < len(answers) or (embeds and vector is None):
        return Answered(ready.input, problem=NOT_FINITE)
    cut = ready.prepared.cut if isinstance(ready.prepared, Tokens) else None
    return Answered(ready.input, classes, vector, cut=cut)

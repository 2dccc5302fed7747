"""Texts made into tokens: short ones on threads, others in worker processes that the kernel bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mass_serve.inputs.errors import EmptyInputError, InputError, InputTooLargeError, NoPairsError
from mass_serve.inputs.texts import (
    Text,
    TextLimits,
    TextTokenizer,
    TokenizerError,
    Tokens,
    check_texts,
    num_characters,
)
from mass_serve.server.errors import (
    BadRequestError,
    NoMemoryError,
    ServiceError,
    SlowInputError,
    TooLargeError,
    input_refused,
)
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.serving.request_context import Texts
from mass_serve.server.serving.sandbox.bounds import (
    Belonging,
    Bounds,
    ExceededError,
    MemoryShortError,
    RefusedError,
    SandboxError,
)
from mass_serve.server.serving.sandbox.pool import SandboxPool
from mass_serve.server.serving.sandbox.tokenising import HEAD, TOKEN_BYTES, packed_text, unpacked

# Texts that are too long for a thread are read one at a time, beside the others.
TEXTS, LONG_TEXTS = "texts", "texts-long"
KEEP = "mass_serve.server.serving.sandbox.tokenising:keep"
TOKENISE = "mass_serve.server.serving.sandbox.tokenising:tokenise"
# So short a text takes a thread a tenth of a second and 30 MB at most, where the tokenizer is known to be
# bounded, and ordinary text a hundredth of both.
MOST_CHARACTERS_HERE = 10_000
# Bounded tokenizers took 8 microseconds and 3 kB a character at most, where NFKC makes 18 of each. A process
# that has read long texts keeps up to 70 MB of what they took.
LEAST_SECONDS, SLOWEST_CHARACTERS_PER_SECOND = 1.0, 50_000
LEAST_BYTES, BYTES_PER_CHARACTER = 128 << 20, 4096
# What no text may exceed, whatever the limit on characters is.
MOST_SECONDS = 10.0
# By the clock a job may take so many times longer: the processors have other work.
WALL_FACTOR, LEAST_WALL_SECONDS = 5.0, 10.0
# What is expected, until the pace is known.
TEXT_SECONDS, CHARACTERS_PER_SECOND = 0.0005, 1e6
# A vocabulary of 250,000 tokens took 38 times its file's bytes, and 0.4 seconds for each million of them.
KEEPING_SECONDS, KEEPING_BYTES_PER_SECOND = 10.0, 500_000
KEEPING_BYTES, KEEPING_BYTES_PER_BYTE = 256 << 20, 64


def is_tokenised_here(text: Text, tokenizer: TextTokenizer) -> bool:
    """Tells whether no more than a moment of a thread is needed for a text, whatever it is."""
    return tokenizer.is_bounded and not is_long(text)


def predicted_seconds(text: Text) -> float:
    """Returns the processor's time that the tokens of a text should take."""
    return TEXT_SECONDS + num_characters([text]) / CHARACTERS_PER_SECOND


def is_long(text: Text) -> bool:
    """Tells whether a text is read by the one process that long ones have."""
    return num_characters([text]) > MOST_CHARACTERS_HERE


def tokenise_cost(texts: Sequence[Text], tokenizer: TextTokenizer, workers: int) -> float:
    """Returns the time that texts should take all worker processes; long ones have that of one."""
    return sum(
        predicted_seconds(text) * (workers if is_long(text) else 1)
        for text in texts
        if not is_tokenised_here(text, tokenizer)
    )


def bounds_of(characters: int, max_tokens: int) -> Bounds:
    """Returns what making tokens of a text may take."""
    seconds = min(MOST_SECONDS, LEAST_SECONDS + characters / SLOWEST_CHARACTERS_PER_SECOND)
    return Bounds(
        cpu_seconds=seconds,
        wall_seconds=max(LEAST_WALL_SECONDS, WALL_FACTOR * seconds),
        memory_bytes=LEAST_BYTES + BYTES_PER_CHARACTER * characters,
        result_bytes=HEAD.size + TOKEN_BYTES * max_tokens,
    )


def kept(tokenizer: TextTokenizer) -> Belonging:
    """Returns a tokenizer as worker processes keep it."""
    size = len(tokenizer.content)
    seconds = KEEPING_SECONDS + size / KEEPING_BYTES_PER_SECOND
    memory = KEEPING_BYTES + KEEPING_BYTES_PER_BYTE * size
    return Belonging(
        f"{tokenizer.sha256} {tokenizer.max_tokens}",
        KEEP,
        tokenizer.content,
        b"%d" % tokenizer.max_tokens,
        Bounds(seconds, WALL_FACTOR * seconds, memory, result_bytes=0),
    )


class Tokenisers:
    """Makes the texts of a request into tokens."""

    def __init__(self, pool: SandboxPool, parsers: Parsers, limits: TextLimits) -> None:
        self._pool, self._parsers, self._limits = pool, parsers, limits

    async def tokens(
        self, inputs: Texts, tokenizer: TextTokenizer, turn: Turn, *, placed: bool
    ) -> list[Tokens]:
        """Returns the tokens of every text, which may be to be placed.

        Raises the ServiceError of a bad one, which says which it was.
        """
        texts = inputs.texts
        found = await self._parsers.run(
            turn, inputs.nbytes, tokens_here, inputs, self._limits, tokenizer, placed
        )
        elsewhere = [index for index, tokens in enumerate(found) if tokens is None]
        running = {index: self._submit(inputs, index, tokenizer, turn, placed) for index in elsewhere}
        try:
            await asyncio.gather(*running.values())
        except SandboxError as error:
            failed = next(
                index
                for index, work in running.items()
                if work.done() and not work.cancelled() and work.exception() is error
            )
            raise _refused(error, where(failed, texts)) from error
        finally:
            for work in running.values():  # after the first bad text nobody wants the others
                work.cancel()
        return [
            unpacked(running[index].result(), texts[index]) if one is None else one
            for index, one in enumerate(found)
        ]

    def _submit(
        self, inputs: Texts, index: int, tokenizer: TextTokenizer, turn: Turn, placed: bool
    ) -> asyncio.Future[bytearray]:
        text = inputs.texts[index]
        data, options = packed_text(text, inputs.truncation or tokenizer.truncation, placed)
        return self._pool.submit(
            TOKENISE,
            data,
            options,
            lane=LONG_TEXTS if is_long(text) else TEXTS,
            turn=turn,
            cost=predicted_seconds(text),
            bounds=bounds_of(num_characters([text]), tokenizer.max_tokens),
            needs=kept(tokenizer),
        )


def where(index: int, texts: Sequence[Text]) -> str:
    """Returns the words that a text of a request is named by: none where it is the only one."""
    return "" if len(texts) == 1 else f"texts[{index}]: "


def tokens_here(
    inputs: Texts, limits: TextLimits, tokenizer: TextTokenizer, placed: bool
) -> list[Tokens | None]:
    """Returns the tokens of texts, and None for those that may take long; it is made for a thread.

    Raises the ServiceError of the first bad one, naming it.
    """
    texts = inputs.texts
    try:
        check_texts(texts, limits)
    except InputError as error:
        raise input_refused(error) from error
    found: list[Tokens | None] = []
    for index, text in enumerate(texts):
        try:
            here = is_tokenised_here(text, tokenizer)
            found.append(tokenizer.tokens(text, inputs.truncation, placed=placed) if here else None)
        except InputError as error:
            raise input_refused(error, where(index, texts)) from error
        except TokenizerError as error:
            raise _unreadable(where(index, texts)) from error
    return found


# What may be said of a text outside, by name.
_REFUSALS = {kind.__name__: kind for kind in (EmptyInputError, InputTooLargeError, NoPairsError)}


def _unreadable(place: str) -> BadRequestError:
    return BadRequestError(f"{place}The store's tokenizer fails on this text; send another.")


def _refused(error: SandboxError, place: str) -> ServiceError:
    """Returns the error that a caller gets for a text whose worker had no result."""
    if isinstance(error, RefusedError) and error.kind in _REFUSALS:
        return input_refused(_REFUSALS[error.kind](str(error)), place)
    if isinstance(error, RefusedError):
        return _unreadable(place)
    if isinstance(error, MemoryShortError):
        return NoMemoryError(f"{place}The server has not the memory to read this text now; try again.")
    if isinstance(error, ExceededError) and error.reason == "wall":
        return SlowInputError(f"{place}The text took too long to be made into tokens; send a shorter one.")
    # The library ends its process where it finds no memory, so that a crash says no more than the bounds do.
    return TooLargeError(
        f"{place}The text takes the store's tokenizer more time or memory than one of its length may; send a"
        " shorter one, or another."
    )

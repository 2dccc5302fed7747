"""Texts made into tokens: short ones on threads, others in worker processes that the kernel bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mass_serve.inputs.errors import InputError
from mass_serve.inputs.texts import (
    Text,
    TextLimits,
    TextTokenizer,
    TokenizerError,
    Tokens,
    check_texts,
    num_characters,
)
from mass_serve.sandbox.bounds import ExceededError, MemoryShortError, SandboxError
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.sandbox.text_jobs import (
    TOKENISE,
    bounds_of,
    is_long,
    is_tokenised_here,
    kept,
    predicted_seconds,
    text_error,
)
from mass_serve.sandbox.tokenising import packed_text, unpacked
from mass_serve.server.errors import (
    BadRequestError,
    NoMemoryError,
    ServiceError,
    SlowInputError,
    input_refused,
)
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.parsers import Parsers
from mass_serve.server.serving.request_context import Texts

# Texts that are too long for a thread are read one at a time, beside the others.
TEXTS, LONG_TEXTS = "texts", "texts-long"


def tokenise_cost(texts: Sequence[Text], tokenizer: TextTokenizer, workers: int) -> float:
    """Returns the time that texts should take all worker processes; long ones have that of one."""
    return sum(
        predicted_seconds(text) * (workers if is_long(text) else 1)
        for text in texts
        if not is_tokenised_here(text, tokenizer)
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


def _unreadable(place: str) -> BadRequestError:
    return BadRequestError(f"{place}The store's tokenizer fails on this text; send another.")


def _refused(error: SandboxError, place: str) -> ServiceError:
    """Returns the error that a caller gets for a text whose worker had no result."""
    if isinstance(error, MemoryShortError):
        return NoMemoryError(f"{place}The server has not the memory to read this text now; try again.")
    if isinstance(error, ExceededError) and error.reason == "wall":
        return SlowInputError(f"{place}The text took too long to be made into tokens; send a shorter one.")
    found = text_error(error)
    return _unreadable(place) if isinstance(found, TokenizerError) else input_refused(found, place)

"""Images decoded, and texts made into tokens, as the service does it, beside the thread that asks for it.

    with Preparer.of(engine, limits, workers=2) as preparer:
        pixels = preparer.submit(data).result()

Images, long texts, and all texts of tokenizers that are not known to be bounded go to processes that the
kernel bounds (`sandbox`): whatever a file does to its decoder, its own input fails and the job goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from mass_serve.engine import PreparedInput
from mass_serve.engine.protocol import ServingEngine
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import ImageLimits, survey
from mass_serve.inputs.preprocessing import Resizing
from mass_serve.inputs.texts import TextLimits, TextTokenizer, TokenizerError, check_texts, num_characters
from mass_serve.jobs.errors import JobError
from mass_serve.jobs.sources.content import MOST_BYTES, Content
from mass_serve.model_store.format.file_names import MOST_TOKENIZER_BYTES
from mass_serve.sandbox import image_jobs, text_jobs
from mass_serve.sandbox.bounds import ExceededError, MemoryShortError, SandboxError
from mass_serve.sandbox.decoding import DecodeOptions
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.sandbox.tokenising import packed_text, unpacked

_LANE = "job"
# Of the memory that is shared with a process none is taken before something lies there.
_SHARED_BYTES = MOST_BYTES + MOST_TOKENIZER_BYTES + (64 << 20)


class NotPreparedError(Exception):
    """An input cannot be made ready, though it may be right: the machine had not the time or the memory."""


@dataclass(frozen=True)
class Limits:
    """What one input may be, as in the settings."""

    images: ImageLimits
    texts: TextLimits


DEFAULT_LIMITS = Limits(ImageLimits(max_pixels=50_000_000), TextLimits(max_characters=200_000))


@dataclass(frozen=True)
class _Images:
    """Decodes image files."""

    resizing: Resizing
    limits: ImageLimits
    functions: ClassVar[Sequence[str]] = (image_jobs.DECODE,)

    async def prepare(self, data: Content, pool: SandboxPool) -> PreparedInput:
        """Returns the pixels [3, crop, crop] of an image file."""
        assert isinstance(data, bytes)
        surveyed = survey(data, self.limits)
        try:
            pixels = await pool.submit(
                image_jobs.DECODE,
                data,
                DecodeOptions(surveyed, self.resizing).packed(),
                lane=_LANE,
                cost=1.0,
                bounds=image_jobs.bounds_of(surveyed, self.resizing),
            )
        except SandboxError as error:
            raise _refused(error, pool) or image_jobs.image_error(error) from error
        return torch.frombuffer(pixels, dtype=torch.uint8).view(3, self.resizing.crop, self.resizing.crop)


@dataclass(frozen=True)
class _Texts:
    """Makes tokens of texts."""

    tokenizer: TextTokenizer
    limits: TextLimits
    placed: bool
    functions: ClassVar[Sequence[str]] = (text_jobs.KEEP, text_jobs.TOKENISE)

    def is_short(self, text: Content) -> bool:
        """Tells whether a moment is enough for a text, whatever it is."""
        return not isinstance(text, bytes) and text_jobs.is_tokenised_here(text, self.tokenizer)

    def tokens(self, text: Content) -> PreparedInput:
        """Returns the tokens of a short text."""
        assert not isinstance(text, bytes)
        check_texts([text], self.limits)
        return self.tokenizer.tokens(text, placed=self.placed)

    async def prepare(self, text: Content, pool: SandboxPool) -> PreparedInput:
        """Returns the tokens of a text that the tokenizer may take long for."""
        assert not isinstance(text, bytes)
        check_texts([text], self.limits)
        data, options = packed_text(text, self.tokenizer.truncation, self.placed)
        try:
            tokens = await pool.submit(
                text_jobs.TOKENISE,
                data,
                options,
                lane=_LANE,
                cost=1.0,
                bounds=text_jobs.bounds_of(num_characters([text]), self.tokenizer.max_tokens),
                needs=text_jobs.kept(self.tokenizer),
            )
        except SandboxError as error:
            raise _refused(error, pool) or text_jobs.text_error(error) from error
        return unpacked(tokens, text)


def _refused(error: SandboxError, pool: SandboxPool) -> Exception | None:
    """Returns the error for an input that is not to blame for having no result."""
    if isinstance(error, MemoryShortError) and not pool.works:
        return JobError(
            "no process that decodes can be started here: give this one memory or processes, and the same"
            " command again"
        )
    if isinstance(error, MemoryShortError):
        return NotPreparedError("The machine has not the memory to read it now; give it again.")
    if isinstance(error, ExceededError) and error.reason == "wall":
        return NotPreparedError("It took too long to read; give it again when there is less to do.")
    return None


class Preparer:
    """Makes inputs ready on an event loop of its own, which has a thread and processes."""

    def __init__(self, kind: _Images | _Texts, workers: int) -> None:
        """Starts nothing yet."""
        self._kind = kind
        self._loop = asyncio.new_event_loop()
        self._pool = SandboxPool(kind.functions, {_LANE: workers}, _SHARED_BYTES)
        self._pool_started = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="prepare", daemon=True)

    @classmethod
    def of(cls, engine: ServingEngine, limits: Limits, workers: int, *, placed: bool = False) -> Self:
        """Makes inputs ready as the store of an engine takes them; texts may be to be placed."""
        if engine.tokenizer is not None:
            return cls(_Texts(engine.tokenizer, limits.texts, placed), workers)
        return cls(_Images(engine.preprocessing.resizing, limits.images), workers)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._pool.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def submit(self, content: Content) -> Future[PreparedInput]:
        """Returns what will be the pixels of an image, or the tokens of a text; any thread may ask.

        It raises InputError or TokenizerError for what is none, NotPreparedError, and JobError where nothing
        can be made ready on this machine.
        """
        if isinstance(self._kind, _Texts) and self._kind.is_short(content):
            return _done(self._kind.tokens, content)
        return asyncio.run_coroutine_threadsafe(self._prepared(content), self._loop)

    async def _prepared(self, content: Content) -> PreparedInput:
        if not self._pool_started:  # a job of short texts needs no processes
            self._pool.start()
            self._pool_started = True
        return await self._kind.prepare(content, self._pool)


def _done(work: Callable[[Content], PreparedInput], content: Content) -> Future[PreparedInput]:
    """Returns the future of work that is done now."""
    future: Future[PreparedInput] = Future()
    try:
        future.set_result(work(content))
    except (InputError, TokenizerError) as error:
        future.set_exception(error)
    return future

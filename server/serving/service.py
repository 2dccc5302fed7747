"""The one object behind all routes: it admits requests for the engine in service, and knows its health.

answers = await service.classify(EncodedImages([data]), Question(), RequestContext("an-id"))
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import structlog

from mass_serve.engine import (
    Classification,
    Embedding,
    EmbeddingQuestion,
    EngineSource,
    Question,
    ServingEngine,
)
from mass_serve.model_store.format.file_names import MOST_TOKENIZER_BYTES
from mass_serve.sandbox.image_jobs import DECODE
from mass_serve.sandbox.pool import SandboxPool
from mass_serve.sandbox.text_jobs import KEEP, TOKENISE
from mass_serve.server.errors import (
    LoadTimeoutError,
    NotReadyError,
    RateLimitError,
    ServiceError,
)
from mass_serve.server.serving.admission import Ledger, Ledgers
from mass_serve.server.serving.answer_cache import AnswerCache
from mass_serve.server.serving.batcher import Batcher
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.decoders import LARGE, SMALL, Decoders
from mass_serve.server.serving.fair_queue import FairQueue
from mass_serve.server.serving.freed_memory import WORTH_GIVING_BACK, FreedMemory
from mass_serve.server.serving.held_bytes import HeldBytes
from mass_serve.server.serving.inference import Inference
from mass_serve.server.serving.keys import Access
from mass_serve.server.serving.learned_priors import LearnedPriors
from mass_serve.server.serving.named_tasks import with_known_tasks
from mass_serve.server.serving.observer import ServingObserver
from mass_serve.server.serving.parsers import LANE, Parsers
from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.preparing import Preparer
from mass_serve.server.serving.rates import Rates
from mass_serve.server.serving.refusals import Refusals
from mass_serve.server.serving.request_context import (
    ORDINARY,
    Answers,
    Embeddings,
    Inputs,
    RequestContext,
    Urgency,
)
from mass_serve.server.serving.served_store import ServedStore
from mass_serve.server.serving.shadow import Shadow
from mass_serve.server.serving.streams import Streams
from mass_serve.server.serving.tokenisers import LONG_TEXTS, TEXTS, Tokenisers
from mass_serve.server.serving.wrong_keys import WrongKeys
from mass_serve.server.settings import Settings

# A loading thread that does not read has ended by then; one that reads is not waited for.
STORE_END_SECONDS = 1.0
# The memory that a worker process shares with the server has room for the largest file and its result, or for
# a tokenizer; what is not used of it takes none.
SHARED_BYTES_PER_BODY_BYTE = 3
MOST_PIXEL_BYTES = 16 << 20

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Service:
    """Loading, ready, draining, dead: read off the parts whenever asked, never stored beside them."""

    def __init__(
        self,
        settings: Settings,
        source: EngineSource,
        observer: ServingObserver,
        parsing: Sequence[str] = (),
    ) -> None:
        """Starts the threads; `start` loads the engine. Raises SettingsError for unusable key files.

        `parsing` are functions for `parsers.run_outside`, each as "module:function".
        """
        self.settings = settings
        self.observer = observer
        self.access = Access(settings)
        self.wrong_keys = WrongKeys(observer)
        self.refusals = Refusals()
        self.rates = Rates()
        self.ledgers = Ledgers(
            Ledger(settings.queue_images, settings.decode_workers),
            Ledger(settings.queue_tokens, settings.decode_workers, unit="tokens"),
        )
        self.sandbox = SandboxPool(
            [DECODE, KEEP, TOKENISE, *parsing],
            lanes={
                **dict.fromkeys((SMALL, TEXTS), settings.decode_workers),
                **dict.fromkeys((LARGE, LONG_TEXTS, LANE), 1),
            },
            shared_bytes=max(SHARED_BYTES_PER_BODY_BYTE * settings.max_body_bytes, MOST_TOKENIZER_BYTES)
            + MOST_PIXEL_BYTES,
            replaced=observer.worker_replaced,
            took=self._learn_pace,
            queue=partial(FairQueue, time.monotonic),
        )
        self.decoders = Decoders(self.sandbox)
        self.parsers = Parsers(self.sandbox)
        tokenisers = Tokenisers(self.sandbox, self.parsers, settings.text_limits)
        preparer = Preparer(settings, self.decoders, tokenisers, self.parsers)
        self.shadow = self._shadow(source) if settings.shadow_share else None
        self.store = ServedStore(
            source, observer, settings.store_poll_seconds, settings.load_timeout, self.shadow
        )
        self.batcher = Batcher(
            observer,
            self.ledgers,
            max_batch_images=settings.max_batch_images,
            max_batch_tokens=settings.max_batch_tokens,
            max_batch_seconds=settings.max_batch_seconds,
            batch_delay=settings.batch_delay,
            answered=None if self.shadow is None else self.shadow.offer,
        )
        self.streams = Streams(settings.max_streams, settings.stream_half_life, observer)
        half_life = settings.priors_half_life
        self._learned_priors = None if half_life is None else LearnedPriors(half_life)
        self.draining = False
        self.waits_for_others = False  # other processes on the same port are not ready yet
        self._bodies = HeldBytes(settings.max_held_bytes, settings.max_body_bytes)
        self._freed_memory = FreedMemory(self._memory_to_be_freed)
        self.answer_cache = AnswerCache(settings.answer_cache_bytes, self.parsers, observer)
        self._inference = Inference(
            settings, observer, preparer, self.batcher, self.answer_cache, self.rates, self.hold
        )

    def _shadow(self, source: EngineSource) -> Shadow:
        """Makes what asks the store's next revision, too."""
        return Shadow(
            source,
            self.observer,
            self.settings.shadow_share,
            active=lambda: self.store.engine,
            has_room=lambda: self.batcher.is_idle,
        )

    @property
    def ready(self) -> bool:
        """Tells whether new requests should be sent here."""
        works = self.store.engine is not None and self.sandbox.works and self.alive
        return works and not self.draining and not self.waits_for_others

    @property
    def alive(self) -> bool:
        """Tells whether waiting can help: not once the first load failed, or the worker is dead or hung."""
        return self.load_error is None and not self.batcher.died

    @property
    def load_error(self) -> Exception | None:
        """Why there will never be an engine in this process; a later load that fails is no such reason."""
        if self.store.engine is not None:
            return None
        if self.store.hangs:
            return LoadTimeoutError.after(self.settings.load_timeout)
        failure = self.store.failure
        return None if failure is None else failure.error

    @property
    def busy(self) -> bool:
        """Tells whether a thread is still at work; none can be interrupted."""
        of_shadow = self.shadow is not None and self.shadow.running
        return self.store.running or self.batcher.running or self.parsers.busy or of_shadow

    @property
    def engine(self) -> ServingEngine:
        """The engine in service. Raises NotReadyError while there is none."""
        engine = self.store.engine
        if engine is None:
            raise self.still_loading()
        return engine

    def still_loading(self) -> NotReadyError:
        """Returns the error for whoever asks before there is an engine, or a process that decodes."""
        if self.store.engine is not None:
            return NotReadyError("The server is still starting worker processes; try again in a moment.")
        return NotReadyError(
            f"The server is still loading its store, loading for {self.store.load_seconds:.0f} s;"
            " try again in a moment."
        )

    def start(self) -> None:
        """Loads in the background, so that liveness and readiness are answered meanwhile."""
        self.sandbox.start()
        if self.shadow is not None:
            self.shadow.start()
        self.store.start()

    def _learn_pace(self, lane: str, cost: float, seconds: float) -> None:
        if lane != LANE:
            ledger = self.ledgers.tokens if lane in (TEXTS, LONG_TEXTS) else self.ledgers.images
            self.batcher.decode_took(ledger, cost, seconds)

    @property
    def held_bytes(self) -> int:
        """The bytes of all bodies that are held now, by what they become."""
        return self._bodies.total

    def _memory_to_be_freed(self) -> int:
        """The bytes of bodies and, while a store is loaded, as much as that is sure to leave behind."""
        return self.held_bytes + (WORTH_GIVING_BACK if self.store.is_loading else 0)

    def hold(self, nbytes: int, context: RequestContext) -> None:
        """Counts bytes that a request is about to take, from any thread; raises as `HeldBytes.hold` does."""
        self._bodies.hold(nbytes, context)

    def release(self, context: RequestContext) -> None:
        """Gives back what a request holds, once it is over."""
        self._bodies.release(context)

    def refuse_when_full(self, caller: Caller) -> None:
        """Raises QueueFullError when nothing of this caller would be admitted now, be it by its rate."""
        self.rates.check(caller)
        self.batcher.refuse_when_full(caller, self.store.engine)

    def learned_priors(self) -> Mapping[str, float]:
        """How likely each task is by the traffic so far; empty where that is not learned."""
        engine = self.store.engine
        learned = self._learned_priors
        return {} if engine is None or learned is None else learned.shares(engine.tasks)

    def places(self) -> tuple[int, int]:
        """How much of what the store reads is admitted and waits, and how much may: images, or tokens."""
        return self.batcher.places(self.store.engine)

    def count_refusal(self, error: ServiceError, context: RequestContext) -> None:
        """Tells the observer of a request that is refused or given up."""
        if error.reason is not None:
            self.observer.request_rejected(error.reason)
        if isinstance(error, RateLimitError):
            self.observer.rate_limited(context.caller.key_name)

    async def before_refusal(self, context: RequestContext) -> None:
        """Waits where the caller was refused often of late; what its request holds is given back before."""
        self._bodies.release(context)
        await self.refusals.slow_down(context.caller)

    def check(self) -> None:
        """Gives up a hung worker or load, and freed memory back; whoever keeps time calls it now and then."""
        self.store.check()
        self.batcher.fail_if_hung(self.settings.hang_timeout)
        self._freed_memory.check()

    def lose_device(self, error: Exception) -> None:
        """Fails all that wait, and is not alive any more: the device is in a process that has lost it."""
        self.batcher.give_up(error)

    def ages(self) -> dict[str, float]:
        """For how many seconds the oldest work of each kind has been under way; 0 where there is none."""
        return {
            "decode": self.sandbox.oldest_seconds((SMALL, LARGE, TEXTS, LONG_TEXTS)),
            "parse": max(self.parsers.oldest_seconds, self.sandbox.oldest_seconds((LANE,))),
            "queue": self.batcher.oldest_seconds,
            "batch": self.batcher.batch_seconds,
            "load": self.store.load_seconds,
            "admin": self.store.oldest_asked_seconds,
        }

    def age_limits(self) -> dict[str, float]:
        """After how many seconds each kind of `ages` is given up."""
        settings = self.settings
        return {
            **dict.fromkeys(("decode", "parse", "queue"), settings.request_timeout),
            "batch": settings.hang_timeout,
            **dict.fromkeys(("load", "admin"), settings.load_timeout),
        }

    async def close(self) -> None:
        """Answers what was admitted and ends the threads, within `request_timeout`, and needs no new one.

        A process whose address space is full can start none, and shall end all the same.
        """
        self.store.close()
        if self.shadow is not None:
            self.shadow.close()
        await becomes_true(
            lambda: self.batcher.close(0.0) or self.batcher.died, self.settings.request_timeout
        )
        if self.batcher.running:
            log.error("the device did not finish in time")
        await becomes_true(lambda: not self.store.running, STORE_END_SECONDS)
        self.sandbox.close()
        self.parsers.close()
        self._freed_memory.close()

    async def classify(
        self,
        inputs: Inputs,
        question: Question,
        context: RequestContext,
        urgency: Urgency = ORDINARY,
        engine: ServingEngine | None = None,
        *,
        tells_entities: bool = False,
        stream: str | None = None,
    ) -> Answers:
        """Answers the question about images or texts, by `engine` or by the one in service.

        Tasks that classify tokens are asked for those who can tell of what they find (`tells_entities`).
        The inputs are the next ones of the caller's `stream` of that name, if there is one.

        Raises the errors of `server.errors`.
        """
        engine = engine or self.engine
        question = with_known_tasks(question, engine)
        of_stream = None if stream is None else self.streams.of(context.caller, stream, engine, question)
        asked = question if of_stream is None else of_stream.question
        if self._learned_priors is not None:
            asked = self._learned_priors.asked(asked, engine)
        found, ready = await self._inference.run(inputs, asked, context, urgency, engine, tells_entities)
        classifications = [answer for answer in found if isinstance(answer, Classification)]
        if of_stream is not None:
            of_stream.answered(classifications)
        if self._learned_priors is not None:
            self._learned_priors.learn(question, engine, classifications)
        if any(answer.part for answer in classifications):
            self.observer.inputs_split()
        took = time.monotonic() - context.since
        self.observer.tasks_answered([answer.task for answer in classifications], took)
        return Answers(engine.store_revision, classifications, ready.cut)

    async def embed(
        self,
        inputs: Inputs,
        question: EmbeddingQuestion,
        context: RequestContext,
        urgency: Urgency = ORDINARY,
        engine: ServingEngine | None = None,
    ) -> Embeddings:
        """Returns the embeddings of images or texts, which wait and count as those that are classified.

        Raises the errors of `server.errors`.
        """
        engine = engine or self.engine
        found, ready = await self._inference.run(inputs, question, context, urgency, engine)
        vectors = [answer.values for answer in found if isinstance(answer, Embedding)]
        return Embeddings(engine.store_revision, vectors, ready.cut, ready.num_tokens)

"""The whole answer to a batch of images: search for the tasks, second passes, heads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mass_serve.backbone import (
    Architecture,
    Batch,
    ClassificationHead,
    ExpertBank,
    ResidentTasks,
    WordEmbedding,
    nbytes_of,
    passes_for,
)
from mass_serve.backbone.device_turn import device_turn
from mass_serve.engine.answers import AnswerMaker, AnyAnswer, BatchReport, Classification
from mass_serve.engine.choices import AnswerKind
from mass_serve.engine.execution import Execution, form_chooser
from mass_serve.engine.first_pass import FirstPassWeights, first_pass_weights
from mass_serve.engine.heads import Heads, apply_token_heads
from mass_serve.engine.kept_memory import keep_freed_memory
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import PretrainedReader, load_store
from mass_serve.engine.options import EmbeddingPooling, EngineOptions, FirstPassDtype
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.engine.priors import Priors
from mass_serve.engine.queries import (
    AnyQuery,
    TextQuery,
    batch_patches,
    batch_words,
    candidate_mask,
    prior_of,
    send_pixels_ahead,
)
from mass_serve.engine.questions import EmbeddingQuestion, Question
from mass_serve.engine.search import task_search
from mass_serve.engine.search_result import SearchResult
from mass_serve.engine.second_passes import SecondPass, SecondPassRunner, in_segments
from mass_serve.engine.set_cache import SetCache, SetKey
from mass_serve.engine.stages import StageClock
from mass_serve.engine.warm_up import warm_up
from mass_serve.inputs.texts import Text, TextTokenizer, Tokens, check_texts
from mass_serve.kernels.transfers import UploadedStacks, selected_rows
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.store import Store
from mass_serve.router import MODES, PAPER, ModeName, Prior


class Engine:
    """One store, loaded on one device. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        loaded: LoadedStore,
        execution: Execution,
        set_cache_bytes: int,
        embedding_pooling: EmbeddingPooling = "own",
        first_pass_dtype: FirstPassDtype = "same",
        previous: Engine | None = None,
    ) -> None:
        """Makes an engine that shares with a `previous` one what both read in their first passes."""
        self.store_revision: str = loaded.store_revision
        self.architecture: Architecture = loaded.architecture
        self.dtype: torch.dtype = loaded.dtype  # of the encoder's weights
        self.bank: ExpertBank = loaded.bank
        self.tasks: Mapping[str, TaskEntry] = {head.entry.name: head.entry for head in loaded.heads}
        self.groups: Mapping[str, tuple[str, ...]] = loaded.groups
        self.left_out: tuple[str, ...] = loaded.left_out  # tasks of the store that are not served
        self.set_cache = SetCache(loaded.bank, set_cache_bytes)
        self._loaded = loaded
        self._embedding_pooling = embedding_pooling
        self._places = {name: place for place, name in enumerate(self.tasks)}
        largest_set = min(loaded.router.top_k, len(self.tasks))
        before = None if previous is None else previous._first_pass
        self._first_pass: FirstPassWeights = first_pass_weights(loaded, first_pass_dtype, before)
        self._passes = passes_for(
            loaded.bank,
            self._first_pass.parameters,
            largest_set,
            may_materialise=execution is not Execution.LOW_RANK,
        )
        self._search = task_search(loaded, self._passes)
        self._second_passes = SecondPassRunner(
            self._passes,
            self.set_cache,
            form_chooser(execution, loaded.bank, self.set_cache),
        )
        self._heads = Heads(loaded.heads)
        self._uploads = UploadedStacks(loaded.device)
        self._answers = AnswerMaker(loaded.heads, loaded.router)

    @classmethod
    def load(cls, store: str, **options: Any) -> Engine:
        """Reads, verifies and loads a store: `Engine.load("my-store", device="cpu", mode="fast")`.

        The options are the fields of `EngineOptions`; pydantic's ValidationError, a ValueError, names one
        that does not exist or is out of range. Raises what `open` raises.
        """
        return cls.open(store, EngineOptions(**options))

    @classmethod
    def open(
        cls,
        store: str,
        options: EngineOptions,
        *,
        without: Collection[str] = (),
        previous: Engine | None = None,
        read_pretrained: PretrainedReader = Store.load_pretrained,
    ) -> Engine:
        """Reads, verifies and loads a store, without those of its tasks that are named in `without`.

        Tensors that did not change are shared with `previous` instead of being read again, and the expert
        sets that it has ready are made ready here. What `read_pretrained` returns is never written to.

        Raises `model_store.errors.StoreError` for a store that cannot be used and ValueError for options
        that do not fit it.
        """
        if options.torch_device.type == "cpu":
            keep_freed_memory()
        before = None if previous is None else previous._loaded
        loaded = load_store(
            store,
            options.torch_device,
            options.torch_dtype,
            options.mode,
            without,
            before,
            trusted_keys=options.trusted_keys,
            read_pretrained=read_pretrained,
            resident_task_bytes=options.resident_task_bytes,
        )
        engine = cls(
            loaded,
            options.execution,
            options.set_cache_bytes,
            options.embedding_pooling,
            options.first_pass_dtype,
            previous,
        )
        if previous is not None:
            engine._make_sets_ready(previous)
        return engine

    def classify(
        self,
        inputs: Sequence[Image.Image] | Sequence[Text],
        tasks: Sequence[str] | None = None,
        *,
        answer: AnswerKind = "best",
        same_task: bool = False,
        mode: ModeName | None = None,
        priors: Mapping[str, float] | None = None,
    ) -> list[Classification]:
        """Classifies RGB images or, where the store reads those, texts, among `tasks` or all, in their order.

        `tasks` are names of tasks, and `@retail` for all tasks of the group `retail`. Two texts that belong
        together are a tuple, which a model reads as one that was trained on pairs.

        With `answer="each"` nothing is routed: each input has the answer of every task, in the order of
        `tasks`, and that of the next input follows. `same_task` says that all inputs are of one task. Their
        evidence is summed before that is chosen, `sum over inputs b of evidence[b, t]` for task t; where it
        contradicts that they are of one task, they are split, and the answers' `part` says so. `mode` is one
        of `modes`: how much computing the search for the task is worth this time. `priors` are probabilities
        of tasks before an input is looked at; those that are not named share what is left of 1.

        A task that classifies tokens answers where it is named alone, where it is the only one, and with
        `answer="each"`: its answer is a `TokenClassification`, which knows the entities in the text.

        Raises ValueError for unknown tasks, a question that contradicts itself and inputs that the store does
        not read, InputError for a text without a word, and FloatingPointError where the model's output is not
        finite.
        """
        given = None if priors is None else Priors.of(priors)
        question = Question(None if tasks is None else tuple(tasks), answer, same_task, mode, given)
        question = question.among(self.tasks, self.groups)
        prepared = self._prepared(inputs, placed=question.asks_of_tokens(self.tasks))
        return self.classify_batch(question.queries(prepared, self.tasks)).all_answers()

    def embed(self, inputs: Sequence[Image.Image] | Sequence[Text], task: str | None = None) -> Tensor:
        """The embeddings [n, P] of RGB images or texts: what enters a task's head, or what the pretrained
        encoder makes of them without one. They are float32 on the CPU, and of any length.

        Raises as `classify` does.
        """
        question = EmbeddingQuestion(task)
        queries = question.queries(self._prepared(inputs, placed=False), self.tasks)
        rows = [one.values for one in self.classify_batch(queries).embeddings()]
        is_pooled = self._embedding_pooling == "own"
        width = self.architecture.embedding_dim if is_pooled else self.architecture.width
        return torch.stack(rows) if rows else torch.empty(0, width)

    def warm_up(self, max_batch: int) -> None:
        """Makes a GPU ready for batches of up to `max_batch` images; nothing on a CPU.

        Else the first batch of each kind and size waits for its kernels and graphs. Any thread may call it.
        """
        warm_up(self._loaded, self._passes, self._search, self._heads, max_batch, self._embedding_pooling)

    @torch.inference_mode()
    def classify_batch(self, queries: Sequence[AnyQuery], following: Sequence[AnyQuery] = ()) -> BatchReport:
        """Answers every query.

        `following` are those of the next batch, where they are known: their pixels are sent to a GPU while
        this batch runs there, if it has memory for them. They are known again as the same tensors, which must
        not be written to in between: the next batch would be answered by what they held before.

        Raises ValueError for a query whose pixels, words or candidates do not fit this store or its pool.
        """
        if not queries:
            return BatchReport([], {}, [], fallbacks=0)
        with device_turn(self._loaded.device):
            return self._answered(queries, following)

    def _answered(self, queries: Sequence[AnyQuery], following: Sequence[AnyQuery]) -> BatchReport:
        """The report of a batch that has queries."""
        clock = StageClock(self._loaded.device)
        candidates = candidate_mask(queries, self.tasks)
        prior = prior_of(queries, candidates, self.tasks)
        inputs = self._inputs(queries)
        found = self._search_tasks(queries, inputs, candidates, prior, clock)
        second_passes = in_segments(one for result in found for one in result.second_passes)
        embedded = {row for row, query in enumerate(queries) if query.embeds}
        answers: dict[int, AnyAnswer | None] = {}
        if whole := [one for one in second_passes if not one.each_token]:
            answers |= self._classes(found, whole, embedded, inputs, following, prior, clock)
        if of_tokens := [one for one in second_passes if one.each_token]:
            answers |= self._classes_of_tokens(found, of_tokens, embedded, queries, inputs, clock)
        return BatchReport(
            answers=[answers[sample] for sample in range(len(queries))],
            stage_seconds=clock.seconds(),
            expert_sets=[
                self._answers.names(tasks) for tasks in sorted({p.expert_set for p in second_passes})
            ],
            fallbacks=sum(one.is_fallback for one in found),
        )

    def _classes(
        self,
        found: Sequence[SearchResult],
        second_passes: Sequence[SecondPass],
        embedded: Collection[int],
        inputs: Batch,
        following: Sequence[AnyQuery],
        prior: Prior | None,
        clock: StageClock,
    ) -> Mapping[int, AnyAnswer | None]:
        """The answers for the samples that these second passes give an embedding, which some want alone.

        Pixels of the queries that follow are sent while the device runs second passes and heads, once all of
        these are launched and before their results are waited for.
        """
        with clock.stage("second_pass"):
            embeddings = self._second_passes.run(second_passes, inputs)
        with clock.stage("heads"):
            rows = [row for row, one in enumerate(second_passes) if one.sample not in embedded]
            own = [second_passes[row] for row in rows]
            asked = self._heads.ask(own, selected_rows(embeddings, rows))
            if isinstance(self._loaded.preprocessing, ImagePreprocessor):
                with suppress(ValueError):  # which the batch of these queries raises
                    send_pixels_ahead(following, self.preprocessing, self._uploads)
            results = self._heads.results(asked)
            wanted = self._answers.embeddings(second_passes, embedded, embeddings)
            return wanted | self._answers.answers(found, results, prior)

    def _classes_of_tokens(
        self,
        found: Sequence[SearchResult],
        second_passes: Sequence[SecondPass],
        embedded: Collection[int],
        queries: Sequence[AnyQuery],
        inputs: Batch,
        clock: StageClock,
    ) -> Mapping[int, AnyAnswer | None]:
        """The answers for the samples that these second passes are for each token of.

        An embedding is the mean of the tokens' states.
        """
        with clock.stage("second_pass"):
            states = self._second_passes.states(second_passes, inputs)
        with clock.stage("heads"):
            rows = [row for row, one in enumerate(second_passes) if one.sample not in embedded]
            own = [second_passes[row] for row in rows]
            results = apply_token_heads(self._loaded.heads, own, [states[row] for row in rows])
            places = {row: query.places for row, query in enumerate(queries) if isinstance(query, TextQuery)}
            means = [of_sample.float().mean(0) for of_sample in states]
            wanted = self._answers.embeddings(second_passes, embedded, means)
            return wanted | {
                sample: self._answers.token_answer(found[sample], result, places[sample])
                for sample, result in results.items()
            }

    def prefetch(self, tasks: Collection[str]) -> None:
        """Begins to read the weights of tasks that were dropped from memory; returns at once.

        Any thread may call it, with names that are known here or not.
        """
        self.bank.tasks.prefetch([self._places[name] for name in tasks if name in self._places])

    @property
    def resident_tasks(self) -> ResidentTasks:
        """The weights of tasks in memory, with what is counted of them."""
        return self.bank.tasks

    @property
    def preprocessing(self) -> ImagePreprocessor:
        """How an image becomes the pixels of a `Query`. Raises StoreError where the store reads texts."""
        if not isinstance(self._loaded.preprocessing, ImagePreprocessor):
            raise StoreError("this store reads texts, and images are asked of it: give one that reads images")
        return self._loaded.preprocessing

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """How a text becomes the words of a `TextQuery`; None where the store reads images."""
        prepared = self._loaded.preprocessing
        return prepared if isinstance(prepared, TextTokenizer) else None

    def head(self, task: str) -> ClassificationHead:
        """A task's classification head. Raises KeyError for an unknown task."""
        return {one.entry.name: one.head for one in self._loaded.heads}[task]

    @property
    def modes(self) -> tuple[ModeName, ...]:
        """The modes that a query may ask for; the first is that of one that does not say.

        The paper's router reads other weights than the others do, and a store is loaded for one of both.
        """
        own = self._loaded.mode
        return (own,) if own == PAPER else (own, *(mode for mode in MODES if mode != own))

    @property
    def gives_residuals(self) -> bool:
        """Tells whether every routed answer has residuals; an image taken at its early evidence has none."""
        mode = self._loaded.mode
        return mode == PAPER or MODES[mode].early_exit_lead == math.inf

    @property
    def nbytes(self) -> dict[str, int]:
        """The memory of the tensors that stay on the device, by kind."""
        return {
            "pretrained": nbytes_of(self._loaded.pretrained),
            "first_pass": self._first_pass.nbytes,
            "experts": self.bank.nbytes + self._search.nbytes,
            "heads": sum(one.head.nbytes for one in self._loaded.heads),
            "set_cache": self.set_cache.nbytes,
        }

    def _prepared(
        self, inputs: Sequence[Image.Image] | Sequence[Text], *, placed: bool
    ) -> list[Tensor] | list[Tokens]:
        """Returns the pixels of images, or the tokens of texts, which may have to know where they stand."""
        texts = [one for one in inputs if isinstance(one, str | tuple)]
        if self.tokenizer is not None and len(texts) == len(inputs):
            check_texts(texts)
            return [self.tokenizer.tokens(text, placed=placed) for text in texts]
        if texts:
            raise ValueError("this store reads images, and a text was given")
        return [self.preprocessing.preprocess(image) for image in inputs if isinstance(image, Image.Image)]

    def _inputs(self, queries: Sequence[AnyQuery]) -> Batch:
        """Returns what both passes read: words, packed, or normalised patches [B, L - 1, 3 p p]."""
        like, embedding = self.bank.like, self.architecture.embedding
        if isinstance(embedding, WordEmbedding):
            return batch_words(queries, embedding, like.device)
        return batch_patches(queries, self.preprocessing, embedding.patch_size, like, self._uploads)

    def _search_tasks(
        self,
        queries: Sequence[AnyQuery],
        inputs: Batch,
        candidates: Tensor,
        prior: Prior | None,
        clock: StageClock,
    ) -> list[SearchResult]:
        """A result for every sample; one that has a single candidate, or none, needs no search."""
        every_task = self._loaded.routed
        routed = (candidates.sum(1) > 1).nonzero().flatten()
        results: dict[int, SearchResult] = {}
        if len(routed):
            samples = routed.tolist()
            of_routed = None if prior is None else prior.select(routed).of_tasks(len(every_task))
            among = candidates[routed][:, : len(every_task)]
            modes = self._modes([queries[sample].mode for sample in samples])
            own = selected_rows(inputs, samples) if isinstance(inputs, Tensor) else inputs[samples]
            found = self._search.search(samples, own, among, of_routed, modes, clock)
            results = dict(zip(samples, found, strict=True))
        if len(results) < len(queries):
            for row, task in enumerate(candidates.int().argmax(1).tolist()):
                if row not in results:
                    results[row] = self._unrouted(row, queries[row], task)
        return [results[row] for row in range(len(queries))]

    def _unrouted(self, row: int, query: AnyQuery, task: int) -> SearchResult:
        """The result for a sample whose only candidate, if it has one, is `task`."""
        if query.embeds:
            return SearchResult.embedded(row, task if query.candidates else None, self._embedding_pooling)
        return SearchResult.named(row, task, each_token=task not in self._loaded.routed)

    def _modes(self, asked: Sequence[ModeName | None]) -> list[ModeName]:
        """The modes of queries. Raises ValueError for one that this engine does not have."""
        own = self.modes
        for mode in asked:
            if mode is not None and mode not in own:
                raise ValueError(f"mode must be one of {', '.join(own)} here, not {mode!r}")
        return [mode or own[0] for mode in asked]

    def _make_sets_ready(self, previous: Engine) -> None:
        """Fills the set cache with what the previous one holds, so that no request waits for it again.

        Sets of unchanged tasks are the same tensors in both; those of a changed task are computed.
        """
        loaded, before = self._loaded, previous._loaded
        unchanged = before.same_tasks(loaded.experts) if loaded.pretrained is before.pretrained else {}
        same = {old: new for new, old in unchanged.items()}
        now = {old: self._places[name] for name, old in previous._places.items() if name in self._places}
        for key, weights in previous.set_cache.ready().items():
            if not now.keys() >= set(key.expert_set):
                continue
            expert_set = tuple(sorted(now[task] for task in key.expert_set))
            new = SetKey(expert_set, key.materialised)
            # The blocks' order is part of a set's bits: where tasks changed places, they are computed anew.
            if expert_set == tuple(same.get(task) for task in key.expert_set):
                self.set_cache.put(new, weights.renumbered(expert_set))
            else:
                with device_turn(loaded.device):
                    self.set_cache.get([new])

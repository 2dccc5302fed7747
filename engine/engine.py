"""The whole answer to a batch of images: first pass, route, group, second pass, heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mass_serve.backbone import Architecture, ClassificationHead, ExpertBank, passes_for, patchify
from mass_serve.engine.execution import AdaptiveExecution, Execution
from mass_serve.engine.inputs.preprocessing import ImagePreprocessor
from mass_serve.engine.loading import LoadedStore, TaskInfo, load_store
from mass_serve.engine.options import EngineOptions
from mass_serve.engine.search import Decision, decider
from mass_serve.engine.set_cache import SetCache, SetKey
from mass_serve.engine.stages import StageClock
from mass_serve.kernels import group_by_expert_set
from mass_serve.router import MODES, PAPER, early_stop

__all__ = ["BatchReport", "Classification", "Engine", "Query", "TaskInfo"]


@dataclass(frozen=True)
class Query:
    """One image to classify."""

    # [3, crop, crop], RGB: uint8 as `ImagePreprocessor.preprocess` gives it, or float32 and normalised
    pixels: Tensor
    candidates: tuple[str, ...] | None = None  # the tasks to choose from; None: all of the store


@dataclass(frozen=True)
class Classification:
    """The answer for one image."""

    task: str
    task_revision: str
    labels: tuple[str, ...]  # of the winning head, in row order
    logits: Tensor  # [C] float32 on the CPU: the winning head's
    expert_set: tuple[str, ...]
    coefficients: dict[str, float]  # of the expert set
    residuals: dict[str, float]  # of every task; empty where they were not needed
    familiarity: float | None  # 0 to 1: how much the image is like the task's; None where one was named
    unrouted: bool  # it is so little like any task that none should be believed
    passes: float  # through the encoder
    evidence: Tensor | None = None  # [K, T] float32: what the tasks were judged by (`router.Evidence.kinds`)

    @property
    def probabilities(self) -> Tensor:
        """The softmax of the logits, [C]."""
        return self.logits.softmax(0)


@dataclass(frozen=True)
class BatchReport:
    """The answers to a batch, in the order of its queries, and what it took."""

    answers: list[Classification | None]  # None where the model's output is not finite
    stage_seconds: dict[str, float]  # first_pass, route, second_pass, heads
    expert_sets: list[tuple[str, ...]]  # one per segment
    fallbacks: int  # images for which no task was above the threshold: they got the likeliest one

    def all_answers(self) -> list[Classification]:
        """The answers, if there is one to each query. Raises FloatingPointError otherwise."""
        answers = [answer for answer in self.answers if answer is not None]
        if len(answers) < len(self.answers):
            raise FloatingPointError(
                "the model's output is not finite; verify the store, or serve it in float32"
            )
        return answers


@dataclass(frozen=True)
class Look:
    """One second pass of one sample."""

    sample: int
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What a look gave for one task."""

    task: int
    logits: Tensor  # [C] float32 on the CPU
    signs: Tensor  # [3] float32 on the CPU: `router.HeadShape.signs`


class Engine:
    """One store, loaded on one device. Not thread-safe: one thread owns it."""

    def __init__(self, loaded: LoadedStore, execution: Execution, set_cache_bytes: int) -> None:
        self.store_revision: str = loaded.store_revision
        self.config: Architecture = loaded.config
        self.preprocessing: ImagePreprocessor = loaded.preprocessing
        self.bank: ExpertBank = loaded.bank
        self.tasks: Mapping[str, TaskInfo] = {head.info.name: head.info for head in loaded.heads}
        self.left_out: tuple[str, ...] = loaded.left_out  # tasks of the store that are not served
        self.set_cache = SetCache(loaded.bank, set_cache_bytes)
        self._loaded = loaded
        self._heads = loaded.heads
        self._names = tuple(self.tasks)
        self._choose_form = self._form_chooser(execution)
        self._passes = passes_for(
            loaded.bank, loaded.first_pass, max_set_size=min(loaded.router.top_k, len(self.tasks))
        )
        self._decider = decider(loaded, self._passes)

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
    ) -> Engine:
        """The same for options that are at hand, without some of the store's tasks.

        Tensors that did not change are shared with `previous` instead of being read again, and the expert
        sets that it has ready are made ready here.

        Raises `model_store.errors.StoreError` for a store that cannot be used and ValueError for options
        that do not fit it.
        """
        before = None if previous is None else previous._loaded
        loaded = load_store(store, options.torch_device, options.torch_dtype, options.mode, without, before)
        engine = cls(loaded, Execution(options.execution), options.set_cache_bytes)
        if previous is not None:
            engine._make_sets_ready(previous)
        return engine

    def classify(
        self, images: Sequence[Image.Image], tasks: Sequence[str] | None = None
    ) -> list[Classification]:
        """Classifies RGB images, among `tasks` or among all.

        Raises FloatingPointError where the model's output is not finite.
        """
        candidates = None if tasks is None else tuple(tasks)
        queries = [Query(self.preprocessing.preprocess(image), candidates) for image in images]
        return self.classify_batch(queries).all_answers()

    def classify_batch(self, queries: Sequence[Query]) -> BatchReport:
        """Answers every query; the whole path, as its five stages.

        Raises ValueError for a query whose pixels or candidates do not fit this store.
        """
        clock = StageClock(self._loaded.device)
        with torch.inference_mode():
            candidates = self._candidate_mask(queries)
            patches = self._patches(queries)
            decisions = [Decision.named(int(task)) for task in candidates.int().argmax(1)]
            routed = (candidates.sum(1) > 1).nonzero().flatten()
            tokens = None
            if len(routed):
                decided = self._decider.decide(patches[routed], candidates[routed], clock)
                tokens = decided.tokens
                for sample, decision in zip(routed.tolist(), decided.decisions, strict=True):
                    decisions[sample] = decision
            with clock.stage("second_pass"):
                looks, embeddings = self._second_passes(patches, tokens, routed, decisions)
            with clock.stage("heads"):
                answers = self._apply_heads(embeddings, looks, decisions)
        expert_sets = [self._name_set(tasks) for tasks in sorted({look.tasks for look in looks})]
        return BatchReport(answers, clock.seconds, expert_sets, sum(d.is_fallback for d in decisions))

    def head(self, task: str) -> ClassificationHead:
        """A task's classification head. Raises KeyError for an unknown task."""
        return {entry.info.name: entry.head for entry in self._heads}[task]

    @property
    def gives_residuals(self) -> bool:
        """Whether every routed answer has residuals; an image taken at its early evidence has none."""
        mode = self._loaded.mode
        return mode == PAPER or MODES[mode].certain_lead == math.inf

    @property
    def nbytes(self) -> dict[str, int]:
        """The memory of the tensors that stay on the device, by kind."""
        return {
            "pretrained": sum(t.nbytes for t in self._loaded.pretrained.values()),
            "first_pass": self._loaded.first_pass_nbytes,
            "experts": self.bank.nbytes + self._decider.nbytes,
            "heads": sum(head.head.weight.nbytes for head in self._heads),
            "set_cache": self.set_cache.nbytes,
        }

    def _make_sets_ready(self, previous: Engine) -> None:
        """Fills the set cache with what the previous one holds, so that no request waits for it again.

        Sets of unchanged tasks are the same tensors in both; those of a changed task are computed.
        """
        mine, before = self._loaded, previous._loaded
        shared = before.same_tasks(mine.experts) if mine.pretrained is before.pretrained else {}
        same = {old: new for new, old in shared.items()}
        now = {old: self._names.index(name) for old, name in enumerate(previous._names) if name in self.tasks}
        for key, experts in previous.set_cache.ready().items():
            tasks = tuple(now.get(task, -1) for task in key.tasks)
            if -1 in tasks:
                continue
            new = SetKey(tuple(sorted(tasks)), key.materialised)
            if new.tasks == tuple(same.get(task) for task in key.tasks):
                self.set_cache.put(new, experts.renumbered(new.tasks))
            else:
                self.set_cache.get([new])

    def _form_chooser(self, execution: Execution) -> Callable[[tuple[int, ...], int], SetKey]:
        """(expert set, samples) -> the form it runs in."""
        if execution is Execution.ADAPTIVE:
            return AdaptiveExecution(self.config, self.bank, self.set_cache).key
        materialised = execution is Execution.MATERIALISED
        largest = min(self._loaded.router.top_k, len(self._names))
        needed = self.bank.expert_set_nbytes(largest, materialised=True)
        if materialised and needed > self.set_cache.budget_bytes:
            raise ValueError(
                f"materialised execution keeps {needed:,} bytes for one expert set, and set_cache_bytes is "
                f"{self.set_cache.budget_bytes:,}: raise it, or use low_rank or adaptive execution"
            )
        return lambda tasks, _samples: SetKey(tasks, materialised)

    def _candidate_mask(self, queries: Sequence[Query]) -> Tensor:
        """The tasks that each query may have, [B, T] bool."""
        mask = torch.ones(len(queries), len(self._names), dtype=torch.bool)
        for row, query in enumerate(queries):
            if query.candidates is not None:
                unknown = set(query.candidates) - set(self._names)
                if unknown or not query.candidates:
                    raise ValueError(
                        f"candidates must be among {', '.join(self._names)}; got {query.candidates}"
                    )
                mask[row] = torch.tensor([name in query.candidates for name in self._names])
        return mask

    def _patches(self, queries: Sequence[Query]) -> Tensor:
        """Normalised patches [B, L - 1, 3 p p], which both passes read."""
        preprocessing, loaded = self.preprocessing, self._loaded
        expected = (3, preprocessing.crop, preprocessing.crop)
        for query in queries:
            if query.pixels.shape != expected or query.pixels.dtype not in (torch.uint8, torch.float32):
                found = f"{query.pixels.dtype} {tuple(query.pixels.shape)}"
                raise ValueError(f"pixels must be uint8 or float32 {expected}, got {found}")
        normalised = torch.empty(len(queries), *expected, device=loaded.device)
        for dtype in (torch.uint8, torch.float32):
            rows = [row for row, query in enumerate(queries) if query.pixels.dtype == dtype]
            if rows:
                pixels = torch.stack([queries[row].pixels for row in rows]).to(loaded.device)
                normalised[rows] = preprocessing.normalise(pixels) if dtype == torch.uint8 else pixels
        return patchify(normalised.to(loaded.dtype), self.config.embedding.patch_size)

    def _second_passes(
        self, patches: Tensor, tokens: Tensor | None, routed: Tensor, decisions: Sequence[Decision]
    ) -> tuple[list[Look], Tensor]:
        """Every look of every sample, and its embedding [looks, P]."""
        fresh, going_on, rows = [], [], []
        row_of = {sample: row for row, sample in enumerate(routed.tolist())}
        for sample, decision in enumerate(decisions):
            looks = [Look(sample, tasks) for tasks in decision.looks]
            if decision.goes_on:
                going_on += looks
                rows.append(row_of[sample])
            else:
                fresh += looks
        parts = []
        if fresh:
            parts.append(self._second_pass(patches[[look.sample for look in fresh]], fresh, start=None))
        if going_on and tokens is not None:
            parts.append(self._second_pass(tokens[rows], going_on, early_stop(self.config.depth)))
        return fresh + going_on, torch.cat(parts)

    def _second_pass(self, inputs: Tensor, looks: Sequence[Look], start: int | None) -> Tensor:
        """Embeddings [looks, P] from patches, or from the tokens that enter block `start`."""
        segments = group_by_expert_set([look.tasks for look in looks])
        offsets, sets = segments.segment_offsets, segments.segment_expert_sets
        order = torch.tensor(segments.permutation, dtype=torch.long, device=inputs.device)
        ordered = inputs[order]
        keys = [self._choose_form(tasks, offsets[i + 1] - offsets[i]) for i, tasks in enumerate(sets)]
        parts = []
        for wave in self.set_cache.waves(keys):
            first, last = offsets[wave.start], offsets[wave.stop]
            expert_sets = self.set_cache.get([keys[i] for i in wave])
            own_offsets = [offsets[i] - first for i in range(wave.start, wave.stop + 1)]
            parts.append(self._passes.second(ordered[first:last], expert_sets, own_offsets, start))
        embeddings = torch.cat(parts)
        return torch.empty_like(embeddings).index_copy_(0, order, embeddings)

    def _apply_heads(
        self, embeddings: Tensor, looks: Sequence[Look], decisions: Sequence[Decision]
    ) -> list[Classification | None]:
        """Each sample's winning head and its logits, in the order of the queries."""
        seen: list[list[Seen]] = [[] for _ in decisions]
        segments = group_by_expert_set([look.tasks for look in looks])
        offsets = segments.segment_offsets
        for i, tasks in enumerate(segments.segment_expert_sets):
            rows = segments.permutation[offsets[i] : offsets[i + 1]]
            for task in tasks:
                head, of_segment = self._heads[task], embeddings[list(rows)]
                logits = head.head.logits(of_segment).cpu()
                signs = head.signs(of_segment).cpu()
                for row, row_logits, row_signs in zip(rows, logits, signs, strict=True):
                    seen[looks[row].sample].append(Seen(task, row_logits, row_signs))
        return [
            self._answer(decision, of_sample) for decision, of_sample in zip(decisions, seen, strict=True)
        ]

    def _winner(self, decision: Decision, seen: Sequence[Seen], coefficients: Mapping[int, float]) -> Seen:
        """Whose head answers: of several looks the likeliest task's, else the store's choice."""
        choice = self._loaded.head_choice
        if len(decision.looks) > 1 or choice == "router":
            return max(seen, key=lambda one: coefficients[one.task])
        return max(seen, key=lambda one: float(one.logits.max() if choice == "max" else one.logits.mean()))

    def _answer(self, decision: Decision, seen: Sequence[Seen]) -> Classification | None:
        """None where a logit is not finite."""
        seen = sorted(seen, key=lambda one: one.task)
        if not all(one.logits.isfinite().all() for one in seen):
            return None
        coefficients = decision.after_looks({one.task: one.signs for one in seen})
        winner = self._winner(decision, seen, coefficients)
        info = self._heads[winner.task].info
        familiarity = _familiarity(decision, winner) if decision.likeness else None
        return Classification(
            task=info.name,
            task_revision=info.revision,
            labels=info.labels,
            logits=winner.logits,
            expert_set=self._name_set(decision.expert_set),
            coefficients={self._names[task]: value for task, value in sorted(coefficients.items())},
            residuals=dict(zip(self._names, decision.residuals, strict=False)),
            familiarity=familiarity,
            unrouted=familiarity is not None and familiarity < self._loaded.unrouted_below,
            passes=decision.passes,
            evidence=None if decision.evidence is None else decision.evidence.kinds[decision.row],
        )

    def _name_set(self, tasks: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._names[task] for task in tasks)


def _familiarity(decision: Decision, winner: Seen) -> float:
    """How much an image is like those of the task that answers, 0 to 1.

    The product of three shares: of its activations in the task's subspaces (and how typical they are, where
    that is known), of its embeddings along the nearest class vector (the geometric mean of both passes, where
    both gave one), and of its probability on one class. Each is low for other images than the last.
    """
    own = float(winner.signs[0])
    first = decision.first_cosines.get(winner.task, own)
    along = math.sqrt(max(0.0, own) * max(0.0, first))
    confidence = float(winner.logits.softmax(0).max())
    return decision.likeness[winner.task] * along * confidence

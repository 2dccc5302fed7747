"""The whole answer to a batch of images: first pass, route, group, second pass, heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from backbone import (
    ClassificationHead,
    EncoderConfig,
    ExpertBank,
    passes_for,
    patchify,
)
from kernels import Segments, group_by_expert_set
from router import SubspaceRouter
from router.projection import Routing
from server.execution import AdaptiveExecution, Execution
from server.loading import LoadedStore, TaskInfo, load_store
from server.preprocessing import Preprocessing
from server.set_cache import SetCache, SetKey

__all__ = ["BatchReport", "Classification", "Engine", "Query", "TaskInfo"]

GIB = 1 << 30


@dataclass(frozen=True)
class Query:
    """One image to classify."""

    # [3, crop, crop], RGB: uint8 as `Preprocessing.preprocess` makes it, or float32 and normalised already
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
    residuals: dict[str, float]  # of every task; empty where one task was named and nothing was routed

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
class Decision:
    """Which experts one sample gets, and why."""

    expert_set: tuple[int, ...]
    coefficients: tuple[float, ...]  # of the expert set, in its order
    residuals: tuple[float, ...]  # of every task; empty where nothing was routed

    @classmethod
    def named(cls, task: int) -> Decision:
        """The caller left one task to choose from."""
        return cls((task,), (1.0,), ())

    @classmethod
    def routed(cls, routing: Routing, row: int) -> Decision:
        """The router chose."""
        tasks = routing.expert_sets[row]
        coefficients, residuals = routing.routing_coefficients[row], routing.residuals[row]
        return cls(tasks, tuple(coefficients[list(tasks)].tolist()), tuple(residuals.tolist()))


@dataclass
class StageClock:
    """Wall-clock seconds of each stage of a batch."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block; on a GPU it ends when the work does, not when it was launched."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = time.perf_counter() - start


class Engine:
    """One store, loaded on one device. Not thread-safe: one thread owns it."""

    def __init__(self, loaded: LoadedStore, execution: Execution, set_cache_bytes: int) -> None:
        self.store_revision: str = loaded.store_revision
        self.config: EncoderConfig = loaded.config
        self.preprocessing: Preprocessing = loaded.preprocessing
        self.bank: ExpertBank = loaded.bank
        self.tasks: Mapping[str, TaskInfo] = {head.info.name: head.info for head in loaded.heads}
        self.left_out: tuple[str, ...] = loaded.left_out  # tasks of the store that are not served
        self.set_cache = SetCache(loaded.bank, set_cache_bytes)
        self._loaded = loaded
        self._heads = loaded.heads
        self._names = tuple(self.tasks)
        self._router = SubspaceRouter(loaded.router, loaded.bank.blocks[loaded.router_linear].vh)
        self._choose_form = self._form_chooser(execution)
        self._passes = passes_for(
            loaded.bank,
            loaded.first_pass,
            loaded.router.layer,
            loaded.router.token,
            min(loaded.router.top_k, len(self.tasks)),
        )

    @classmethod
    def load(
        cls,
        store: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        execution: str = "low_rank",
        set_cache_bytes: int = GIB,
        without: Collection[str] = (),
        previous: Engine | None = None,
    ) -> Engine:
        """Reads, verifies and loads a store.

        device: "cpu" or "cuda[:i]". dtype: "float32" or "bfloat16", of the encoder; heads and the router are
        float32. execution: "low_rank", "materialised" or "adaptive". set_cache_bytes bounds what expert sets
        take beside the shared blocks. `without` names tasks to leave out. What a `previous` engine has in
        memory and is still true is taken from it, and the expert sets that it has ready are made ready here.
        Raises `model_store.errors.StoreError` for a store that cannot be used and ValueError for options
        that do not fit it.
        """
        before = None if previous is None else previous._loaded
        loaded = load_store(store, torch.device(device), getattr(torch, dtype), without, before)
        engine = cls(loaded, Execution(execution), set_cache_bytes)
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
            routed = (candidates.sum(1) > 1).nonzero().flatten()
            with clock.stage("first_pass"):
                features = self._first_pass(patches, routed)
            with clock.stage("route"):
                decisions = self._route(features, routed, candidates)
            segments = group_by_expert_set([decision.expert_set for decision in decisions])
            with clock.stage("second_pass"):
                embeddings = self._second_pass(patches, segments)
            with clock.stage("heads"):
                answers = self._apply_heads(embeddings, segments, decisions)
        expert_sets = [self._name_set(tasks) for tasks in segments.segment_expert_sets]
        threshold = self._router.config.threshold
        fallbacks = sum(bool(d.residuals) and max(d.coefficients) <= threshold for d in decisions)
        return BatchReport(answers, clock.seconds, expert_sets, fallbacks)

    def head(self, task: str) -> ClassificationHead:
        """A task's classification head. Raises KeyError for an unknown task."""
        return {entry.info.name: entry.head for entry in self._heads}[task]

    @property
    def nbytes(self) -> dict[str, int]:
        """The memory of the tensors that stay on the device, by kind."""
        return {
            "pretrained": sum(t.nbytes for t in self._loaded.pretrained.values()),
            "first_pass": self._loaded.first_pass_nbytes,
            "experts": self.bank.nbytes + self._router.projectors.nbytes,
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
                self.set_cache.put(new, replace(experts, tasks=new.tasks))
            else:
                self.set_cache.get([new])

    def _form_chooser(self, execution: Execution) -> Callable[[tuple[int, ...], int], SetKey]:
        """(expert set, samples) -> the form it runs in."""
        if execution is Execution.ADAPTIVE:
            return AdaptiveExecution(self.config, self.bank, self.set_cache).key
        materialised = execution is Execution.MATERIALISED
        largest = min(self._router.config.top_k, len(self._names))
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
        return patchify(normalised.to(loaded.dtype), self.config.patch_size)

    def _first_pass(self, patches: Tensor, routed: Tensor) -> Tensor:
        """The router's features of the samples `routed`, [len(routed), D]."""
        if not len(routed):
            return patches.new_empty(0, self.config.width)
        return self._passes.first(patches if len(routed) == len(patches) else patches[routed])

    def _route(self, features: Tensor, routed: Tensor, candidates: Tensor) -> list[Decision]:
        """Every sample's decision; a sample with one candidate needs no router."""
        decisions = [Decision.named(int(task)) for task in candidates.int().argmax(1)]
        if len(routed):
            routing = self._router.route(features, candidates[routed])
            for row, sample in enumerate(routed.tolist()):
                decisions[sample] = Decision.routed(routing, row)
        return decisions

    def _second_pass(self, patches: Tensor, segments: Segments) -> Tensor:
        """Embeddings [B, P] in the order of the segments."""
        offsets, sets = segments.segment_offsets, segments.segment_expert_sets
        ordered = patches[torch.tensor(segments.permutation, dtype=torch.long, device=patches.device)]
        keys = [self._choose_form(tasks, offsets[i + 1] - offsets[i]) for i, tasks in enumerate(sets)]
        parts = []
        for wave in self.set_cache.waves(keys):
            first, last = offsets[wave.start], offsets[wave.stop]
            expert_sets = self.set_cache.get([keys[i] for i in wave])
            own_offsets = [offsets[i] - first for i in range(wave.start, wave.stop + 1)]
            parts.append(self._passes.second(ordered[first:last], expert_sets, own_offsets))
        return torch.cat(parts)

    def _apply_heads(
        self, embeddings: Tensor, segments: Segments, decisions: Sequence[Decision]
    ) -> list[Classification | None]:
        """Each sample's winning head and its logits, in the order of the queries."""
        answers: dict[int, Classification | None] = {}
        offsets = segments.segment_offsets
        for i, tasks in enumerate(segments.segment_expert_sets):
            samples = segments.permutation[offsets[i] : offsets[i + 1]]
            logits = [
                self._heads[task].head.logits(embeddings[offsets[i] : offsets[i + 1]]).cpu() for task in tasks
            ]
            finite = torch.stack([part.isfinite().all(1) for part in logits]).all(0)
            winners = self._winners(logits, [decisions[sample] for sample in samples])
            for row, sample in enumerate(samples):
                head = winners[row]
                answer = self._answer(decisions[sample], tasks[head], logits[head][row])
                answers[sample] = answer if finite[row] else None
        return [answers[sample] for sample in range(len(decisions))]

    def _winners(self, logits: Sequence[Tensor], decisions: Sequence[Decision]) -> list[int]:
        """For each sample of a segment, which task of the set answers: the store's head choice."""
        if self._loaded.head_choice == "router":
            return [decision.coefficients.index(max(decision.coefficients)) for decision in decisions]
        scores = [part.amax(1) if self._loaded.head_choice == "max" else part.mean(1) for part in logits]
        winners: list[int] = torch.stack(scores, dim=1).argmax(1).tolist()
        return winners

    def _answer(self, decision: Decision, task: int, logits: Tensor) -> Classification:
        info = self._heads[task].info
        names = self._name_set(decision.expert_set)
        return Classification(
            task=info.name,
            task_revision=info.revision,
            labels=info.labels,
            logits=logits,
            expert_set=names,
            coefficients=dict(zip(names, decision.coefficients, strict=True)),
            residuals=dict(zip(self._names, decision.residuals, strict=False)),
        )

    def _name_set(self, tasks: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._names[task] for task in tasks)

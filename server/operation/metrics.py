"""The Prometheus metrics of one application, in a registry of its own; every child starts at zero.

metrics = Metrics(settings.engine_options.labels)
service = Service(settings, source, metrics)
text = metrics.render()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mass_serve import __version__
from mass_serve.engine import (
    FORMS,
    AnswerKind,
    AnyAnswer,
    AnyQuestion,
    BatchReport,
    Classification,
    EmbeddingQuestion,
    Flip,
    ServingEngine,
)
from mass_serve.server.operation.answer_cache_metrics import AnswerCacheMetrics
from mass_serve.server.operation.group_metrics import GroupMetrics
from mass_serve.server.operation.guarding_metrics import GuardingMetrics
from mass_serve.server.operation.shadow_metrics import ShadowMetrics
from mass_serve.server.operation.task_metrics import TaskMetrics
from mass_serve.server.settings import Settings

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKEN_BUCKETS = tuple(4**step for step in range(2, 9))
LOAD_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
COEFFICIENT_BUCKETS = tuple(step / 10 for step in range(1, 11))

PROTOCOLS = ("v1", "v2", "kserve_v1", "hugging_face", "grpc", "other")
CODES = (200, 400, 401, 404, 405, 408, 413, 415, 421, 429, 499, 500, 503, 504, 505)
QUESTIONS = (*get_args(AnswerKind), "same_task", EmbeddingQuestion.answer)
CACHE_COUNTS = ("hits", "misses", *FORMS, "task_hits", "task_misses")
STAGES = ("decode", "queue", "first_pass", "route", "second_pass", "heads")
REASONS = (
    "queue_full",
    "memory_full",
    "deadline",
    "too_large",
    "bad_image",
    "draining",
    "client_gone",
    "client_slow",
    "wrong_keys",
    "rate",
)


class Metrics(GuardingMetrics, GroupMetrics, AnswerCacheMetrics):
    """Counts what the service reports, under names that start with `mass_`: a `ServingObserver`."""

    def __init__(
        self,
        options: Mapping[str, str],
        max_task_labels: int = Settings.model_fields["max_task_labels"].default,
    ) -> None:
        """Registers all metrics; `options` are labels of `mass_build_info`: the engine's options in words.

        So many tasks have series of their own.
        """
        # They are a time stamp beside every counter, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        GuardingMetrics.__init__(self, self.registry)
        AnswerCacheMetrics.__init__(self, self.registry)
        ProcessCollector(registry=self.registry)
        self._tasks = TaskMetrics(self.registry, max_task_labels)
        self._shadow = ShadowMetrics(self.registry)
        GroupMetrics.__init__(self, self.registry, self._tasks)
        self._make_request_metrics()
        self._make_routing_metrics()
        self._make_batch_metrics()
        self._make_state_metrics(options)

    def _make_request_metrics(self) -> None:
        self.requests = Counter(
            "mass_requests",
            "Requests answered; those of gRPC by the status of HTTP that says the same.",
            ("protocol", "code"),
            registry=self.registry,
        )
        self.request_duration = Histogram(
            "mass_request_duration_seconds",
            "From the request's headers to the end of its answer.",
            ("protocol",),
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "mass_requests_in_progress", "Requests being answered.", registry=self.registry
        )
        self.rejected = Counter(
            "mass_rejected", "Requests refused or given up, by reason.", ("reason",), registry=self.registry
        )
        self.questions = Counter(
            "mass_questions",
            "Requests admitted, by what they ask: best, each, one for inputs of the same_task, or embedding.",
            ("answer",),
            registry=self.registry,
        )
        for question in QUESTIONS:
            self.questions.labels(question)
        for protocol in PROTOCOLS:
            self.request_duration.labels(protocol)
            for code in CODES:
                self.requests.labels(protocol, str(code))
        for reason in REASONS:
            self.rejected.labels(reason)

    def _make_routing_metrics(self) -> None:
        self.expert_set_size = Histogram(
            "mass_expert_set_size",
            "Tasks in a routed image's expert set.",
            buckets=(1, 2, 3),
            registry=self.registry,
        )
        self.top_coefficient = Histogram(
            "mass_routing_top_coefficient",
            "The largest routing coefficient of a routed image.",
            buckets=COEFFICIENT_BUCKETS,
            registry=self.registry,
        )

        self.fallbacks = Counter(
            "mass_routing_fallback",
            "Routed images for which no task was above the threshold; kept answers are not counted.",
            registry=self.registry,
        )

    def _make_batch_metrics(self) -> None:
        self.stage_duration = Histogram(
            "mass_stage_duration_seconds",
            "Time by stage: decode and queue per request, the others per batch.",
            ("stage",),
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        for stage in STAGES:
            self.stage_duration.labels(stage)
        self.batch_size = Histogram(
            "mass_batch_size", "Images, or texts, in a batch.", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.batch_tokens = Histogram(
            "mass_batch_tokens",
            "Tokens in a batch of texts; those that several tasks answer count for each.",
            buckets=TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.batch_segments = Histogram(
            "mass_batch_segments",
            "Different expert sets in a batch.",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "mass_queue_depth",
            "Images admitted and waiting; where the store reads texts, their tokens.",
            registry=self.registry,
        )
        self.queue_capacity = Gauge(
            "mass_queue_capacity",
            "Images that may wait; where the store reads texts, tokens.",
            registry=self.registry,
        )

    def _make_state_metrics(self, options: Mapping[str, str]) -> None:
        self.ready = Gauge("mass_ready", "1 while requests are served.", registry=self.registry)
        self.load_duration = Histogram(
            "mass_task_load_duration_seconds",
            "From reading a store's tasks to their first use.",
            buckets=LOAD_BUCKETS,
            registry=self.registry,
        )
        self.load_failures = Counter(
            "mass_task_load_failures",
            "Attempts to load the store's tasks that failed.",
            registry=self.registry,
        )
        self._engine = _EngineCollector(self._tasks)
        self.registry.register(self._engine)
        labels = {"version": __version__, **options}
        build = Gauge(
            "mass_build_info",
            "Always 1; the labels are the version and the engine's options, the dtype as it was chosen.",
            tuple(labels),
            registry=self.registry,
        )
        build.labels(**labels).set(1)

    def watch_readiness(self, ready: Callable[[], bool]) -> None:
        """Lets `mass_ready` ask at each scrape, so that it cannot go stale."""
        self.ready.set_function(lambda: float(ready()))

    def watch_queue(self, places: Callable[[], tuple[int, int]]) -> None:
        """Lets the queue's figures, how much waits and how much may, be asked for at each scrape."""
        self.queue_depth.set_function(lambda: places()[0])
        self.queue_capacity.set_function(lambda: places()[1])

    def request_in_progress(self) -> AbstractContextManager[None]:
        """Counts a request in `mass_requests_in_progress` while the block runs."""
        tracker: AbstractContextManager[None] = self.in_progress.track_inprogress()
        return tracker

    def request_answered(self, protocol: str, status: int, seconds: float) -> None:
        """Counts an answered request and how long it took."""
        self.requests.labels(protocol, str(status)).inc()
        self.request_duration.labels(protocol).observe(seconds)

    def request_rejected(self, reason: str) -> None:
        """Counts a request that was refused or given up."""
        self.rejected.labels(reason).inc()

    def question_admitted(self, question: AnyQuestion) -> None:
        """Counts a request by what it asks."""
        self.questions.labels("same_task" if question.same_task else question.answer).inc()

    def engine_loaded(self, engine: ServingEngine, seconds: float) -> None:
        """Opens the per-task children and exports the figures of this engine instead of an earlier one's."""
        self.load_duration.observe(seconds)
        self._tasks.serve(engine.tasks)
        self._engine.watch(engine)

    def leave_loads_out(self) -> None:
        """Tells nothing of loads: the process that reads the store for this one does."""
        for one in (self.load_duration, self.load_failures):
            self.registry.unregister(one)

    def load_failed(self) -> None:
        """Counts a load that failed."""
        self.load_failures.inc()

    def tasks_answered(self, tasks: Sequence[str], seconds: float) -> None:
        """Counts how long a request took that these tasks have answered."""
        self._tasks.took(tasks, seconds)

    def stages_took(self, seconds: Mapping[str, float]) -> None:
        """Counts the time spent, by stage."""
        for stage, spent in seconds.items():
            self.stage_duration.labels(stage).observe(spent)

    def batch_ran(self, report: BatchReport, tokens: int) -> None:
        """Counts a batch that came back from the engine, and its answers."""
        self.batch_size.observe(len(report.answers))
        if tokens:
            self.batch_tokens.observe(tokens)
        self.batch_segments.observe(len(report.expert_sets))
        self.fallbacks.inc(report.fallbacks)
        self.stages_took(report.stage_seconds)
        self._observe_answers([one for one in report.answers if isinstance(one, Classification)])

    def answers_recalled(self, answers: Sequence[AnyAnswer], missed: int) -> None:
        """Counts answers that were known already, as those of a batch, and those that were not."""
        self.recalled(len(answers), missed)
        self._observe_answers([one for one in answers if isinstance(one, Classification)])

    def _observe_answers(self, answers: Sequence[Classification]) -> None:
        for answer in answers:
            self._tasks.answered(answer)
            if answer.familiarity is not None:  # it was routed
                self.expert_set_size.observe(len(answer.expert_set))
                self.top_coefficient.observe(max(answer.coefficients.values()))

    def shadow_serves(self, revision: str | None) -> None:
        """Shows which revision answers silently."""
        self._shadow.serves(revision)

    def shadow_compared(self, task: str, found: Flip | None) -> None:
        """Counts an answer of the next revision by the task that has won, and how it differs."""
        if found is not None:
            self._shadow.flipped(found)
        self._tasks.compared(task, is_flipped=found is not None)

    def shadow_dropped(self, inputs: int) -> None:
        """Counts inputs that the next revision is not asked."""
        self._shadow.dropped(inputs)

    def shadow_failed(self, what: str) -> None:
        """Counts a failure of the next revision."""
        self._shadow.failed(what)

    def render(self) -> bytes:
        """Returns the exposition that a scrape reads."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads, at each scrape, the figures that the engine in service keeps itself."""

    def __init__(self, tasks: TaskMetrics) -> None:
        self._tasks = tasks
        # The engine, and what those before it have counted: a counter goes on when another takes over.
        # One tuple, because a scrape must not see the one without the other.
        self._watched: tuple[ServingEngine | None, dict[str, int]] = None, dict.fromkeys(CACHE_COUNTS, 0)

    def watch(self, engine: ServingEngine) -> None:
        """Reads from this engine from now on."""
        self._watched = engine, self._counts(*self._watched)

    @staticmethod
    def _counts(engine: ServingEngine | None, earlier: dict[str, int]) -> dict[str, int]:
        if engine is None:
            return earlier
        cache = engine.set_cache
        tasks = engine.resident_tasks
        now = {"hits": cache.hits, "misses": cache.misses, **cache.used}
        now |= {"task_hits": tasks.hits, "task_misses": tasks.misses}
        return {name: count + now[name] for name, count in earlier.items()}

    def collect(self) -> Iterator[Metric]:
        engine, earlier = self._watched
        counts = self._counts(engine, earlier)
        cached = 0 if engine is None else engine.set_cache.nbytes
        yield CounterMetricFamily("mass_set_cache_hits", "Expert sets found ready.", value=counts["hits"])
        yield CounterMetricFamily("mass_set_cache_misses", "Expert sets computed.", value=counts["misses"])
        forms = CounterMetricFamily(
            "mass_segments", "Segments computed, by the form that their expert set ran in.", labels=("form",)
        )
        for form in FORMS:
            forms.add_metric((form,), counts[form])
        yield forms
        yield GaugeMetricFamily("mass_set_cache_bytes", "Memory that expert sets take.", value=cached)
        yield CounterMetricFamily(
            "mass_resident_task_hits", "Uses of a task that was in memory.", value=counts["task_hits"]
        )
        yield CounterMetricFamily(
            "mass_resident_task_misses", "Uses of a task that was read first.", value=counts["task_misses"]
        )
        yield GaugeMetricFamily(
            "mass_resident_task_bytes",
            "Memory that the weights of tasks take, as far as they may be dropped.",
            value=0 if engine is None else engine.resident_tasks.nbytes,
        )
        memory = GaugeMetricFamily(
            "mass_device_memory_bytes", "Memory of the tensors on the device.", labels=("kind",)
        )
        if engine is not None:
            for kind, nbytes in engine.nbytes.items():
                memory.add_metric((kind,), nbytes)
        yield memory
        yield from self._tasks.loaded(engine)

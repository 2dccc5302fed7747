"""The answers of an engine, and how they follow from a search's results and what the heads say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mass_serve.engine.heads import HeadResult, TaskHead
from mass_serve.engine.search import SearchResult, final_coefficients
from mass_serve.model_store.format.manifest import HeadChoice, RouterSpec
from mass_serve.router import familiarity


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
class AnswerMaker:
    """Chooses whose head answers, and puts names to numbers."""

    heads: Sequence[TaskHead]
    router: RouterSpec

    def answers(
        self,
        found: Sequence[SearchResult],
        results: Mapping[int, Sequence[HeadResult]],
        pools: Tensor | None,
    ) -> list[Classification | None]:
        """The answers for the samples of a batch; None where a logit of the sample's pool is not finite.

        `results` are by the sample's number, and `pools` [B] numbers the pool that each sample is of.
        """
        members: dict[int, list[int]] = defaultdict(list)
        for sample, pool in enumerate(range(len(found)) if pools is None else pools.tolist()):
            members[pool].append(sample)
        answers: dict[int, Classification | None] = {}
        for samples in members.values():
            own = self._of_one_pool([found[at] for at in samples], [results[at] for at in samples])
            answers.update(zip(samples, own, strict=True))
        return [answers[sample] for sample in range(len(found))]

    def _of_one_pool(
        self, found: Sequence[SearchResult], results: Sequence[Sequence[HeadResult]]
    ) -> list[Classification | None]:
        """The answers for samples of one task: one head answers for all."""
        if not all(one.logits.isfinite().all() for of_sample in results for one in of_sample):
            return [None] * len(found)
        coefficients = final_coefficients(found, results)
        place = self._winner(found[0], results, coefficients)
        return [
            self._answer(one, of_sample[place], coefficients)
            for one, of_sample in zip(found, results, strict=True)
        ]

    def _answer(
        self, found: SearchResult, winner: HeadResult, coefficients: Mapping[int, float]
    ) -> Classification:
        entry = self.heads[winner.task].entry
        likeness = _familiarity(found, winner) if found.likeness else None
        return Classification(
            task=entry.name,
            task_revision=entry.revision,
            labels=entry.labels,
            logits=winner.logits,
            expert_set=self.names(found.expert_set),
            coefficients={self._name(task): value for task, value in sorted(coefficients.items())},
            residuals={self._name(task): value for task, value in enumerate(found.residuals)},
            familiarity=likeness,
            unrouted=likeness is not None and likeness < self.router.unrouted_below,
            passes=found.passes,
            evidence=None if found.evidence is None else found.evidence.kinds,
        )

    def names(self, expert_set: Sequence[int]) -> tuple[str, ...]:
        """The names of the tasks of an expert set."""
        return tuple(self._name(task) for task in expert_set)

    def _name(self, task: int) -> str:
        return self.heads[task].entry.name

    def _winner(
        self,
        found: SearchResult,
        results: Sequence[Sequence[HeadResult]],
        coefficients: Mapping[int, float],
    ) -> int:
        """The place of the head that answers among each sample's results, which are of the same tasks.

        Of several second passes that of the likeliest task, else the store's choice: the largest coefficient,
        or the largest sum over the samples of each one's largest, or mean, logit.
        """
        places = range(len(results[0]))
        choice = self.router.head_choice
        # Logits of different embeddings cannot be compared, coefficients can.
        if len(found.second_passes) > 1 or choice == "router":
            return max(places, key=lambda place: coefficients[results[0][place].task])
        return max(places, key=lambda place: sum(_height(own[place].logits, choice) for own in results))


def _height(logits: Tensor, choice: HeadChoice) -> float:
    return float(logits.max() if choice == "max" else logits.mean())


def _familiarity(found: SearchResult, winner: HeadResult) -> float:
    """How much an image is like those of the task that answers, 0 to 1 (`router.familiarity`)."""
    second_cosine = float(winner.head_scores[0])
    first_cosine = found.first_cosines.get(winner.task, second_cosine)
    confidence = float(winner.logits.softmax(0).max())
    return familiarity(found.likeness[winner.task], first_cosine, second_cosine, confidence)

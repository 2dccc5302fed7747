"""The answers of an engine, and how they follow from a search's results and what the heads say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from mass_serve.backbone import MULTI_CLASS, Labelling, MultiLabel
from mass_serve.engine.by_task import ByTask
from mass_serve.engine.choices import Aggregation
from mass_serve.engine.entities import OUTSIDE, Entity, entities
from mass_serve.engine.heads import HeadResult, TaskHead, TokenResult
from mass_serve.engine.search_result import SearchResult, final_coefficients
from mass_serve.engine.second_passes import SecondPass
from mass_serve.inputs.texts import Places
from mass_serve.model_store.format.entries import HeadChoice, RouterSpec
from mass_serve.router import Evidence, Prior
from mass_serve.router.familiarity import familiarity


@dataclass(frozen=True)
class TaskAnswer:
    """What the head of one task says of an image or text."""

    task: str
    task_revision: str
    labels: tuple[str, ...]  # of the head, in row order
    logits: Tensor  # [C] float32 on the CPU; see `TokenClassification`, too
    labelling: Labelling = field(default=MULTI_CLASS, kw_only=True)  # what they say of the labels

    @property
    def probabilities(self) -> Tensor:
        """The probability of each label, [C]; of each token, [n, C], in a `TokenClassification`.

        They are the softmax of the logits or, in a task of any number of labels, their sigmoid.
        """
        return self.labelling.probabilities(self.logits)

    @property
    def given(self) -> tuple[str, ...]:
        """The labels of the input, the likeliest first: one, or those that reach their threshold."""
        return tuple(self.labels[row] for row in self.labelling.given(self.logits))

    @property
    def is_multi_label(self) -> bool:
        """Whether an input may have any number of the task's labels, and not one of them."""
        return isinstance(self.labelling, MultiLabel)


@dataclass(frozen=True)
class Alternative(TaskAnswer):
    """What another task says of an image or text that was found near to both.

    Its head answers from a second pass that was run to choose between them: an alternative costs nothing.
    """

    coefficient: float  # of the task


@dataclass(frozen=True)
class Classification(TaskAnswer):
    """The answer of a task for one image or text."""

    expert_set: tuple[str, ...]
    coefficients: dict[str, float]  # of the expert set
    residuals: Mapping[str, float]  # of every task; empty where they were not needed
    familiarity: float | None  # 0 to 1: how much the image is like the task's; None where one was named
    unrouted: bool  # it is so little like any task that none should be believed
    passes: float  # through the encoder
    evidence: Evidence | None = None  # what the tasks were judged by; None of one that was named
    # The other tasks of the expert set, the likeliest first; a task that was named has none.
    alternatives: tuple[Alternative, ...] = ()
    # Of the inputs that were said to be of one task: those of one part are, by their evidence. 0 is the part
    # of the first, or of the newest that its stream remembers. None: it was judged by itself, or the paper's
    # router judged, which has no parts.
    part: int | None = None


@dataclass(frozen=True)
class TokenClassification(Classification):
    """The answer of a task that gives each token of a text a class: named entities, personal data.

    Its logits are [n, C], of the text's n tokens with the marks around it. It is never routed to.
    """

    places: Places | None = None  # where the tokens stand in the text, if the query said so

    def entities(
        self, aggregation: Aggregation = "simple", ignored: Collection[str] = (OUTSIDE,)
    ) -> list[Entity]:
        """The entities in the text (`engine.entities`), without those whose label is `ignored`.

        Raises ValueError where the query did not say where its tokens stand.
        """
        if self.places is None:
            raise ValueError("the query did not say where its tokens stand; give it their places")
        return entities(self.labels, self.probabilities, self.places, aggregation, ignored)


@dataclass(frozen=True)
class Embedding:
    """What the encoder makes of one image or text."""

    task: str | None  # with whose weights; None: with the pretrained ones
    task_revision: str | None
    values: Tensor  # [P] float32 on the CPU


AnyAnswer = Classification | Embedding


@dataclass(frozen=True)
class BatchReport:
    """The answers to a batch, in the order of its queries, and what it took."""

    answers: list[AnyAnswer | None]  # None where the model's output is not finite
    stage_seconds: dict[str, float]  # first_pass, route, second_pass, heads
    expert_sets: list[tuple[str, ...]]  # one per segment
    fallbacks: int  # images for which no task was above the threshold: they got the likeliest one

    def all_answers(self) -> list[Classification]:
        """The answers to queries that want classes, if each has one. Raises FloatingPointError otherwise."""
        return [answer for answer in self._finite() if isinstance(answer, Classification)]

    def embeddings(self) -> list[Embedding]:
        """The answers to queries that want embeddings, as `all_answers`."""
        return [answer for answer in self._finite() if isinstance(answer, Embedding)]

    def _finite(self) -> list[AnyAnswer]:
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

    @cached_property
    def _routed(self) -> dict[str, int]:
        """The numbers of the routed tasks, which are the first ones."""
        return {one.entry.name: task for task, one in enumerate(self.heads) if not one.each_token}

    def answers(
        self, found: Sequence[SearchResult], results: Mapping[int, Sequence[HeadResult]], prior: Prior | None
    ) -> dict[int, Classification | None]:
        """The answers for the samples that have `results`; None where a logit of their part is not finite.

        `found` and `results` are by the sample's number in the batch, as the answers are, and `prior` knows
        the pool that each sample of the batch is of.
        """
        members: dict[tuple[int, int | None], list[int]] = defaultdict(list)
        for sample in results:
            pool = sample if prior is None else int(prior.pools[sample])
            members[pool, found[sample].part].append(sample)
        answers: dict[int, Classification | None] = {}
        for samples in members.values():
            own = self._of_one_part([found[at] for at in samples], [results[at] for at in samples])
            answers.update(zip(samples, own, strict=True))
        return answers

    def embeddings(
        self,
        second_passes: Sequence[SecondPass],
        embedded: Collection[int],
        vectors: Sequence[Tensor] | Tensor,
    ) -> dict[int, AnyAnswer | None]:
        """The answers for the samples in `embedded`, of the vector [P] of each second pass.

        They are None where a value is not finite.
        """
        return {
            one.sample: self._embedding(one.expert_set, vectors[row])
            for row, one in enumerate(second_passes)
            if one.sample in embedded
        }

    def _embedding(self, expert_set: Sequence[int], vector: Tensor) -> Embedding | None:
        if not vector.isfinite().all():
            return None
        entries = [self.heads[task].entry for task in expert_set]
        name, revision = (entries[0].name, entries[0].revision) if entries else (None, None)
        return Embedding(name, revision, vector.float().cpu())

    def token_answer(
        self, found: SearchResult, result: TokenResult, places: Places | None
    ) -> TokenClassification | None:
        """The answer of a task that classifies tokens; None where a logit is not finite."""
        if not result.logits.isfinite().all():
            return None
        entry = self.heads[result.task].entry
        return TokenClassification(
            task=entry.name,
            task_revision=entry.revision,
            labels=entry.labels,
            logits=result.logits,
            expert_set=(entry.name,),
            coefficients={entry.name: 1.0},
            residuals={},
            familiarity=None,
            unrouted=False,
            passes=found.passes,
            places=places,
        )

    def _of_one_part(
        self, found: Sequence[SearchResult], results: Sequence[Sequence[HeadResult]]
    ) -> list[Classification | None]:
        """The answers for samples of one task: one head answers for all."""
        if not all(one.is_finite for of_sample in results for one in of_sample):
            return [None] * len(found)
        coefficients = final_coefficients(found, results)
        place = self._winner(found[0], results, coefficients)
        return [
            self._answer(one, of_sample, place, coefficients)
            for one, of_sample in zip(found, results, strict=True)
        ]

    def _answer(
        self,
        found: SearchResult,
        results: Sequence[HeadResult],
        place: int,
        coefficients: Mapping[int, float],
    ) -> Classification:
        """The answer for one sample: that of the result at `place`, among those of its expert set's tasks."""
        winner, others = results[place], [*results[:place], *results[place + 1 :]]
        entry, labelling = self.heads[winner.task].entry, self.heads[winner.task].head.labelling
        likeness = _familiarity(found, winner) if found.likeness else None
        return Classification(
            task=entry.name,
            task_revision=entry.revision,
            labels=entry.labels,
            logits=winner.logits,
            labelling=labelling,
            expert_set=self.names(found.expert_set),
            coefficients={self._name(task): value for task, value in sorted(coefficients.items())},
            residuals={} if found.residuals is None else ByTask(self._routed, found.residuals),
            familiarity=likeness,
            unrouted=likeness is not None and likeness < self.router.unrouted_below,
            passes=found.passes,
            evidence=found.evidence,
            part=found.part,
            alternatives=tuple(
                self._alternative(one, coefficients[one.task])
                for one in sorted(others, key=lambda one: -coefficients[one.task])
            ),
        )

    def _alternative(self, result: HeadResult, coefficient: float) -> Alternative:
        entry, labelling = self.heads[result.task].entry, self.heads[result.task].head.labelling
        return Alternative(
            entry.name, entry.revision, entry.labels, result.logits, coefficient, labelling=labelling
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
        or the largest sum over the samples of each one's largest, or mean, logit. Where some tasks give one
        label and others any number, it is the largest coefficient.
        """
        places = range(len(results[0]))
        if len(places) == 1:
            return 0
        choice = self.router.head_choice
        kinds = {type(self.heads[one.task].head.labelling) for one in results[0]}
        # Logits of different embeddings cannot be compared, nor those whose softmax is taken with those whose
        # sigmoid is: only of these the number zero means something. Coefficients can.
        if len(found.second_passes) > 1 or len(kinds) > 1 or choice == "router":
            return max(places, key=lambda place: coefficients[results[0][place].task])
        return max(places, key=lambda place: sum(_height(own[place].logits, choice) for own in results))


def _height(logits: Tensor, choice: HeadChoice) -> float:
    return float(logits.max() if choice == "max" else logits.mean())


def _familiarity(found: SearchResult, winner: HeadResult) -> float:
    """How much an image is like those of the task that answers, 0 to 1 (`router.familiarity`)."""
    second_cosine, _, log_confidence = winner.head_scores
    first_cosine = found.first_cosines.get(winner.task, second_cosine)
    confidence = math.exp(log_confidence)
    return familiarity(found.likeness[winner.task], first_cosine, second_cosine, confidence)

"""What is asked about the images of one request, and the queries that it becomes.

    Question(("digits", "street"), answer="each").queries(pixels, engine.tasks)

Every front door, Python, the command line and HTTP, asks by it, so that all of them ask the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

import torch
from torch import Tensor

from mass_serve.engine.choices import AnswerKind
from mass_serve.engine.named_tasks import TasksOfGroups, named_tasks
from mass_serve.engine.priors import Priors
from mass_serve.engine.queries import AnyQuery, Pool, Query, TextQuery, choice
from mass_serve.inputs.texts import Tokens
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.router import ModeName, Remembered, mode_named

# What becomes a query: the pixels of an image, or the tokens of a text.
PreparedInput = Tensor | Tokens


@dataclass(frozen=True)
class Question:
    """What is asked about images, the same about each. Raises ValueError for what contradicts itself."""

    # Names of the tasks in question, and of groups of tasks until `among` has put their tasks there; None:
    # all of the store, of which those that classify tokens are asked for the answer of each alone
    # (`queries.choice`).
    tasks: tuple[str, ...] | None = None
    answer: AnswerKind = "best"
    same_task: bool = False  # all images are of one task, which is chosen by the evidence of all together
    mode: ModeName | None = None  # of the search for the task; None: that of whoever is asked
    priors: Priors | None = None  # of the tasks in question; None: all are as likely
    remembered: Remembered | None = None  # the evidence of earlier inputs that are of the same task

    @property
    def tasks_in_use(self) -> tuple[str, ...]:
        """Names of the tasks that the inputs are certain to be tried with."""
        return self.tasks or () if self.answer == "each" or len(self.tasks or ()) == 1 else ()

    def __post_init__(self) -> None:
        if self.answer not in get_args(AnswerKind):
            raise ValueError(f"answer must be 'best' or 'each', not {self.answer[:80]!r}.")
        if self.mode is not None:
            mode_named(self.mode)
        if self.tasks is not None and not self.tasks:
            raise ValueError("'tasks' is empty; name at least one task, or leave it out to ask all.")
        if self.answer == "each":
            self._check_each()

    def _check_each(self) -> None:
        if self.mode is not None:
            raise ValueError(
                "'mode' is how the task is searched for, and with answer 'each' none is; leave one out."
            )
        if self.same_task:
            raise ValueError(
                "same_task helps to choose one task, and with answer 'each' all answer; leave one out."
            )
        if self.priors is not None:
            raise ValueError(
                "priors help to choose one task, and with answer 'each' all answer; leave one out."
            )
        for name, count in Counter(self.tasks).items():
            if count > 1:
                raise ValueError(
                    f"'tasks' names {name[:80]!a} more than once; with answer 'each' name it once."
                )

    def among(self, served: Collection[str], groups: TasksOfGroups) -> Question:
        """The same question with tasks in the place of names: those that are served, and those of groups.

        The prior of a group is shared by its tasks. Raises UnknownTaskError, and ValueError for the prior of
        a task that is not in question.
        """
        tasks = None if self.tasks is None else named_tasks(self.tasks, served, groups)
        priors = None if self.priors is None else _of_tasks(self.priors, served, groups)
        if priors is not None and tasks is not None:
            for name in priors.names:
                if name not in tasks:
                    raise ValueError(
                        f"'priors' has {name[:80]!a}, which is not among the 'tasks'; name it there, too, or"
                        " leave its prior out."
                    )
        return replace(self, tasks=tasks, priors=priors)

    def asks_of_tokens(self, served: Mapping[str, TaskEntry]) -> bool:
        """Tells whether tasks that classify tokens are asked, among the tasks that are served.

        Raises ValueError for a name that is none of theirs, and where such a one is to be chosen among
        several.
        """
        each = self.answer == "each"
        choices = [(name,) for name in self.tasks or served] if each else [self.tasks]
        return any(served[name].head.each_token for one in choices for name in choice(one, served))

    def answers(self, images: int, served: Collection[str]) -> int:
        """How many answers there are to so many images, where these tasks are served."""
        if self.answer == "best":
            return images
        return images * len(served if self.tasks is None else self.tasks)

    def queries(self, inputs: Sequence[PreparedInput], served: Collection[str]) -> list[AnyQuery]:
        """The queries about inputs, in the order of the inputs and, of each, in that of the tasks.

        `inputs` are the pixels of images, or the tokens of texts.
        """
        if self.answer == "each":
            names = served if self.tasks is None else self.tasks
            return [_query(one, (name,)) for one in inputs for name in names]
        candidates = None if self.tasks is None else tuple(dict.fromkeys(self.tasks))
        is_pool = self.same_task and (len(inputs) > 1 or self.remembered is not None)
        pool = Pool(self.remembered) if is_pool else None
        return [_query(one, candidates, pool, self.mode, self.priors) for one in inputs]


@dataclass(frozen=True)
class EmbeddingQuestion:
    """What is asked is the embedding of each input: by a task's encoder, or by the pretrained one."""

    task: str | None = None
    answer: ClassVar[str] = "embedding"
    same_task: ClassVar[bool] = False
    mode: ClassVar[None] = None
    priors: ClassVar[None] = None

    @property
    def tasks(self) -> tuple[str, ...] | None:
        """The task in question; None: the pretrained encoder."""
        return None if self.task is None else (self.task,)

    @property
    def tasks_in_use(self) -> tuple[str, ...]:
        """Names of the tasks whose encoders are certain to be used."""
        return self.tasks or ()

    def answers(self, images: int, served: Collection[str]) -> int:  # noqa: ARG002 - as of every question
        """How many answers there are to so many images."""
        return images

    def queries(self, inputs: Sequence[PreparedInput], served: Collection[str]) -> list[AnyQuery]:  # noqa: ARG002
        """The queries about inputs, the pixels of images or the tokens of texts, in their order."""
        return [replace(_query(one, self.tasks), embeds=True) for one in inputs]


AnyQuestion = Question | EmbeddingQuestion


def _of_tasks(priors: Priors, served: Collection[str], groups: TasksOfGroups) -> Priors:
    """The same priors of tasks alone; one that is named by itself and in a group has the sum."""
    shares: dict[str, float] = {}
    for name, share in priors.shares:
        members = named_tasks([name], served, groups)
        for member in members:
            shares[member] = shares.get(member, 0.0) + share / len(members)
    return Priors.of(shares)


def _query(
    one: PreparedInput,
    candidates: tuple[str, ...] | None,
    pool: Pool | None = None,
    mode: ModeName | None = None,
    priors: Priors | None = None,
) -> AnyQuery:
    if isinstance(one, Tokens):
        words = torch.from_numpy(one.words)
        return TextQuery(words, candidates, pool, one.places, mode=mode, priors=priors)
    return Query(one, candidates, pool, mode=mode, priors=priors)

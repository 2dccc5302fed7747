"""The models that protocols of models show: `auto` and `@group`, which route, and one for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mass_serve.engine import ModeName, Priors, Question, ServingEngine
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.model_store.format.groups import GROUP_MARK
from mass_serve.server.errors import BadRequestError, NotFoundError
from mass_serve.server.protocols.together import Together
from mass_serve.server.serving.named_tasks import with_known_tasks
from mass_serve.server.serving.token_tasks import asks_of_tokens

BY_ITSELF = Together()


@dataclass(frozen=True)
class Model:
    """One model, as long as its engine is in service."""

    name: str
    version: str
    tasks: tuple[str, ...] | None  # among which the answer is; None: all
    task: str | None  # the one task that it is; None: the router chooses
    crop: int | None  # pixels, of images that come preprocessed; None: it reads texts
    takes_pairs: bool  # of texts
    each_token: bool  # it tells the entities in a text, and no label of all of it
    widest_head: int  # labels
    num_tasks: int  # that residuals are of
    gives_residuals: bool  # with every answer

    def question(self, mode: ModeName | None, together: Together = BY_ITSELF) -> Question:
        """Returns what is asked about every input, its task searched for in a mode or in the server's own.

        Raises BadRequestError for a mode that there is not, and for priors that are none.
        """
        try:
            priors = None if together.priors is None else Priors.of(together.priors)
            return Question(self.tasks, same_task=together.is_one_task, mode=mode, priors=priors)
        except ValueError as error:
            raise BadRequestError(str(error)) from error


def model_names(engine: ServingEngine) -> list[str]:
    """Returns the names of all models of an engine."""
    of_tokens = {name for name, task in engine.tasks.items() if task.head.each_token}
    groups = [
        f"{GROUP_MARK}{group}"
        for group, tasks in engine.groups.items()
        if len(tasks) == 1 or (tasks and of_tokens.isdisjoint(tasks))
    ]
    return [*([AUTO] if len(of_tokens) < len(engine.tasks) else []), *engine.tasks, *groups]


def find_model(engine: ServingEngine, name: str, version: str | None) -> Model:
    """Returns the model of that name.

    Raises NotFoundError, also for a version that is not served, and BadRequestError for a group that has
    tasks among which there is no choosing.
    """
    tasks, tokenizer = _tasks_of_model(engine, name), engine.tokenizer
    each_token, is_task = engine.tasks[tasks[0]].head.each_token, name in engine.tasks
    model = Model(
        name=name,
        version=engine.tasks[name].revision if is_task else engine.store_revision,
        tasks=None if name == AUTO else tuple(tasks),
        task=name if is_task else None,
        crop=engine.preprocessing.crop if tokenizer is None else None,
        # Where the tokens of a pair stand in its texts nobody knows.
        takes_pairs=tokenizer is not None and tokenizer.takes_pairs and not each_token,
        each_token=each_token,
        widest_head=max(len(engine.tasks[task].labels) for task in tasks),
        num_tasks=1 if is_task else len(_routed_tasks(engine)),
        gives_residuals=len(tasks) > 1 and engine.gives_residuals,
    )
    if version is not None and version != model.version:
        raise NotFoundError(f"Version {version[:80]!a} of {name!r} is not served; {model.version!r} is.")
    return model


def _tasks_of_model(engine: ServingEngine, name: str) -> Sequence[str]:
    """Returns the tasks that may answer, at least one of them. Raises what `find_model` raises."""
    if name in engine.tasks:
        return (name,)
    if name.startswith(GROUP_MARK):
        question = with_known_tasks(Question((name,)), engine)
        asks_of_tokens(question, engine, tells_entities=True)
        return question.tasks or ()
    if name == AUTO and (routed := _routed_tasks(engine)):
        return routed
    raise NotFoundError(
        f"There is no model {name[:80]!a}; GET /v1/models and GET /v2/models list those there are."
    )


def _routed_tasks(engine: ServingEngine) -> list[str]:
    return [name for name, task in engine.tasks.items() if not task.head.each_token]

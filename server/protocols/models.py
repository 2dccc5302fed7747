"""The models that protocols of models show: `auto`, which routes, and one for each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mass_serve.engine import Question, ServingEngine
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.server.errors import NotFoundError


@dataclass(frozen=True)
class Model:
    """One model, as long as its engine is in service."""

    name: str
    version: str
    task: str | None  # None: the router chooses
    crop: int | None  # pixels, of images that come preprocessed; None: it reads texts
    takes_pairs: bool  # of texts
    each_token: bool  # it tells the entities in a text, and no label of all of it
    widest_head: int  # labels
    num_tasks: int
    gives_residuals: bool  # with every answer

    @property
    def question(self) -> Question:
        """Returns what is asked about every image, or text."""
        return Question(None if self.task is None else (self.task,))


def model_names(engine: ServingEngine) -> list[str]:
    """Returns the names of all models of an engine."""
    return [*([AUTO] if _routed_tasks(engine) else []), *engine.tasks]


def _routed_tasks(engine: ServingEngine) -> Mapping[str, TaskEntry]:
    return {name: task for name, task in engine.tasks.items() if not task.head.each_token}


def find_model(engine: ServingEngine, name: str, version: str | None) -> Model:
    """Returns the model of that name. Raises NotFoundError, also for a version that is not served."""
    if name not in model_names(engine):
        raise NotFoundError(
            f"There is no model {name[:80]!a}; GET /v1/models and GET /v2/models list those there are."
        )
    routed, tokenizer = _routed_tasks(engine), engine.tokenizer
    heads = routed if name == AUTO else {name: engine.tasks[name]}
    each_token = name != AUTO and engine.tasks[name].head.each_token
    model = Model(
        name=name,
        version=engine.store_revision if name == AUTO else engine.tasks[name].revision,
        task=None if name == AUTO else name,
        crop=engine.preprocessing.crop if tokenizer is None else None,
        # Where the tokens of a pair stand in its texts nobody knows.
        takes_pairs=tokenizer is not None and tokenizer.takes_pairs and not each_token,
        each_token=each_token,
        widest_head=max(len(task.labels) for task in heads.values()),
        num_tasks=len(routed),
        gives_residuals=name == AUTO and len(routed) > 1 and engine.gives_residuals,
    )
    if version is not None and version != model.version:
        raise NotFoundError(f"Version {version[:80]!a} of {name!r} is not served; {model.version!r} is.")
    return model

"""A recipe: everything that `mass-serve build` is told, in one YAML file whose keys are those of its flags.

pretrained: hf:openai/clip-vit-base-patch32
out: stores/eight-tasks            # relative to the recipe, as every path is
mode: paper
tasks:
  - name: Cars
    checkpoint: hf:tanganke/clip-vit-base-patch32_stanford-cars
    head: {classnames: Cars, templates: Cars} # or a file; by default that in the checkpoint's folder
groups:
  retail: [Cars]                   # requests may name its tasks together, as `@retail`
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from mass_serve.model_store.build_options import RANK_OPTIONS, BuildOptions
from mass_serve.model_store.errors import RecipeError, StoreError, TaskError
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.field_types import StrictModel
from mass_serve.model_store.format.groups import Groups
from mass_serve.model_store.merged_base import merged_base_choice
from mass_serve.model_store.plan import check_task_name
from mass_serve.model_store.rank_options import refuse_two_rules, rule_of_option
from mass_serve.model_store.recipes.document import Document, Step, read_document
from mass_serve.model_store.recipes.named import HeadWords, ModelName, NamedTask

_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[tuple[_Text, ...], Field(min_length=1)]
# They are in the path of an error, and no key is written so.
_PATH, _WORDS, _LIST = "<path>", "<words>", "<list>"


def _kind_of_head(head: object) -> str:
    return _WORDS if isinstance(head, dict) else _PATH


def _kind_of_texts(texts: object) -> str:
    return _LIST if isinstance(texts, list) else _PATH


_NameOrTexts = Annotated[
    Annotated[_Text, Tag(_PATH)] | Annotated[_Texts, Tag(_LIST)], Discriminator(_kind_of_texts)
]


class _Words(StrictModel):
    classnames: _NameOrTexts
    templates: _NameOrTexts
    tokenizer: _Text | None = None


class _Task(StrictModel):
    name: str
    checkpoint: _Text
    head: (
        Annotated[Annotated[_Text, Tag(_PATH)] | Annotated[_Words, Tag(_WORDS)], Discriminator(_kind_of_head)]
        | None
    ) = None
    labels: _Text | None = None
    individual_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    multi_label: bool = False
    thresholds: _Text | None = None
    format: BlockFormat | None = None

    @field_validator("name")
    @classmethod
    def _can_be_stored(cls, name: str) -> str:
        try:
            check_task_name(name)
        except TaskError as error:
            raise ValueError(str(error)) from error
        return name


class _Content(BuildOptions):
    """The keys of a recipe: the options of a build, and its inputs."""

    model_config = StrictModel.model_config

    pretrained: _Text | None = None
    out: _Text | None = None
    eval_data: _Text | None = None
    tasks: tuple[_Task, ...] = ()
    groups: Groups = Field(default_factory=dict)

    @field_validator("budget", mode="before")
    @classmethod
    def _is_text(cls, budget: object) -> object:
        # Without the x YAML reads a number, which the rule's own sentence then says.
        return str(budget) if type(budget) in (int, float) else budget

    @field_validator(*RANK_OPTIONS)
    @classmethod
    def _is_the_one_rule(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return value
        name = str(info.field_name)
        try:
            refuse_two_rules([*(one for one in RANK_OPTIONS if info.data.get(one) is not None), name])
            rule_of_option(name, value)
        except StoreError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("merged_base")
    @classmethod
    def _is_a_form_or_method(cls, text: str) -> str:
        try:
            merged_base_choice(text)
        except StoreError as error:
            raise ValueError(str(error)) from error
        return text

    @field_validator("mode")
    @classmethod
    def _is_known(cls, mode: str, info: ValidationInfo) -> str:
        modes = (info.context or {})["modes"]
        if mode not in modes:
            raise ValueError(f"must be one of {', '.join(modes)}, not {json.dumps(mode)[:80]}")
        return mode


_MODEL_AT: dict[str, type[BaseModel]] = {"": _Content, "tasks": _Task, "head": _Words}


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read; None and () stand for what it leaves to the flags."""

    pretrained: ModelName | None
    out: str | None
    eval_data: Path | None
    tasks: tuple[NamedTask, ...]
    groups: Groups
    options: dict[str, Any]  # of BuildOptions, only those that it names


def read_recipe(path: Path, modes: Collection[str]) -> Recipe:
    """Reads a recipe. `modes` are those that a store can be served in.

    Raises RecipeError naming file, line and key; for an unknown key the nearest known one, too.
    """
    document = read_document(path)
    if not isinstance(document.content, dict):
        raise RecipeError(f"{document.where(())}: a recipe must be keys with values, such as `tasks:`")
    try:
        # As JSON, of which strictness takes lists for tuples.
        text = json.dumps(document.content)
        content = _Content.model_validate_json(text, context={"modes": tuple(modes)})
    except ValidationError as error:
        raise RecipeError(_first_problem(document, error.errors(include_url=False)[0])) from error
    return _Names(document).recipe(content)


class _Names:
    """Gives every name in a recipe its place there."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._folder = document.path.parent

    def recipe(self, content: _Content) -> Recipe:
        given = content.model_fields_set
        return Recipe(
            pretrained=self._name(content.pretrained, "pretrained"),
            out=content.out and _relative_to(self._folder, content.out),
            eval_data=self._folder / content.eval_data if content.eval_data else None,
            tasks=tuple(self._task(task, place) for place, task in enumerate(content.tasks)),
            groups=content.groups,
            options={name: getattr(content, name) for name in BuildOptions.model_fields if name in given},
        )

    def _task(self, task: _Task, place: int) -> NamedTask:
        steps: tuple[Step, ...] = ("tasks", place)
        checkpoint = self._name(task.checkpoint, *steps, "checkpoint")
        assert checkpoint is not None
        head = task.head
        return NamedTask(
            name=task.name,
            checkpoint=checkpoint,
            head=self._words(head, *steps) if isinstance(head, _Words) else self._name(head, *steps, "head"),
            labels=self._name(task.labels, *steps, "labels"),
            individual_accuracy=task.individual_accuracy,
            multi_label=task.multi_label,
            thresholds=self._name(task.thresholds, *steps, "thresholds"),
            block_format=task.format,
        )

    def _words(self, words: _Words, *steps: Step) -> HeadWords:
        return HeadWords(
            classnames=self._texts(words.classnames, *steps, "head", "classnames"),
            templates=self._texts(words.templates, *steps, "head", "templates"),
            tokenizer=self._name(words.tokenizer, *steps, "head", "tokenizer"),
            where=self._document.where((*steps, "head")),
        )

    def _texts(self, given: str | tuple[str, ...], *steps: Step) -> ModelName | tuple[str, ...]:
        if isinstance(given, tuple):
            return given
        return ModelName(given, self._folder, self._document.where(steps))

    def _name(self, text: str | None, *steps: Step) -> ModelName | None:
        return None if text is None else ModelName(text, self._folder, self._document.where(steps))


def _relative_to(folder: Path, place: str) -> str:
    return place if "://" in place else str(folder / place)


def _first_problem(document: Document, problem: ErrorDetails) -> str:
    """Says what pydantic found in words of the file: its line, its key, and a key that may be meant."""
    steps = tuple(step for step in problem["loc"] if step not in (_PATH, _WORDS, _LIST))
    where = document.where(steps)
    if problem["type"] == "missing":
        return f"{where}: is missing"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key" + _meant(str(steps[-1]), steps[:-1])
    if problem["type"] == "value_error":  # of ours, which says what was found
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {problem['msg']}" + _found(problem["input"])


def _meant(key: str, around: tuple[Step, ...]) -> str:
    parent = next((step for step in reversed(around) if isinstance(step, str)), "")
    known = list(_MODEL_AT[parent].model_fields)
    nearest = get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(known)}"


def _found(value: object) -> str:
    plain = isinstance(value, str | int | float | bool) or value is None
    return f", found {json.dumps(value)[:80]}" if plain else ""
